"""Lists of pairs of every task: lines, comments, broken lines, folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tiepoint.errors import FormatError, TiepointError
from tiepoint.evaluation.homography import HOMOGRAPHY
from tiepoint.evaluation.pair_lists import (
    PairFiles,
    group_names,
    read_folder,
    read_folders,
    uniquely_named,
)
from tiepoint.evaluation.pose import POSE
from tiepoint.evaluation.stereo import STEREO
from tiepoint.evaluation.task import Task

IDENTITY = "1 0 0 0 1 0 0 0 1"
POSE_LINE = "a.png b.png " + "500 500 320 240 " * 2 + "1 0 0 2 0 1 0 0 0 0 1 0 0 0 0 1"
GOOD_LINES = {
    "homography": f"a.png b.png {IDENTITY}",
    "pose": POSE_LINE,
    "stereo": "a.png b.png d.png -1",
}
EACH_TASK = pytest.mark.parametrize("task", [HOMOGRAPHY, POSE, STEREO], ids=lambda t: t.kind)


def write_list(folder: Path, *lines: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pairs.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@EACH_TASK
def test_a_line_gives_a_pair_with_paths_below_its_folder(tmp_path: Path, task: Task) -> None:
    write_list(tmp_path, GOOD_LINES[task.kind])
    (pair,), failures = read_folder(task, tmp_path, "set")
    assert failures == []
    assert (pair.group, pair.name) == ("set", "a.png b.png")
    assert (pair.path_a, pair.path_b) == (tmp_path / "a.png", tmp_path / "b.png")
    assert pair.names == ("a.png", "b.png")


@EACH_TASK
def test_comments_and_empty_lines_are_skipped_and_order_is_kept(tmp_path: Path, task: Task) -> None:
    line = GOOD_LINES[task.kind]
    lines = [line.replace("a.png", f"{number}.png") for number in range(30)]
    write_list(tmp_path, "# a comment", "", *lines[:15], "  ", "#" + line, *lines[15:])
    pairs, failures = read_folder(task, tmp_path, "set")
    assert failures == []
    assert [pair.names[0] for pair in pairs] == [f"{number}.png" for number in range(30)]


@EACH_TASK
def test_a_line_of_the_wrong_length_is_named_and_the_others_stay(
    tmp_path: Path, task: Task
) -> None:
    write_list(tmp_path, GOOD_LINES[task.kind], "a.png b.png 1 2 3", "a.png")
    pairs, failures = read_folder(task, tmp_path, "set")
    assert len(pairs) == 1
    assert [failure.name for failure in failures] == ["a.png b.png", "a.png"]
    assert f"line 2: 5 fields, expected {task.field_count}: imgA imgB" in failures[0].message
    assert f"line 3: 1 fields, expected {task.field_count}" in failures[1].message


@EACH_TASK
@pytest.mark.parametrize("content", [None, "", "# only a comment\n"])
def test_a_folder_without_pairs_is_refused_with_what_was_expected(
    tmp_path: Path, task: Task, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "pairs.txt").write_text(content)
    with pytest.raises(FormatError, match=r"no pairs; expected pairs\.txt with a line per pair"):
        read_folder(task, tmp_path, "set")


@EACH_TASK
def test_a_list_that_is_not_text_is_refused(tmp_path: Path, task: Task) -> None:
    (tmp_path / "pairs.txt").write_bytes(b"\xff\xfea.png")
    with pytest.raises(FormatError, match="cannot be read as UTF-8 text"):
        read_folder(task, tmp_path, "set")


@EACH_TASK
def test_a_folder_that_is_not_there_is_a_failure_next_to_the_others(
    tmp_path: Path, task: Task
) -> None:
    good = write_list(tmp_path / "good", GOOD_LINES[task.kind])
    pairs, failures = read_folders(task, [tmp_path / "none", good])
    assert [pair.group for pair in pairs] == ["good"]
    assert [(failure.group, failure.name) for failure in failures] == [("none", "")]
    assert "no such folder" in failures[0].message


def test_no_folders_are_no_pairs() -> None:
    assert read_folders(STEREO, []) == ([], [])


def test_folders_of_one_name_keep_apart(tmp_path: Path) -> None:
    folders = [write_list(tmp_path / x / "wall", GOOD_LINES["stereo"]) for x in "xy"]
    pairs, _ = read_folders(STEREO, folders)
    assert [pair.group for pair in pairs] == [str(folder) for folder in folders]
    assert group_names([*folders, tmp_path / "other"])[2] == "other"


def pair_of(group: str, name: str) -> PairFiles:
    return PairFiles(group, name, Path("a"), Path("b"), ("a", "b"))


def test_names_that_repeat_in_a_group_are_numbered() -> None:
    named = [("x", "1"), ("x", "1"), ("y", "1"), ("x", "1"), ("x", "2")]
    pairs = uniquely_named([pair_of(*one) for one in named])
    assert [(one.group, one.name) for one in pairs] == [
        ("x", "1"), ("x", "1 #2"), ("y", "1"), ("x", "1 #3"), ("x", "2"),
    ]  # fmt: skip


def test_both_images_are_read_and_a_missing_one_is_named(tmp_path: Path) -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    files: tuple[Any, ...] = (tmp_path / "a.png", tmp_path / "b.png", ("a.png", "b.png"))
    pair = PairFiles("set", "a b", *files)
    with pytest.raises(TiepointError, match=r"b\.png"):
        pair.read()
    Image.fromarray(pixels.T.copy()).save(tmp_path / "b.png")
    a, b = pair.read()
    np.testing.assert_array_equal(a, pixels)
    np.testing.assert_array_equal(b, pixels.T)
