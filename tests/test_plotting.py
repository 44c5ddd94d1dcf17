"""Overlays: the ring lies around its keypoint, and the picture under it is the image."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tiepoint.errors import ConfigError, FormatError
from tiepoint.features import Features
from tiepoint.plotting import plot

HALVES = (slice(0, 250), slice(250, 500))


def features_at(points: list[tuple[float, float]], size_hw: tuple[int, int]) -> Features:
    xy = np.array(points, np.float32).reshape(-1, 2)
    scores = np.linspace(1, 0.5, len(xy), dtype=np.float32)
    return Features(xy=xy, scores=scores, descriptors=None, size_hw=size_hw)


@pytest.mark.parametrize("size_hw", [(600, 500), (120, 100)])  # drawn as it is, and enlarged
@pytest.mark.parametrize("point", [(50.0, 60.0), (50.5, 60.25)])
def test_a_ring_lies_around_its_keypoint(
    size_hw: tuple[int, int], point: tuple[float, float]
) -> None:
    grey = np.full(size_hw, 90, np.uint8)
    drawn = plot(features_at([point], size_hw), grey)
    zoom = drawn.shape[0] // size_hw[0]
    rows, columns = np.nonzero((drawn != 90).any(axis=2))
    centre = np.array([columns.min() + columns.max(), rows.min() + rows.max()]) / 2
    expected = (np.array(point) + 0.5) * zoom - 0.5
    np.testing.assert_allclose(centre, expected, atol=0.51)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_without_keypoints_the_picture_is_the_image_in_eight_bits(dtype: type) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16).repeat(32, 0).repeat(32, 1)
    image = {
        np.uint8: levels,
        np.uint16: levels.astype(np.uint16) * 257,
        np.float32: levels.astype(np.float32) / 255,
    }[dtype]
    drawn = plot(features_at([], (512, 512)), image)
    np.testing.assert_array_equal(drawn, np.stack([levels] * 3, axis=2))


def test_the_image_given_is_not_drawn_on_and_the_best_is_yellow(tmp_path: Path) -> None:
    image = np.zeros((500, 500, 3), np.uint8)
    path = tmp_path / "겹침.png"
    drawn = plot(features_at([(100, 100), (400, 400)], (500, 500)), image, path)
    assert not image.any()
    best, worst = (drawn[half, half].reshape(-1, 3).max(axis=0) for half in HALVES)
    assert best[1] > 200 and best[2] < 100 and worst[1] < 100 < worst[2]
    written = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(written[:, :, ::-1], drawn)


def test_the_features_of_another_image_are_refused() -> None:
    with pytest.raises(ConfigError, match="100x120 px"):
        plot(features_at([], (120, 100)), np.zeros((100, 120), np.uint8))


def test_a_name_that_would_belie_the_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"\.png"):
        plot(features_at([], (9, 9)), np.zeros((9, 9), np.uint8), tmp_path / "overlay.jpg")
    assert not list(tmp_path.iterdir())
