"""Runs with masks, and the steps of a run on their own."""

from __future__ import annotations

import shutil
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from support.batch_folders import go, put
from support.fake_detector import FakeDetector
from support.features_files import assert_equal
from tiepoint.batch import (
    FolderStore,
    ImageRecord,
    Task,
    expand,
    plan_input,
    store_result,
)
from tiepoint.errors import ImageError
from tiepoint.formats import load
from tiepoint.streaming import Detection


@pytest.fixture
def masked(here: Path) -> Path:
    """Images a.png, b.png and sub/a.png, of which the first and the last have a mask."""
    for name in ("a.png", "b.png", "sub/a.png"):
        put(here / "photos" / name)
    for name in ("a.png.png", "sub/a.png.png"):
        put(here / "masks" / name)
    return here


def test_each_image_has_the_mask_of_its_name_or_none(masked: Path) -> None:
    detector = FakeDetector()
    records = go(["photos"], masked / "out", detector, masks=Path("masks"))
    assert [record.status for record in records] == ["done"] * 3
    expected = [Path("masks", "a.png.png"), None, Path("masks", "sub", "a.png.png")]
    assert detector.masks == expected
    again = FakeDetector()
    records = go(["photos"], masked / "out", again, masks=Path("masks"))
    assert [record.status for record in records] == ["skipped"] * 3 and again.streams == 0


def test_features_with_and_without_a_mask_are_not_the_same(masked: Path) -> None:
    go(["photos"], masked / "with", masks=Path("masks"))
    without = go(["photos"], masked / "with")
    assert [record.status for record in without] == ["refused", "skipped", "refused"]
    assert "mask" in str(without[0].error)
    go(["photos"], masked / "without")
    with_masks = go(["photos"], masked / "without", masks=Path("masks"))
    assert [record.status for record in with_masks] == ["refused", "skipped", "refused"]


def test_the_same_mask_by_another_path_is_the_same(masked: Path) -> None:
    go(["photos"], masked / "out", masks=Path("masks"))
    records = go(["photos"], masked / "out", masks=masked / "masks")
    assert [record.status for record in records] == ["skipped"] * 3


def test_masks_of_another_folder_are_refused(masked: Path) -> None:
    go(["photos"], masked / "out", masks=Path("masks"))
    shutil.copytree(masked / "masks", masked / "other")
    records = go(["photos"], masked / "out", masks=Path("other"))
    assert [record.status for record in records] == ["refused", "skipped", "refused"]
    assert str(Path("other", "a.png.png")) in str(records[0].error)


def test_a_plan_and_a_step_do_what_a_run_does(here: Path) -> None:
    put(here / "photos" / "a.png")
    put(here / "photos" / "b.png", width=50)
    detector: Any = FakeDetector()
    steps, whole = FolderStore(here / "steps", ".npz"), here / "whole"
    wanted = detector.provenance()
    for item in expand(["photos"]):
        task = plan_input(item, steps, wanted, None, overwrite=False)
        assert isinstance(task, Task)
        (detection,) = detector.stream([task.source])
        assert store_result(task, steps, detection).status == "done"
        again = plan_input(item, steps, wanted, None, overwrite=False)
        assert isinstance(again, ImageRecord) and again.status == "skipped"
    go(["photos"], whole)
    for name in ("a.png.npz", "b.png.npz"):
        assert_equal(load(here / "steps" / name), load(whole / name))


def test_a_step_records_an_error_without_a_file(here: Path) -> None:
    store = FolderStore(here / "out", ".npz")
    task = Task("x.png", PurePosixPath("x.png"), store.path(PurePosixPath("x.png")), None)
    record = store_result(
        task, store, Detection("x.png", None, ImageError("x.png: not an image")), 3.0
    )
    assert record == ImageRecord("x.png", "failed", error="x.png: not an image")
    assert not (here / "out").exists()
