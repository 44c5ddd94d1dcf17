"""Whole folders: every image once, in order, resumable; one bad image harms no other."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
import pytest

from support.batch_folders import places, put
from support.provenance import made
from tiepoint.batch import FolderLayout, Input, Record, SingleFile, expand, run, worker
from tiepoint.batch import layout as layout_module
from tiepoint.errors import FormatError, ImageError
from tiepoint.features import Features, Provenance
from tiepoint.formats import FORMATS, load, save
from tiepoint.streaming import Detection


class FakeDetector:
    """Finds one keypoint per 10 px of width; counts what it is asked for."""

    def __init__(self, threshold: float = 0.5) -> None:
        self.threshold = threshold
        self.seen: list[str] = []
        self.streams = 0

    def provenance(self, **options: Any) -> Provenance:
        settings = {"threshold": self.threshold, "widths": (1, 2), **options}
        return made(settings=settings)

    def stream(
        self, sources: Iterable[str], *, mask: Any = None, **options: Any
    ) -> Iterator[Detection]:
        self.streams += 1
        for source in sources:
            self.seen.append(source)
            pixels = cv2.imread(source)
            if pixels is None:
                yield Detection(source, None, ImageError(f"{source}: not an image"))
            else:
                height, width = pixels.shape[:2]
                count = width // 10
                meta = {"source": source, "exif_orientation": 1}
                xy = np.full((count, 2), 2, np.float32)
                scores = np.ones(count, np.float32)
                features = Features(
                    xy, scores, None, (height, width), meta, provenance=self.provenance(**options)
                )
                yield Detection(source, features, None)


def go(
    arguments: Iterable[str | Path],
    out: Path,
    detector: FakeDetector | None = None,
    ending: str = ".npz",
    *,
    plot: bool = False,
    overwrite: bool = False,
) -> list[Record]:
    inputs = expand([str(argument) for argument in arguments])
    layout = FolderLayout(out, ending, plot)
    fake: Any = detector or FakeDetector()
    return list(run(inputs, fake, layout, overwrite=overwrite))


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
    stopped = run(expand(["photos"]), fake, FolderLayout(here / "out", ".npz"))
    for _ in range(4):
        next(stopped)
    stopped.close()
    again = FakeDetector()
    records = go(["photos"], here / "out", again)
    assert [record.status for record in records] == ["skipped"] * 4 + ["done"] * 5
    assert [Path(source).name for source in again.seen] == [f"{n}.png" for n in range(4, 9)]


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


def test_overlays_lie_beside_the_features(here: Path) -> None:
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
    assert detector.seen == ["y.png"]
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
    list(run(expand(["x.jpg"]), fake, SingleFile(here / "one.json", plot=True)))
    assert (here / "one_keypoints.png").is_file()
    assert places(["."]) == ["x.jpg"]
    assert places(["**"]) == ["x.jpg"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_full_disk_stops_the_run(here: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    for number in range(3):
        put(here / "photos" / f"{number}.png")
    monkeypatch.setattr(layout_module, "save", fail_after(1, code))
    fake: Any = FakeDetector()
    records = run(expand(["photos"]), fake, FolderLayout(here / "out", ".npz"))
    assert next(records).status == "done"
    with pytest.raises(FormatError, match=os.strerror(code)):
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
    records = run(endless(), fake, FolderLayout(here / "out", ".csv"))
    taken = [next(records) for _ in range(600)]
    assert {record.status for record in taken} == {"done"}
    assert asked <= 600 + worker.GROUP
    names = sorted((here / "out").iterdir(), key=lambda path: int(path.name.split(".")[0]))
    assert [path.name for path in names[:3]] == ["0.png.csv", "1.png.csv", "2.png.csv"]


def test_options_reach_the_detector_and_the_comparison(here: Path) -> None:
    put(here / "x.png")
    fake: Any = FakeDetector()
    layout = FolderLayout(here / "out", ".npz")
    for status in ("done", "skipped"):
        (record,) = run(expand(["x.png"]), fake, layout, options={"max_side": 100})
        assert record.status == status
    (record,) = run(expand(["x.png"]), fake, layout, options={"max_side": None})
    assert record.status == "refused"


def fail_after(count: int, code: int) -> Callable[[Features, Path], None]:
    """`save` that succeeds so often and then meets this error."""
    calls = 0

    def limited(features: Features, path: Path) -> None:
        nonlocal calls
        calls += 1
        if calls > count:
            error = OSError(code, os.strerror(code))
            raise FormatError(f"{path}: cannot be written ({error.strerror})") from error
        save(features, path)

    return limited
