"""What two pictures show: alike around keypoints, residual energies of rivals, JPEG's blocks."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from support.situations import blank, jpeg, shift, view
from tiepoint.geometry import apply_homography, inside
from tiepoint.images.reading import SourceImage, read
from tiepoint.registration import appearance
from tiepoint.registration.appearance import (
    WINDOW_PX,
    Picture,
    block_share,
    picture_of,
    residual_energies,
    share_alike,
    share_of_matches_alike,
)

Photos = list[NDArray[np.uint8]]


def picture(image: NDArray[np.generic]) -> Picture:
    return picture_of(SourceImage(np.ascontiguousarray(image), "array"))


def everywhere(size_hw: tuple[int, int]) -> NDArray[np.float64]:
    """N 2: a grid of places, px."""
    x, y = np.meshgrid(range(0, size_hw[1], 15), range(0, size_hw[0], 15))
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(float)


def test_a_picture_keeps_small_images_and_reduces_large_ones(photographs: Photos) -> None:
    small = picture(view(photographs[0]))
    np.testing.assert_allclose(small.grey, view(photographs[0]), atol=1e-4)
    np.testing.assert_array_equal(small.to_picture, np.eye(3))
    large = picture(photographs[2])
    assert max(large.grey.shape) == appearance.SIDE_PX
    scale = appearance.SIDE_PX / max(photographs[2].shape)
    assert large.to_picture[0, 0] == pytest.approx(scale, rel=0.01)


def test_views_that_are_superposed_right_are_alike_and_wrong_ones_are_not(
    photographs: Photos,
) -> None:
    for photo in photographs:
        a, b = picture(view(photo)), picture(view(photo, 30, 18))
        xy = everywhere(view(photo).shape)
        assert share_alike(a, b, shift(-30, -18), xy, xy) > 0.7
        assert share_alike(a, b, shift(-80, 40), xy, xy) < 0.5


def test_unrelated_photographs_are_not_alike(photographs: Photos) -> None:
    a, b = (picture(view(photographs[i])) for i in (0, 2))
    xy = everywhere(view(photographs[0]).shape)
    assert share_alike(a, b, np.eye(3), xy, xy) < 0.25


def test_noise_is_not_alike() -> None:
    a, b = (picture(blank(100, 5, seed)) for seed in (1, 2))
    xy = everywhere(a.grey.shape)
    assert share_alike(a, b, np.eye(3), xy, xy) < 0.05


def test_light_and_contrast_do_not_matter(photographs: Photos) -> None:
    image = view(photographs[2])
    a, b = picture(image), picture((image * 0.4 + 100).astype(np.uint8))
    xy = everywhere(image.shape)
    assert share_alike(a, b, np.eye(3), xy, xy) > 0.9
    assert residual_energies(a, b, [np.eye(3)])[0] < 0.05


def test_keypoints_outside_the_common_view_do_not_count(photographs: Photos) -> None:
    a = picture(view(photographs[2]))
    far = np.array([[-500.0, 20], [9000, 20], [np.nan, 3]])
    assert share_alike(a, a, np.eye(3), far, far) == 1.0


def test_the_correlation_equals_the_slow_twin() -> None:
    rng = np.random.default_rng(0)
    fixed = rng.uniform(0, 255, (40, 50)).astype(np.float32)
    warped = (0.5 * fixed + rng.normal(0, 30, fixed.shape)).astype(np.float32)
    inside = np.ones(fixed.shape, bool)
    inside[:, 35:] = False
    places = ((20, 20), (3, 4), (39, 30), (15, 40), (20, 49), (0, 0))
    rows, columns = np.array(places).T
    found = appearance._correlation(fixed, warped, inside, columns, rows)
    half = WINDOW_PX // 2
    for (y, x), value in zip(places, found, strict=True):
        rows, columns = (slice(max(0, c - half), c + half + 1) for c in (y, x))
        known = inside[rows, columns]
        if known.sum() < 0.3 * WINDOW_PX**2:
            assert np.isnan(value)
            continue
        f, w = (np.float64(image[rows, columns][known]) for image in (fixed, warped))
        expected = np.cov(f, w, bias=True)
        scale = np.sqrt((expected[0, 0] + 1) * (expected[1, 1] + 1))
        assert value == pytest.approx(expected[0, 1] / scale, abs=1e-5)


def test_the_true_model_leaves_least_energy(photographs: Photos) -> None:
    for photo in photographs:
        a, b = picture(view(photo)), picture(view(photo, 30, 18))
        energies = residual_energies(a, b, [shift(-30, -18), shift(-22, -18), shift(-30, 14)])
        assert energies is not None
        assert energies[0] < 0.02 and (energies[1:] > 5 * energies[0]).all()


def test_models_without_a_common_view_are_not_compared(photographs: Photos) -> None:
    a = picture(view(photographs[2]))
    assert residual_energies(a, a, [np.eye(3), shift(5000, 0)]) is None


@pytest.mark.parametrize("zoom", [0.3, 3.3])
def test_pictures_of_different_scale_are_compared_at_the_coarser_one(
    zoom: float, photographs: Photos
) -> None:
    import cv2

    image = view(photographs[2])
    small = cv2.resize(image, None, fx=0.3, fy=0.3, interpolation=cv2.INTER_AREA)
    scale = small.shape[1] / image.shape[1]
    matrix = np.array([[scale, 0, (scale - 1) / 2], [0, scale, (scale - 1) / 2], [0, 0, 1.0]])
    a, b = picture(image), picture(small)
    if zoom > 1:
        a, b, matrix = b, a, np.linalg.inv(matrix)
    xy_a, xy_b = (everywhere(p.grey.shape) for p in (a, b))
    assert share_alike(a, b, matrix, xy_a, xy_b) > 0.95


@pytest.mark.parametrize("zoom", [0.4, 1, 2.5])
@pytest.mark.parametrize("turn_deg", [0, 90, 200])
def test_matches_of_a_turned_and_zoomed_view_are_alike_and_wrong_ones_are_not(
    turn_deg: float, zoom: float, photographs: Photos
) -> None:
    import cv2

    image = view(photographs[2])
    height, width = image.shape[:2]
    about = cv2.getRotationMatrix2D((width / 2, height / 2), turn_deg, zoom)
    matrix = np.vstack([about, [0, 0, 1]])
    matrix[:2, 2] += (0.7 * width, 0.7 * width)
    side = (3 * width, 3 * width)
    turned = cv2.warpPerspective(image, matrix, side, flags=cv2.INTER_AREA)
    a, b = picture(image), picture(turned)
    xy = everywhere((height, width))
    xy = xy[inside(xy - 40, (height - 80, width - 80))]
    there = apply_homography(matrix, xy)
    assert share_of_matches_alike(a, b, matrix, xy, there) > 0.9
    assert share_of_matches_alike(b, a, np.linalg.inv(matrix), there, xy) > 0.9
    others = np.random.default_rng(0).permutation(there)
    assert share_of_matches_alike(a, b, matrix, xy, others) < 0.2


def test_matches_of_noise_are_not_alike() -> None:
    a, b = (picture(blank(100, 20, seed)) for seed in (1, 2))
    xy = everywhere(a.grey.shape)
    assert share_of_matches_alike(a, b, np.eye(3), xy, xy) < 0.1


def test_the_share_of_matches_equals_the_slow_twin(photographs: Photos) -> None:
    a, b = (picture(view(photographs[2], *moved)) for moved in ((0, 0), (30, 18)))
    rng = np.random.default_rng(0)
    xy_a = rng.integers(20, 200, (60, 2)).astype(float)
    xy_b = xy_a - (30, 18) + rng.integers(-6, 7, (60, 2))
    frame = appearance._frame(a, b, np.eye(3), shading=False)
    half, alike = WINDOW_PX // 2, 0
    for one, other in zip(xy_a, xy_b, strict=True):
        windows = [
            np.pad(picture, half + 50, mode="edge")[
                int(y) + 50 : int(y) + 51 + 2 * half, int(x) + 50 : int(x) + 51 + 2 * half
            ].astype(np.float64)
            for picture, (x, y) in ((frame.moving, one), (frame.fixed, other))
        ]
        expected = np.cov(windows[0].ravel(), windows[1].ravel(), bias=True)
        scale = np.sqrt((expected[0, 0] + 1) * (expected[1, 1] + 1))
        alike += expected[0, 1] / scale > appearance.ALIKE
    assert 10 < alike < 50
    found = share_of_matches_alike(a, b, np.eye(3), xy_a, xy_b)
    assert found == pytest.approx(alike / 60)


def test_the_blocks_of_heavy_compression_are_seen(photographs: Photos) -> None:
    for photo in photographs:
        image = view(photo)
        shares = [block_share(x.astype(np.float32)) for x in (jpeg(image, 4), jpeg(image, 80))]
        assert shares[0] > 0.1 > 0.03 > shares[1]


def test_flat_and_tiny_images_have_no_blocks() -> None:
    assert block_share(np.full((100, 100), 7.0, np.float32)) == 0
    assert block_share(np.zeros((5, 3), np.float32)) == 0
    assert block_share(np.zeros((1, 1), np.float32)) == 0


def test_deep_images_are_compared_at_their_own_range(photographs: Photos) -> None:
    image = view(photographs[2])
    counts = (7000 + image.astype(np.uint16) * 3).astype(np.uint16)
    a, b = picture(image), picture_of(read(counts))
    assert b.grey.max() > 200 and b.block_share == 0
    xy = everywhere(image.shape)
    assert share_alike(a, b, np.eye(3), xy, xy) > 0.95


@pytest.mark.parametrize("size_hw", [(360, 480), (75, 480), (33, 7)])
def test_shading_is_a_wide_blur(size_hw: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    y, x = np.mgrid[: size_hw[0], : size_hw[1]]
    grey = (100 + 0.2 * x + 30 * np.sin(y / 40) + rng.normal(0, 8, size_hw)).astype(np.float32)
    exact = cv2.GaussianBlur(grey, (0, 0), 12.0)
    difference = np.abs(appearance._shading(grey, 12.0) - exact)
    assert difference.mean() < 0.3  # grey levels
    assert difference.max() < 2.0
