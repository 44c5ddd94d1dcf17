"""Textures: their statistics, their exact edges and their corners."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest

from tiepoint.training.scenes import textures
from tiepoint.training.scenes.textures import Texture


def rng_of(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def refined(image: np.ndarray, xy: np.ndarray, window: int = 6) -> np.ndarray:
    """Where OpenCV's own sub-pixel search finds the corners, starting at the labels.

    It is itself up to 0.08 px off on crossings as sharp as px allow, hence the blur.
    """
    image = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 2.0)
    start = np.ascontiguousarray(xy.reshape(-1, 1, 2).astype(np.float32))
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_MAX_ITER, 100, 1e-4)
    return cv2.cornerSubPix(image, start, (window, window), (-1, -1), stop).reshape(-1, 2)


@pytest.mark.parametrize("maker", [maker for maker, _ in textures.MAKERS])
def test_every_texture_uses_its_square_and_repeats_with_its_seed(maker) -> None:
    drawn = maker(rng_of(7), 96)
    again = maker(rng_of(7), 96)
    assert drawn.image.shape == (96, 96) and drawn.image.dtype == np.uint8
    assert drawn.image.std() > 4
    assert np.array_equal(drawn.image, again.image)
    assert np.array_equal(drawn.corners_xy, again.corners_xy)
    assert ((drawn.corners_xy >= 0) & (drawn.corners_xy <= 95)).all()


@pytest.mark.parametrize("maker", [maker for maker, _ in textures.MAKERS])
def test_another_seed_is_another_texture(maker) -> None:
    assert not np.array_equal(maker(rng_of(1), 64).image, maker(rng_of(2), 64).image)


def test_a_random_texture_is_of_every_sort_in_time() -> None:
    rng = rng_of(0)
    drawn = [textures.texture(rng, 48) for _ in range(40)]
    with_corners = sum(len(each.corners_xy) > 0 for each in drawn)
    assert all(each.image.shape == (48, 48) for each in drawn)
    assert 2 <= with_corners <= 15  # checks and some bricks: up to .18 of them
    assert len({each.image.tobytes() for each in drawn}) == 40


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_noise_has_mean_zero_and_deviation_one(exponent: float) -> None:
    values = textures.noise(rng_of(4), 128, exponent)
    assert values.dtype == np.float32 and values.shape == (128, 128)
    assert float(values.mean()) == pytest.approx(0, abs=1e-5)
    assert float(values.std()) == pytest.approx(1, abs=1e-5)


def test_noise_is_periodic() -> None:
    values = textures.noise(rng_of(5), 128, 2.0)
    inside = np.abs(np.diff(values, axis=0)).mean()
    across = np.abs(values[0] - values[-1]).mean()
    assert across < 2 * inside


def test_a_larger_exponent_is_smoother() -> None:
    steps = [
        np.abs(np.diff(textures.noise(rng_of(6), 128, exponent), axis=1)).mean()
        for exponent in (0.5, 1.0, 1.5, 2.0)
    ]
    assert all(fine > coarse for fine, coarse in pairwise(steps))


def test_noise_without_an_exponent_draws_one() -> None:
    slopes = {round(float(np.abs(np.diff(textures.noise(rng_of(n), 64))).mean()), 3)
              for n in range(6)}  # fmt: skip
    assert len(slopes) == 6


def test_blotches_have_two_levels_and_little_between() -> None:
    between = []
    for seed in range(8):
        image = textures.blotches(rng_of(seed), 96).image.astype(float)
        low, high = np.quantile(image, [0.02, 0.98])
        middle = (image > low + 0.35 * (high - low)) & (image < low + 0.65 * (high - low))
        between.append(middle.mean())
    assert np.median(between) < 0.25  # a uniform image has .3


def test_a_single_wave_is_a_sine() -> None:
    for seed in range(40):
        image = textures.sinusoids(rng_of(seed), 128).image.astype(float)
        spectrum = np.abs(np.fft.fft2((image - image.mean()) * np.outer(*[np.hanning(128)] * 2)))
        strongest = np.sort(spectrum.ravel())[::-1]
        if (strongest[:60] ** 2).sum() > 0.97 * (strongest**2).sum():
            return
    pytest.fail("no texture of one to four waves among 40")


def test_stripes_vary_in_one_direction_only() -> None:
    for seed in range(6):
        image = textures.stripes(rng_of(seed), 128).image.astype(np.float32)
        dx, dy = cv2.Sobel(image, cv2.CV_32F, 1, 0), cv2.Sobel(image, cv2.CV_32F, 0, 1)
        tensor = np.array([[(dx * dx).sum(), (dx * dy).sum()], [(dx * dy).sum(), (dy * dy).sum()]])
        small, large = np.linalg.eigvalsh(tensor)
        assert small < 0.03 * large


def test_crossings_of_a_chequered_texture_are_at_their_labels() -> None:
    checked = 0
    for seed in range(5):
        drawn = textures.checks(rng_of(seed), 256)
        xy = drawn.corners_xy
        gaps = np.abs(xy[:, None] - xy).max(axis=2) + 1e9 * np.eye(len(xy))
        inner = ((xy > 16) & (xy < 239)).all(axis=1) & (gaps.min(axis=1) > 16)
        if inner.any():
            checked += 1
            assert np.abs(refined(drawn.image, xy[inner]) - xy[inner]).max() < 0.05
    assert checked >= 2


def test_a_chequered_texture_changes_at_each_line_of_its_corners() -> None:
    drawn = textures.checks(rng_of(11), 256)
    columns, rows = (np.unique(axis) for axis in drawn.corners_xy.T)
    assert len(drawn.corners_xy) == len(columns) * len(rows)
    x, y = np.meshgrid(np.arange(256), np.arange(256))
    odd = (np.searchsorted(columns, x) + np.searchsorted(rows, y)) % 2
    near_x = np.abs(x[..., None] - columns).min(axis=-1) <= 0.5
    near_y = np.abs(y[..., None] - rows).min(axis=-1) <= 0.5
    clear = ~near_x & ~near_y
    expected = np.where(odd == 0, drawn.image[0, 0], 255 - drawn.image[0, 0])
    assert np.array_equal(drawn.image[clear], expected[clear])
    assert set(np.unique(drawn.image[clear])) == {0, 255}


def test_a_px_that_an_edge_cuts_has_the_mean_over_it() -> None:
    drawn = textures.checks(rng_of(11), 256)
    column = float(np.unique(drawn.corners_xy[:, 0])[0])
    rows = np.unique(drawn.corners_xy[:, 1])
    y = round(float(rows[0] + rows[1]) / 2)
    cut = int(np.floor(column + 0.5))
    left, right = float(drawn.image[y, cut - 1]), float(drawn.image[y, cut + 1])
    share = column + 0.5 - cut  # of this px before the edge
    assert drawn.image[y, cut] == pytest.approx(share * left + (1 - share) * right, abs=1)


def test_bricks_with_wide_joints_have_four_corners_each() -> None:
    seen = {True: 0, False: 0}
    for seed in range(30):
        drawn = textures.bricks(rng_of(seed), 256)
        has_corners = len(drawn.corners_xy) > 0
        seen[has_corners] += 1
        if has_corners:
            assert ((drawn.corners_xy > 1) & (drawn.corners_xy < 254)).all()
            gaps = np.abs(drawn.corners_xy[:, None] - drawn.corners_xy).max(axis=2)
            assert (gaps + 1e9 * np.eye(len(gaps))).min() >= 4.9  # a joint apart
    assert seen[True] > 3 and seen[False] > 3


def test_corners_of_bricks_are_where_the_grey_changes() -> None:
    for seed in range(30):
        drawn = textures.bricks(rng_of(seed), 256)
        for x, y in np.rint(drawn.corners_xy).astype(int)[:20]:
            part = drawn.image[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3].astype(int)
            mortar = np.median(part)
            assert (np.abs(part - mortar) <= 2).mean() >= 0.5  # three of four quarters


def test_voronoi_cells_have_few_greys_without_shading() -> None:
    counts = []
    for seed in range(8):
        image = textures.voronoi(rng_of(seed), 96).image
        inner = image == np.asarray(cv2.erode(image, np.ones((3, 3))))
        counts.append(inner.mean())
    assert max(counts) > 0.5  # flat cells
    assert min(counts) < 0.5  # shaded ones


def test_a_gradient_has_no_edges() -> None:
    for seed in range(8):
        image = textures.gradient(rng_of(seed), 96).image.astype(int)
        assert np.abs(np.diff(image, axis=0)).max() <= 8
        assert image.min() == 0 and image.max() == 255


def test_mirrored_corners_are_those_of_the_reflected_image() -> None:
    side = 24
    xy = np.array([[3.25, 7.5], [20.0, 1.75]], np.float32)
    mirrored = Texture(np.zeros((side, side), np.uint8), xy).mirrored_xy
    assert mirrored.shape == (18, 2) and mirrored.dtype == np.float32
    # cv2.BORDER_REFLECT repeats the outermost px, so x = -1 shows x = 0.
    slow = {
        (mx, my)
        for x, y in xy.tolist()
        for mx in (x, -1 - x, 2 * side - 1 - x)
        for my in (y, -1 - y, 2 * side - 1 - y)
    }
    assert {tuple(point) for point in mirrored.tolist()} == slow


def test_a_reflected_px_has_its_mirrored_corner() -> None:
    image = np.zeros((16, 16), np.uint8)
    image[5, 3] = 255
    texture = Texture(image, np.array([[3.0, 5.0]], np.float32))
    large = cv2.copyMakeBorder(image, 16, 16, 16, 16, cv2.BORDER_REFLECT)
    rows, columns = np.nonzero(large)
    shown = {(float(x) - 16, float(y) - 16) for x, y in zip(columns, rows, strict=True)}
    assert {tuple(point) for point in texture.mirrored_xy.tolist()} == shown


def test_a_texture_without_corners_has_no_mirrored_ones() -> None:
    assert Texture(np.zeros((8, 8), np.uint8), textures.NO_CORNERS).mirrored_xy.shape == (0, 2)
