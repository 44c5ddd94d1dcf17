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

from tiepoint.batch import FolderLayout, Input, Record, SingleFile, Unreadable, expand, run, worker
from tiepoint.batch import layout as layout_module
from tiepoint.errors import FormatError, ImageError
from tiepoint.features import Features
from tiepoint.formats import FORMATS, load, save


class FakeDetector:
    """Finds one keypoint per 10 px of width; counts what it is asked for."""

    def __init__(self, threshold: float = 0.5) -> None:
        self.threshold = threshold
        self.seen: list[str] = []
        self.streams = 0

    def provenance(self, **options: Any) -> dict[str, Any]:
        settings = {"threshold": self.threshold, "widths": (1, 2), **options}
        return {"checkpoint": "fake", "settings": settings, "engine": "none"}

    def stream(
        self, sources: Iterable[str], *, on_error: str, **options: Any
    ) -> Iterator[tuple[str, Features | ImageError]]:
        assert on_error == "return"
        self.streams += 1
        for source in sources:
            self.seen.append(source)
            pixels = cv2.imread(source)
            if pixels is None:
                yield source, ImageError(f"{source}: not an image")
            else:
                height, width = pixels.shape[:2]
                count = width // 10
                meta = {**self.provenance(**options), "source": source, "exif_orientation": 1}
                xy = np.full((count, 2), 2, np.float32)
                scores = np.ones(count, np.float32)
                yield source, Features(xy, scores, None, (height, width), meta)


def put(path: Path, width: int = 20) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.zeros((10, width, 3), np.uint8))
    return str(path)


def places(arguments: Iterable[str | Path], listing: Iterable[str] = ()) -> list[str]:
    found = list(expand([str(argument) for argument in arguments], listing))
    assert all(isinstance(item, Input) for item in found)
    return [str(item.place) for item in found if isinstance(item, Input)]


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


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Inputs


def test_a_folder_gives_its_images_sorted_with_those_below(here: Path) -> None:
    for name in ("b.jpg", "a.PNG", "sub/c.tif", ".hidden.jpg", ".cache/d.jpg"):
        put(here / "photos" / name)
    (here / "photos" / "notes.txt").touch()
    assert places(["photos"]) == ["a.PNG", "b.jpg", "sub/c.tif"]
    assert places([here / "photos"]) == ["a.PNG", "b.jpg", "sub/c.tif"]


def test_an_empty_folder_gives_nothing(here: Path) -> None:
    assert places([here]) == []


def test_korean_names_and_spaces_stay_as_they_are(here: Path) -> None:
    put(here / "사진 폴더" / "벌 한 마리.jpg")
    assert places(["사진 폴더"]) == ["벌 한 마리.jpg"]


def test_a_file_keeps_the_path_as_typed(here: Path) -> None:
    put(here / "a" / "x.jpg")
    assert places(["a/x.jpg"]) == ["a/x.jpg"]
    assert places(["./a/x.jpg"]) == ["a/x.jpg"]
    assert places([here / "a" / "x.jpg"]) == ["x.jpg"]


def test_a_missing_file_is_still_an_input_so_that_it_is_reported(here: Path) -> None:
    assert places(["no.jpg"]) == ["no.jpg"]


@pytest.mark.parametrize("argument", ["../x.jpg", "a/../../x.jpg", "/x.jpg", "../..", ".."])
def test_no_place_leaves_the_output_folder(here: Path, argument: str) -> None:
    for arguments in ([argument], [argument, "other.jpg"]):
        for item in expand(arguments):
            assert isinstance(item, Input)
            assert not item.place.is_absolute()
            assert ".." not in item.place.parts


@pytest.mark.parametrize("pattern", ["photos/*.jpg", "photos/**/*.jpg", "photos/**"])
def test_a_glob_is_relative_to_its_fixed_part(here: Path, pattern: str) -> None:
    for name in ("b.jpg", "a.jpg", "sub/c.jpg"):
        put(here / "photos" / name)
    (here / "photos" / "notes.txt").touch()
    below = [] if pattern == "photos/*.jpg" else ["sub/c.jpg"]
    assert places([pattern]) == ["a.jpg", "b.jpg", *below]
    assert places([here / pattern]) == ["a.jpg", "b.jpg", *below]


def test_a_glob_whose_changing_part_climbs_stays_inside(here: Path) -> None:
    put(here / "a" / "x.jpg")
    put(here / "y.jpg")
    assert places(["*/../y.jpg"]) == ["y.jpg"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(here: Path) -> None:
    put(here / "x[1].jpg")
    assert places(["x[1].jpg"]) == ["x[1].jpg"]


def test_two_folders_keep_their_names_so_that_equal_files_stay_apart(here: Path) -> None:
    put(here / "left" / "1.png")
    put(here / "right" / "1.png")
    assert places(["left", "right"]) == ["left/1.png", "right/1.png"]
    assert places([here / "left", here / "right"]) == ["left/1.png", "right/1.png"]


def test_an_image_named_twice_is_taken_once(here: Path) -> None:
    put(here / "photos" / "x.jpg")
    assert places(["photos", "photos/x.jpg", "./photos/x.jpg", "photos/*.jpg"]) == ["photos/x.jpg"]


def test_two_images_for_one_place_are_reported(here: Path) -> None:
    first, second = put(here / "a" / "x.jpg"), put(here / "b" / "x.jpg")
    one, other = expand([first, second])
    assert one == Input(first, PurePosixPath("x.jpg"))
    assert isinstance(other, Unreadable)
    assert "another input already goes to x.jpg" in other.reason


def test_a_list_is_read_line_by_line_as_it_is_needed() -> None:
    asked: list[int] = []

    def endless() -> Iterator[str]:
        for number in range(1_000_000):
            asked.append(number)
            yield f"사진 {number}.jpg\r\n" if number % 2 else "\n"

    found = expand(["-"], endless())
    items = [next(found) for _ in range(3)]
    sources = [item.source for item in items]
    assert sources == ["사진 1.jpg", "사진 3.jpg", "사진 5.jpg"]
    assert len(asked) < 10


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://a.org/b/c.jpg", "a.org/b/c.jpg"),
        ("http://a.org:80/../../etc/%2e%2e/c.jpg", "a.org_80/etc/c.jpg"),
        ("https://user:secret@a.org/%EB%B2%8C.jpg", "a.org/벌.jpg"),
        ("https://a.org", "a.org"),
        ("https://a.org/b%00%5cc.jpg", "a.org/b__c.jpg"),
    ],
)
def test_a_url_goes_below_its_host(url: str, place: str) -> None:
    assert places([url]) == [place]


def test_urls_that_differ_in_their_query_stay_apart() -> None:
    first, second = places(["https://a.org/i.jpg?id=1", "https://a.org/i.jpg?id=2"])
    assert first != second
    assert first.endswith(".jpg")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="rights do not bind this user")
def test_a_folder_that_cannot_be_listed_is_reported(here: Path) -> None:
    put(here / "photos" / "closed" / "x.jpg")
    (here / "photos" / "closed").chmod(0)
    try:
        (item,) = expand(["photos"])
    finally:
        (here / "photos" / "closed").chmod(0o700)
    assert isinstance(item, Unreadable)
    assert "cannot be listed" in item.reason


def test_a_folder_that_vanishes_is_reported(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "photos").mkdir()

    def vanished(_: str) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(os, "scandir", vanished)
    (item,) = expand(["photos"])
    assert isinstance(item, Unreadable)
    assert "photos: cannot be listed (No such file or directory)" in item.reason


# Results


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
    assert load(here / "out" / "x.png.npz").meta["settings"]["threshold"] == 0.25


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
