"""Greys and textures of one scene."""

from __future__ import annotations

import numpy as np
import pytest

from tiepoint.training.scenes.canvas import Fill
from tiepoint.training.scenes.palette import TEXTURED_FROM_PX, Palette, middle_xy, radii


def palette(seed: int = 0, textures: int = 2) -> Palette:
    return Palette(np.random.default_rng(seed), textures)


def test_a_palette_has_as_many_textures_as_asked() -> None:
    assert len(palette(textures=3).textures) == 3
    assert [texture.image.shape for texture in palette(textures=1).textures] == [(256, 256)]


def test_greys_are_whole_numbers_of_a_narrow_range_per_scene() -> None:
    deviations, means = [], []
    for seed in range(12):
        one = palette(seed, textures=1)
        greys = [one.grey() for _ in range(150)]
        assert all(isinstance(grey, int) and 0 <= grey <= 255 for grey in greys)
        deviations.append(np.std(greys))
        means.append(np.mean(greys))
    assert np.std(means) > 15  # scenes differ
    assert min(deviations) > 10 and max(deviations) < 105


def test_a_small_shape_has_a_plain_grey() -> None:
    one = palette()
    assert all(isinstance(one.fill(TEXTURED_FROM_PX - 0.1, (0, 0)), int) for _ in range(60))


def test_large_shapes_have_textures_and_greys() -> None:
    shares = []
    for seed in range(10):
        one = palette(seed)
        shares.append(np.mean([isinstance(one.fill(50, (0, 0)), Fill) for _ in range(60)]))
    assert 0.4 < np.mean(shares) < 0.85
    assert min(shares) > 0.1


def test_the_middle_of_a_texture_is_at_the_centre_of_its_shape() -> None:
    one = palette()
    for centre in ((0.0, 0.0), (31.5, -7.25)):
        fill = one.textured(one.textures[0], centre)
        middle = np.full(2, (256 - 1) / 2)
        assert fill.matrix[:, :2] @ middle + fill.matrix[:, 2] == pytest.approx(np.array(centre))


def test_a_texture_is_turned_and_scaled_but_not_sheared() -> None:
    one = palette()
    scales, angles = [], []
    for _ in range(60):
        linear = one.textured(one.textures[0], (0, 0)).matrix[:, :2]
        scale = np.sqrt(np.linalg.det(linear))
        assert linear @ linear.T == pytest.approx(scale**2 * np.eye(2))
        scales.append(scale)
        angles.append(np.arctan2(linear[1, 0], linear[0, 0]))
    assert min(scales) >= np.exp(-0.4) and max(scales) <= np.exp(0.7)
    assert np.ptp(angles) > 4


def test_greys_of_a_texture_rise_or_fall() -> None:
    one, signs = palette(), set()
    for _ in range(40):
        greys = one.textured(one.textures[0], (0, 0)).greys.astype(int)
        assert greys.shape == (256,)
        steps = np.diff(greys)
        assert (steps >= 0).all() or (steps <= 0).all()
        signs.add(int(np.sign(greys[-1] - greys[0])))
    assert {-1, 1} <= signs


def test_a_canvas_has_the_asked_size_and_a_material() -> None:
    kinds = set()
    for seed in range(8):
        sheet = palette(seed, textures=1).canvas((40, 60)).sheet()
        assert sheet.image.shape == (40, 60)
        kinds.add(bool(sheet.image.std() > 0))
    assert kinds == {True, False}


def test_the_middle_of_a_sheet_is_x_then_y() -> None:
    assert middle_xy((40, 60)) == (30.0, 20.0)


def test_radii_fall_with_the_third_power() -> None:
    drawn = radii(np.random.default_rng(0), 200_000, 5, 200)
    assert drawn.min() >= 5 and drawn.max() <= 200
    beyond = [(drawn > r).mean() for r in (10, 20, 40)]  # the integral falls with the square
    assert beyond == pytest.approx([1 / 4, 1 / 16, 1 / 64], rel=0.06)


def test_no_radii_and_equal_limits() -> None:
    assert radii(np.random.default_rng(0), 0, 5, 200).shape == (0,)
    assert radii(np.random.default_rng(0), 3, 5, 5) == pytest.approx([5.0, 5, 5])
