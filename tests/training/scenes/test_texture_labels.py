"""Points of a scene's texture: their positions, and when another view has them too."""

from __future__ import annotations

import numpy as np
import pytest

from support import twins
from support.fake_pairs import shifted_flow
from tiepoint.geometry import apply_homography
from tiepoint.training.scenes import texture_labels, textures
from tiepoint.training.scenes.texture_labels import repeated_in, texture_points

SIZE = (64, 80)
CLEAR = np.zeros(SIZE, bool)


def blobs(*centres: tuple[float, float], contrast: float = 0.4) -> np.ndarray:
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    image = np.full(SIZE, 0.3)
    for at_x, at_y in centres:
        image += contrast * np.exp(-((x - at_x) ** 2 + (y - at_y) ** 2) / (2 * 1.8**2))
    return image.astype(np.float32)


def slow_points(clean: np.ndarray) -> list[tuple[int, int]]:
    """Whole px (x, y) that exceed their 24 neighbours and the least strength, one by one."""
    strength = np.sqrt(twins.structure(clean))
    found = []
    for y in range(2, clean.shape[0] - 2):
        for x in range(2, clean.shape[1] - 2):
            around = strength[y - 2 : y + 3, x - 2 : x + 3]
            if strength[y, x] > texture_labels.LEAST and strength[y, x] == around.max():
                found.append((x, y))
    return found


def test_points_are_those_of_the_slow_twin() -> None:
    values = textures.noise(np.random.default_rng(3), 96, 1.4)[: SIZE[0], : SIZE[1]]
    clean = np.clip(0.5 + 0.12 * values, 0, 1).astype(np.float32)
    found, slow = texture_points(clean, CLEAR), slow_points(clean)
    assert len(slow) > 20
    assert found.shape == (len(slow), 2)
    assert np.abs(found - np.array(slow)).max() <= 0.5  # within the px that the twin found


def test_a_blob_between_two_px_is_one_point() -> None:
    found = texture_points(blobs((30.5, 20.0)), CLEAR)
    near = np.hypot(*(found - [30.5, 20.0]).T) < 1
    assert near.sum() == 1


@pytest.mark.parametrize("contrast", [0.4, -0.25])
def test_a_blob_is_one_point_at_its_centre(contrast: float) -> None:
    found = texture_points(blobs((30.3, 20.8), (52.5, 41.0), contrast=contrast), CLEAR)
    centres = np.array([[30.3, 20.8], [52.5, 41.0]])
    near = np.hypot(*(found[:, None] - centres).transpose(2, 0, 1)).min(axis=0)
    assert (near < 0.05).all()


def test_faint_flat_and_covered_places_have_no_point() -> None:
    assert len(texture_points(np.full(SIZE, 0.5, np.float32), CLEAR)) == 0
    assert len(texture_points(blobs((30, 20), contrast=0.01), CLEAR)) == 0
    covered = CLEAR.copy()
    covered[18:23, 33:60] = True
    assert len(texture_points(blobs((30, 20)), covered)) == 0


def test_a_point_is_seen_again_where_the_flow_says_and_not_beside_it() -> None:
    flow = shifted_flow(SIZE, np.array([4.25, -3.5], np.float32))
    xy = np.array([[20.4, 30.2], [40.0, 40.0], [77.0, 30.0]])  # the last one leaves the view
    others = np.array([[24.9, 26.5], [44.25, 38.0]])
    seen = repeated_in(xy, flow, others)
    assert seen.visible.tolist() == [True, True, False]
    assert seen.repeated.tolist() == [True, False, False]
    assert repeated_in(xy, flow, np.zeros((0, 2))).repeated.tolist() == [False] * 3
    assert len(repeated_in(np.zeros((0, 2)), flow, others).repeated) == 0


def test_where_the_other_view_enlarges_its_px_count_less() -> None:
    matrix = np.array([[3.0, 0, -90], [0, 3.0, -90], [0, 0, 1]])
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    flow = apply_homography(matrix, np.stack([x, y], axis=-1).reshape(-1, 2).astype(float))
    flow = flow.reshape(*SIZE, 2).astype(np.float32)
    xy = np.array([[40.3, 40.0]])
    there = apply_homography(matrix, xy)
    for away_px, again in ((2.5, True), (3.5, False)):
        assert repeated_in(xy, flow, there + np.array([away_px, 0])).repeated.tolist() == [again]


def test_points_of_the_outermost_px_are_left_out() -> None:
    rng = np.random.default_rng(0)
    xy = texture_points(rng.random(SIZE, np.float32), CLEAR)
    assert len(xy) > 30
    assert (xy >= 1.5).all() and (xy <= np.array(SIZE[::-1]) - 2.5).all()


def test_points_are_in_reading_order() -> None:
    xy = texture_points(np.random.default_rng(1).random(SIZE, np.float32), CLEAR)
    whole = np.rint(xy)
    keys = whole[:, 1] * 1000 + whole[:, 0]
    assert (np.diff(keys) > -1001).all() and (np.diff(whole[:, 1]) >= -1).all()


def test_points_keep_the_radius_of_nms_apart() -> None:
    xy = texture_points(np.random.default_rng(2).random(SIZE, np.float32), CLEAR)
    gaps = np.abs(xy[:, None] - xy).max(axis=2) + 99 * np.eye(len(xy))
    assert gaps.min() > texture_labels.REACH_PX - 1  # each moves by half a px at most


def test_an_object_in_front_of_the_lens_takes_the_points_near_it() -> None:
    clean = blobs((20, 20), (20, 34), (60, 20))
    covered = CLEAR.copy()
    covered[:, 24:26] = True
    left = [point for point in texture_points(clean, covered) if point[0] < 28]
    assert not any(np.hypot(point[0] - 20, point[1] - 20) < 1 for point in left)
    near = texture_points(clean, covered)
    assert np.hypot(*(near - [60, 20]).T).min() < 0.1


def test_twice_the_contrast_finds_no_fewer_points() -> None:
    values = textures.noise(np.random.default_rng(3), 96, 1.0)[: SIZE[0], : SIZE[1]]
    few, many = (
        len(texture_points((0.5 + contrast * values).astype(np.float32), CLEAR))
        for contrast in (0.02, 0.04)
    )
    assert 0 < few <= many


@pytest.mark.parametrize(("away_px", "repeated"), [(0.0, True), (0.9, True), (1.1, False)])
def test_a_counterpart_is_at_most_one_px_away(away_px: float, repeated: bool) -> None:
    flow = shifted_flow(SIZE, np.array([4.25, -3.5], np.float32))
    xy = np.array([[30.0, 30.0]])
    other = xy + np.array([4.25, -3.5 + away_px])
    assert repeated_in(xy, flow, other).repeated.tolist() == [repeated]


def test_of_many_points_each_has_its_own_counterpart() -> None:
    rng = np.random.default_rng(4)
    flow = shifted_flow(SIZE, np.array([2.0, 3.0], np.float32))
    xy = rng.uniform(8, 50, (40, 2))
    shift = np.array([2, 3])
    others = xy + shift
    kept = rng.random(40) < 0.5
    seen = repeated_in(xy, flow, others[kept])
    slow = [min(np.hypot(*(point + shift - other)) for other in others[kept]) <= 1 for point in xy]
    assert seen.visible.all() and seen.repeated.tolist() == slow


def test_beside_an_invisible_px_nothing_is_sure() -> None:
    flow = shifted_flow(SIZE, np.zeros(2, np.float32))
    flow[20, 31] = np.nan
    xy = np.array([[30.0, 20.0], [33.0, 20.0]])
    assert repeated_in(xy, flow, xy).visible.tolist() == [False, True]
