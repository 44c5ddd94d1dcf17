"""Overlays: the ring lies around its keypoint, and the picture under it is the image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tiepoint.errors import ConfigError, FormatError
from tiepoint.features import Features, Matches
from tiepoint.plotting import GAP_PX, plot, plot_matches

HALVES = (slice(0, 250), slice(250, 500))
HALF_1, HALF_2 = slice(0, 150), slice(150, 300)


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


def matched(*pairs: tuple[int, int]) -> Matches:
    scores = np.linspace(0.9, 0.3, len(pairs), dtype=np.float32)
    return Matches(np.array(pairs, np.int64).reshape(-1, 2), scores)


def pair_of(grey_a: int = 90, grey_b: int = 60) -> tuple[Any, Any]:
    return np.full((300, 600), grey_a, np.uint8), np.full((400, 510), grey_b, np.uint8)


def test_two_images_without_matches_stand_side_by_side_unchanged() -> None:
    a, b = pair_of()
    nothing = features_at([], (300, 600)), features_at([], (400, 510))
    drawn = plot_matches(a, b, *nothing, matched(), max_side=600)
    assert drawn.shape == (400, 600 + GAP_PX + 510, 3)
    assert (drawn[:300, :600] == 90).all() and (drawn[:, 600 + GAP_PX :] == 60).all()
    assert (drawn[300:, :600] == 255).all() and (drawn[:, 600 : 600 + GAP_PX] == 255).all()


@pytest.mark.parametrize(("max_side", "scale_a", "scale_b"), [(600, 1, 1), (300, 0.5, 300 / 510)])
def test_a_match_is_marked_at_both_ends_with_a_line_between(
    max_side: int, scale_a: float, scale_b: float
) -> None:
    a, b = pair_of()
    ends = features_at([(1, 1), (200, 150)], (300, 600)), features_at([(300, 150)], (400, 510))
    drawn = plot_matches(a, b, *ends, matched((1, 0)), max_side=max_side).astype(int)
    start = round(600 * scale_a) + GAP_PX
    left, right = drawn[: round(300 * scale_a), : start - GAP_PX], drawn[:, start:]
    columns_a = np.nonzero((left != 90).any(axis=(0, 2)))[0]
    columns_b = np.nonzero((right != 60).any(axis=(0, 2)))[0]
    # The ring around each end, 3 px and its edge, lies farthest out; keypoint 0 has no match.
    assert abs(columns_a.min() - (200.5 * scale_a - 0.5 - 3.5)) < 1.5
    assert abs(columns_b.max() - (300.5 * scale_b - 0.5 + 3.5)) < 1.5
    assert (drawn[:, start - GAP_PX // 2] != 255).any()  # the line crosses the gap


def test_of_many_matches_only_some_get_lines_but_all_are_marked() -> None:
    rows = [(50.0, 10.0 + 20 * n) for n in range(14)]
    a = b = np.zeros((300, 300), np.uint8)
    ends = features_at(rows, (300, 300)), features_at(rows, (300, 300))
    every = matched(*[(n, n) for n in range(14)])
    crossing = {}
    for most in (None, 4, 1, 0):
        drawn = plot_matches(a, b, *ends, every, max_lines=most, max_side=300)
        gap = (drawn[:, 300 + GAP_PX // 2] != 255).any(axis=1)
        crossing[most] = int((np.diff(np.r_[0, gap.astype(int)]) == 1).sum())
        assert all(drawn[int(y) - 6 : int(y) + 7, 40:60].any() for _, y in rows)
    assert crossing == {None: 14, 4: 4, 1: 1, 0: 0}


def test_the_best_match_is_yellow_and_the_images_stay_as_they_were(tmp_path: Path) -> None:
    a = b = np.zeros((300, 300), np.uint8)
    rows = [(50.0, 50.0), (50.0, 250.0)]
    ends = features_at(rows, (300, 300)), features_at(rows, (300, 300))
    path = tmp_path / "짝.png"
    drawn = plot_matches(a, b, *ends, matched((0, 0), (1, 1)), path, max_side=300)
    assert not a.any()
    best, worst = (drawn[rows, :200].reshape(-1, 3).max(axis=0) for rows in (HALF_1, HALF_2))
    assert best[0] > 200 and best[1] > 200 and worst[1] < 100 < worst[2]
    written = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(written[:, :, ::-1], drawn)


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    a, b = pair_of()
    of_a, of_b = features_at([(1, 1)], (300, 600)), features_at([(1, 1)], (400, 510))
    with pytest.raises(ConfigError, match="image A is 510x400 px"):
        plot_matches(b, b, of_a, of_b, matched())
    with pytest.raises(ConfigError, match="image B is 600x300 px"):
        plot_matches(a, a, of_a, of_b, matched())
    with pytest.raises(ConfigError, match="keypoint 1 of image B, which has 1"):
        plot_matches(a, b, of_a, of_b, matched((0, 1)))
    with pytest.raises(FormatError, match=r"\.png"):
        plot_matches(a, b, of_a, of_b, matched(), tmp_path / "x.jpg")
