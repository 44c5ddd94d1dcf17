"""The canvas: exact coverage, occlusion, and which corners stay visible."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from support.scene_parts import slow_coverage
from tiepoint.training.scenes import outlines, textures
from tiepoint.training.scenes.canvas import (
    CORNER,
    DOUBTFUL,
    NEAR_PX,
    NONE,
    Canvas,
    Fill,
    Sheet,
    coverage,
    doubled_area,
    edges,
    previous,
    sheet_without_corners,
    vertex_kinds,
)

SQUARE = np.array([[10.3, 12.6], [40.3, 12.6], [40.3, 44.1], [10.3, 44.1]])
IDENTITY = np.arange(256, dtype=np.uint8)


def box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float64)


def refined(image: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Sub-pixel corners by OpenCV, after a blur that makes it exact enough."""
    image = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 2.0)
    start = np.ascontiguousarray(xy.reshape(-1, 1, 2).astype(np.float32))
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_MAX_ITER, 100, 1e-4)
    return cv2.cornerSubPix(image, start, (6, 6), (-1, -1), stop).reshape(-1, 2)


@pytest.mark.parametrize("maker", [maker for maker, _ in outlines.OUTLINES])
def test_a_drawn_shape_covers_the_area_of_its_outline(maker) -> None:
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:96, :96]
    for _ in range(6):
        points = maker(rng, 30) + 48 + rng.uniform(-0.5, 0.5, 2)
        cover = coverage(points, (0, 0, 96, 96)).astype(np.float64) / 255
        area = abs(cv2.contourArea(points.astype(np.float32)))
        length = cv2.arcLength(points.astype(np.float32), True)
        assert abs(cover.sum() - area) / length < 0.002  # px that its edges are off on average
        moments = cv2.moments(points.astype(np.float32))
        centre = np.array([moments["m10"], moments["m01"]]) / moments["m00"]
        centroid = np.array([(cover * x).sum(), (cover * y).sum()]) / cover.sum()
        assert np.abs(centroid - centre).max() < 0.01


@pytest.mark.parametrize("maker", [maker for maker, _ in outlines.OUTLINES])
def test_coverage_is_the_mean_over_a_fine_grid(maker) -> None:
    rng = np.random.default_rng(1)
    for _ in range(2):
        points = maker(rng, 14) + rng.uniform(2, 20, 2)  # partly outside
        cover = coverage(points, (0, 0, 24, 24)) / 255
        assert np.abs(cover - slow_coverage([points], (24, 24))).max() < 0.04
        assert np.abs(coverage(points[::-1], (0, 0, 24, 24)) / 255 - cover).max() < 0.01


@pytest.mark.parametrize("reverse", [False, True])
def test_a_hole_is_cut_out_whatever_its_sense(reverse: bool) -> None:
    outer, hole = box(2.2, 3.1, 20.7, 19.4), np.array([[6.1, 7.3], [15.2, 8.8], [9.9, 15.5]])
    hole = hole[::-1] if reverse else hole
    cover = coverage(outer, (0, 0, 24, 24), [hole]) / 255
    assert np.abs(cover - slow_coverage([outer, hole], (24, 24))).max() < 0.04


def test_a_box_on_px_borders_covers_its_px_fully_and_no_others() -> None:
    cover = coverage(box(2.5, 3.5, 6.5, 5.5), (0, 0, 10, 10))
    expected = np.zeros((10, 10), np.uint8)
    expected[4:6, 3:7] = 255
    assert np.array_equal(cover, expected)


def test_half_a_px_is_covered_by_half() -> None:
    cover = coverage(box(2.5, 3.5, 6.0, 5.0), (0, 0, 10, 10))
    assert cover[4, 6] == 128 and cover[5, 3] == 128 and cover[5, 6] == 64
    assert cover[4, 3] == 255


def test_coverage_of_a_part_is_that_part_of_the_whole() -> None:
    points = outlines.star(np.random.default_rng(0), 14) + 16
    whole = coverage(points, (0, 0, 32, 32))
    assert np.array_equal(coverage(points, (5, 9, 21, 30)), whole[9:30, 5:21])


def test_a_polygon_left_or_right_of_the_box_covers_nothing_or_all_of_it() -> None:
    assert not coverage(box(50, 0, 60, 9), (0, 0, 8, 8)).any()
    assert not coverage(box(-60, 0, -50, 9), (0, 0, 8, 8)).any()
    assert (coverage(box(-50, -50, 50, 50), (0, 0, 8, 8)) == 255).all()


def test_a_polygon_without_area_covers_nothing() -> None:
    flat = np.array([[1.0, 4], [9, 4], [5, 4]])
    assert not coverage(flat, (0, 0, 10, 10)).any()


def test_the_doubled_area_has_the_sign_of_the_sense() -> None:
    points = box(1, 2, 5, 9)
    assert doubled_area(points) == pytest.approx(2 * 4 * 7)
    assert doubled_area(points[::-1]) == pytest.approx(-2 * 4 * 7)


def test_edges_and_previous_go_round_the_outline() -> None:
    points = np.array([[0.0, 0], [3, 1], [1, 5]])
    x, y = edges(points)
    assert x.tolist() == [3, -2, -1] and y.tolist() == [1, 4, -5]
    assert previous(np.array([1.0, 2, 3])).tolist() == [3, 1, 2]


def slow_kinds(points: np.ndarray) -> list[int]:
    """`vertex_kinds` for one vertex after the other."""
    kinds = []
    for number in range(len(points)):
        before, here, after = (points[(number + step) % len(points)] for step in (-1, 0, 1))
        back, forth = here - before, after - here
        angle = math.atan2(back[0] * forth[1] - back[1] * forth[0], float(back @ forth))
        turn = abs(math.degrees(angle))
        if turn < 15:
            kinds.append(NONE)
        elif turn < 30 or turn > 160 or min(math.hypot(*back), math.hypot(*forth)) < 5:
            kinds.append(DOUBTFUL)
        else:
            kinds.append(CORNER)
    return kinds


@pytest.mark.parametrize("maker", [maker for maker, _ in outlines.OUTLINES])
def test_vertex_kinds_are_those_of_the_slow_twin(maker) -> None:
    for seed in range(8):
        points = maker(np.random.default_rng(seed), 18)
        assert vertex_kinds(points).tolist() == slow_kinds(points)


def test_vertices_are_corners_bends_or_doubtful_by_their_angles() -> None:
    assert (vertex_kinds(SQUARE) == CORNER).all()
    assert (vertex_kinds(outlines.ellipse(np.random.default_rng(0), 60)) == NONE).all()
    assert (vertex_kinds(SQUARE / 10) == DOUBTFUL).all()  # edges of 3 px
    bent = np.array([[0, 0], [50, 0], [100, 20], [100, 80], [0, 80.0]])
    assert vertex_kinds(bent)[1] == DOUBTFUL  # 22 degrees


def test_the_limits_of_vertex_kinds_can_be_chosen() -> None:
    assert (vertex_kinds(SQUARE / 10, least_edge_px=2) == CORNER).all()
    assert (vertex_kinds(SQUARE, bend_deg=91) == NONE).all()
    assert (vertex_kinds(SQUARE, bend_deg=60) == DOUBTFUL).all()


def test_an_empty_canvas_is_its_background_without_corners() -> None:
    sheet = Canvas((20, 30), 77).sheet()
    assert sheet.image.shape == (20, 30) and (sheet.image == 77).all()
    assert sheet.corners_xy.shape == (0, 2) and sheet.corners_xy.dtype == np.float32
    assert len(sheet.positive) == len(sheet.clearance) == 0


def test_a_shape_is_blended_by_its_coverage() -> None:
    canvas = Canvas((32, 32), 40)
    points = outlines.star(np.random.default_rng(2), 13) + 15.3
    canvas.polygon(points, 230, vertices=None)
    cover = coverage(points, (0, 0, 32, 32)) / 255
    assert np.abs(canvas.sheet().image - (40 + 190 * cover)).max() <= 0.51


@pytest.mark.parametrize(("behind", "front"), [(0, 255), (255, 0), (10, 11), (200, 200)])
def test_full_and_no_coverage_keep_the_greys_exact(behind: int, front: int) -> None:
    canvas = Canvas((16, 16), behind)
    canvas.polygon(box(3.5, 3.5, 11.5, 11.5), front, vertices=None)
    image = canvas.sheet().image
    assert (image[4:12, 4:12] == front).all()
    image[4:12, 4:12] = behind
    assert (image == behind).all()


def test_a_shape_outside_the_canvas_changes_nothing() -> None:
    canvas = Canvas((16, 16), 9)
    far = box(30, 30, 40, 40)
    canvas.polygon(far, 200, vertices=vertex_kinds(far))
    sheet = canvas.sheet()
    assert (sheet.image == 9).all() and len(sheet.corners_xy) == 0


def test_what_is_inside_a_hole_stays() -> None:
    canvas = Canvas((40, 40), 10)
    hole = box(14.5, 14.5, 24.5, 24.5)
    canvas.polygon(box(4.5, 4.5, 34.5, 34.5), 200, vertices=None, holes=[hole])
    image = canvas.sheet().image
    assert (image[15:25, 15:25] == 10).all()
    assert (image[5:14, 5:35] == 200).all()


def test_a_drawn_shape_mirrors_with_its_labels() -> None:
    points = outlines.star(np.random.default_rng(0), 20) + np.array([31.2, 29.7])
    plain, mirrored = Canvas((64, 64), 20), Canvas((64, 64), 20)
    plain.polygon(points, 200, vertices=vertex_kinds(points))
    flipped = points * (-1, 1) + (63, 0)
    mirrored.polygon(flipped, 200, vertices=vertex_kinds(flipped))
    a, b = plain.sheet(), mirrored.sheet()
    assert np.abs(a.image.astype(int) - b.image[:, ::-1].astype(int)).max() <= 1
    assert np.allclose(np.sort(63 - b.corners_xy[:, 0]), np.sort(a.corners_xy[:, 0]), atol=1e-4)


def test_two_squares_that_touch_at_a_point_have_their_corner_there() -> None:
    touch = np.array([31.37, 30.81])
    canvas = Canvas((64, 64), 30)
    for sign in (-1, 1):
        square = touch + sign * np.array([[0, 0], [20, 0], [20, 20], [0, 20]])
        canvas.polygon(square, 220, vertices=None)
    assert np.abs(refined(canvas.sheet().image, touch[None]) - touch).max() < 0.05


def test_a_covered_corner_is_no_label_and_a_near_cover_is_measured() -> None:
    canvas = Canvas((64, 64), 0)
    canvas.polygon(SQUARE, 200, vertices=vertex_kinds(SQUARE))
    canvas.polygon(box(35, 5, 60, 20), 90, vertices=None)  # hides the top right corner
    canvas.polygon(box(13.3, 30, 20, 60), 140, vertices=None)  # 3 px from the bottom left
    sheet = canvas.sheet()
    positive = sheet.corners_xy[sheet.positive]
    kept = [np.abs(positive - corner).max(axis=1).min() < 1e-3 for corner in SQUARE]
    assert kept == [True, False, True, True]
    left = np.abs(sheet.corners_xy - SQUARE[3]).max(axis=1).argmin()
    assert sheet.clearance[left] == pytest.approx(3.0, abs=0.7)


@pytest.mark.parametrize("gap_px", [2.0, 3.0, 4.0, 7.0])
def test_the_clearance_is_the_distance_to_the_cover_up_to_its_limit(gap_px: float) -> None:
    canvas = Canvas((64, 64), 0)
    square = box(10.5, 10.5, 30.5, 30.5)
    canvas.polygon(square, 200, vertices=vertex_kinds(square))
    cover = box(30.5 + gap_px, 0.5, 60.5, 60.5)
    canvas.polygon(cover, 90, vertices=None)
    sheet = canvas.sheet()
    right = np.abs(sheet.corners_xy - [30.5, 10.5]).max(axis=1).argmin()
    assert sheet.clearance[right] == pytest.approx(min(gap_px, NEAR_PX), abs=0.1)


def test_a_shape_below_does_not_limit_the_clearance() -> None:
    canvas = Canvas((64, 64), 0)
    canvas.polygon(box(5, 5, 40, 40), 90, vertices=None)
    square = box(20.5, 20.5, 50.5, 50.5)
    canvas.polygon(square, 200, vertices=vertex_kinds(square))
    sheet = canvas.sheet()
    assert (sheet.clearance[sheet.positive] == NEAR_PX).all()


def test_corners_at_the_border_of_the_sheet_are_left_out() -> None:
    canvas = Canvas((40, 40), 0)
    square = box(-5, 10, 39.5, 30)
    canvas.polygon(square, 200, vertices=vertex_kinds(square))
    assert len(canvas.sheet().corners_xy) == 0


def test_bends_are_not_corners_and_doubtful_ones_are_not_positive() -> None:
    canvas = Canvas((64, 64), 0)
    canvas.polygon(SQUARE, 200, vertices=np.array([CORNER, NONE, DOUBTFUL, CORNER]))
    sheet = canvas.sheet()
    assert np.allclose(sheet.corners_xy, SQUARE[[0, 2, 3]])
    assert sheet.positive.tolist() == [True, False, True]


def test_points_can_be_added_to_the_last_shape() -> None:
    canvas = Canvas((64, 64), 0)
    canvas.polygon(SQUARE, 200, vertices=None)
    canvas.points([[20.0, 25.0], [30.0, 30.0]], np.array([CORNER, DOUBTFUL]))
    sheet = canvas.sheet()
    assert sheet.corners_xy.tolist() == [[20, 25], [30, 30]]
    assert sheet.positive.tolist() == [True, False]


def test_where_one_shape_cuts_another_is_doubtful() -> None:
    canvas = Canvas((64, 64), 0)
    canvas.polygon(SQUARE, 200, vertices=vertex_kinds(SQUARE))
    canvas.polygon(SQUARE + 15, 90, vertices=vertex_kinds(SQUARE))
    sheet = canvas.sheet()
    doubtful = sheet.corners_xy[~sheet.positive]
    for junction in ([40.3, 27.6], [25.3, 44.1]):
        assert np.hypot(*(doubtful - junction).T).min() < 1.5


def test_a_junction_next_to_a_corner_adds_nothing() -> None:
    canvas = Canvas((64, 64), 0)
    canvas.polygon(box(10.5, 10.5, 30.5, 50.5), 200, vertices=None)
    square = box(30.5, 20.5, 50.5, 40.5)
    canvas.polygon(square, 90, vertices=vertex_kinds(square))
    sheet = canvas.sheet()
    assert sheet.positive.all() and len(sheet.corners_xy) == 4


def test_two_shapes_side_by_side_have_no_junction() -> None:
    canvas = Canvas((64, 64), 0)
    canvas.polygon(box(-5, -5, 30.5, 70), 200, vertices=None)
    canvas.polygon(box(30.5, -5, 70, 70), 90, vertices=None)
    assert len(canvas.sheet().corners_xy) == 0


def test_a_texture_is_drawn_where_its_matrix_says() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    fill = Fill(
        textures.Texture(image, textures.NO_CORNERS), np.array([[1.0, 0, 5], [0, 1, 7]]), IDENTITY
    )
    drawn = Canvas((40, 40), fill).sheet().image
    assert np.array_equal(drawn[7:39, 5:37], image)


def test_beyond_its_square_a_texture_is_mirrored() -> None:
    image = np.random.default_rng(1).integers(0, 256, (16, 16), dtype=np.uint8)
    fill = Fill(
        textures.Texture(image, textures.NO_CORNERS), np.array([[1.0, 0, 16], [0, 1, 16]]), IDENTITY
    )
    drawn = Canvas((48, 48), fill).sheet().image
    assert np.array_equal(drawn[16:32, :16], image[:, ::-1])
    assert np.array_equal(drawn[32:, 16:32], image[::-1])


def test_the_greys_of_a_fill_replace_those_of_its_texture() -> None:
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    fill = Fill(textures.Texture(image, textures.NO_CORNERS), np.eye(3)[:2], 255 - IDENTITY)
    assert np.array_equal(Canvas((16, 16), fill).sheet().image, 255 - image)


def test_corners_of_a_texture_outside_its_shape_are_no_labels() -> None:
    board = textures.checks(np.random.default_rng(1), 256)
    fill = Fill(board, np.array([[1.0, 0, -60], [0, 1, -60]]), IDENTITY)
    canvas = Canvas((128, 128), 0)
    canvas.polygon(SQUARE * 2, fill, vertices=None)
    sheet = canvas.sheet()
    xy = sheet.corners_xy[sheet.positive]
    assert len(xy) > 0
    assert ((xy > SQUARE[0] * 2) & (xy < SQUARE[2] * 2)).all()


def test_corners_of_a_texture_move_with_it() -> None:
    board = textures.checks(np.random.default_rng(1), 64)
    matrix = np.array([[0.8, -0.3, 20], [0.3, 0.8, 5.0]])
    sheet = Canvas((96, 96), Fill(board, matrix, IDENTITY)).sheet()
    expected = board.corners_xy @ matrix[:, :2].T + matrix[:, 2]
    inside = ((expected > 1) & (expected < 94)).all(axis=1)
    assert inside.sum() > 4
    for xy in expected[inside]:
        assert np.abs(sheet.corners_xy - xy).max(axis=1).min() < 1e-3


def test_levels_are_means_of_two_by_two_px() -> None:
    image = np.random.default_rng(2).integers(0, 256, (16, 24), dtype=np.uint8)
    levels = sheet_without_corners(image).levels
    assert [level.shape for level in levels] == [(16, 24), (8, 12), (4, 6)]
    assert levels[0] is image
    mean = image.reshape(8, 2, 12, 2).mean(axis=(1, 3))
    assert np.abs(levels[1] - mean).max() <= 0.51


def test_the_outline_of_a_sheet_is_the_outer_edge_of_its_px() -> None:
    sheet = sheet_without_corners(np.zeros((20, 30), np.uint8))
    assert sheet.size_hw == (20, 30)
    assert sheet.outline.tolist() == [[-0.5, -0.5], [29.5, -0.5], [29.5, 19.5], [-0.5, 19.5]]
    assert doubled_area(sheet.outline) == 2 * 20 * 30


def test_an_image_alone_is_a_sheet_without_corners() -> None:
    sheet = sheet_without_corners(np.zeros((4, 4), np.uint8))
    assert isinstance(sheet, Sheet)
    assert sheet.corners_xy.shape == (0, 2)
    assert sheet.positive.dtype == np.bool_ and sheet.clearance.dtype == np.float32
