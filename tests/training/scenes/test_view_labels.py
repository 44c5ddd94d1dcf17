"""Labels of a view: positives, ignored px, and what decides between them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tiepoint.training.scenes import labels
from tiepoint.training.scenes.canvas import Canvas

SQUARE = np.array([[20, 20], [60, 20], [60, 50], [20, 50.0]])


def square(grey: float, ground: float = 0.4) -> np.ndarray:
    canvas = Canvas((80, 96), 0)
    canvas.polygon(SQUARE, 255, vertices=None)
    cover = canvas.sheet().image.astype(np.float32) / 255
    return (ground + (grey - ground) * cover).astype(np.float32)


def labelled(clean: np.ndarray, xy=SQUARE, positive=None, hidden=None):
    none = np.zeros(clean.shape, bool)
    sure = np.ones(len(xy), bool) if positive is None else np.array(positive)
    hidden = none if hidden is None else hidden
    return labels.view_labels(clean, np.asarray(xy, np.float64), sure, hidden, 0.06)


def test_corners_of_sufficient_contrast_are_labels() -> None:
    xy, ignore = labelled(square(0.8))
    assert np.array_equal(xy, SQUARE.astype(np.float32)) and xy.dtype == np.float32
    assert ignore.dtype == np.bool_ and not ignore.any()


def test_weak_corners_are_ignored() -> None:
    xy, ignore = labelled(square(0.45))  # 0.05 of contrast: below 0.06, yet visible
    assert len(xy) == 0
    assert ignore[20, 20] and ignore[50, 60] and not ignore[35, 40]


def test_invisible_corners_are_neither_labels_nor_ignored() -> None:
    xy, ignore = labelled(square(0.401))  # nothing to be seen: "no keypoint" is right
    assert len(xy) == 0 and not ignore.any()


def test_a_dark_square_is_labelled_like_a_bright_one() -> None:
    bright, dark = labelled(square(0.8, 0.4))[0], labelled(square(0.4, 0.8))[0]
    assert np.array_equal(bright, dark)


def test_a_doubtful_corner_is_ignored_whatever_its_contrast() -> None:
    xy, ignore = labelled(square(0.9), positive=[True, False, True, True])
    assert len(xy) == 3
    assert ignore[20, 60] and not ignore[20, 20]


def test_hidden_areas_are_ignored() -> None:
    hidden = np.zeros((80, 96), bool)
    hidden[15:25, 15:25] = True
    xy, ignore = labelled(square(0.9), hidden=hidden)
    assert len(xy) == 3 and ignore[20, 20] and not ignore[:, 80:].any()


def test_hidden_areas_are_ignored_without_corners_too() -> None:
    hidden = np.zeros((80, 96), bool)
    hidden[15:25, 15:25] = True
    xy, ignore = labelled(square(0.9), xy=np.zeros((0, 2)), hidden=hidden)
    assert xy.shape == (0, 2) and xy.dtype == np.float32
    assert ignore.sum() == 14 * 14  # with 2 px around


def test_two_corners_near_one_another_are_both_ignored() -> None:
    near = np.vstack([SQUARE, [[22.0, 21.0]]])
    xy, ignore = labelled(square(0.9), xy=near)
    assert len(xy) == 3
    assert ignore[20, 20] and ignore[21, 22]


def test_a_doubtful_corner_does_not_crowd_a_sure_one() -> None:
    near = np.vstack([SQUARE, [[22.0, 21.0]]])
    xy, _ = labelled(square(0.9), xy=near, positive=[True] * 4 + [False])
    assert len(xy) == 4


def test_a_corner_at_the_rim_of_the_view_may_be_half_a_px_outside() -> None:
    canvas = Canvas((80, 96), 90)
    canvas.polygon([[-30, -30], [-0.4, -30], [-0.4, 40], [-30, 40]], 255, vertices=None)
    clean = canvas.sheet().image.astype(np.float32) / 255
    xy, ignore = labelled(clean, xy=[[-0.4, 40.0], [95.4, 79.4]])
    assert len(xy) <= 2 and ignore.shape == (80, 96)


def test_discs_are_two_px_wide_each_way() -> None:
    marked = labels.discs(np.array([[10.2, 6.8]]), (20, 30))
    rows, columns = np.nonzero(marked)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (5, 9, 8, 12)
    assert marked[7, 10] and not marked[5, 8]  # round


def test_discs_outside_the_view_are_cut_at_its_rim() -> None:
    marked = labels.discs(np.array([[-0.4, 3.0], [30.4, 19.4]]), (20, 30))
    assert marked[3, 0] and marked[19, 29]
    assert not labels.discs(np.zeros((0, 2)), (20, 30)).any()


def test_crowded_points_are_those_with_a_near_neighbour() -> None:
    rng = np.random.default_rng(0)
    for count in (0, 1, 2, 150):
        xy, chosen = rng.uniform(0, 60, (count, 2)), rng.random(count) < 0.8
        slow = [
            any(
                i != j and chosen[i] and chosen[j] and np.hypot(*(xy[i] - xy[j])) < labels.APART_PX
                for j in range(count)
            )
            for i in range(count)
        ]
        assert labels.crowded(xy, chosen).tolist() == slow


def test_points_at_exactly_the_distance_are_not_crowded() -> None:
    xy = np.array([[0.0, 0], [labels.APART_PX, 0], [0, 50], [0, 50 + labels.APART_PX]])
    assert not labels.crowded(xy, np.ones(4, bool)).any()


def test_equal_points_are_crowded() -> None:
    assert labels.crowded(np.ones((2, 2)), np.ones(2, bool)).all()


def test_ring_contrast_is_the_smaller_range_of_two_rings() -> None:
    step = np.zeros((40, 40), np.float32)
    step[:, 23:] = 0.5  # at 22.5: 2.5 px from x = 20, outside the ring of 2 px
    contrast = labels.ring_contrast(step, np.array([[20.0, 20], [22.5, 20], [5, 20]]))
    assert contrast == pytest.approx([0, 0.5, 0], abs=1e-6)


def test_ring_contrast_is_that_of_the_slow_twin() -> None:
    rng = np.random.default_rng(1)
    clean = rng.random((40, 50), np.float32)
    xy = rng.uniform((6, 6), (43, 33), (20, 2))

    def at(x: float, y: float) -> float:
        left, top = int(np.floor(x)), int(np.floor(y))
        u, v = x - left, y - top
        upper = (1 - u) * clean[top, left] + u * clean[top, left + 1]
        lower = (1 - u) * clean[top + 1, left] + u * clean[top + 1, left + 1]
        return float((1 - v) * upper + v * lower)

    slow = []
    for x, y in xy:
        ranges = []
        for radius in labels.RINGS_PX:
            angles = 2 * np.pi * np.arange(labels.SAMPLES) / labels.SAMPLES
            ring = [at(x + radius * np.cos(a), y + radius * np.sin(a)) for a in angles]
            ranges.append(max(ring) - min(ring))
        slow.append(min(ranges))
    # OpenCV's remap rounds positions to 1/32 px.
    assert labels.ring_contrast(clean, xy) == pytest.approx(slow, abs=0.06)


def test_ring_contrast_takes_more_points_than_opencv_has_rows() -> None:
    clean = np.random.default_rng(2).random((20, 20), np.float32)
    xy = np.tile([[9.0, 9.0]], (40_000, 1))
    contrast = labels.ring_contrast(clean, xy)
    assert contrast.shape == (40_000,) and np.ptp(contrast) == 0
    assert labels.ring_contrast(clean, np.zeros((0, 2))).shape == (0,)


def test_corner_strength_is_that_of_the_slow_twin() -> None:
    clean = np.random.default_rng(3).random((16, 18), np.float32)
    clean = cv2.GaussianBlur(clean, (0, 0), 1.2)
    strength, is_corner = labels.corner_strength(clean)
    padded = np.pad(clean.astype(np.float64), 1, mode="reflect")
    weights = np.array([3, 10, 3]) / 32
    dx, dy = np.zeros(clean.shape), np.zeros(clean.shape)
    for y in range(16):
        for x in range(18):
            around = padded[y : y + 3, x : x + 3]
            dx[y, x] = weights @ (around[:, 2] - around[:, 0])
            dy[y, x] = weights @ (around[2] - around[0])
    for y in range(2, 14):
        for x in range(2, 16):
            gx, gy = (d[y - 2 : y + 3, x - 2 : x + 3].ravel() for d in (dx, dy))
            small, large = np.linalg.eigvalsh(
                np.array([[gx @ gx, gx @ gy], [gx @ gy, gy @ gy]]) / 25
            )
            assert strength[y, x] == pytest.approx(small, rel=1e-3, abs=1e-7)
            product = small * large / ((small + large) / 2) ** 2
            if abs(product - labels.EDGE) > 1e-3:
                assert is_corner[y, x] == (product > labels.EDGE)


def test_an_edge_is_no_corner_and_a_square_has_four() -> None:
    strength, is_corner = labels.corner_strength(square(0.9))
    assert not is_corner[35, 20] and strength[35, 20] < 1e-6
    assert all(is_corner[int(y), int(x)] for x, y in SQUARE)


def test_a_flat_view_has_no_strength() -> None:
    strength, is_corner = labels.corner_strength(np.full((20, 20), 0.5, np.float32))
    assert not strength.any() and not is_corner.any()
