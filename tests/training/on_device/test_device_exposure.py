"""Light, lens and sensor of a batch: each step equals the single view's with the same numbers."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from support.device_counts import waiting_operators
from support.scene_parts import CALM, of_kind
from tiepoint.training.on_device.exposure import ExposedBatch, expose_batch
from tiepoint.training.on_device.exposures import exposures_on
from tiepoint.training.scenes.packed_exposures import pack_exposures
from tiepoint.training.scenes.pairs import training_pair
from tiepoint.training.scenes.photometry import Exposure, draw_exposure, expose
from tiepoint.training.scenes.settings import Photometry

CPU = torch.device("cpu")
ALL = Photometry(shadow=1, motion=1, rescale=1, patches=1, jpeg=1, noise=0, pepper=0)
EFFECTS = {
    "gamma": {"gamma": 2.0},
    "contrast": {"contrast": (0.3, 1.8)},
    "bias": {"bias": 0.15},
    "shading": {"shading": 0.5},
    "vignette": {"vignette": 0.5},
    "shadow": {"shadow": 1},
    "patches": {"patches": 1},
    "blur": {"blur_px": 3.0},
    "motion": {"motion": 1, "motion_px": 9.0},
    "rescale": {"rescale": 1},
    "jpeg": {"jpeg": 1},
}


@cache
def greys() -> list[np.ndarray]:
    """Views of drawn scenes, and images of noise: 96x128 px."""
    kinds = ("leaves", "shapes", "glyphs", "repeats", "boxes")
    views = [training_pair(of_kind(kind), 3, index).a for kind in kinds for index in range(3)]
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (96, 128), dtype=np.uint8) for _ in range(3)]
    return [view.image for view in views] + noise


def drawn(ranges: Photometry, seed: int = 0, images: list[np.ndarray] | None = None):
    """One exposure for each image; patches have one grey each."""
    rng, images = np.random.default_rng(seed), images or greys()
    exposures = [draw_exposure(rng, image.shape, ranges) for image in images]
    return [
        replace(each, patches=tuple(replace(patch, noise=0.0) for patch in each.patches))
        for each in exposures
    ]


def batch(images: list[np.ndarray], exposures: list[Exposure], seed: int = 0) -> ExposedBatch:
    values = torch.from_numpy(np.stack(images)).float()
    packed = exposures_on(pack_exposures(exposures), CPU)
    return expose_batch(values, packed, torch.Generator().manual_seed(seed))


def differences(images: list[np.ndarray], exposures: list[Exposure]):
    """Absolute differences from the single views: recorded and clean greys, 0..255; covered."""
    several = batch(images, exposures)
    singles = [expose(image, each) for image, each in zip(images, exposures, strict=True)]
    image, clean, covered = (
        np.abs(
            part.numpy().astype(float) - np.stack([getattr(one, name) for one in singles]) / unit
        )
        for part, name, unit in zip(several, ExposedBatch._fields, (255, 1, 1), strict=True)
    )
    return 255 * image, 255 * clean, covered


@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize("seed", [0, 1])
def test_each_effect_alone_is_that_of_the_single_views(effect: str, seed: int) -> None:
    exposures = drawn(replace(CALM, **EFFECTS[effect]), seed)
    image, clean, covered = differences(greys(), exposures)
    assert np.quantile(clean, 0.99) < 1.5
    if effect not in ("shadow", "patches"):  # whose outlines may differ by single px
        assert clean.max() < 0.02
    assert covered.mean() < 0.002
    assert (image > 1.01).mean() < 0.01


def test_all_effects_together_are_those_of_the_single_views() -> None:
    for seed in range(3):
        image, clean, covered = differences(greys(), drawn(ALL, seed))
        assert np.quantile(clean, 0.98) < 1.5 and clean.mean() < 0.2  # outlines are many here
        assert covered.mean() < 0.003
        assert (image > 1.01).mean() < 0.08  # a px of an outline changes its block


def test_usual_views_are_nearly_all_the_same() -> None:
    ranges = Photometry(noise=0, pepper=0)
    for seed in range(3):
        image, clean, _ = differences(greys(), drawn(ranges, seed))
        assert np.quantile(clean, 0.99) < 0.5
        assert (image > 1.01).mean() < 0.02


def test_without_effects_an_image_stays_as_it_is() -> None:
    strong = [image for image in greys() if image.std() > 0.21 * 255]  # flat ones are stretched
    done = batch(strong, drawn(CALM, images=strong))
    assert len(strong) > 5
    assert np.array_equal((done.image * 255).round().numpy(), np.stack(strong))
    assert np.abs(done.clean.numpy() - np.stack(strong) / 255).max() < 1e-6
    assert not done.covered.any()


def test_flat_views_are_stretched_as_the_single_ones() -> None:
    faint = [(100 + image // 25).astype(np.uint8) for image in greys()]
    image, clean, _ = differences(faint, drawn(replace(CALM, contrast=(0.3, 1.0)), 1, faint))
    assert clean.max() < 0.02 and image.max() < 1.01


def test_recorded_greys_are_whole() -> None:
    done = batch(greys(), drawn(replace(ALL, noise=0.05)))
    whole = (done.image * 255).round()
    assert torch.equal(whole / 255, done.image)
    assert done.image.min() >= 0 and done.image.max() <= 1
    assert done.image.dtype == done.clean.dtype == torch.float32
    assert done.covered.dtype == torch.bool


def test_mixed_effects_in_a_batch_are_those_of_batches_of_one() -> None:
    exposures = [
        drawn(replace(CALM, **changes), 7, [image])[0]
        for changes, image in zip(EFFECTS.values(), greys(), strict=False)
    ]
    images = greys()[: len(exposures)]
    several = batch(images, exposures)
    for number, (image, each) in enumerate(zip(images, exposures, strict=True)):
        single = batch([image], [each])
        assert (single.clean[0] - several.clean[number]).abs().max() < 1e-5
        assert torch.equal(single.covered[0], several.covered[number])
        assert ((single.image[0] - several.image[number]).abs() > 0.005).float().mean() < 0.005


def test_noise_has_the_standard_deviation_of_the_single_views() -> None:
    half = np.full((96, 128), 70, np.uint8)
    half[:, 64:] = 190
    exposures = [
        replace(each, grain=grain)
        for grain in (False, True)
        for each in drawn(replace(CALM, noise=0.15), 2, [half] * 8)
    ]
    images = [half] * len(exposures)
    several = batch(images, exposures)
    noise = (several.image - several.clean).numpy()
    for number, (image, each) in enumerate(zip(images, exposures, strict=True)):
        single = expose(image, each)
        expected = single.image / 255 - single.clean
        for part in (np.s_[:, :60], np.s_[:, 68:]):
            assert noise[number][part].std() == pytest.approx(expected[part].std(), rel=0.08)
            assert abs(noise[number][part].mean()) < 0.01
        neighbours = [
            np.corrcoef(values[:, :59].ravel(), values[:, 1:60].ravel())[0, 1]
            for values in (noise[number], expected)
        ]
        if expected.std() > 0.01:  # more than the rounding to whole greys
            assert neighbours[0] == pytest.approx(neighbours[1], abs=0.06)


def test_a_patch_of_noise_has_the_deviation_of_the_single_views() -> None:
    halves = np.full((96, 128), 40, np.uint8)
    halves[:, 64:] = 215  # so much contrast that nothing is stretched
    rng = np.random.default_rng(5)
    exposures = [draw_exposure(rng, halves.shape, replace(CALM, patches=1)) for _ in range(16)]
    exposures = [
        replace(each, patches=(replace(each.patches[0], grey=0.5, noise=0.1),))
        for each in exposures
    ]
    done = batch([halves] * 16, exposures)
    for clean, covered in zip(done.clean, done.covered, strict=True):
        if covered.sum() > 200:
            assert float(clean[covered].std()) == pytest.approx(0.1, rel=0.2)
    outside = torch.from_numpy(halves / 255).expand(16, -1, -1)[~done.covered]
    assert (done.clean[~done.covered] - outside).abs().max() < 1e-5


def test_dead_and_hot_px_are_as_many_as_in_the_single_views() -> None:
    flat = np.full((96, 128), 128, np.uint8)
    exposures = drawn(replace(CALM, pepper=1), 1, [flat] * 24)
    shares = np.array([each.pepper for each in exposures])
    greys_of = batch([flat] * 24, exposures).image.numpy()
    assert set(np.unique((greys_of * 255).round())) == {0, 128, 255}
    changed = (np.abs(greys_of - 128 / 255) > 0.01).mean(axis=(1, 2))
    assert changed.mean() == pytest.approx(shares.mean(), rel=0.1)
    assert (greys_of == 1).mean() == pytest.approx((greys_of == 0).mean(), rel=0.2)


def test_the_generator_decides_the_noise() -> None:
    exposures = drawn(replace(CALM, noise=0.1))
    one, same, other = (batch(greys(), exposures, seed).image for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_views_of_any_size_are_compressed() -> None:
    rng = np.random.default_rng(2)
    smooth = np.cumsum(rng.normal(0, 2, (70, 75)), axis=1) + 128
    images = [np.clip(smooth, 0, 255).astype(np.uint8)] * 4
    exposures = drawn(replace(CALM, jpeg=1, jpeg_quality=10), 3, images)
    image, _, _ = differences(images, exposures)
    assert (image > 1.01).mean() < 0.01


def test_a_batch_without_motion_needs_no_kernel() -> None:
    still, moving = drawn(CALM), drawn(replace(CALM, motion=1, motion_px=9.0))
    assert exposures_on(pack_exposures(still), CPU).motion_side == 1
    assert exposures_on(pack_exposures(still + moving), CPU).motion_side in (9, 11, 13)


def test_the_host_never_waits() -> None:
    values = torch.from_numpy(np.stack(greys())).float()
    packed, generator = exposures_on(pack_exposures(drawn(ALL)), CPU), torch.Generator()
    assert waiting_operators(lambda: expose_batch(values, packed, generator)) == set()


def test_no_step_depends_on_values_or_on_arrays_of_the_host() -> None:
    meta = torch.device("meta")  # has shapes, but no values
    values = torch.empty((len(greys()), *greys()[0].shape), device=meta)
    packed = exposures_on(pack_exposures(drawn(ALL)), meta)
    done = expose_batch(values, packed, torch.Generator())
    assert all(part.device == meta and part.shape == values.shape for part in done)


def test_autocast_rounds_nothing() -> None:
    exposures = drawn(replace(CALM, blur_px=2.0))
    outside = batch(greys(), exposures)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = batch(greys(), exposures)
    assert torch.equal(inside.clean, outside.clean)
