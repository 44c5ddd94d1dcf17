"""Which pixels become keypoints: suppression, threshold, border, masks, order; with slow twins."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support import twins
from support.heatmaps import ALL, empty_map, heatmaps
from support.selection import select
from tiepoint.config import DetectionConfig
from tiepoint.errors import ConfigError
from tiepoint.keypoints import nms
from tiepoint.keypoints.selection import widest_radius

FEW = pytest.mark.parametrize("few", [0, np.inf], ids=["all at once", "one by one"])
"""How the rounds of suppression after the first are done."""


def test_a_flat_heat_map_gives_no_keypoints_above_its_height() -> None:
    xy, scores = select(empty_map(), ALL)
    assert xy.shape == (0, 2) and xy.dtype == np.float32
    assert scores.shape == (0,)


def test_a_single_peak_is_found_where_it_is() -> None:
    heatmap = empty_map()
    heatmap[7, 20] = 0.5
    xy, scores = select(heatmap, ALL)
    assert xy.tolist() == [[20, 7]] and scores.tolist() == [0.5]


def test_a_peak_equal_to_the_threshold_is_no_keypoint() -> None:
    heatmap = empty_map()
    heatmap[7, 20] = 0.5
    assert len(select(heatmap, dataclasses.replace(ALL, threshold=0.5))[0]) == 0


def test_two_equal_peaks_within_the_radius_leave_the_first_in_reading_order() -> None:
    heatmap = empty_map()
    heatmap[10, 14] = heatmap[11, 11] = 0.5
    xy, _ = select(heatmap, ALL)
    assert xy.tolist() == [[14, 10]]


def test_two_peaks_just_beyond_the_radius_both_stay() -> None:
    heatmap = empty_map()
    heatmap[10, 10], heatmap[10, 15] = 0.5, 0.4
    assert select(heatmap, ALL)[0].tolist() == [[10, 10], [15, 10]]


def test_a_plateau_leaves_points_no_closer_than_the_radius() -> None:
    heatmap = np.full((40, 40), 0.3, dtype=np.float32)
    xy, _ = select(heatmap, ALL)
    assert len(xy) > 1
    distances = np.abs(xy[:, None] - xy[None]).max(axis=2)
    assert distances[~np.eye(len(xy), dtype=bool)].min() > ALL.nms_radius


def test_the_border_is_cleared_on_all_four_sides() -> None:
    heatmap = np.random.default_rng(0).random((40, 56), dtype=np.float32)
    xy, _ = select(heatmap, dataclasses.replace(ALL, border=4, nms_radius=1))
    assert xy.min() >= 4
    assert xy[:, 0].max() <= 56 - 1 - 4 and xy[:, 1].max() <= 40 - 1 - 4
    assert (xy[:, 0].max(), xy[:, 1].max()) == (51, 35)  # and no more than the border


def test_a_border_wider_than_the_image_leaves_nothing() -> None:
    heatmap = np.random.default_rng(0).random((5, 7), dtype=np.float32)
    assert len(select(heatmap, dataclasses.replace(ALL, border=4))[0]) == 0


def test_keypoints_come_best_first_with_ties_by_y_then_x() -> None:
    heatmap = empty_map()
    for x, y, score in [(25, 3, 0.2), (5, 3, 0.2), (15, 15, 0.9), (5, 15, 0.2)]:
        heatmap[y, x] = score
    xy, scores = select(heatmap, ALL)
    assert xy.tolist() == [[15, 15], [5, 3], [25, 3], [5, 15]]
    assert (np.diff(scores) <= 0).all()


def test_only_the_best_are_kept_when_a_number_is_given() -> None:
    heatmap = np.random.default_rng(3).random((40, 40), dtype=np.float32)
    every, _ = select(heatmap, ALL)
    best, _ = select(heatmap, dataclasses.replace(ALL, max_keypoints=5))
    np.testing.assert_array_equal(best, every[:5])


def test_a_zero_radius_keeps_every_pixel_above_the_threshold() -> None:
    heatmap = np.random.default_rng(3).random((9, 9), dtype=np.float32)
    config = dataclasses.replace(ALL, nms_radius=0, threshold=0.4)
    assert len(select(heatmap, config)[0]) == (heatmap > 0.4).sum()


@FEW
@given(heatmaps, st.integers(1, 4), st.sampled_from([0.0, 0.3, 0.6]))
@settings(max_examples=200)
def test_suppression_equals_the_slow_twin_wherever_it_is_asked(
    few: float, heatmap: np.ndarray, radius: int, threshold: float
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nms, "SPARSE_FRACTION", few)
        kept = nms.suppress(heatmap, radius, threshold)
    expected = twins.suppress(heatmap, radius) & (heatmap > threshold)
    np.testing.assert_array_equal(kept, np.flatnonzero(expected))


def test_spread_points_lie_farther_apart_and_reach_where_the_best_do_not() -> None:
    heatmap = np.random.default_rng(4).random((96, 128), dtype=np.float32) ** 4
    heatmap[:, 64:] *= 0.3  # the best points are on the left
    best, _ = select(heatmap, dataclasses.replace(ALL, max_keypoints=30))
    config = dataclasses.replace(ALL, max_keypoints=30, spread=True)
    even, scores = select(heatmap, config)
    assert len(best) == len(even) == 30
    assert (np.diff(scores) <= 0).all()
    assert (best[:, 0] >= 64).sum() <= 3
    assert (even[:, 0] >= 64).sum() >= 10
    apart = np.abs(even[:, None] - even[None]).max(axis=2)
    assert apart[~np.eye(30, dtype=bool)].min() > 2 * ALL.nms_radius


def test_the_radius_leaves_enough_points_and_the_next_one_does_not() -> None:
    for seed in range(4):
        heatmap = np.random.default_rng(seed).random((48, 64), dtype=np.float32)
        config = dataclasses.replace(ALL, max_keypoints=12, spread=True)
        found = widest_radius(
            lambda radius, h=heatmap: len(nms.suppress(h, radius)), (48, 64), config
        )
        assert found > ALL.nms_radius
        assert twins.suppress(heatmap, found).sum() >= 12
        assert twins.suppress(heatmap, found + 1).sum() < 12


def test_spreading_changes_nothing_where_there_are_too_few_points() -> None:
    heatmap = empty_map()
    for x, y in [(5, 5), (11, 5), (25, 15)]:
        heatmap[y, x] = 0.5
    config = dataclasses.replace(ALL, max_keypoints=10, spread=True)
    plain = dataclasses.replace(config, spread=False)
    even, best = (select(heatmap, c)[0] for c in (config, plain))
    np.testing.assert_array_equal(even, best)


def test_spreading_without_a_number_of_points_is_refused() -> None:
    with pytest.raises(ConfigError, match="spread needs max_keypoints"):
        DetectionConfig(spread=True)


@FEW
@settings(max_examples=150, deadline=None)
@given(heatmaps, st.integers(0, 4), st.integers(0, 3), st.sampled_from([None, 1, 4]))
def test_selection_equals_the_slow_twin(
    few: float, heatmap: np.ndarray, radius: int, border: int, most: int | None
) -> None:
    config = DetectionConfig(0.2, most, radius, border, subpixel=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nms, "SPARSE_FRACTION", few)
        xy, _ = select(heatmap, config)
    expected = twins.select(heatmap, 0.2, radius, border, most)
    assert [tuple(point) for point in xy.astype(int).tolist()] == expected


@FEW
@pytest.mark.parametrize("most", [3, 1000])
def test_the_best_where_a_mask_allows_them_equal_the_slow_twin(few: float, most: int) -> None:
    random = np.random.default_rng(6)
    for _ in range(20):
        heatmap = random.choice(np.linspace(0, 1, 12, dtype=np.float32), (20, 23))
        mask = random.random(heatmap.shape) < 0.6
        config = DetectionConfig(0.2, most, 2, 0, subpixel=False)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(nms, "SPARSE_FRACTION", few)
            xy, _ = select(heatmap, config, mask)
        every = twins.select(heatmap, 0.2, 2, 0, None)
        expected = [point for point in every if mask[point[1], point[0]]][:most]
        assert [tuple(point) for point in xy.astype(int).tolist()] == expected
