"""Files of one image as editors, other programs and interruptions leave them."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from support.features_files import assert_equal, make, write_json
from tiepoint import formats
from tiepoint.errors import FormatError
from tiepoint.formats import FORMATS, load, save, summarise

ENDINGS = list(FORMATS)
WITH_DESCRIPTORS = [".npz", ".json"]


RECORD = '{""convention"": ""center0"", ""size_hw"": [4, 6], ""keypoints"": 2, ""meta"": {}}'
CSV = f'x,y,score,tiepoint\n0.5,1,0.25,"{RECORD}"\n3,2,0.125,\n'


def write_many(path: Path, count: int) -> None:
    for _ in range(60):
        save(make(count), path)


def test_two_processes_writing_one_file_leave_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    save(make(10), path)
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=write_many, args=(path, count)) for count in (10, 400)]
    for writer in writers:
        writer.start()
    reads = 0
    while any(writer.is_alive() for writer in writers):
        assert len(load(path)) in (10, 400)
        reads += 1
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert reads > 0
    assert list(tmp_path.iterdir()) == [path]


def test_the_summary_of_a_large_json_file_reads_its_head_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(make(50), tmp_path / "x.json")

    def fail(_: Path) -> bytes:
        raise AssertionError("the whole file was read")

    monkeypatch.setattr(Path, "read_bytes", fail)
    assert formats.summarise(tmp_path / "x.json").keypoints == 50


@pytest.mark.parametrize(
    "text",
    [
        CSV,
        CSV.replace("\n", "\r\n"),
        "\ufeff" + CSV,
        CSV.replace("x,y,score", '"x","y","score"'),
        CSV.replace("score,", "score,label,")
        .replace("0.25,", "0.25,7,")
        .replace("0.125,", "0.125,7,"),
    ],
    ids=["plain", "Windows newlines", "byte order mark", "quoted names", "another column"],
)
def test_csv_that_an_editor_saved_again_is_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.csv").write_bytes(text.encode())
    features = load(tmp_path / "x.csv")
    assert features.xy.tolist() == [[0.5, 1], [3, 2]]
    assert features.scores.tolist() == [0.25, 0.125]
    assert features.size_hw == (4, 6) and summarise(tmp_path / "x.csv").keypoints == 2


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("tiepoint\n", "note\n", "first line is not 'x,y,score,...,tiepoint'"),
        ("x,y,score", "x,y,y", "first line is not"),
        ('""convention"": ""center0"", ', "", "names no pixel convention"),
        ("center0", "center0.5", "pixel convention is 'center0.5'"),
        ('""size_hw"": [4, 6], ', "", "lacks size_hw"),
        ("4, 6", "4, 6, 1", "size_hw"),
        ('keypoints"": 2', 'keypoints"": ""two""', "keypoints is 'two', expected a count"),
        ('keypoints"": 2', 'keypoints"": -2', "keypoints is -2, expected a count"),
        ('keypoints"": 2', 'keypoints"": true', "keypoints is True, expected a count"),
        ('keypoints"": 2', 'keypoints"": 3', "2 rows, its record states 3"),
        ('keypoints"": 2', 'keypoints"": 1', "2 rows, its record states 1"),
        ('meta"": {}', 'meta"": {', "its record is not JSON"),
        ('meta"": {}', 'meta"": []', "meta is a list, expected an object"),
        (RECORD, "[]", "its record is a list"),
        ("0.5,1,0.25", "0.5,1", "its record is not JSON"),
        ("0.5,1,0.25", "0.5,1,0.25,7", "its record is not JSON"),
        ("0.5,1,0.25", "0.5;1;0.25", "not a whole"),
        ("0.125,", "0.125,,", "a row of 5 cells, expected 4"),
        ("0.125,", "0.125", "a row of 3 cells, expected 4"),
        ("3,2,0.125", "3,2,1e300", "overflow"),
        ("3,2,0.125", "3,2,\u00e9", "not a whole"),
    ],
)
def test_csv_that_does_not_fit_is_named(tmp_path: Path, old: str, new: str, words: str) -> None:
    path = tmp_path / "x.csv"
    assert old in CSV
    path.write_text(CSV.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(FormatError, match=rf"x\.csv: .*{words}"):
        load(path)


def test_csv_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(CSV.replace("{}", '{""a"": ""\u00e9""}').encode("latin-1"))
    for read in (load, summarise):
        with pytest.raises(FormatError, match="not a whole features file"):
            read(tmp_path / "x.csv")


def test_json_of_another_layout_is_summarised_in_full(tmp_path: Path) -> None:
    save(make(4), tmp_path / "x.json")
    held = json.loads((tmp_path / "x.json").read_text())
    for text in (json.dumps(held), json.dumps(dict(reversed(held.items())), indent=4)):
        (tmp_path / "x.json").write_text(text)
        summary = summarise(tmp_path / "x.json")
        assert (summary.keypoints, summary.size_hw) == (4, (480, 640))
        assert_equal(load(tmp_path / "x.json"), make(4))


def test_the_summary_of_json_cut_off_at_any_byte_is_refused(tmp_path: Path) -> None:
    save(make(2, 2), tmp_path / "x.json")
    data = (tmp_path / "x.json").read_bytes()
    for length in range(len(data) - 2):
        (tmp_path / "x.json").write_bytes(data[:length])
        with pytest.raises(FormatError, match="not a whole features file"):
            summarise(tmp_path / "x.json")


@pytest.mark.parametrize("length", [-1, 65_537, "4", 1.5, None])
def test_json_without_keypoints_states_a_sound_descriptor_length(
    tmp_path: Path, length: object
) -> None:
    empty = {"scores": [], "xy": [], "descriptors": []}
    write_json(tmp_path / "x.json", **empty, descriptor_length=256)
    assert load(tmp_path / "x.json").descriptors.shape == (0, 256)
    write_json(tmp_path / "x.json", **empty, descriptor_length=length)
    with pytest.raises(FormatError, match=r"descriptor_length is .*, expected 0\.\.65536"):
        load(tmp_path / "x.json")


def test_npz_arrays_of_other_types_become_float32(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "x.npz",
        convention="center0",
        size_hw=np.array([4, 6], np.uint8),
        meta="{}",
        xy=np.array([[1, 2]], np.int64),
        scores=np.array([0.5], np.float16),
        descriptors=np.ones((1, 3), np.float64),
    )
    features = load(tmp_path / "x.npz")
    assert features.xy.dtype == features.scores.dtype == features.descriptors.dtype == np.float32
    assert features.size_hw == (4, 6) and features.covariance is None


def test_a_bare_array_is_no_features_file(tmp_path: Path) -> None:
    with (tmp_path / "x.npz").open("wb") as file:
        np.save(file, np.zeros((3, 2)))
    for read in (load, summarise):
        with pytest.raises(FormatError, match="one bare array"):
            read(tmp_path / "x.npz")


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_same_features_give_the_same_bytes(tmp_path: Path, ending: str) -> None:
    for name in ("a", "b"):
        save(make(30), tmp_path / f"{name}{ending}")
    if ending != ".npz":  # whose entries bear their time of writing
        assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"b{ending}").read_bytes()
    assert_equal(load(tmp_path / f"a{ending}"), load(tmp_path / f"b{ending}"))
