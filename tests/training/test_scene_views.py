"""One view: what light and camera do to it, and which corners remain labels."""

from __future__ import annotations

import numpy as np
import pytest

from tiepoint.errors import ConfigError
from tiepoint.training.scenes import labels, photometry, statistics, textures
from tiepoint.training.scenes.canvas import Canvas, vertex_kinds
from tiepoint.training.scenes.settings import DataConfig, Geometry, Photometry

ALL = Photometry(shadow=1, motion=1, rescale=1, patches=1, pepper=1, jpeg=1)
SQUARE = np.array([[20, 20], [60, 20], [60, 50], [20, 50.0]])


def square(grey: float, ground: float = 0.4) -> np.ndarray:
    canvas = Canvas((80, 96), 0)
    canvas.polygon(SQUARE, 255, vertices=vertex_kinds(SQUARE))
    cover = canvas.sheet().image.astype(np.float32) / 255
    return (ground + (grey - ground) * cover).astype(np.float32)


def labelled(clean: np.ndarray, xy=SQUARE, positive=None, hidden=None):
    none = np.zeros(clean.shape, bool)
    sure = np.ones(len(xy), bool) if positive is None else np.array(positive)
    return labels.view_labels(
        clean,
        np.asarray(xy, np.float64),
        sure,
        none if hidden is None else hidden,
        0.06,
    )


def test_corners_of_sufficient_contrast_are_labels_and_weak_ones_are_ignored() -> None:
    xy, ignore = labelled(square(0.8))
    assert np.array_equal(xy, SQUARE.astype(np.float32))
    assert not ignore.any()
    xy, ignore = labelled(square(0.45))  # 0.05 of contrast: below 0.06, yet to be made out
    assert len(xy) == 0
    assert ignore[20, 20] and ignore[50, 60] and not ignore[35, 40]
    xy, ignore = labelled(square(0.401))  # nothing to be seen: "no keypoint" is right
    assert len(xy) == 0 and not ignore.any()


def test_a_doubtful_corner_is_ignored_whatever_its_contrast() -> None:
    xy, ignore = labelled(square(0.9), positive=[True, False, True, True])
    assert len(xy) == 3
    assert ignore[20, 60] and not ignore[20, 20]


def test_hidden_areas_are_ignored() -> None:
    hidden = np.zeros((80, 96), bool)
    hidden[15:25, 15:25] = True
    xy, ignore = labelled(square(0.9), hidden=hidden)
    assert len(xy) == 3 and ignore[20, 20] and not ignore[:, 80:].any()
    xy, ignore = labelled(square(0.9), xy=np.zeros((0, 2)), hidden=hidden)
    assert len(xy) == 0 and ignore[20, 20] and not ignore[:, 80:].any()


def test_crowded_points_are_those_with_a_near_neighbour() -> None:
    rng = np.random.default_rng(0)
    for count in (0, 1, 2, 150):
        xy, chosen = rng.uniform(0, 60, (count, 2)), rng.random(count) < 0.8
        slow = [
            any(
                i != j and chosen[i] and chosen[j] and np.hypot(*(xy[i] - xy[j])) < labels.APART_PX
                for j in range(count)
            )
            for i in range(count)
        ]
        assert labels.crowded(xy, chosen).tolist() == slow


def test_ring_contrast_is_the_smaller_range_of_two_rings() -> None:
    step = np.zeros((40, 40), np.float32)
    step[:, 23:] = 0.5  # at 22.5: 2.5 px from x = 20, outside the ring of 2 px
    found = labels.ring_contrast(step, np.array([[20.0, 20], [22.5, 20], [5, 20]]))
    assert found == pytest.approx([0, 0.5, 0], abs=1e-6)


def test_every_photometric_change_keeps_the_form_and_repeats_with_its_seed() -> None:
    image = textures.noise(np.random.default_rng(1), 160, 1.2)[:96, :120]
    image = np.clip(128 + 50 * image, 0, 255).astype(np.uint8)
    for seed in range(12):
        done = photometry.expose(image, np.random.default_rng(seed), ALL)
        again = photometry.expose(image, np.random.default_rng(seed), ALL)
        assert np.array_equal(done.image, again.image)
        assert done.image.shape == image.shape and done.image.dtype == np.uint8
        assert done.clean.min() >= 0 and done.clean.max() <= 1
        assert 0 < done.covered.mean() < 0.7
        assert done.image.std() > 4  # something is left to see


def test_blur_and_motion_move_nothing() -> None:
    spot = np.zeros((61, 61), np.float32)
    spot[30, 30] = 1
    y, x = np.mgrid[:61, :61]
    ranges = Photometry(motion=1, rescale=0)
    for seed in range(10):
        blurred = photometry._blurred(spot, np.random.default_rng(seed), ranges)
        centre = np.array([(blurred * x).sum(), (blurred * y).sum()]) / blurred.sum()
        assert np.abs(centre - 30).max() < 0.01


def test_compression_blocks_do_not_keep_to_the_cells() -> None:
    y, x = np.mgrid[:64, :64]
    ramp = (60 + 1.3 * x + 0.9 * y).astype(np.uint8)
    ranges, found = Photometry(jpeg_quality=1), []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        done = photometry._compressed(ramp, rng, ranges).astype(int)
        steps = np.abs(np.diff(done, axis=1)).mean(axis=0)  # 63: between columns
        by_place = np.bincount(np.arange(63) % 8, steps) / np.bincount(np.arange(63) % 8)
        if by_place.max() > 3 * np.median(by_place) + 0.5:
            found.append(int(by_place.argmax()))
    assert len(found) > 10
    assert len(set(found)) >= 6


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_the_slope_of_noise_is_its_exponent(exponent: float) -> None:
    values = textures.noise(np.random.default_rng(2), 256, exponent)
    assert statistics.spectrum_slope(values) == pytest.approx(exponent, abs=0.12)


def test_statistics_of_known_images() -> None:
    flat = statistics.image_statistics(np.full((64, 64), 90, np.uint8))
    assert flat.empty == 1 and flat.peaks == 0 and np.isnan(flat.contrast)
    rough = 128 + 20 * np.random.default_rng(0).standard_normal((128, 128))
    noisy = statistics.image_statistics(np.clip(rough, 0, 255).astype(np.uint8))
    assert noisy.kurtosis == pytest.approx(3, abs=0.2) and noisy.empty < 0.05
    found = statistics.image_statistics((square(0.9) * 255).astype(np.uint8))
    assert found.peaks == pytest.approx(100 * 4 / 120)
    assert 0.2 < found.contrast <= 0.51  # peaks lie inside the square, rings reach half out
    assert statistics.summary([])["images"] == 0


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: DataConfig(size_hw=(100, 160)),
        lambda: DataConfig(size_hw=(32, 32)),
        lambda: DataConfig(mix=(("leafs", 1.0),)),
        lambda: DataConfig(mix=(("photo", 1.0),)),
        lambda: DataConfig(mix=()),
        lambda: DataConfig(mix=(("leaves", -1.0),)),
        lambda: DataConfig(part="test"),
        lambda: DataConfig(bank=0),
        lambda: DataConfig(photo_share=1.5),
        lambda: Geometry(scale=(2.0, 0.5)),
        lambda: Geometry(tilt_deg=89),
        lambda: Photometry(gamma=0.5),
        lambda: Photometry(jpeg=float("nan")),
    ],
)
def test_nonsense_is_refused(wrong) -> None:
    with pytest.raises(ConfigError, match="expected"):
        wrong()


def test_shares_sum_to_one_and_photographs_take_theirs() -> None:
    plain = DataConfig().shares()
    assert sum(plain.values()) == pytest.approx(1) and "photo" not in plain
    mixed = DataConfig(photos=("x",), photo_share=0.25).shares()
    assert sum(mixed.values()) == pytest.approx(1) and mixed["photo"] == 0.25
