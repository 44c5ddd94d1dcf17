"""Images to measure a checkpoint on: photographs, evenly chosen, or drawn scenes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tiepoint.errors import FormatError, ImageError
from tiepoint.training import sample_images as module
from tiepoint.training.sample_images import sample_images


def refuse(error: ImageError) -> None:
    raise AssertionError(f"left out: {error}")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten photographs, grey level 10, 20, ... in the order of their names."""
    for number in range(1, 11):
        cv2.imwrite(str(tmp_path / f"{number:02d}.png"), np.full((40, 60), 10 * number, np.uint8))
    return tmp_path


def levels(photos: Path, count: int) -> list[int]:
    return [int(image[0, 0]) for image in sample_images(photos, count, 0, on_skip=refuse)]


def test_photographs_are_chosen_evenly(photos: Path) -> None:
    assert levels(photos, 1) == [10]
    assert levels(photos, 3) == [10, 40, 70]
    assert levels(photos, 5) == [10, 30, 50, 70, 90]


def test_more_images_than_photographs_gives_each_once(photos: Path) -> None:
    assert levels(photos, 99) == list(range(10, 101, 10))


def test_photographs_are_grey_and_downscaled_to_the_detectors_size(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "large.png"), np.zeros((500, 2048, 3), np.uint8))
    [image] = sample_images(tmp_path, 1, 0, on_skip=refuse)
    assert image.dtype == np.uint8
    assert image.shape == (250, 1024)


def test_an_unreadable_photograph_is_reported_and_left_out(photos: Path) -> None:
    (photos / "01.png").write_bytes(b"no image")
    errors: list[ImageError] = []
    images = list(sample_images(photos, 10, 0, on_skip=errors.append))
    assert len(images) == 9
    assert len(errors) == 1 and "01.png" in str(errors[0])


def test_a_folder_without_photographs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError):
        list(sample_images(tmp_path, 1, 0, on_skip=refuse))


def test_scenes_depend_on_the_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SCENE_SIDE_PX", 64)
    first, again, other = (list(sample_images(None, 2, seed, on_skip=refuse)) for seed in (3, 3, 4))
    assert [image.shape for image in first] == [(64, 64)] * 2
    for ours, theirs in zip(first, again, strict=True):
        assert np.array_equal(ours, theirs)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], other[0])
