"""Features files: what goes in comes out, whole files or none, clear words for all others."""

from __future__ import annotations

import csv
import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.features_files import any_features, assert_equal, make, write_json
from tiepoint.errors import FormatError, OutputError
from tiepoint.features import Features
from tiepoint.formats import FORMATS, load, save, summarise

ENDINGS = list(FORMATS)
WITH_DESCRIPTORS = [".npz", ".json", ".parquet"]
NAMES = ("xy", "scores", "descriptors", "covariance", "scales_px")


@pytest.mark.parametrize("ending", ENDINGS)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_features_come_back_bit_for_bit(tmp_path: Path, ending: str, data: st.DataObject) -> None:
    features = data.draw(any_features(described=ending in WITH_DESCRIPTORS))
    path = tmp_path / f"features{ending}"
    save(features, path)
    assert_equal(load(path), features)
    summary = summarise(path)
    assert summary.keypoints == len(features)
    assert summary.size_hw == features.size_hw
    assert summary.meta == features.meta


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("count", [0, 1, 300])
def test_none_one_and_many_keypoints_keep_their_shapes(
    tmp_path: Path, ending: str, count: int
) -> None:
    path = tmp_path / f"x{ending}"
    save(make(count), path)
    loaded = load(path)
    assert loaded.xy.shape == (count, 2)
    assert loaded.scores.shape == (count,)
    if ending in WITH_DESCRIPTORS:
        assert loaded.descriptors is not None
        assert loaded.descriptors.shape == (count, 4)
    else:
        assert loaded.descriptors is None


@pytest.mark.parametrize("ending", WITH_DESCRIPTORS)
@pytest.mark.parametrize("count", [0, 2])
def test_absent_descriptors_stay_absent(tmp_path: Path, ending: str, count: int) -> None:
    save(make(count, length=None), tmp_path / f"x{ending}")
    assert load(tmp_path / f"x{ending}").descriptors is None


def test_npz_keys_are_the_field_names_and_the_convention(tmp_path: Path) -> None:
    save(make(), tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz", allow_pickle=False) as arrays:
        keys = {*NAMES, "size_hw", "meta", "convention"}
        assert set(arrays) == keys
        assert arrays["convention"] == "center0"
        assert json.loads(str(arrays["meta"]))["provenance"]["checkpoint"] == "fake"


def test_json_keys_are_the_field_names_and_the_convention(tmp_path: Path) -> None:
    save(make(2, 3), tmp_path / "x.json")
    held = json.loads((tmp_path / "x.json").read_text())
    keys = {*NAMES, "size_hw", "meta", "convention"}
    assert set(held) == keys
    assert held["convention"] == "center0"
    assert held["size_hw"] == [480, 640]
    assert np.shape(held["xy"]) == (2, 2)
    assert np.shape(held["descriptors"]) == (2, 3)


def test_json_numbers_are_as_short_as_float32_allows(tmp_path: Path) -> None:
    features = Features(np.array([[0.1, 2.0]], "f4"), np.array([0.3], "f4"), None, (4, 4))
    save(features, tmp_path / "x.json")
    text = (tmp_path / "x.json").read_text()
    assert '"xy": [[0.1, 2.0]]' in text
    assert '"scores": [0.3]' in text


def test_csv_holds_x_y_score_and_the_record_in_the_first_row(tmp_path: Path) -> None:
    xy, scores = np.array([[0.5, 2.25], [3, 4]], "f4"), np.array([0.125, 0.1], "f4")
    save(Features(xy, scores, None, (4, 6)), tmp_path / "x.csv")
    with (tmp_path / "x.csv").open(newline="") as file:
        head, first, second = csv.reader(file)
    assert head == ["x", "y", "score", "tiepoint"]
    assert first[:3] == ["0.5", "2.25", "0.125"] and second == ["3.0", "4.0", "0.1", ""]
    record = json.loads(first[3])
    assert record["size_hw"] == [4, 6] and record["convention"] == "center0"


@pytest.mark.parametrize("ending", ENDINGS)
def test_tuples_and_numpy_values_in_meta_become_json_values(tmp_path: Path, ending: str) -> None:
    features = make(
        sizes=(1, 2),
        scale=np.float32(0.5),
        total=np.int64(7),
        flag=np.bool_(True),
        array=np.arange(3),
        path=Path("a") / "b",
        name='한글, "quoted"\nsecond line',
    )
    save(features, tmp_path / f"x{ending}")
    meta = load(tmp_path / f"x{ending}").meta
    assert meta == {
        "sizes": [1, 2],
        "scale": 0.5,
        "total": 7,
        "flag": True,
        "array": [0, 1, 2],
        "path": str(Path("a", "b")),
        "name": '한글, "quoted"\nsecond line',
    }


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        ({"a": {1: 2}}, "key 1 is not text"),
        ({"a": [object()]}, r"meta.a\[0\] is of type object"),
        ({"a": float("nan")}, "meta.a is nan"),
    ],
)
@pytest.mark.parametrize("ending", ENDINGS)
def test_meta_that_json_cannot_hold_is_refused(
    tmp_path: Path, ending: str, meta: dict[str, object], words: str
) -> None:
    with pytest.raises(FormatError, match=words):
        save(make(**meta), tmp_path / f"x{ending}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x.json", "x.npz", "x.csv", "x.parquet", "x.geojson", "x.h5"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_positions_that_are_not_finite_fit_no_file(tmp_path: Path, name: str, value: float) -> None:
    features = Features(np.array([[value, 1]], "f4"), np.array([1], "f4"), None, (4, 4))
    with pytest.raises(FormatError, match="xy hold NaN or infinity"):
        save(features, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["features.foo", "features", "features.hdf", ".npz"])
def test_an_unknown_ending_names_the_known_ones(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    words = r"the ending picks the format, one of \.npz, \.json, \.csv, \.parquet, \.geojson, \.h5"
    with pytest.raises(FormatError, match=words):
        save(make(), path)
    with pytest.raises(FormatError, match=words):
        load(path)
    assert not path.exists()


def test_an_ending_in_capitals_is_the_same_ending(tmp_path: Path) -> None:
    save(make(), tmp_path / "X.NPZ")
    assert_equal(load(tmp_path / "X.NPZ"), make())


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_missing_file_and_a_folder_are_named(tmp_path: Path, ending: str) -> None:
    with pytest.raises(FormatError, match="no such file"):
        load(tmp_path / f"no{ending}")
    with pytest.raises(FormatError, match="no such file"):
        summarise(tmp_path / f"no{ending}")
    (tmp_path / f"folder{ending}").mkdir()
    with pytest.raises(FormatError, match="cannot be read"):
        load(tmp_path / f"folder{ending}")
    with pytest.raises(OutputError, match="cannot be written"):
        save(make(), tmp_path / f"folder{ending}")


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"x{ending}"
    save(make(5), path)
    data = path.read_bytes()
    # A CSV cut in its last number alone still has all its rows, and looks whole.
    end = data.rindex(b",") if ending == ".csv" else len(data) - 2
    for length in range(0, end, 7):
        path.write_bytes(data[:length])
        with pytest.raises(FormatError):
            load(path)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_damaged_file_loads_or_is_refused_but_never_breaks(
    tmp_path: Path, ending: str, data: st.DataObject
) -> None:
    path = tmp_path / f"x{ending}"
    save(make(2), path)
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    for read in (load, summarise):
        try:
            read(path)
        except FormatError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 50, b"not a features file\n", b"\xff\xd8\xff\xe0JFIF", b"[1, 2]"]
)
def test_foreign_files_are_refused(tmp_path: Path, ending: str, content: bytes) -> None:
    path = tmp_path / f"x{ending}"
    path.write_bytes(content)
    for read in (load, summarise):
        with pytest.raises(FormatError):
            read(path)


def test_json_that_another_program_laid_out_is_read(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", meta={"a": 1})
    assert len(load(tmp_path / "x.json")) == 1
    assert summarise(tmp_path / "x.json").meta == {"a": 1}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"convention": "colmap"}, "pixel convention is 'colmap'"),
        ({"convention": "absent"}, "names no pixel convention"),
        ({"xy": "absent"}, "lacks xy"),
        ({"size_hw": [4]}, "size_hw"),
        ({"size_hw": [0, 6]}, "at least 1 px"),
        ({"xy": [[1.0]]}, "shape"),
        ({"xy": [[1.0, "a"]]}, "expected numbers"),
        ({"scores": [0.5, 0.6]}, "shape"),
        ({"scores": {"a": 1}}, "scores must be a list"),
        ({"descriptors": [[1.0], [2.0]]}, "descriptors have shape"),
        ({"meta": [1]}, "meta an object"),
        ({"scores": [], "xy": [], "descriptors": [], "descriptor_length": 10**15}, "length"),
    ],
)
def test_json_that_does_not_fit_is_named(
    tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    write_json(tmp_path / "x.json", **changes)
    with pytest.raises(FormatError, match=words):
        load(tmp_path / "x.json")


def test_an_npz_of_another_program_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", keypoints=np.zeros((3, 2)))
    with pytest.raises(FormatError, match="names no pixel convention"):
        load(tmp_path / "x.npz")


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Harmful:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(ran),)

    bad = np.array([Harmful()], dtype=object)
    np.savez(
        tmp_path / "x.npz",
        allow_pickle=True,
        convention="center0",
        size_hw=[4, 4],
        meta="{}",
        scores=np.zeros(1),
        xy=bad,
    )
    with pytest.raises(FormatError, match="not a whole features file"):
        load(tmp_path / "x.npz")
    assert not ran.exists()


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"x{ending}"
    save(make(2), path)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OutputError, match="No space left on device"):
        save(make(3), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_while_writing_leaves_no_partial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(make(), tmp_path / "x.npz")
    assert list(tmp_path.iterdir()) == []


def test_a_name_as_long_as_the_file_system_allows_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 251 + ".npz")
    save(make(), path)
    assert_equal(load(path), make())


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="check that the folder exists"):
        save(make(), tmp_path / "no" / "x.npz")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
def test_files_have_the_usual_rights(tmp_path: Path) -> None:
    save(make(), tmp_path / "x.npz")
    (tmp_path / "plain").write_bytes(b"")
    plain, ours = (stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "x.npz"))
    assert plain == ours
