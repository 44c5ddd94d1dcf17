"""Drawn sheets of every kind."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tiepoint.training.scenes import glyphs, leaves, repeats, shapes
from tiepoint.training.scenes.canvas import NEAR_PX, Canvas
from tiepoint.training.scenes.labels import ring_contrast
from tiepoint.training.scenes.palette import Palette

KINDS = [leaves.leaves, shapes.shapes, glyphs.glyph_sheet, repeats.repeats]
SIZE = (180, 240)


def rng_of(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def drawn() -> dict[str, list]:
    return {draw.__name__: [draw(rng_of(seed), SIZE) for seed in (1, 2, 3, 4)] for draw in KINDS}


@pytest.mark.parametrize("draw", KINDS)
def test_every_kind_of_sheet_has_corners_inside(draw, drawn) -> None:
    sheets = drawn[draw.__name__]
    assert sum(int(sheet.positive.sum()) for sheet in sheets) > 16
    for sheet in sheets:
        assert sheet.image.shape == SIZE and sheet.image.dtype == np.uint8
        assert ((sheet.corners_xy > 0) & (sheet.corners_xy < (239, 179))).all()
        assert len(sheet.positive) == len(sheet.clearance) == len(sheet.corners_xy)
        assert ((sheet.clearance > 1) & (sheet.clearance <= NEAR_PX)).all()


@pytest.mark.parametrize("draw", KINDS)
def test_a_sheet_repeats_with_its_seed(draw, drawn) -> None:
    again = draw(rng_of(2), SIZE)
    sheet = drawn[draw.__name__][1]
    assert np.array_equal(sheet.image, again.image)
    assert np.array_equal(sheet.corners_xy, again.corners_xy)
    assert np.array_equal(sheet.positive, again.positive)


@pytest.mark.parametrize("draw", KINDS)
def test_other_seeds_are_other_sheets(draw, drawn) -> None:
    images = {sheet.image.tobytes() for sheet in drawn[draw.__name__]}
    assert len(images) == 4


@pytest.mark.parametrize("draw", KINDS)
@pytest.mark.parametrize("size_hw", [(64, 200), (200, 64)])
def test_sheets_of_any_proportion_can_be_drawn(draw, size_hw) -> None:
    sheet = draw(rng_of(5), size_hw)
    assert sheet.image.shape == size_hw
    height, width = size_hw
    assert ((sheet.corners_xy > 0) & (sheet.corners_xy < (width - 1, height - 1))).all()


@pytest.mark.parametrize("draw", KINDS)
def test_most_positive_corners_are_visible_in_the_image(draw, drawn) -> None:
    contrasts = []
    for sheet in drawn[draw.__name__]:
        values = sheet.image.astype(np.float32) / 255
        contrasts.append(ring_contrast(values, sheet.corners_xy[sheet.positive].astype(float)))
    assert (np.concatenate(contrasts) > 0.06).mean() > 0.6


@pytest.mark.parametrize("draw", KINDS)
def test_corners_have_more_contrast_than_random_points(draw, drawn) -> None:
    at_corners, elsewhere = [], []
    for sheet in drawn[draw.__name__]:
        values = sheet.image.astype(np.float32) / 255
        at_corners.append(ring_contrast(values, sheet.corners_xy[sheet.positive].astype(float)))
        random_xy = rng_of(0).uniform((8, 8), (232, 172), (300, 2))
        elsewhere.append(ring_contrast(values, random_xy))
    assert np.mean(np.concatenate(at_corners)) > np.mean(np.concatenate(elsewhere))


def test_leaves_of_one_scene_have_all_sizes() -> None:
    sheet = leaves.leaves(rng_of(3), (240, 240))
    _, labels = cv2.connectedComponents((sheet.image == sheet.image[120, 120]).astype(np.uint8))
    assert labels.max() >= 1
    spectrum = np.abs(np.fft.rfft2(sheet.image - sheet.image.mean()))
    radius = np.hypot(np.fft.fftfreq(240)[:, None], np.fft.rfftfreq(240)[None])
    power = [spectrum[(radius > low) & (radius < 2 * low)].mean() for low in (0.02, 0.05, 0.12)]
    assert power[0] > power[1] > power[2]  # falls, as in photographs


def test_rows_of_repeats_resemble_one_another() -> None:
    best = []
    for seed in range(8):
        image = repeats.repeats(rng_of(seed), (240, 240)).image.astype(float)
        image -= image.mean()
        power = np.abs(np.fft.rfft2(image)) ** 2
        correlation = np.fft.irfft2(power, s=(240, 240))
        correlation /= correlation[0, 0]
        best.append(float(correlation[:20, 36:120].max()))  # a pitch to the right
    assert np.median(best) > 0.3


def test_there_are_two_to_four_kinds_of_classic_shapes() -> None:
    for seed in range(4):
        sheet = shapes.shapes(rng_of(seed), (240, 320))
        assert sheet.image.std() > 3


def maker_named(name: str):
    return next(maker for maker, _ in shapes.MAKERS if maker.__name__ == name)


def single(name: str, seed: int = 0, radius: float = 40) -> tuple:
    """A sheet with one classic shape in its middle, and the canvas' own grey."""
    rng = rng_of(seed)
    palette = Palette(rng, textures=1)
    canvas = Canvas((160, 160), 128)
    maker_named(name)(canvas, rng, np.array([80.3, 79.6]), radius, palette)
    return canvas.sheet()


def test_a_cube_has_seven_corners_unless_its_angles_are_flat() -> None:
    counts = []
    for seed in range(9):
        sheet = single("draw_cube", seed)
        positive = np.unique(np.round(sheet.corners_xy[sheet.positive], 3), axis=0)
        assert np.abs(positive - [80.3, 79.6]).max(axis=1).min() < 1e-3  # the middle is one
        counts.append(len(positive))
    assert max(counts) == np.median(counts) == 7


def test_an_ellipse_has_no_corner() -> None:
    for seed in range(6):
        assert not single("draw_ellipse", seed).positive.any()


def test_a_star_has_a_corner_in_its_middle() -> None:
    for seed in range(4):
        sheet = single("draw_star", seed)
        positive = sheet.corners_xy[sheet.positive]
        assert np.abs(positive - [80.3, 79.6]).max(axis=1).min() < 1e-3


def test_a_thin_line_has_one_corner_per_end_and_a_wide_one_two() -> None:
    counts = {len(single("draw_line", seed, radius=20).corners_xy) for seed in range(12)}
    assert counts <= {2, 4} and counts == {2, 4}


def test_a_chequerboard_has_positive_crossings_and_doubtful_rims() -> None:
    for seed in range(4):
        sheet = single("draw_chequerboard", seed)
        assert sheet.positive.sum() >= 4 + 4  # outer corners, and at least 2x2 inner crossings
        assert (~sheet.positive).sum() >= 8
        hull = cv2.convexHull(sheet.corners_xy[sheet.positive])
        inside = [
            cv2.pointPolygonTest(hull, (float(x), float(y)), True) > -1.0
            for x, y in sheet.corners_xy
        ]
        assert all(inside)


def test_ends_of_stripes_are_doubtful() -> None:
    for seed in range(4):
        sheet = single("draw_stripes", seed)
        assert sheet.positive.sum() <= 4
        assert (~sheet.positive).sum() >= 4


def test_a_classic_shape_outside_its_sheet_leaves_it_plain() -> None:
    rng = rng_of(0)
    palette = Palette(rng, textures=1)
    canvas = Canvas((60, 60), 128)
    maker_named("draw_polygon")(canvas, rng, np.array([900.0, 900.0]), 30, palette)
    assert (canvas.sheet().image == 128).all()
