"""HDF5 in hloc's layout: many images in one file, that no kill can cost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from test_formats import any_features, assert_equal, make
from tiepoint import formats
from tiepoint.cli import app
from tiepoint.errors import FormatError, MissingExtraError
from tiepoint.formats import H5Writer, load, read_h5, save, summarise
from tiepoint.formats.h5 import DATASETS

h5py = pytest.importorskip("h5py")

FIXTURE = {"suppress_health_check": [HealthCheck.function_scoped_fixture], "deadline": None}
PARTS = st.text(
    st.characters(exclude_characters="/\x00", exclude_categories=["Cs"]), min_size=1, max_size=6
).filter(lambda part: part not in (".", "..", *DATASETS))
NAMES = st.lists(PARTS, min_size=1, max_size=3).map("/".join)


def write(path: Path, *names: str, **more: Any) -> None:
    with H5Writer(path, **more) as writer:
        for number, name in enumerate(names):
            writer.add(name, make(number + 1))


def half_written(path: Path, *names: str) -> None:
    """Leave what a run leaves that stopped after these images."""
    writer = H5Writer(path)
    for number, name in enumerate(names):
        writer.add(name, make(number + 1))
    writer.suspend()


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# The layout


def test_the_layout_is_hlocs(tmp_path: Path) -> None:
    features = make(5, 3)
    with H5Writer(tmp_path / "x.h5") as writer:
        writer.add("db/left 1.jpg", features)
    with h5py.File(tmp_path / "x.h5", "r") as file:
        group = file["db"]["left 1.jpg"]
        assert set(group) == set(DATASETS)
        np.testing.assert_array_equal(group["keypoints"][()], features.xy)
        np.testing.assert_array_equal(group["descriptors"][()], features.descriptors.T)
        np.testing.assert_array_equal(group["scores"][()], features.scores)
        assert group["image_size"][()].tolist() == [640, 480]
        assert {group[name].dtype for name in DATASETS[:3]} == {np.dtype("f4")}
        assert group.attrs["convention"] == b"center0"


def test_hlocs_own_reader_finds_the_names_and_arrays(tmp_path: Path) -> None:
    write(tmp_path / "x.h5", "a.jpg", "sub/b.jpg", "sub/deep/c.jpg")
    names = set()
    with h5py.File(tmp_path / "x.h5", "r") as file:
        file.visititems(
            lambda _, item: (
                names.add(item.parent.name.strip("/")) if hasattr(item, "dtype") else None
            )
        )
        for name in names:  # its matcher makes a tensor of every member
            assert all(item.__array__().dtype.kind in "fi" for item in file[name].values())
    assert names == {"a.jpg", "sub/b.jpg", "sub/deep/c.jpg"}


def test_a_file_of_hlocs_own_is_read_best_score_first(tmp_path: Path) -> None:
    xy = np.array([[5, 1], [3, 4], [2, 4], [9, 9]], np.float16)
    scores = np.array([0.25, 0.5, 0.5, 0.75], np.float16)
    with h5py.File(tmp_path / "feats.h5", "w") as file:
        group = file.create_group("query/1.jpg")
        group["keypoints"], group["scores"] = xy, scores
        group["descriptors"] = np.arange(12, dtype=np.float16).reshape(3, 4)
        group["image_size"] = np.array([800, 600])
        group["keypoints"].attrs["uncertainty"] = 1.5
    features = read_h5(tmp_path / "feats.h5")["query/1.jpg"]
    assert features.size_hw == (600, 800) and features.meta == {}
    np.testing.assert_array_equal(features.xy, [[9, 9], [2, 4], [3, 4], [5, 1]])
    np.testing.assert_array_equal(features.scores, [0.75, 0.5, 0.5, 0.25])
    np.testing.assert_array_equal(features.descriptors[:, 0], [3, 2, 1, 0])
    assert features.xy.dtype == features.descriptors.dtype == np.float32


# One image


@settings(max_examples=40, **FIXTURE)
@given(features=any_features(described=True))
def test_features_come_back_bit_for_bit(tmp_path: Path, features: Any) -> None:
    path = tmp_path / "x.h5"
    save(features, path)
    assert_equal(load(path), features)
    summary = summarise(path)
    assert (summary.keypoints, summary.size_hw) == (len(features), features.size_hw)
    assert summary.meta == features.meta


@pytest.mark.parametrize(
    ("source", "name"),
    [("photos/벌.jpg", "벌.jpg"), (None, "image"), ("..", "image"), ("/", "image")],
)
def test_a_single_image_is_named_as_its_file(tmp_path: Path, source: str | None, name: str) -> None:
    save(make(source=source), tmp_path / "x.h5")
    assert list(read_h5(tmp_path / "x.h5")) == [name]


def test_meta_too_long_for_an_attribute_is_refused_at_once(tmp_path: Path) -> None:
    fits, too_long = make(notes="x" * 59_000), make(notes="x" * 61_000)
    save(fits, tmp_path / "x.h5")
    assert load(tmp_path / "x.h5").meta == fits.meta
    with pytest.raises(FormatError, match="at most 60000"):
        save(too_long, tmp_path / "y.h5")
    with (
        H5Writer(tmp_path / "y.h5") as writer,
        pytest.raises(FormatError, match=r"a\.jpg: meta takes 61\d+ bytes"),
    ):
        writer.add("a.jpg", too_long)
    assert names_in(tmp_path) == ["x.h5"]


def test_loading_a_file_of_several_images_names_them(tmp_path: Path) -> None:
    write(tmp_path / "x.h5", *(f"{n}.jpg" for n in range(7)))
    with pytest.raises(FormatError, match=r"7 images: 0\.jpg, .*4\.jpg and 2 more.*read_h5"):
        load(tmp_path / "x.h5")
    with pytest.raises(FormatError, match="7 images"):
        summarise(tmp_path / "x.h5")


# Many images


@settings(max_examples=25, **FIXTURE)
@given(
    images=st.dictionaries(NAMES, any_features(described=True), min_size=1, max_size=5),
    stops=st.sets(st.integers(0, 4)),
)
def test_any_names_and_stops_give_the_same_images(
    tmp_path: Path, images: dict[str, Any], stops: set[int]
) -> None:
    path = tmp_path / "x.h5"
    path.unlink(missing_ok=True)
    writer = H5Writer(path)
    for number, (name, features) in enumerate(images.items()):
        writer.add(name, features)
        if number in stops:
            writer.suspend()
            writer = H5Writer(path)
    writer.close()
    found = read_h5(path)
    assert set(found) == set(images) and len(found) == len(images)
    for name, features in images.items():
        assert_equal(found[name], features)
    assert names_in(tmp_path) == ["x.h5"]


def test_the_mapping_reads_lazily_and_knows_its_names(tmp_path: Path) -> None:
    write(tmp_path / "x.h5", "b.jpg", "a/c.jpg", "한글/사진.jpg")
    found = read_h5(tmp_path / "x.h5")
    assert set(found) == {"b.jpg", "a/c.jpg", "한글/사진.jpg"}
    assert "a/c.jpg" in found and "a" not in found and 5 not in found
    assert len(found["한글/사진.jpg"]) == 3
    for name in ("a", "none.jpg", "b.jpg/keypoints"):
        with pytest.raises(KeyError):
            found[name]
    assert found.get("none.jpg") is None
    assert "3 images" in repr(found)


@pytest.mark.parametrize(
    "name",
    ["../x.jpg", "a/../x.jpg", "..", ".", "./x.jpg", "/x.jpg", "x.jpg/", "a//b", "", "a\x00b"],
)
def test_names_that_leave_the_folder_or_are_none_are_refused(tmp_path: Path, name: str) -> None:
    with H5Writer(tmp_path / "x.h5") as writer:
        with pytest.raises(FormatError, match="image name"):
            writer.add(name, make())
        writer.add("..a/b..jpg", make())  # dots inside a name are none of those
    assert list(read_h5(tmp_path / "x.h5")) == ["..a/b..jpg"]


def test_a_name_that_is_no_unicode_is_refused(tmp_path: Path) -> None:
    with H5Writer(tmp_path / "x.h5") as writer, pytest.raises(FormatError, match="valid Unicode"):
        writer.add(os.fsdecode(b"\xff.jpg"), make())
    assert not (tmp_path / "x.h5").exists()


def test_an_image_may_lie_in_a_folder_called_as_another_image(tmp_path: Path) -> None:
    write(tmp_path / "x.h5", "a", "a/b", "a/b/c")
    assert set(read_h5(tmp_path / "x.h5")) == {"a", "a/b", "a/b/c"}
    with H5Writer(tmp_path / "x.h5") as writer:
        writer.add("a", make(9))
    found = read_h5(tmp_path / "x.h5")
    assert (len(found["a"]), len(found["a/b"]), len(found["a/b/c"])) == (9, 2, 3)


@pytest.mark.parametrize(("first", "second"), [("a", "a/scores/b"), ("a/scores/b", "a")])
def test_names_that_would_lie_on_anothers_data_are_refused_at_once(
    tmp_path: Path, first: str, second: str
) -> None:
    with H5Writer(tmp_path / "x.h5") as writer:
        writer.add("run/scores/1.jpg", make())
        writer.add(first, make())
        with pytest.raises(FormatError, match="rename one of the two"):
            writer.add(second, make())
    with (
        H5Writer(tmp_path / "x.h5") as writer,
        pytest.raises(FormatError, match="rename one of the two"),
    ):
        writer.add(second, make())
    assert set(read_h5(tmp_path / "x.h5")) == {"run/scores/1.jpg", first}


def test_an_image_given_again_is_replaced(tmp_path: Path) -> None:
    with H5Writer(tmp_path / "x.h5") as writer:
        writer.add("a.jpg", make(3))
        writer.add("a.jpg", make(5, None))
        assert len(writer) == 1 and writer.summarise("a.jpg").keypoints == 5
    assert_equal(load(tmp_path / "x.h5"), make(5, None))
    with H5Writer(tmp_path / "x.h5") as writer:
        writer.add("a.jpg", make(4))
    assert_equal(load(tmp_path / "x.h5"), make(4))


def test_float16_halves_descriptors_and_leaves_positions_and_scores(tmp_path: Path) -> None:
    features = make(400, 128)
    for name, half in (("whole.h5", False), ("half.h5", True)):
        with H5Writer(tmp_path / name, half=half) as writer:
            writer.add("a.jpg", features)
    loaded = load(tmp_path / "half.h5")
    np.testing.assert_array_equal(loaded.xy, features.xy)
    np.testing.assert_array_equal(loaded.scores, features.scores)
    np.testing.assert_allclose(loaded.descriptors, features.descriptors, rtol=5e-4, atol=1e-7)
    assert loaded.descriptors.dtype == np.float32
    sizes = [(tmp_path / name).stat().st_size for name in ("half.h5", "whole.h5")]
    assert sizes[0] < 0.6 * sizes[1]


# Interruptions


def test_nothing_stands_under_the_name_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with H5Writer(path) as writer:
        writer.add("a.jpg", make())
        assert names_in(tmp_path) == ["x.h5.partial"]
    assert names_in(tmp_path) == ["x.h5"]


def test_an_exception_keeps_what_is_finished_for_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with pytest.raises(KeyboardInterrupt), H5Writer(path) as writer:
        writer.add("a.jpg", make(2))
        raise KeyboardInterrupt
    assert names_in(tmp_path) == ["x.h5.partial"]
    with H5Writer(path) as writer:
        assert "a.jpg" in writer and "b.jpg" not in writer
        assert writer.summarise("a.jpg").keypoints == 2
        assert_equal(writer.read("a.jpg"), make(2))
        writer.add("b.jpg", make(3))
    assert set(read_h5(path)) == {"a.jpg", "b.jpg"}


def test_a_journal_cut_off_anywhere_keeps_every_whole_image(tmp_path: Path) -> None:
    path, partial = tmp_path / "x.h5", tmp_path / "x.h5.partial"
    ends = []
    writer = H5Writer(path)
    for number in range(3):
        writer.add(f"{number}.jpg", make(number + 1))
        ends.append(partial.stat().st_size)
    writer.suspend()
    data = partial.read_bytes()
    for length in [*range(0, len(data), 97), *ends]:
        partial.write_bytes(data[:length])
        path.unlink(missing_ok=True)
        whole = sum(end <= length for end in ends)
        with H5Writer(path) as writer:
            assert len(writer) == whole
            writer.add("new.jpg", make(7))
        found = read_h5(path)
        assert set(found) == {*(f"{number}.jpg" for number in range(whole)), "new.jpg"}
        assert all(len(found[f"{number}.jpg"]) == number + 1 for number in range(whole))


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_a_killed_process_loses_no_finished_image(tmp_path: Path) -> None:
    code = f"""
import sys
sys.path[:0] = {[str(Path(__file__).parent)]!r}
from test_formats import make
from tiepoint.formats import H5Writer
writer = H5Writer({str(tmp_path / "x.h5")!r})
for number in range(10**9):
    writer.add(f"{{number}}.jpg", make(50, 64))
    print(number, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = [int(process.stdout.readline()) for _ in range(40)]
    process.send_signal(signal.SIGKILL)
    said += [int(line) for line in process.stdout.read().splitlines() if line]
    process.wait()
    with H5Writer(tmp_path / "x.h5") as writer:
        assert len(writer) in (len(said), len(said) + 1)
    assert {f"{number}.jpg" for number in said} <= set(read_h5(tmp_path / "x.h5"))


def test_more_images_join_those_of_a_finished_file(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    write(path, "a.jpg")
    with h5py.File(path, "a") as file:
        file["a.jpg"]["global_descriptor"] = np.ones(3)  # of another program
    before = path.read_bytes()
    half_written(path, "b.jpg", "c.jpg")
    assert path.read_bytes() == before
    with H5Writer(path) as writer:
        assert len(writer) == 3
    assert set(read_h5(path)) == {"a.jpg", "b.jpg", "c.jpg"}
    with h5py.File(path, "r") as file:
        assert file["a.jpg"]["global_descriptor"][()].tolist() == [1, 1, 1]


def test_a_writer_that_adds_nothing_touches_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    write(path)
    assert names_in(tmp_path) == []
    write(path, "a.jpg")
    stamp = path.stat().st_mtime_ns
    write(path)
    assert path.stat().st_mtime_ns == stamp and names_in(tmp_path) == ["x.h5"]


def test_a_second_writer_of_the_same_file_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with H5Writer(tmp_path / "x.h5") as writer:
        writer.add("a.jpg", make())
        with pytest.raises(FormatError, match="another process is writing it"):
            H5Writer(tmp_path / "x.h5")
        writer.add("b.jpg", make())
    assert len(read_h5(tmp_path / "x.h5")) == 2


def test_a_file_that_cannot_be_written_keeps_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.h5"
    writer = H5Writer(path)
    writer.add("a.jpg", make())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(FormatError, match="No space left on device"):
            writer.close()
    assert names_in(tmp_path) == ["x.h5.partial"]
    write(path)
    assert list(read_h5(path)) == ["a.jpg"]


def test_a_foreign_partial_and_a_missing_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.h5.partial").write_bytes(b"something of the user's own")
    with pytest.raises(FormatError, match="not a journal"):
        H5Writer(tmp_path / "x.h5")
    assert (tmp_path / "x.h5.partial").read_bytes() == b"something of the user's own"
    with (
        H5Writer(tmp_path / "no" / "x.h5") as writer,
        pytest.raises(FormatError, match="cannot be written"),
    ):
        writer.add("a.jpg", make())


# Wrong files


@pytest.mark.parametrize("content", [b"", b"\x00" * 50, b"\x89HDF\r\n\x1a\n" + b"\x00" * 90])
def test_foreign_and_damaged_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(content)
    for read in (load, summarise, read_h5, H5Writer):
        with pytest.raises(FormatError, match=r"x\.h5"):
            read(path)
    assert path.read_bytes() == content


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    save(make(5), path)
    data = path.read_bytes()
    for length in range(0, len(data) - 1, 211):
        path.write_bytes(data[:length])
        with pytest.raises(FormatError):
            load(path)


@settings(max_examples=200, **FIXTURE)
@given(data=st.data())
def test_a_damaged_file_loads_or_is_refused_but_never_breaks(
    tmp_path: Path, data: st.DataObject
) -> None:
    path = tmp_path / "x.h5"
    save(make(2), path)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    for read in (load, summarise, read_h5):
        try:
            read(path)
        except FormatError as error:
            assert str(path) in str(error)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for read in (load, summarise, read_h5):
        with pytest.raises(FormatError, match="no such file"):
            read(tmp_path / "no.h5")
        (tmp_path / "folder.h5").mkdir(exist_ok=True)
        with pytest.raises(FormatError, match="cannot be read"):
            read(tmp_path / "folder.h5")


@pytest.mark.parametrize(
    ("change", "said"),
    [(lambda g: g.pop("scores"), "lacks scores"), (lambda g: g.pop("image_size"), "image_size"),
     (lambda g: g.attrs.__setitem__("convention", np.bytes_("colmap")), "convention is 'colmap'"),
     (lambda g: g.attrs.__setitem__("meta", np.bytes_("[1]")), "meta is a list"),
     (lambda g: g.attrs.__setitem__("meta", "{}"), "fixed length"),
     (lambda g: (g.pop("scores"), g.create_group("scores")), "not a whole"),
     (lambda g: (g.pop("scores"), g.__setitem__("scores", np.ones(2, "f4"))), "shape"),
     (lambda g: (g.pop("keypoints"), g.__setitem__("keypoints", np.float32(3))), "not a whole"),
     (lambda g: (g.pop("image_size"), g.__setitem__("image_size", [0, 5])), "at least 1 px"),
     (lambda g: (g.pop("descriptors"), g.__setitem__("descriptors", np.ones((3, 4)))),
      "descriptors have shape")],
)  # fmt: skip
def test_a_group_that_does_not_fit_says_where_and_spares_the_others(
    tmp_path: Path, change: Any, said: str
) -> None:
    write(tmp_path / "x.h5", "good.jpg", "bad.jpg", "three.jpg")
    with h5py.File(tmp_path / "x.h5", "a") as file:
        change(file["three.jpg"])
    found = read_h5(tmp_path / "x.h5")
    with pytest.raises(FormatError, match=rf"x\.h5: three\.jpg.*{said}"):
        found["three.jpg"]
    assert len(found["bad.jpg"]) == 2


def test_links_that_lead_nowhere_or_in_circles_break_nothing(tmp_path: Path) -> None:
    write(tmp_path / "x.h5", "a/b.jpg")
    with h5py.File(tmp_path / "x.h5", "a") as file:
        file["dangling"] = h5py.SoftLink("/nowhere")
        file["outside"] = h5py.ExternalLink("no.h5", "/x")
    assert list(read_h5(tmp_path / "x.h5")) == ["a/b.jpg"]
    with h5py.File(tmp_path / "x.h5", "a") as file:
        file["a"]["circle"] = file["a"]
    with pytest.raises(FormatError, match="circle"):
        read_h5(tmp_path / "x.h5")


def test_a_file_without_features_says_so(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a.jpg/global_descriptor"] = np.ones(3)
    for read in (read_h5, load):
        with pytest.raises(FormatError, match="no group has keypoints"):
            read(tmp_path / "x.h5")


def test_without_h5py_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    for use in (load, read_h5, H5Writer, lambda path: save(make(), path)):
        with pytest.raises(MissingExtraError, match=r"tiepoint\[hdf5\]"):
            use(tmp_path / "x.h5")
    assert names_in(tmp_path) == []
    assert ".h5" in formats.ALL_FORMATS


# `tiepoint detect -o features.h5`


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(["a.png", "b.png", "사진/c.png"]):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (48, 64), dtype=np.uint8)
        path.write_bytes(cv2.imencode(".png", noise)[1].tobytes())
    return tmp_path


def detect(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["detect", *arguments])


def test_all_images_go_to_one_file_under_their_relative_paths(photos: Path) -> None:
    result = detect("photos", "-o", "out/features.h5")
    assert result.exit_code == 0, result.output
    found = read_h5(photos / "out" / "features.h5")
    assert set(found) == {"a.png", "b.png", "사진/c.png"}
    assert names_in(photos / "out") == ["features.h5"]
    assert detect("photos", "-o", "folder").exit_code == 0
    for name, features in found.items():
        assert_equal(features, load(photos / "folder" / f"{name}.npz"))


def test_what_is_in_the_file_is_skipped_and_new_images_join(photos: Path) -> None:
    assert detect("photos/a.png", "photos/b.png", "-o", "x.h5").exit_code == 0
    stamp = (photos / "x.h5").stat().st_mtime_ns
    again = detect("photos/a.png", "photos/b.png", "-o", "x.h5")
    assert again.exit_code == 0 and "2 skipped" in again.stderr
    assert (photos / "x.h5").stat().st_mtime_ns == stamp
    more = detect("photos/a.png", "photos", "-o", "x.h5")
    assert "1 done, 2 skipped" in more.stderr
    assert {"photos/a.png", "photos/b.png", "photos/사진/c.png"} == set(read_h5("x.h5"))


def test_other_settings_are_refused_until_overwritten(photos: Path) -> None:
    assert detect("photos", "-o", "x.h5").exit_code == 0
    other = detect("photos", "-o", "x.h5", "--threshold", "0.25")
    assert other.exit_code == 1
    assert "x.h5: a.png: was made with other settings: settings.threshold" in other.stderr
    assert "3 refused" in other.stderr and "--overwrite" in other.stderr
    assert detect("photos", "-o", "x.h5", "--threshold", "0.25", "--overwrite").exit_code == 0
    found = read_h5("x.h5")
    assert {item.meta["settings"]["threshold"] for item in found.values()} == {0.25}


def test_an_interrupted_run_goes_on_from_its_journal(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = H5Writer.add

    def interrupt(self: H5Writer, name: str, features: Any) -> None:
        add(self, name, features)
        if len(self) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(H5Writer, "add", interrupt)
    stopped = detect("photos", "-o", "x.h5")
    assert stopped.exit_code == 130 and "goes on from here" in stopped.stderr
    assert not (photos / "x.h5").exists() and (photos / "x.h5.partial").exists()
    monkeypatch.setattr(H5Writer, "add", add)
    rest = detect("photos", "-o", "x.h5")
    assert rest.exit_code == 0 and "1 done, 2 skipped" in rest.stderr
    assert {"a.png", "b.png", "사진/c.png"} == set(read_h5("x.h5"))
    assert not (photos / "x.h5.partial").exists()


def test_what_an_interrupted_run_left_is_refused_under_other_settings(photos: Path) -> None:
    assert detect("photos", "-o", "x.h5").exit_code == 0
    writer = H5Writer(photos / "y.h5")
    for name, features in read_h5("x.h5").items():
        writer.add(name, features)
    writer.suspend()
    other = detect("photos", "-o", "y.h5", "--threshold", "0.25")
    assert other.exit_code == 1 and "3 refused" in other.stderr
    assert "3 skipped" in detect("photos", "-o", "y.h5").stderr


def test_a_bad_image_fails_alone(photos: Path) -> None:
    (photos / "photos" / "bad.png").write_bytes(b"")
    result = detect("photos", "-o", "x.h5")
    assert result.exit_code == 1 and "3 done, 1 failed" in result.stderr
    assert len(read_h5("x.h5")) == 3


def test_half_and_plot_are_taken_only_where_they_fit(photos: Path) -> None:
    assert detect("photos", "-o", "x.h5", "--half").exit_code == 0
    with h5py.File("x.h5", "r") as file:
        assert file["a.png"]["descriptors"].dtype == np.float16
        assert file["a.png"]["keypoints"].dtype == np.float32
    for arguments, said in [(["-o", "y.h5", "--plot"], "--plot"), (["--half"], "--half")]:
        result = detect("photos", *arguments)
        assert result.exit_code == 2 and said in result.stderr
    assert not (photos / "y.h5").exists() and not (photos / "tiepoint-out").exists()


def test_places_are_names(photos: Path) -> None:
    from tiepoint.batch import OneFileForAll

    with H5Writer(photos / "x.h5") as writer:
        target = OneFileForAll(writer).target(PurePosixPath("a/b.png"))
        assert not target.exists()
        target.save(make(4))
        assert target.exists() and len(target.load()) == target.summarise().keypoints == 4
        assert target.label.endswith("x.h5: a/b.png") and target.overlay is None
