"""Whole folders: every image once, in order, resumable; one bad image harms no other."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from support.batch_folders import go, places, put
from support.fake_detector import FakeDetector
from tiepoint.batch import (
    FolderStore,
    ImageRecord,
    Input,
    SingleFileStore,
    Unreadable,
    expand,
    run,
)
from tiepoint.batch.run import GROUP
from tiepoint.errors import OutputError
from tiepoint.features import Features
from tiepoint.formats import FORMATS, load


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


@pytest.mark.parametrize("ending", list(FORMATS))
def test_each_image_gets_a_file_that_keeps_its_own_ending(here: Path, ending: str) -> None:
    for name in ("x.jpg", "x.png", "sub/x.jpg"):
        put(here / "photos" / name, width=30)
    records = go(["photos"], here / "out", ending=ending)
    assert files_below(here / "out") == [f"{n}{ending}" for n in ("sub/x.jpg", "x.jpg", "x.png")]
    assert [record.status for record in records] == ["done"] * 3
    first = records[0]
    assert first.source == str(Path("photos", "x.jpg"))
    assert first.output == here / "out" / f"x.jpg{ending}"
    assert (first.keypoints, first.size_hw, first.error) == (3, (10, 30), None)
    assert first.milliseconds is not None
    assert first.milliseconds > 0
    assert len(load(first.output)) == 3


def test_one_corrupt_file_among_five_is_reported_and_the_rest_done(here: Path) -> None:
    for number in range(5):
        put(here / "photos" / f"{number}.png")
    (here / "photos" / "2.png").write_bytes(b"no picture")
    records = go(["photos"], here / "out")
    assert [record.status for record in records] == ["done", "done", "failed", "done", "done"]
    assert records[2].error is not None
    assert "2.png" in records[2].error
    assert records[2].output is None  # a path that leads nowhere is not named
    assert len(files_below(here / "out")) == 4


@pytest.mark.parametrize("ending", list(FORMATS))
def test_results_that_are_there_are_skipped_without_building_a_network(
    here: Path, ending: str
) -> None:
    for number in range(3):
        put(here / "photos" / f"{number}.png", width=10 * number + 10)
    go(["photos"], here / "out", ending=ending)
    again = FakeDetector()
    records = go(["photos"], here / "out", again, ending)
    assert [record.status for record in records] == ["skipped"] * 3
    assert [record.keypoints for record in records] == [1, 2, 3]
    assert records[1].size_hw == (10, 20)
    assert again.streams == 0


def test_a_stopped_run_goes_on_where_it_was(here: Path) -> None:
    for number in range(9):
        put(here / "photos" / f"{number}.png")
    fake: Any = FakeDetector()
    stopped = run(expand(["photos"]), fake, FolderStore(here / "out", ".npz"))
    for _ in range(4):
        next(stopped)
    stopped.close()
    again = FakeDetector()
    records = go(["photos"], here / "out", again)
    assert [record.status for record in records] == ["skipped"] * 4 + ["done"] * 5
    assert [Path(source).name for source in again.sources] == [f"{n}.png" for n in range(4, 9)]


@pytest.mark.parametrize("ending", list(FORMATS))
def test_other_settings_are_refused_by_name_and_the_file_stays(here: Path, ending: str) -> None:
    put(here / "x.png")
    go(["x.png"], here / "out", FakeDetector(threshold=0.5), ending)
    before = (here / "out" / f"x.png{ending}").read_bytes()
    (record,) = go(["x.png"], here / "out", FakeDetector(threshold=0.25), ending)
    assert record.status == "refused"
    assert record.error is not None
    assert "settings.threshold 0.5 instead of 0.25" in record.error
    assert "--overwrite" in record.error
    assert (here / "out" / f"x.png{ending}").read_bytes() == before


def test_overwrite_replaces_results_of_other_settings(here: Path) -> None:
    put(here / "x.png")
    go(["x.png"], here / "out", FakeDetector(threshold=0.5))
    (record,) = go(["x.png"], here / "out", FakeDetector(threshold=0.25), overwrite=True)
    assert record.status == "done"
    assert load(here / "out" / "x.png.npz").provenance.settings["threshold"] == 0.25


def test_a_file_that_is_no_features_file_is_refused_and_stays(here: Path) -> None:
    put(here / "x.png")
    (here / "out").mkdir()
    (here / "out" / "x.png.npz").write_bytes(b"somebody's own")
    (record,) = go(["x.png"], here / "out")
    assert record.status == "refused"
    assert (here / "out" / "x.png.npz").read_bytes() == b"somebody's own"


def test_the_features_of_another_image_are_not_taken_for_this_ones(here: Path) -> None:
    put(here / "a" / "x.png", width=10)
    put(here / "b" / "x.png", width=50)
    go(["a"], here / "out")
    (record,) = go(["b"], here / "out")
    assert record.status == "refused"
    assert record.error is not None
    assert str(Path("a", "x.png")) in record.error
    (same,) = go([here / "a"], here / "out")  # the same image, named otherwise
    assert same.status == "skipped"


def test_results_moved_with_their_images_are_still_skipped(here: Path) -> None:
    put(here / "a" / "x.png")
    go(["a"], here / "out")
    shutil.move(here / "a", here / "b")
    (record,) = go(["b"], here / "out")
    assert record.status == "skipped"


def test_overlays_are_next_to_the_features(here: Path) -> None:
    put(here / "photos" / "벌 1.jpg")
    (record,) = go(["photos"], here / "out", plot=True)
    assert files_below(here / "out") == ["벌 1.jpg.npz", "벌 1.jpg.png"]
    assert record.overlay == here / "out" / "벌 1.jpg.png"


def test_a_missing_overlay_is_drawn_from_the_stored_features(here: Path) -> None:
    put(here / "x.png")
    put(here / "y.png")
    go(["x.png"], here / "out")
    detector = FakeDetector()
    records = go(["x.png", "y.png"], here / "out", detector, plot=True)
    assert [record.status for record in records] == ["skipped", "done"]
    assert detector.sources == ["y.png"]
    assert (here / "out" / "x.png.png").stat().st_size > 0


def test_an_overlay_never_replaces_a_picture_that_is_none(here: Path) -> None:
    put(here / "photos" / "x.jpg")
    photo = Path(put(here / "photos" / "x.jpg.png")).read_bytes()
    first, second = go(["photos"], here / "photos", plot=True)
    assert first.status == "refused"
    assert second.status == "done"
    assert (here / "photos" / "x.jpg.png").read_bytes() == photo


def test_a_folder_that_holds_images_and_results_can_be_given_again(here: Path) -> None:
    put(here / "x.jpg")
    go(["."], here, plot=True)
    go(["."], here / "tiepoint-out", plot=True)
    fake: Any = FakeDetector()
    list(run(expand(["x.jpg"]), fake, SingleFileStore(here / "one.json", plot=True)))
    assert (here / "one_keypoints.png").is_file()
    assert places(["."]) == ["x.jpg"]
    assert places(["**"]) == ["x.jpg"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_full_disk_stops_the_run(here: Path, code: int) -> None:
    for number in range(3):
        put(here / "photos" / f"{number}.png")
    fake: Any = FakeDetector()
    records = run(expand(["photos"]), fake, FullStore(here / "out", ".npz", code=code))
    assert next(records).status == "done"
    with pytest.raises(OutputError, match=os.strerror(code)):
        next(records)


def test_one_name_that_cannot_be_written_does_not_stop_the_run(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(here / "photos" / "a.png")
    put(here / "photos" / "b.png")
    (here / "out" / "a.png.npz").mkdir(parents=True)
    first, second = go(["photos"], here / "out", overwrite=True)
    assert (first.status, second.status) == ("failed", "done")
    assert first.size_hw == (10, 20)  # it was read
    assert first.output is None


def test_a_name_too_long_for_its_results_is_reported(here: Path) -> None:
    put(here / "photos" / ("a" * 250 + ".png"))
    put(here / "photos" / "b.png")
    first, second = go(["photos"], here / "out")
    assert (first.status, second.status) == ("failed", "done")


def test_an_output_folder_that_is_a_file_is_reported(here: Path) -> None:
    put(here / "x.png")
    (here / "out").touch()
    (record,) = go(["x.png"], here / "out")
    assert record.status == "failed"
    assert record.error is not None
    assert "cannot be made" in record.error


def test_an_interrupt_leaves_whole_files_only(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        put(here / "photos" / f"{number}.png")
    renames = 0
    rename = Path.replace

    def interrupt(self: Path, target: Path) -> Path:
        nonlocal renames
        renames += 1
        if renames == 3:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        go(["photos"], here / "out")
    assert files_below(here / "out") == ["0.png.npz", "1.png.npz"]


def test_a_million_paths_are_read_as_they_are_needed(here: Path) -> None:
    asked = 0

    def endless() -> Iterator[Input]:
        nonlocal asked
        for number in range(1_000_000):
            asked += 1
            yield Input("x.png", PurePosixPath(f"{number}.png"))

    put(here / "x.png")
    fake: Any = FakeDetector()
    records = run(endless(), fake, FolderStore(here / "out", ".csv"))
    taken = [next(records) for _ in range(600)]
    assert {record.status for record in taken} == {"done"}
    assert asked <= 600 + GROUP
    names = sorted((here / "out").iterdir(), key=lambda path: int(path.name.split(".")[0]))
    assert [path.name for path in names[:3]] == ["0.png.csv", "1.png.csv", "2.png.csv"]


def test_options_reach_the_detector_and_the_comparison(here: Path) -> None:
    put(here / "x.png")
    fake: Any = FakeDetector()
    layout = FolderStore(here / "out", ".npz")
    for status in ("done", "skipped"):
        (record,) = run(expand(["x.png"]), fake, layout, max_side=100)
        assert record.status == status
    (record,) = run(expand(["x.png"]), fake, layout, max_side=None)
    assert record.status == "refused"


def test_no_inputs_build_no_network_and_complete_the_store(here: Path) -> None:
    detector: Any = FakeDetector()
    store = ClosingStore(here / "out", ".npz")
    assert list(run([], detector, store)) == []
    assert detector.streams == 0 and store.closed == ["closed"]


def test_the_store_is_completed_after_the_last_image_alone(here: Path) -> None:
    for number in range(3):
        put(here / f"{number}.png")
    detector: Any = FakeDetector()
    store = ClosingStore(here / "out", ".npz")
    records = run(expand(["."]), detector, store)
    for _ in range(3):
        next(records)
        assert store.closed == []
    assert list(records) == [] and store.closed == ["closed"]


def test_what_cannot_be_used_is_reported_in_its_place(here: Path) -> None:
    inputs = [
        Input(put(here / "a.png"), PurePosixPath("a.png")),
        Unreadable("closed", "closed: cannot be listed"),
        Input(put(here / "b.png"), PurePosixPath("b.png")),
    ]
    detector: Any = FakeDetector()
    records = list(run(inputs, detector, FolderStore(here / "out", ".npz")))
    assert [record.status for record in records] == ["done", "failed", "done"]
    assert records[1] == ImageRecord("closed", "failed", error="closed: cannot be listed")


def test_another_precision_names_the_option_that_continues(here: Path) -> None:
    put(here / "x.png")
    go(["x.png"], here / "out", FakeDetector(precision="bf16"))
    (record,) = go(["x.png"], here / "out", FakeDetector(precision="f32"))
    assert record.status == "refused"
    assert "precision 'bf16' instead of 'f32'" in str(record.error)
    assert "--precision bf16" in str(record.error)


def test_several_other_settings_are_all_named(here: Path) -> None:
    put(here / "x.png")
    go(["x.png"], here / "out", FakeDetector(threshold=0.5, precision="bf16"))
    (record,) = go(["x.png"], here / "out", FakeDetector(threshold=0.25, precision="f32"))
    assert "precision 'bf16' instead of 'f32'" in str(record.error)
    assert "settings.threshold 0.5 instead of 0.25" in str(record.error)
    assert "--precision" not in str(record.error)  # that alone would not help


def test_an_overlay_of_damaged_features_fails_alone(here: Path) -> None:
    for name in ("a.png", "b.png"):
        put(here / "photos" / name)
    go(["photos"], here / "out", ending=".csv")
    path = here / "out" / "a.png.csv"
    path.write_bytes(path.read_bytes().replace(b"\n2.0,2.0,1.0", b"\nx,2.0,1.0", 1))
    first, second = go(["photos"], here / "out", ending=".csv", plot=True)
    assert (first.status, second.status) == ("failed", "skipped")
    assert first.output == path and first.overlay is None
    assert second.overlay is not None and second.overlay.is_file()


def test_an_overlay_that_cannot_be_drawn_keeps_the_features(here: Path) -> None:
    put(here / "x.png")
    (here / "out" / "x.png.png").mkdir(parents=True)
    (record,) = go(["x.png"], here / "out", plot=True, overwrite=True)
    assert record.status == "failed" and "cannot be written" in str(record.error)
    assert record.output is not None and len(load(record.output)) == 2


# Masks


# One step, as other loops than `run` take it


@dataclass(frozen=True)
class ClosingStore(FolderStore):
    """A folder that notes when it is closed."""

    closed: list[str] = field(default_factory=list)

    def close(self) -> None:
        self.closed.append("closed")


@dataclass(frozen=True)
class FullStore(FolderStore):
    """A folder whose disk takes one file and then fails with this error."""

    code: int = errno.ENOSPC

    def save(self, name: PurePosixPath, features: Features) -> None:
        if any(self.folder.iterdir()):
            error = OSError(self.code, os.strerror(self.code))
            raise OutputError(f"{name}: cannot be written ({error.strerror})") from error
        super().save(name, features)
