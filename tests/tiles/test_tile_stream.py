"""Streams of images in tiles: one bad image ends none, and each has a state of its own."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tiepoint import Detector
from tiepoint.batch import FolderStore, expand, run
from tiepoint.errors import (
    ConfigError,
    FormatError,
    ImageError,
    MissingExtraError,
    OutputError,
    TooManyPixelsError,
)
from tiepoint.files.lock import LockedError, WriteLock
from tiepoint.images.reading import NamedBytes
from tiepoint.tiles.stream import TiledDetector

NAMES = ("a.png", "b.png", "c.png")


@pytest.fixture
def photos(picture: np.ndarray, tmp_path: Path) -> list[Path]:
    """Three photographs, of which the second is larger."""
    paths = [tmp_path / name for name in NAMES]
    for path in paths:
        Image.fromarray(picture[: 192 if path.stem == "b" else 96, :128]).save(path)
    return paths


def state_of(detector: Detector, photo: Any, states: Path) -> Path:
    """The state of a photograph that a stopped run leaves."""
    stream = TiledDetector(detector, tile_px=64, states=states).stream([photo])
    next(stream).require()
    stream.close()  # type: ignore[attr-defined]
    (state,) = states.glob("*.tiles")
    return state


class Harmed:
    """Three photographs, of which the second is about to fail."""

    def __init__(
        self, detector: Detector, photos: list[Path], patch: pytest.MonkeyPatch, states: Path
    ) -> None:
        self.detector, self.photos, self.patch, self.states = detector, photos, patch, states
        self.masks: list[Any] = [None] * 3
        self.mapped = False
        self.lock: WriteLock | None = None


def a_mask_of_another_size(harmed: Harmed) -> None:
    harmed.masks[1] = np.ones((5, 7), bool)


def a_mask_that_is_missing(harmed: Harmed) -> None:
    harmed.masks[1] = harmed.photos[1].with_name("gone.png")


def too_many_pixels(harmed: Harmed) -> None:
    harmed.patch.setattr("tiepoint.tiles.detection.LARGE_PX", 20_000)


def too_many_keypoints(harmed: Harmed) -> None:
    counts = [len(harmed.detector(photo)) for photo in harmed.photos[:2]]
    harmed.patch.setattr("tiepoint.tiles.run.MOST_KEYPOINTS", sum(counts) // 2)
    harmed.mapped = True


def an_extra_that_is_missing(harmed: Harmed) -> None:
    def missing(*_: object) -> None:
        raise MissingExtraError("reading slides", "bio")

    harmed.patch.setattr("tiepoint.images.slides.import_extra", missing)
    harmed.photos[1] = harmed.photos[1].with_suffix(".svs")


def a_state_that_another_run_writes(harmed: Harmed) -> None:
    harmed.lock = WriteLock(state_of(harmed.detector, harmed.photos[1], harmed.states))


def a_state_of_another_program(harmed: Harmed) -> None:
    state_of(harmed.detector, harmed.photos[1], harmed.states).write_text("a diary of another one")


@pytest.mark.parametrize(
    ("harm", "error"),
    [
        (a_mask_of_another_size, ImageError),
        (a_mask_that_is_missing, ImageError),
        (too_many_pixels, TooManyPixelsError),
        (too_many_keypoints, ImageError),
        (an_extra_that_is_missing, MissingExtraError),
        (a_state_that_another_run_writes, LockedError),
        (a_state_of_another_program, FormatError),
    ],
)
def test_an_image_that_fails_for_a_reason_of_its_own_ends_no_stream(
    photos: list[Path], detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    harm: Callable[[Harmed], None], error: type[Exception],
) -> None:  # fmt: skip
    harmed = Harmed(detector, photos, monkeypatch, tmp_path / "out")
    harm(harmed)
    tiled = TiledDetector(detector, tile_px=64, states=harmed.states, mapped=harmed.mapped)
    found = list(tiled.stream(harmed.photos, mask=harmed.masks))
    assert [detection.source for detection in found] == harmed.photos
    assert [type(detection.error) for detection in found] == [type(None), error, type(None)]
    assert all(detection.features for detection in found[::2])
    if harmed.lock is not None:
        harmed.lock.release()


def test_a_full_disk_ends_a_stream(
    photos: list[Path], detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tiepoint.files.journal._write_all", full)
    stream = TiledDetector(detector, tile_px=64, states=tmp_path / "out").stream(photos)
    with pytest.raises(OutputError, match="No space left"):
        next(stream)


def test_a_state_is_kept_until_the_next_image_is_asked_for(
    photos: list[Path], detector: Detector, tmp_path: Path
) -> None:
    states = tmp_path / "out"
    stream = TiledDetector(detector, tile_px=64, states=states).stream(photos)
    for photo in photos:
        next(stream).require()
        (state,) = (path for path in states.iterdir() if path.suffix == ".tiles")
        assert state.name.startswith(f"{photo.name}-")
    assert next(stream, None) is None
    assert list(states.iterdir()) == []


def test_one_path_and_another_number_of_masks_are_refused_before_any_image(
    photos: list[Path], detector: Detector
) -> None:
    tiled = TiledDetector(detector, tile_px=64)
    with pytest.raises(ConfigError, match="got one str; wrap it"):
        tiled.stream(str(photos[0]))
    with pytest.raises(ConfigError, match="1 masks for 3 images"):
        tiled.stream(photos, mask=[None])
    with pytest.raises(ConfigError, match="stream of unknown length"):
        tiled.stream(iter(photos), mask=[None] * 3)


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("https://me:word@h.org/a/x.tif?X-Amz-Signature=KEY123", "x[.]tif"),
        ("s3://bucket/a/x:y|z.tif", "x_y_z[.]tif"),
        ("in/" + "\U0001f600" * 60 + ".png", "\U0001f600" * 30),
        ("in/" + "a" * 251 + ".png", "a" * 120),
        ("in/\udcff.png", "[.]png"),
    ],
    ids=["url", "remote", "wide letters", "long", "no UTF-8"],
)
def test_the_name_of_a_state_is_short_and_safe_and_without_secrets(
    detector: Detector, tmp_path: Path, photos: list[Path], name: str, pattern: str
) -> None:
    source = NamedBytes(photos[0].read_bytes(), name)
    state = state_of(detector, source, tmp_path / "out")
    assert re.fullmatch(f"{pattern}-[0-9a-f]{{8}}[.]tiles", state.name)
    signed_again = NamedBytes(source, name.replace("KEY123", "KEY456"))
    assert state_of(detector, signed_again, tmp_path / "again").name == state.name
    other = NamedBytes(source, name.replace("in/", "out/").replace("/a/", "/b/"))
    assert state_of(detector, other, tmp_path / "other").name != state.name


@pytest.mark.parametrize("plot", [False, True])
def test_tiles_of_a_run_that_was_killed_when_the_result_was_stored_go_with_the_next_run(
    photos: list[Path], detector: Detector, tmp_path: Path, plot: bool
) -> None:
    out = tmp_path / "out"
    tiled, store = TiledDetector(detector, tile_px=64, states=out), FolderStore(out, ".npz", plot)
    names = [str(photo) for photo in photos]
    stopped = run(expand(names), tiled, store)
    assert next(stopped).status == "done"
    stopped.close()  # type: ignore[attr-defined]
    assert len(list(out.glob("*.tiles"))) == 1
    for overlay in out.glob("*.png"):
        overlay.unlink()  # only the overlay is made again
    statuses = [record.status for record in run(expand(names), tiled, store)]
    assert statuses == ["skipped", "done", "done"]
    assert list(out.glob("*.tiles")) == []


def test_tiles_in_use_and_files_of_other_programs_are_not_removed(
    photos: list[Path], detector: Detector, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    state, tiled = state_of(detector, photos[0], out), TiledDetector(detector, states=out)
    lock = WriteLock(state)
    tiled.forget(photos[0])
    assert state.exists()
    lock.release()
    tiled.forget(photos[0])
    assert not state.exists()
    state.write_text("a diary of another program")
    tiled.forget(photos[0])
    assert state.exists()
