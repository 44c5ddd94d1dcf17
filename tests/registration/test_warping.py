"""Warping: the right place to a fraction of a pixel, the type kept, and pictures for the eye."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tiepoint
from support.registered import MATRICES, carried, matched
from tiepoint.errors import ConfigError, FormatError, RegistrationError
from tiepoint.features import Features, Matches
from tiepoint.geometry import apply_homography
from tiepoint.images.encoding import write_picture
from tiepoint.registration import warping
from tiepoint.registration.register import register
from tiepoint.registration.result import Registration

TYPES = (np.uint8, np.uint16, np.int16, np.int32, np.float32, np.float64, np.bool_)


def known(
    matrix: Any, a_hw: tuple[int, int], b_hw: tuple[int, int], model: str = "homography"
) -> Registration:
    """A registration of images of these sizes, without images."""
    none = np.empty((0, 2), np.float32), np.empty(0, np.float32)
    a, b = (Features(*none, None, size) for size in (a_hw, b_hw))
    nothing = Matches(np.empty((0, 2), np.int64), np.empty(0, np.float32))
    matrix = np.asarray(matrix, np.float64)
    return Registration(True, "ok", model, matrix, a, b, nothing, np.zeros(0, bool))


def ramp(size_hw: tuple[int, int]) -> NDArray[np.float64]:
    """H W 2: every pixel holds its own x and y."""
    y, x = np.mgrid[: size_hw[0], : size_hw[1]]
    return np.stack([x, y], axis=2).astype(np.float64)


def slow_warp(
    image: NDArray[Any], matrix: NDArray[np.float64], b_hw: tuple[int, int]
) -> NDArray[np.float64]:
    """Bilinear, pixel by pixel; NaN where A shows nothing."""
    height, width = image.shape[:2]
    out = np.full((*b_hw, *image.shape[2:]), np.nan)
    back = np.linalg.inv(matrix)
    for row in range(b_hw[0]):
        for column in range(b_hw[1]):
            x, y = apply_homography(back, [[column, row]])[0]
            if not (-0.5 < x < width - 0.5 and -0.5 < y < height - 0.5):
                continue
            x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
            left, top = int(x), int(y)
            right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
            p, q = x - left, y - top
            upper = (1 - p) * image[top, left] + p * image[top, right]
            lower = (1 - p) * image[bottom, left] + p * image[bottom, right]
            out[row, column] = (1 - q) * upper + q * lower
    return out


@pytest.mark.parametrize("name", sorted(MATRICES))
def test_warping_equals_the_slow_twin(name: str) -> None:
    shrink = np.diag([0.1, 0.1, 1])
    matrix = shrink @ MATRICES[name] @ np.linalg.inv(shrink)
    image = np.random.default_rng(0).uniform(0, 1, (48, 64, 3)).astype(np.float32)
    found = tiepoint.warp(image, known(matrix, (48, 64), (50, 60)), fill=-1)
    expected = slow_warp(image, matrix, (50, 60))
    shown = ~np.isnan(expected).any(axis=2)
    covered = (found != -1).all(axis=2)
    assert (shown != covered).mean() < 0.002  # on the outline itself rounding decides
    both = shown & covered
    # OpenCV takes places to 1/32 px: neighbours differ by up to 1, in two directions.
    np.testing.assert_allclose(found[both], expected[both], atol=2 / 64 + 1e-3)


def test_half_a_pixel_is_half_a_pixel() -> None:
    """A ramp shows where each pixel came from."""
    matrix = np.array([[1, 0, 3.5], [0, 1, -2.25], [0, 0, 1]])
    found = tiepoint.warp(ramp((40, 60)), known(matrix, (40, 60), (40, 60)), fill=np.nan)
    np.testing.assert_allclose(found[20, 30], [26.5, 22.25], atol=1e-4)
    assert np.isnan(found[:, :3]).all() and not np.isnan(found[:30, 4:]).any()


def test_enlarging_twice_puts_edges_where_they_belong() -> None:
    double = np.array([[2, 0, 0.5], [0, 2, 0.5], [0, 0, 1]])  # x -> (x + 0.5) 2 - 0.5
    found = tiepoint.warp(ramp((10, 10)), known(double, (10, 10), (20, 20)), fill=np.nan)
    assert not np.isnan(found).any()
    np.testing.assert_allclose(found[5, 6], [2.75, 2.25], atol=1e-6)


@pytest.mark.parametrize("channels", [None, 1, 3, 4, 7])
@pytest.mark.parametrize("dtype", TYPES)
def test_type_range_and_channels_are_kept(dtype: type, channels: int | None) -> None:
    shape = (20, 30) if channels is None else (20, 30, channels)
    kind = np.dtype(dtype).kind
    full = np.iinfo(dtype).max if kind in "iu" else 1 if kind == "b" else 1234.5
    image = np.full(shape, full, dtype)
    image[:, :15] = 0
    half = np.array([[1, 0, 0.0], [0, 1, 0], [0, 0, 1]])
    found = tiepoint.warp(image, known(half, (20, 30), (20, 30)))
    assert found.dtype == dtype and found.shape == shape
    np.testing.assert_array_equal(found, image)
    moved = known([[1, 0, 7], [0, 1, 0], [0, 0, 1]], (20, 30), (20, 30))
    np.testing.assert_array_equal(tiepoint.warp(image, moved)[:, 7:], image[:, :-7])


def test_what_gets_smaller_is_averaged_and_not_sampled() -> None:
    stripes = np.zeros((240, 320), np.float32)
    stripes[:, ::2] = 1
    small = np.array([[1 / 8, 0, -7 / 16], [0, 1 / 8, -7 / 16], [0, 0, 1]])
    found = tiepoint.warp(stripes, known(small, (240, 320), (30, 40)))
    np.testing.assert_allclose(found, 0.5, atol=0.02)
    place = tiepoint.warp(ramp((240, 320)), known(small, (240, 320), (30, 40)))
    np.testing.assert_allclose(place[10, 20], [(20 + 0.5) * 8 - 0.5, (10 + 0.5) * 8 - 0.5])


def test_a_canvas_for_both_holds_both() -> None:
    a, b = np.full((40, 50), 100, np.uint8), np.full((30, 60), 200, np.uint8)
    result = known([[1, 0, -20], [0, 1, 10], [0, 0, 1]], (40, 50), (30, 60))
    area = warping.canvas_of(result, "both")
    assert area == warping.Canvas((50, 80), (20, 0))
    warped = tiepoint.warp(a, result, canvas="both", fill=7)
    assert (warped[10:, :50] == 100).all()
    assert (warped[:10] == 7).all() and (warped[:, 50:] == 7).all()
    both = warping.blend(a, b, result, fill=7)
    assert (both[:10, 20:] == 200).all() and (both[30:, :50] == 100).all()
    middle = both[10:30, 20:50]
    assert middle.min() >= 100 and middle.max() <= 200 and len(np.unique(middle)) > 5
    assert (both[:10, :20] == 7).all()


def test_the_blend_of_an_image_with_itself_is_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 65536, (30, 40, 3)).astype(np.uint16)
    np.testing.assert_array_equal(
        warping.blend(image, image, known(np.eye(3), (30, 40), (30, 40))), image
    )


def test_a_blend_wants_one_type() -> None:
    result = known(np.eye(3), (30, 40), (30, 40))
    grey, colour = np.zeros((30, 40), np.uint8), np.zeros((30, 40, 3), np.uint16)
    with pytest.raises(ConfigError, match="uint8 of 1 channels and image B uint16 of 3"):
        warping.blend(grey, colour, result)
    a, b = warping.alike(grey + 255, colour)
    assert a.dtype == b.dtype == np.uint16 and a.shape == b.shape and a.max() == 65535
    warping.blend(a, b, result)


def test_squares_are_of_a_and_b_in_turn_and_colour_shows_what_does_not_line_up() -> None:
    a, b = np.full((80, 80, 3), 50, np.uint8), np.full((80, 80, 3), 150, np.uint8)
    board = warping.checkerboard(a, b, known(np.eye(3), (80, 80), (80, 80)))
    assert (board[:10, :10] == 150).all() and (board[:10, 10:20] == 50).all()
    image = np.random.default_rng(0).integers(0, 256, (80, 80), dtype=np.uint8)
    aligned = warping.overlay(image, image, known(np.eye(3), (80, 80), (80, 80)))
    assert (np.ptp(aligned.astype(int), axis=2) <= 1).all()
    by_three = known([[1, 0, 3], [0, 1, 0], [0, 0, 1]], (80, 80), (80, 80))
    shifted = warping.overlay(image, image, by_three)
    assert np.ptp(shifted.astype(int), axis=2).mean() > 20


def test_a_huge_canvas_is_refused_before_it_is_made() -> None:
    far = known([[1, 0, 1e6], [0, 1, 0], [0, 0, 1]], (40, 50), (30, 60))
    with pytest.raises(ConfigError, match="1000050x40 px"):
        warping.warp(np.zeros((40, 50), np.uint8), far, canvas="both")
    with pytest.raises(ConfigError, match="at most 100 px"):
        warping.canvas_of(known(np.eye(3), (40, 50), (40, 50)), "both", max_pixels=100)
    assert not tiepoint.warp(np.ones((40, 50), np.uint8), far).any()


def test_what_does_not_fit_is_refused() -> None:
    result = known(np.eye(3), (40, 50), (40, 50))
    with pytest.raises(ConfigError, match="50x41 px"):
        tiepoint.warp(np.zeros((41, 50)), result)
    with pytest.raises(ConfigError, match="'c', expected"):
        tiepoint.warp(np.zeros((40, 50)), result, canvas="c")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="expected numbers"):
        tiepoint.warp(np.zeros((40, 50), complex), result)
    lines = known(np.eye(3), (40, 50), (40, 50), "fundamental")
    with pytest.raises(RegistrationError, match="a line for each point"):
        tiepoint.warp(np.zeros((40, 50)), lines)


@pytest.mark.parametrize(
    ("dtype", "fill"),
    [(np.uint8, 256), (np.uint8, -1), (np.uint8, 1.5), (np.int16, np.nan), (bool, 2), (float, "0")],
)
def test_a_fill_that_pixels_do_not_hold_is_refused(dtype: type, fill: float) -> None:
    result, image = known(np.eye(3), (40, 50), (40, 50)), np.zeros((40, 50), dtype)
    for call in (partial(tiepoint.warp, image), partial(warping.blend, image, image)):
        with pytest.raises(ConfigError, match="fill is .* do not hold"):
            call(result, fill=fill)
        assert call(result, fill=1).dtype == dtype


def test_nothing_is_drawn_of_images_that_were_not_registered() -> None:
    features_a, features_b, matches = matched(*carried(np.eye(3), 3))
    refused = register(features_a, features_b, matches=matches)
    image = np.zeros((480, 640), np.uint8)
    for draw in (
        lambda: tiepoint.warp(image, refused),
        lambda: warping.blend(image, image, refused),
        lambda: warping.checkerboard(image, image, refused),
        lambda: warping.overlay(image, image, refused),
    ):
        with pytest.raises(RegistrationError, match="not registered: 3 matches"):
            draw()


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("a.png", np.uint8), ("a.png", np.uint16), ("a.tif", np.uint16), ("a.tif", np.float32)],
)
def test_pictures_come_back_as_they_were_written(tmp_path: Path, name: str, dtype: type) -> None:
    from tiepoint.images.reading import read

    picture = (np.random.default_rng(0).uniform(0, 1, (9, 12, 3)) * 255).astype(dtype)
    if dtype is np.float32:
        picture /= 255
    write_picture(tmp_path / name, picture)
    np.testing.assert_array_equal(read(tmp_path / name).pixels, picture)


def test_a_picture_that_its_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"write a \.tif"):
        write_picture(tmp_path / "a.png", np.zeros((9, 9), np.float32))
    with pytest.raises(FormatError, match="the ending picks"):
        write_picture(tmp_path / "a.gif", np.zeros((9, 9), np.uint8))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", sorted(MATRICES))
def test_the_mask_is_where_the_inverse_finds_the_image(name: str) -> None:
    """Slow twin: the centre of every pixel of B, mapped back, is inside A."""
    shrink = np.diag([0.1, 0.1, 1])
    result = known(shrink @ MATRICES[name] @ np.linalg.inv(shrink), (48, 64), (50, 60))
    mask = warping.covered(result, warping.canvas_of(result))
    y, x = np.mgrid[:50, :60]
    back = result.inverse(np.stack([x.ravel(), y.ravel()], axis=1))
    distance = np.minimum(back + 0.5, np.array([64, 48]) - 0.5 - back).min(axis=1)
    clear = (np.abs(distance) > 0.02).reshape(50, 60)  # on the outline round-off decides
    np.testing.assert_array_equal(mask[clear], (distance > 0).reshape(50, 60)[clear])


@pytest.mark.parametrize("seed", range(6))
def test_a_canvas_for_both_contains_both_and_is_no_larger(seed: int) -> None:
    rng = np.random.default_rng(seed)
    angle, zoom = rng.uniform(-3, 3), rng.uniform(0.5, 2)
    c, s = zoom * np.cos(angle), zoom * np.sin(angle)
    x, y = rng.uniform(-60, 60, 2)
    result = known([[c, -s, x], [s, c, y], [0, 0, 1]], (40, 50), (30, 60), "similarity")
    area = warping.canvas_of(result, "both")
    a_edges = result.transform([[-0.5, -0.5], [49.5, -0.5], [49.5, 39.5], [-0.5, 39.5]])
    b_edges = np.array([[-0.5, -0.5], [59.5, 29.5]])
    edges = np.concatenate([a_edges, b_edges]) + area.offset_xy
    low, high = edges.min(axis=0) + 0.5, edges.max(axis=0) + 0.5
    assert (low > -0.01).all() and (low < 1).all()
    width, height = area.size_hw[::-1]
    assert (high < (width + 0.01, height + 0.01)).all()
    assert (high > (width - 1, height - 1)).all()


def slow_blend(
    a: NDArray[Any], b: NDArray[Any], x: int, y: int, size_hw: tuple[int, int]
) -> NDArray[np.float64]:
    """A of an identity, B shifted by whole px: weights by the distance to the outlines."""
    import cv2

    def distances(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        padded = np.pad(mask.astype(np.uint8), 1)
        return cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1]

    in_a, in_b = np.zeros(size_hw, bool), np.zeros(size_hw, bool)
    in_a[: a.shape[0], : a.shape[1]] = True
    in_b[y : y + b.shape[0], x : x + b.shape[1]] = True
    inset_a, inset_b = distances(in_a), distances(in_b)
    out = np.zeros(size_hw)
    for row in range(size_hw[0]):
        for column in range(size_hw[1]):
            weight_a, weight_b = inset_a[row, column], inset_b[row, column]
            if weight_a + weight_b == 0:
                continue
            total = 0.0
            if in_a[row, column]:
                total += weight_a * a[row, column]
            if in_b[row, column]:
                total += weight_b * b[row - y, column - x]
            out[row, column] = total / (weight_a + weight_b)
    return out


def test_the_blend_equals_the_slow_twin() -> None:
    """Each pixel is the mean of both, weighted by its distance from either outline."""
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0, 1, (20, 24)), rng.uniform(0, 1, (18, 26))
    result = known([[1, 0, -9], [0, 1, -6], [0, 0, 1]], (20, 24), (18, 26))
    blended = warping.blend(a, b, result)
    assert blended.shape == (24, 35) and blended.dtype == np.float64
    np.testing.assert_allclose(blended, slow_blend(a, b, 9, 6, (24, 35)), atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("dtype", [np.uint8, np.bool_, np.float32])
def test_a_blend_keeps_type_and_channels(dtype: type, channels: int) -> None:
    image = (np.random.default_rng(0).uniform(0, 2, (12, 16, channels))).astype(dtype)
    result = known([[1, 0, 4], [0, 1, 0], [0, 0, 1]], (12, 16), (12, 16))
    blended = warping.blend(image, image, result)
    assert blended.dtype == dtype and blended.shape == (12, 20, channels)
    np.testing.assert_array_equal(blended[:, 16:], image[:, 12:])  # A alone
    np.testing.assert_array_equal(blended[:, :4], image[:, :4])  # B alone


def test_a_blend_on_the_area_of_b_keeps_b_where_a_is_not() -> None:
    a, b = np.full((20, 20), 10.0), np.full((20, 20), 30.0)
    result = known([[1, 0, 10], [0, 1, 0], [0, 0, 1]], (20, 20), (20, 20))
    blended = warping.blend(a, b, result, canvas="b")
    assert blended.shape == (20, 20)
    assert (blended[:, :10] == 30).all()
    assert (np.diff(blended[10, 10:]) <= 0).all() and blended[10, -1] <= 20 < blended[10, 10] < 30


def test_the_squares_are_a_where_a_is_and_b_elsewhere() -> None:
    """Slow twin: an eighth of the longer side per square, A in the odd ones."""
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 256, (60, 100, 3), dtype=np.uint8) for _ in range(2))
    result = known([[1, 0, 30], [0, 1, 0], [0, 0, 1]], (60, 100), (60, 100))
    board = warping.checkerboard(a, b, result)
    for row in range(0, 60, 7):
        for column in range(0, 100, 3):
            odd = (row // 13 + column // 13) % 2 == 1
            from_a = odd and column >= 30
            expected = a[row, column - 30] if from_a else b[row, column]
            np.testing.assert_array_equal(board[row, column], expected)


def test_the_overlay_brings_a_to_the_brightness_of_b() -> None:
    """The same scene, darker and with less contrast, is grey again."""
    image = np.random.default_rng(0).integers(0, 256, (50, 60), dtype=np.uint8)
    darker = (image * 0.4 + 20).astype(np.uint8)
    drawn = warping.overlay(darker, image, known(np.eye(3), (50, 60), (50, 60))).astype(int)
    assert np.abs(drawn[..., 0] - drawn[..., 1]).mean() < 3
    np.testing.assert_array_equal(drawn[..., 1], image)
    np.testing.assert_array_equal(drawn[..., 2], image)


def test_the_overlay_outside_a_and_of_one_level_is_grey() -> None:
    image, flat = np.arange(60, dtype=np.uint8).reshape(1, 60).repeat(50, 0), np.full((50, 60), 9)
    away = known([[1, 0, 500], [0, 1, 0], [0, 0, 1]], (50, 60), (50, 60))
    assert np.ptp(warping.overlay(image, image, away).astype(int), axis=2).max() == 0
    drawn = warping.overlay(flat.astype(np.uint8), image, known(np.eye(3), (50, 60), (50, 60)))
    assert (drawn[..., 0] == np.rint(image.mean())).all()


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_pictures_for_the_eye_are_eight_bits_whatever_the_images_are(dtype: type) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    deep = levels.astype(np.uint16) * 257 if dtype is np.uint16 else levels.astype(dtype) / 255
    result = known(np.eye(3), (40, 40), (40, 40))
    for draw in (warping.checkerboard, warping.overlay):
        np.testing.assert_array_equal(draw(deep, deep, result), draw(levels, levels, result))


def test_enlarging_an_image_averages_nothing() -> None:
    """Nearest values stay: the reduction is for shrinking only."""
    image = np.zeros((8, 8), np.float32)
    image[3, 4] = 1
    triple = known([[3, 0, 1], [0, 3, 1], [0, 0, 1]], (8, 8), (24, 24))  # (x + 0.5) 3 - 0.5
    found = tiepoint.warp(image, triple)
    assert found[10, 13] == pytest.approx(1, abs=1e-6) and found.max() == found[10, 13]


def test_an_image_that_shrinks_in_one_direction_only_is_not_averaged() -> None:
    """The factor is the smaller of both: blur along the other direction would be loss."""
    image = ramp((64, 64))
    squeeze = known([[0.25, 0, -0.375], [0, 1, 0], [0, 0, 1]], (64, 64), (64, 16))
    found = tiepoint.warp(image, squeeze)
    np.testing.assert_allclose(found[20, 5], [(5 + 0.5) * 4 - 0.5, 20], atol=0.02)


def test_images_with_a_side_beyond_opencvs_limit_are_refused() -> None:
    wide = np.zeros((2, 40_000), np.uint8)
    result = known(np.eye(3), (2, 40_000), (2, 100))
    with pytest.raises(ConfigError, match="40000x2 px, expected at most 32766 px a side"):
        tiepoint.warp(wide, result)
    with pytest.raises(ConfigError, match="downscale it first"):
        warping.canvas_of(result)
