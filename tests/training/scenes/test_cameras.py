"""Random cameras before a flat sheet."""

from __future__ import annotations

import math

import numpy as np
import pytest

from support.scene_parts import SIZE
from tiepoint.evaluation.views import overlap, rotation_x, rotation_z, translation
from tiepoint.geometry import apply_homography, inside
from tiepoint.training.scenes import cameras
from tiepoint.training.scenes.settings import RASTER_PER_PX, Geometry

SHEET_HW = (288, 384)
CENTRE = np.array([[(SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2]])


def views(count: int, geometry: Geometry | None = None, *, upright: bool = True) -> list:
    geometry = geometry or Geometry()
    return [
        cameras.flat_views(np.random.default_rng(seed), geometry, SIZE, SHEET_HW, upright=upright)
        for seed in range(count)
    ]


def roll_of(matrix: np.ndarray) -> float:
    """Direction in which a homography maps the x axis at the centre, radians."""
    ends = apply_homography(matrix, CENTRE + np.array([[0, 0], [1e-3, 0]]))
    return math.atan2(*(ends[1] - ends[0])[::-1])


def test_flat_views_differ_as_the_geometry_limits() -> None:
    geometry, scales, shares = Geometry(), [], []
    for to_a, to_b in views(250):
        a_to_b = to_b @ np.linalg.inv(to_a)
        scales.append(float(cameras.scale_at(a_to_b / a_to_b[2, 2], CENTRE)[0]))
        shares.append(overlap(to_a, to_b, SIZE, 12))
    assert min(shares) >= geometry.min_overlap
    inner = np.mean([(0.6 < s < 1.6) for s in scales])  # tilt shrinks areas: limits are wider
    assert 0.6 < inner < 0.95
    assert np.quantile(scales, 0.03) < 0.75 and np.quantile(scales, 0.97) > 1.3


def test_the_sheet_fills_most_of_both_views() -> None:
    y, x = np.mgrid[: SIZE[0] : 8, : SIZE[1] : 8]
    grid = np.stack([x.ravel(), y.ravel()], axis=1).astype(float)
    for pair in views(30):
        for matrix in pair:
            on_sheet = apply_homography(np.linalg.inv(matrix), grid)
            assert inside(on_sheet, SHEET_HW).mean() > cameras.SHOWN - 0.08


def test_a_pair_of_views_repeats_with_its_seed() -> None:
    first, second = views(1)[0], views(1)[0]
    assert np.array_equal(first[0], second[0]) and np.array_equal(first[1], second[1])


def test_without_any_freedom_both_views_are_nearly_equal() -> None:
    calm = Geometry(
        scale=(0.99, 1.01), common_scale=(0.99, 1.01), roll_deg=0, tilt_deg=0, min_overlap=0.5,
        own_tilt_deg=0, own_roll_deg=0,
    )  # fmt: skip
    for to_a, to_b in views(12, calm):
        a_to_b = to_b @ np.linalg.inv(to_a)
        a_to_b /= a_to_b[2, 2]
        assert a_to_b[:2, :2] == pytest.approx(np.eye(2), abs=0.02)  # only a shift remains
        assert a_to_b[2, :2] == pytest.approx(np.zeros(2), abs=1e-9)


def test_a_share_of_the_pairs_is_only_shifted_and_by_fractions_of_a_cell() -> None:
    shifted = 0
    for to_a, to_b in views(200, Geometry(shift_share=0.3)):
        a_to_b = to_b @ np.linalg.inv(to_a)
        a_to_b /= a_to_b[2, 2]
        if np.allclose(a_to_b[:2, :2], np.eye(2), atol=1e-6):
            shifted += 1
            assert np.allclose(a_to_b[2, :2], 0, atol=1e-9)
            assert (np.abs(a_to_b[:2, 2] / 8 - np.round(a_to_b[:2, 2] / 8)) > 1e-3).any()
    assert 40 <= shifted <= 80


def test_if_no_views_overlap_enough_both_face_the_sheet() -> None:
    impossible = Geometry(scale=(4.0, 5.0), common_scale=(4.0, 5.0), min_overlap=1.0)
    to_a, to_b = cameras.flat_views(
        np.random.default_rng(0), impossible, SIZE, (40, 40), upright=True
    )
    assert np.array_equal(to_a, to_b)
    assert cameras.scale_at(to_a, np.array([[19.5, 19.5]])) == pytest.approx([1 / RASTER_PER_PX])
    assert apply_homography(to_a, [[19.5, 19.5]]) == pytest.approx(CENTRE)


@pytest.mark.parametrize(("upright", "least", "most"), [(True, 0.0, 0.05), (False, 0.1, 0.5)])
def test_only_scenes_without_upright_are_turned_by_any_angle(upright, least, most) -> None:
    geometry, rng = Geometry(), np.random.default_rng(1)
    rolls = np.array([cameras.own_roll(rng, geometry, upright=upright) for _ in range(800)])
    large = np.abs(np.angle(np.exp(1j * rolls))) > math.radians(60)
    assert least <= large.mean() <= most


def test_the_own_roll_has_its_standard_deviation() -> None:
    rng = np.random.default_rng(2)
    rolls = [cameras.own_roll(rng, Geometry(own_roll_deg=20), upright=True) for _ in range(2000)]
    assert math.degrees(np.std(rolls)) == pytest.approx(20, rel=0.08)


def test_the_relative_roll_is_cut_at_three_deviations() -> None:
    rng = np.random.default_rng(3)
    rolls = np.degrees([cameras.relative_roll(rng, Geometry(roll_deg=40)) for _ in range(3000)])
    assert np.std(rolls) == pytest.approx(40, rel=0.06)
    assert np.abs(rolls).max() <= 120 + 1e-9
    assert np.degrees(cameras.relative_roll(rng, Geometry(roll_deg=0))) == 0


def test_relative_scales_are_in_the_common_range_as_often_as_asked() -> None:
    rng, geometry = np.random.default_rng(0), Geometry()
    drawn = np.array([cameras.relative_scale(rng, geometry) for _ in range(4000)])
    low, high = geometry.common_scale
    assert drawn.min() >= geometry.scale[0] and drawn.max() <= geometry.scale[1]
    common = ((drawn > low) & (drawn < high)).mean()
    assert common == pytest.approx(geometry.common_share, abs=0.03)
    assert abs(np.log(drawn).mean()) < 0.03


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_scales_are_all_or_never_in_the_common_range(share: float) -> None:
    rng, geometry = np.random.default_rng(4), Geometry(common_share=share)
    drawn = np.array([cameras.relative_scale(rng, geometry) for _ in range(300)])
    low, high = geometry.common_scale
    assert ((drawn >= low) & (drawn <= high)).mean() == share


def test_focal_lengths_are_a_multiple_of_the_longer_side() -> None:
    rng = np.random.default_rng(5)
    focal = np.array([cameras.focal_length(rng, (100, 200)) for _ in range(400)])
    assert focal.min() >= 0.9 * 200 and focal.max() <= 2.6 * 200
    assert np.median(focal) == pytest.approx(200 * math.sqrt(0.9 * 2.6), rel=0.08)


def test_a_camera_that_faces_the_plane_scales_and_turns_it() -> None:
    matrix = cameras.seen(0.5, math.pi / 2, 0.0, 1.3, 200.0)
    assert apply_homography(matrix, [[0, 0], [10, 0]]) == pytest.approx(np.array([[0, 0], [0, 5]]))


def test_a_tilted_plane_is_foreshortened_across_its_axis() -> None:
    matrix = cameras.seen(1.0, 0.0, math.radians(60), 0.0, 500.0)
    mapped = apply_homography(matrix, [[1e-3, 0], [0, 1e-3]]) / 1e-3
    assert mapped == pytest.approx(np.array([[1, 0], [0, 0.5]]), abs=1e-4)


def test_seen_is_the_projection_of_a_plane_in_space() -> None:
    zoom, roll, tilt, axis, focal = 0.7, 0.4, 0.6, 1.1, 180.0
    rotation = rotation_z(roll) @ rotation_z(axis) @ rotation_x(tilt) @ rotation_z(-axis)
    xy = np.random.default_rng(6).uniform(-40, 40, (10, 2))
    points = np.column_stack([xy, np.zeros(10)]) @ rotation.T + [0, 0, focal / zoom]
    projected = focal * points[:, :2] / points[:, 2:]
    assert apply_homography(cameras.seen(zoom, roll, tilt, axis, focal), xy) == pytest.approx(
        projected
    )


@pytest.mark.parametrize("rotation", [rotation_z(0.7), rotation_x(-0.4)])
def test_turn_and_lean_are_rotations(rotation: np.ndarray) -> None:
    assert rotation @ rotation.T == pytest.approx(np.eye(3))
    assert np.linalg.det(rotation) == pytest.approx(1)


def test_moved_shifts_points() -> None:
    assert apply_homography(translation(np.array([3.0, -2])), [[1, 1]]).tolist() == [[4, -1]]


def test_the_scale_of_a_homography_is_the_root_of_its_jacobian() -> None:
    matrix = translation(np.array([5.0, 2])) @ cameras.seen(0.5, 0.3, 0.4, 0.2, 150.0)
    xy = np.array([[3.0, 4], [50, 20]])
    step = 1e-4
    moved = [apply_homography(matrix, xy + np.array(d) * step) for d in ((1, 0), (0, 1), (0, 0))]
    jacobian = np.stack([moved[0] - moved[2], moved[1] - moved[2]], axis=-1) / step
    assert np.sqrt(np.abs(np.linalg.det(jacobian))) == pytest.approx(
        cameras.scale_at(matrix, xy), rel=1e-3
    )


def test_a_homography_and_its_multiple_have_one_scale() -> None:
    matrix = cameras.seen(0.5, 0.3, 0.4, 0.2, 150.0)
    xy = np.array([[3.0, 4], [50, 20]])
    assert cameras.scale_at(-2.5 * matrix, xy) == pytest.approx(cameras.scale_at(matrix, xy))


def test_equal_views_overlap_fully_and_distant_ones_not_at_all() -> None:
    straight = translation(np.array([10.0, 10.0]))
    assert overlap(straight, straight, SIZE, 12) == 1
    assert overlap(straight, translation(np.array([500.0, 0])) @ straight, SIZE, 12) == 0


def test_a_shift_by_half_a_view_leaves_half_of_it() -> None:
    half = translation(np.array([SIZE[1] / 2, 0]))
    assert overlap(np.eye(3), half, SIZE, 12) == pytest.approx(0.5)


def test_a_zoom_alone_keeps_the_common_view_at_one() -> None:
    centre = CENTRE[0]
    zoom = translation(centre) @ np.diag([2.0, 2.0, 1.0]) @ translation(-centre)
    assert overlap(np.eye(3), zoom, SIZE, 12) == 1
    assert overlap(zoom, np.eye(3), SIZE, 12) == 1


def test_relative_roll_is_the_turn_between_both_views() -> None:
    calm = Geometry(roll_deg=30, tilt_deg=0, own_tilt_deg=0)
    turns = []
    for to_a, to_b in views(150, calm):
        turns.append(math.degrees(roll_of(to_b @ np.linalg.inv(to_a))))
    assert np.std(turns) == pytest.approx(30, rel=0.25)
