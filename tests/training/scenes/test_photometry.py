"""Light, lens and sensor: they change grey values and move nothing."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from support.scene_parts import CALM
from tiepoint.training.scenes import photometry, textures
from tiepoint.training.scenes.photometry import LEAST_SPREAD, draw_exposure, expose
from tiepoint.training.scenes.settings import Photometry

ALL = Photometry(shadow=1, motion=1, rescale=1, patches=1, pepper=1, jpeg=1)
SIZE = (96, 120)


def scene_image(exponent: float = 1.2) -> np.ndarray:
    values = textures.noise(np.random.default_rng(1), 160, exponent)[: SIZE[0], : SIZE[1]]
    return np.clip(128 + 50 * values, 0, 255).astype(np.uint8)


IMAGE = scene_image()


def exposed(ranges: Photometry, seed: int = 0, image: np.ndarray = IMAGE) -> photometry.Exposed:
    return expose(image, draw_exposure(np.random.default_rng(seed), image.shape, ranges))


def test_without_photometry_an_image_stays_as_it_is() -> None:
    for seed in range(6):
        done = exposed(CALM, seed)
        assert np.abs(done.image.astype(int) - IMAGE).max() <= 1
        assert np.allclose(done.clean, IMAGE / 255, atol=2e-3)
        assert not done.covered.any()


def test_every_photometric_change_keeps_the_form_and_repeats_with_its_seed() -> None:
    for seed in range(12):
        done, again = exposed(ALL, seed), exposed(ALL, seed)
        assert np.array_equal(done.image, again.image)
        assert np.array_equal(done.clean, again.clean)
        assert done.image.shape == IMAGE.shape and done.image.dtype == np.uint8
        assert done.clean.dtype == np.float32
        assert done.clean.min() >= 0 and done.clean.max() <= 1
        assert 0 < done.covered.mean() < 0.7
        assert done.image.std() > 4  # something is left to see


def test_an_exposure_gives_the_same_view_each_time() -> None:
    exposure = draw_exposure(np.random.default_rng(4), SIZE, ALL)
    one, other = expose(IMAGE, exposure), expose(IMAGE, exposure)
    assert np.array_equal(one.image, other.image)
    assert np.array_equal(one.covered, other.covered)


def test_the_scene_itself_is_not_changed() -> None:
    before = IMAGE.copy()
    exposed(ALL)
    assert np.array_equal(IMAGE, before)


def test_noise_is_in_the_image_and_not_in_the_clean_view() -> None:
    ranges = replace(CALM, noise=0.2)
    differences = [
        float((exposed(ranges, seed).image / 255 - exposed(ranges, seed).clean).std())
        for seed in range(20)
    ]
    assert max(differences) > 0.03
    assert all(np.allclose(exposed(ranges, seed).clean, IMAGE / 255, atol=2e-3) for seed in (0, 1))


def test_noise_has_no_bias() -> None:
    ranges = replace(CALM, noise=0.05)
    grey = np.full((200, 200), 128, np.uint8)
    for seed in range(6):
        done = exposed(ranges, seed, grey)
        assert float(done.image.mean()) == pytest.approx(128, abs=1.0)


def test_shot_noise_grows_with_the_light() -> None:
    half = np.zeros((160, 160), np.uint8)
    half[:, :80], half[:, 80:] = 30, 220
    ratios = []
    for seed in range(30):
        done = exposed(replace(CALM, noise=0.1), seed, half)
        noise = done.image / 255 - done.clean
        ratios.append(noise[:, 90:].std() / max(noise[:, :70].std(), 1e-6))
    assert np.quantile(ratios, 0.8) > 1.5  # shot noise dominates
    assert min(ratios) > 0.9  # else read-out noise does, which is even


def test_pepper_sets_single_px_to_black_or_white() -> None:
    grey = np.full((120, 120), 128, np.uint8)
    for seed in range(6):
        done = exposed(replace(CALM, pepper=1), seed, grey)
        changed = done.image[np.abs(done.image.astype(int) - 128) > 2]
        assert set(np.unique(changed)) <= {0, 255}
        assert 0 < changed.size <= 0.011 * grey.size


def test_patches_cover_px_and_are_reported() -> None:
    shares = []
    for seed in range(20):
        done = exposed(replace(CALM, patches=1), seed)
        shares.append(done.covered.mean())
        assert np.allclose(done.clean[~done.covered], IMAGE[~done.covered] / 255, atol=2e-3)
    assert min(shares) > 0 and max(shares) < 0.5


def test_a_patch_has_its_own_grey() -> None:
    differences = []
    for seed in range(12):
        done = exposed(replace(CALM, patches=1), seed)
        differences.append(np.abs(done.clean - IMAGE / 255)[done.covered].mean())
    assert np.median(differences) > 0.05


def test_contrast_scales_greys_around_their_mean() -> None:
    for seed in range(8):
        done = exposed(replace(CALM, contrast=(0.5, 1.0)), seed)
        slope, _ = np.polyfit(IMAGE.ravel() / 255, done.clean.ravel(), 1)
        assert 0.49 <= slope <= 1.01
        assert float(done.clean.mean()) == pytest.approx(IMAGE.mean() / 255, abs=0.01)


def test_bias_shifts_all_greys_alike() -> None:
    shifts = []
    grey = np.clip(IMAGE, 90, 160)
    for seed in range(12):
        difference = exposed(replace(CALM, bias=0.2), seed, grey).clean - grey / 255
        assert float(difference.std()) < 1e-3
        shifts.append(float(difference.mean()))
    assert max(np.abs(shifts)) <= 0.2 + 1e-3 and np.ptp(shifts) > 0.1


def test_gamma_keeps_the_order_of_greys() -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint8), (8, 1))
    for seed in range(8):
        done = exposed(replace(CALM, gamma=2.0), seed, ramp)
        assert (np.diff(done.clean[0]) >= -1e-6).all()


def test_a_flat_view_is_stretched_until_it_shows_something() -> None:
    faint = (128 + (IMAGE.astype(int) - 128) / 25).astype(np.uint8)
    for seed in range(6):
        done = exposed(replace(CALM, contrast=(0.3, 1.0)), seed, faint)
        assert float(done.clean.std()) == pytest.approx(LEAST_SPREAD, rel=0.15)


def test_a_view_without_any_contrast_stays_flat() -> None:
    done = exposed(replace(CALM, contrast=(0.3, 1.8)), 0, np.full(SIZE, 70, np.uint8))
    assert float(done.clean.std()) < 1e-6


def test_shading_is_smooth_and_limited() -> None:
    white = np.full(SIZE, 128, np.uint8)
    ranges = replace(CALM, shading=0.5, vignette=0.5)
    spreads = []
    for seed in range(20):
        light = exposed(ranges, seed, white).clean / (128 / 255)
        spreads.append(float(np.ptp(light)))
        assert np.abs(np.diff(light, axis=0)).max() < 0.06
        assert np.abs(np.diff(light, axis=1)).max() < 0.06
    assert max(spreads) > 0.2


def test_a_vignette_darkens_the_corners() -> None:
    white = np.full(SIZE, 128, np.uint8)
    for seed in range(8):
        clean = exposed(replace(CALM, vignette=0.6), seed, white).clean
        middle = clean[40:56, 50:70].mean()
        corners = np.mean([clean[0, 0], clean[0, -1], clean[-1, 0], clean[-1, -1]])
        assert corners <= middle + 1e-6


def test_a_shadow_darkens_a_part_of_the_view() -> None:
    white = np.full(SIZE, 200, np.uint8)
    darkened = []
    for seed in range(16):
        light = exposed(replace(CALM, shadow=1), seed, white).clean
        light = light / light.max()
        darkened.append(float((light < 0.9).mean()))
        assert light.min() >= 0.34
    assert 0.05 < np.median(darkened) <= 1


def test_blur_removes_fine_detail_and_keeps_the_mean() -> None:
    fine = scene_image(0.3)
    ratios = []
    for seed in range(16):
        done = exposed(replace(CALM, blur_px=3.0), seed, fine)
        ratios.append(np.abs(np.diff(done.clean)).mean() / np.abs(np.diff(fine / 255)).mean())
        assert float(done.clean.mean()) == pytest.approx(fine.mean() / 255, abs=0.02)
    assert min(ratios) < 0.6 and max(ratios) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    "ranges", [replace(CALM, blur_px=3.0), replace(CALM, motion=1, motion_px=9.0)]
)
def test_blur_and_motion_move_nothing(ranges: Photometry) -> None:
    y, x = np.mgrid[:61, :61]
    spot = np.zeros((61, 61), np.uint8)
    spot[29:32, 29:32] = 255
    for seed in range(10):
        blurred = exposed(ranges, seed, spot).clean.astype(float)
        blurred -= np.median(blurred)
        centre = np.array([(blurred * x).sum(), (blurred * y).sum()]) / blurred.sum()
        assert np.abs(centre - 30).max() < 0.02


def test_rescaling_moves_nothing_by_more_than_a_fraction_of_a_px() -> None:
    blob = np.zeros((81, 81), np.float32)
    blob[40, 40] = 1
    blob = cv2.GaussianBlur(blob, (0, 0), 6.0)
    image = np.rint(255 * blob / blob.max()).astype(np.uint8)
    y, x = np.mgrid[:81, :81]
    for seed in range(8):
        done = exposed(replace(CALM, rescale=1), seed, image).clean.astype(float)
        done -= done.min()
        centre = np.array([(done * x).sum(), (done * y).sum()]) / done.sum()
        assert np.abs(centre - 40).max() < 0.1


def test_motion_blur_has_a_direction() -> None:
    spot = np.zeros((61, 61), np.uint8)
    spot[30, 30] = 255
    y, x = np.mgrid[:61, :61] - 30
    ratios = []
    for seed in range(12):
        done = exposed(replace(CALM, motion=1, motion_px=15.0), seed, spot).clean.astype(float)
        done -= np.median(done)
        moments = np.array([[(done * x * x).sum(), (done * x * y).sum()],
                            [(done * x * y).sum(), (done * y * y).sum()]])  # fmt: skip
        small, large = np.linalg.eigvalsh(moments / done.sum())
        ratios.append(large / max(small, 1e-6))
    assert np.median(ratios) > 10


def test_a_worse_quality_is_farther_from_the_image() -> None:
    def error(quality: int) -> float:
        ranges = replace(CALM, jpeg=1, jpeg_quality=quality)
        errors = [np.abs(exposed(ranges, s).image / 255 - exposed(ranges, s).clean).mean()
                  for s in range(12)]  # fmt: skip
        return float(np.max(errors))

    assert error(5) > 1.5 * error(80)
    assert error(95) < 0.02


def test_compression_blocks_do_not_keep_to_the_cells() -> None:
    y, x = np.mgrid[:64, :64]
    ramp = (60 + 1.3 * x + 0.9 * y).astype(np.uint8)
    ranges, columns = replace(CALM, jpeg=1, jpeg_quality=1), []
    for seed in range(150):
        done = exposed(ranges, seed, ramp).image.astype(int)
        steps = np.abs(np.diff(done, axis=1)).mean(axis=0)  # 63: between columns
        by_column = np.bincount(np.arange(63) % 8, steps) / np.bincount(np.arange(63) % 8)
        if by_column.max() > 3 * np.median(by_column) + 0.5:
            columns.append(int(by_column.argmax()))
    assert len(columns) > 10
    assert len(set(columns)) >= 6


@pytest.mark.parametrize("effect", ["shadow", "motion", "rescale", "patches", "pepper", "jpeg"])
def test_an_effect_of_probability_zero_never_happens(effect: str) -> None:
    for seed in range(4):
        with_all = exposed(replace(CALM, **{effect: 0.0}), seed)
        assert np.array_equal(with_all.image, exposed(CALM, seed).image)


@pytest.mark.parametrize("effect", ["shadow", "motion", "rescale", "patches", "pepper", "jpeg"])
def test_an_effect_of_probability_one_always_happens(effect: str) -> None:
    ranges = replace(CALM, **{effect: 1.0}, motion_px=9.0, jpeg_quality=5)
    if effect == "jpeg":
        ranges = replace(ranges, jpeg_quality=1)
    changed = [not np.array_equal(exposed(ranges, s).image, IMAGE) for s in range(5)]
    assert all(changed)
