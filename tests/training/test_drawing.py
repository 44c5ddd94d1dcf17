"""Sheets: what is drawn lies where its label says, and labels know what covers them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tiepoint.training.scenes import glyphs, leaves, outlines, repeats, shapes, textures
from tiepoint.training.scenes.canvas import (
    CORNER,
    DOUBTFUL,
    NONE,
    Canvas,
    Fill,
    coverage,
    vertex_kinds,
)
from tiepoint.training.scenes.palette import radii

SQUARE = np.array([[10.3, 12.6], [40.3, 12.6], [40.3, 44.1], [10.3, 44.1]])


def refined(image: np.ndarray, xy: np.ndarray, window: int = 6) -> np.ndarray:
    """Where OpenCV's own sub-pixel search finds the corners, from the labels on.

    It is itself up to 0.08 px off on crossings as sharp as px allow, hence the blur.
    """
    image = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 2.0)
    start = np.ascontiguousarray(xy.reshape(-1, 1, 2).astype(np.float32))
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_MAX_ITER, 100, 1e-4)
    return cv2.cornerSubPix(image, start, (window, window), (-1, -1), stop).reshape(-1, 2)


def test_crossings_of_a_chequered_texture_lie_at_their_labels() -> None:
    for seed in range(5):
        drawn = textures.checks(np.random.default_rng(seed), 256)
        xy = drawn.corners_xy
        gaps = np.abs(xy[:, None] - xy).max(axis=2) + 1e9 * np.eye(len(xy))
        inner = ((xy > 16) & (xy < 239)).all(axis=1) & (gaps.min(axis=1) > 16)
        if inner.any():
            assert np.abs(refined(drawn.image, xy[inner]) - xy[inner]).max() < 0.05


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
        found = np.array([(cover * x).sum(), (cover * y).sum()]) / cover.sum()
        assert np.abs(found - centre).max() < 0.01


def test_coverage_is_the_mean_over_a_fine_grid() -> None:
    rng = np.random.default_rng(1)
    steps = (np.arange(24 * 32) + 0.5) / 32 - 0.5
    for maker, _ in outlines.OUTLINES:
        points = maker(rng, 14) + rng.uniform(2, 20, 2)  # partly outside
        hole = points.mean(axis=0) + np.array([[0, 0], [3, 1], [1, 3.3]])
        inside = np.zeros((24 * 32, 24 * 32), bool)
        for ring in (points, hole):
            path = ring.astype(np.float64)
            for (x0, y0), (x1, y1) in zip(path, np.roll(path, -1, axis=0), strict=True):
                rows = (steps >= min(y0, y1)) & (steps < max(y0, y1))
                crossing = x0 + (steps[rows] - y0) * (x1 - x0) / (y1 - y0)
                inside[rows] ^= steps[None] > crossing[:, None]
        slow = inside.reshape(24, 32, 24, 32).mean(axis=(1, 3))
        whole = coverage(points, (0, 0, 24, 24)).astype(float) / 255
        cut = coverage(points, (0, 0, 24, 24), [hole]).astype(float) / 255
        hole_in = coverage(hole, (0, 0, 24, 24)).astype(float) / 255
        if np.abs(np.minimum(whole, hole_in) - hole_in).max() < 0.01:  # the hole lies inside
            assert np.abs(cut - slow).max() < 0.04
        assert np.abs(coverage(points[::-1], (0, 0, 24, 24)) / 255 - whole).max() < 0.01


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
    at = np.array([31.37, 30.81])
    canvas = Canvas((64, 64), 30)
    for sign in (-1, 1):
        square = at + sign * np.array([[0, 0], [20, 0], [20, 20], [0, 20]])
        canvas.polygon(square, 220, vertices=None)
    assert np.abs(refined(canvas.sheet().image, at[None]) - at).max() < 0.05


def test_a_covered_corner_is_no_label_and_a_near_cover_is_measured() -> None:
    canvas = Canvas((64, 64), 0)
    canvas.polygon(SQUARE, 200, vertices=vertex_kinds(SQUARE))
    over = np.array([[35.0, 5], [60, 5], [60, 20], [35, 20]])  # hides the top right corner
    canvas.polygon(over, 90, vertices=None)
    beside = np.array([[13.3, 30.0], [20, 30], [20, 60], [13.3, 60]])  # 3 px from the bottom left
    canvas.polygon(beside, 140, vertices=None)
    sheet = canvas.sheet()
    sure = sheet.corners_xy[sheet.positive]
    kept = [np.abs(sure - corner).max(axis=1).min() < 1e-3 for corner in SQUARE]
    assert kept == [True, False, True, True]
    left = np.abs(sheet.corners_xy - SQUARE[3]).max(axis=1).argmin()
    assert sheet.clearance[left] == pytest.approx(3.0, abs=0.7)


def test_where_one_shape_cuts_another_is_doubtful() -> None:
    canvas = Canvas((64, 64), 0)
    canvas.polygon(SQUARE, 200, vertices=vertex_kinds(SQUARE))
    canvas.polygon(SQUARE + 15, 90, vertices=vertex_kinds(SQUARE))
    sheet = canvas.sheet()
    doubtful = sheet.corners_xy[~sheet.positive]
    for junction in ([40.3, 27.6], [25.3, 44.1]):
        assert np.hypot(*(doubtful - junction).T).min() < 1.5


def test_corners_of_a_texture_outside_its_shape_are_no_labels() -> None:
    board = textures.checks(np.random.default_rng(1), 256)
    fill = Fill(board, np.array([[1.0, 0, -60], [0, 1, -60]]), np.arange(256, dtype=np.uint8))
    canvas = Canvas((128, 128), 0)
    canvas.polygon(SQUARE * 2, fill, vertices=None)
    xy = canvas.sheet().corners_xy[canvas.sheet().positive]
    assert len(xy) > 0
    assert ((xy > SQUARE[0] * 2) & (xy < SQUARE[2] * 2)).all()


def test_vertices_are_corners_bends_or_doubtful_by_their_angles() -> None:
    assert (vertex_kinds(SQUARE) == CORNER).all()
    assert (vertex_kinds(outlines.ellipse(np.random.default_rng(0), 60)) == NONE).all()
    assert (vertex_kinds(SQUARE / 10) == DOUBTFUL).all()  # edges of 3 px
    bent = np.array([[0, 0], [50, 0], [100, 20], [100, 80], [0, 80.0]])
    assert vertex_kinds(bent)[1] == DOUBTFUL  # 22 degrees


def test_letters_have_corners_where_their_outlines_turn_sharply() -> None:
    ((points, kinds), holes), *rest = glyphs.letter_glyph("H", glyphs.SANS, 0).parts
    assert not holes and not rest
    assert (kinds == CORNER).sum() == 12
    assert not any(
        (k == CORNER).any() for (_, k), _ in glyphs.letter_glyph("O", glyphs.SANS, 0).parts
    )
    assert np.abs(points).max() <= 0.6


def test_radii_of_leaves_fall_with_the_third_power() -> None:
    drawn = radii(np.random.default_rng(0), 200_000, 5, 200)
    assert drawn.min() >= 5 and drawn.max() <= 200
    beyond = [(drawn > r).mean() for r in (10, 20, 40)]  # the integral falls with the square
    assert beyond == pytest.approx([1 / 4, 1 / 16, 1 / 64], rel=0.06)


@pytest.mark.parametrize("maker", [maker for maker, _ in textures.MAKERS])
def test_every_texture_uses_its_square_and_repeats_with_its_seed(maker) -> None:
    drawn = maker(np.random.default_rng(7), 96)
    again = maker(np.random.default_rng(7), 96)
    assert drawn.image.shape == (96, 96) and drawn.image.dtype == np.uint8
    assert drawn.image.std() > 4
    assert np.array_equal(drawn.image, again.image)
    assert np.array_equal(drawn.corners_xy, again.corners_xy)
    assert ((drawn.corners_xy >= 0) & (drawn.corners_xy <= 95)).all()


@pytest.mark.parametrize(
    "draw", [leaves.leaves, shapes.shapes, glyphs.glyph_sheet, repeats.repeats]
)
def test_every_kind_of_sheet_has_corners_inside_and_repeats_with_its_seed(draw) -> None:
    sheets = [draw(np.random.default_rng(seed), (180, 240)) for seed in (1, 2, 3, 4, 1)]
    assert np.array_equal(sheets[0].image, sheets[-1].image)
    assert np.array_equal(sheets[0].corners_xy, sheets[-1].corners_xy)
    assert sum(int(sheet.positive.sum()) for sheet in sheets) > 20
    for sheet in sheets:
        assert sheet.image.shape == (180, 240)
        assert ((sheet.corners_xy > 0) & (sheet.corners_xy < (239, 179))).all()
        assert len(sheet.positive) == len(sheet.clearance) == len(sheet.corners_xy)
