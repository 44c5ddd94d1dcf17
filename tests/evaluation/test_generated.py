"""Generated pairs: the same whatever the order, and a truth that is true."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tiepoint.errors import ConfigError, TiepointError
from tiepoint.evaluation import generated
from tiepoint.evaluation.generated import (
    LEVELS,
    MIN_OVERLAP,
    draw,
    draw_homography,
    generated_pairs,
)
from tiepoint.evaluation.settings import GENERATED_SEED
from tiepoint.evaluation.views import overlap
from tiepoint.geometry import apply_homography, corners_xy, inside
from tiepoint.images.photographs import list_photos


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(5):
        noise = np.random.default_rng(number).integers(0, 256, (12, 16), dtype=np.uint8)
        smooth = cv2.resize(noise, (160 + 16 * number, 120), interpolation=cv2.INTER_CUBIC)
        Image.fromarray(smooth).save(tmp_path / f"photo{number}.png")
    return tmp_path


def digest(*arrays: NDArray[np.generic]) -> str:
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def test_a_pair_is_the_same_bytes_whatever_was_drawn_before(photos: Path) -> None:
    def drawn(order: list[int]) -> dict[int, str]:
        pairs = generated_pairs(list_photos(photos, "all"), 12)
        loaded = {index: pairs[index].load(640) for index in order}
        return {i: digest(p.image_a, p.image_b, p.homography) for i, p in loaded.items()}

    forward = drawn(list(range(12)))
    assert drawn(list(reversed(range(12)))) == forward
    assert drawn([7]) == {7: forward[7]}
    assert len(set(forward.values())) == 12


def test_another_seed_makes_other_pairs(photos: Path) -> None:
    files = list_photos(photos, "all")
    one, two = generated_pairs(files, 1, 1)[0].load(640), generated_pairs(files, 1, 2)[0].load(640)
    assert digest(one.image_b) != digest(two.image_b)
    assert digest(one.image_a) == digest(two.image_a)


def test_more_pairs_leave_the_first_ones_as_they_are(photos: Path) -> None:
    files = list_photos(photos, "all")
    few, many = generated_pairs(files, 4), generated_pairs(files, 40)
    assert [pair.name for pair in few] == [pair.name for pair in many[:4]]
    assert digest(few[3].load(640).image_b) == digest(many[3].load(640).image_b)


def test_levels_and_photographs_take_turns_and_never_stand_before_themselves(photos: Path) -> None:
    pairs = generated_pairs(list_photos(photos, "all"), 60)
    assert [pair.group for pair in pairs[:4]] == ["easy", "medium", "hard", "easy"]
    for level in LEVELS:
        shown = [pair.photo for pair in pairs if pair.level is level]
        assert sorted(map(shown.count, set(shown))) == [4] * 5
    assert len({pair.name for pair in pairs}) == 60
    assert all(pair.photo != pair.background for pair in pairs)


def dots(size_hw: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Round dark dots on white, and their centres."""
    height, width = size_hw
    x, y = np.meshgrid(np.arange(40, width - 40, 48.0) + 0.3, np.arange(40, height - 40, 48.0))
    centres = np.stack([x.ravel(), y.ravel()], axis=1)
    rows, columns = np.mgrid[:height, :width]
    image = np.ones(size_hw, np.float32)
    for cx, cy in centres:
        image -= np.exp(-((columns - cx) ** 2 + (rows - cy) ** 2) / (2 * 3.0**2)).astype(np.float32)
    return image, centres


def centroid(image: NDArray[np.uint8], near: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y = (int(value) for value in np.rint(near))
    window = 255.0 - image[y - 9 : y + 10, x - 9 : x + 10]
    window = np.where(window > 40, window, 0)
    rows, columns = np.mgrid[y - 9 : y + 10, x - 9 : x + 10]
    total = window.sum()
    return np.array([(window * columns).sum(), (window * rows).sum()]) / total


def test_the_truth_carries_dots_of_view_a_onto_the_dots_of_view_b() -> None:
    photo, centres = dots((360, 480))
    in_a = (centres + 0.5) * generated.REFERENCE_SCALE - 0.5
    still = generated.Level("still", 1.4, 30, 30, 0.1, 1, 1, 0, 0, 0, 95)
    errors = []
    for seed in range(6):
        pair = draw(photo, np.ones((10, 10), np.float32), still, np.random.default_rng(seed))
        height, width = pair.image_b.shape
        there = apply_homography(pair.homography, in_a)
        seen = inside(there - 12, (height - 24, width - 24))
        errors += [centroid(pair.image_b, xy) - xy for xy in there[seen]]
        errors_a = [centroid(pair.image_a, xy) - xy for xy in in_a]
        assert np.abs(errors_a).max() < 0.05
    assert len(errors) > 100
    # Perspective moves the centre of a dot a little; on the mean nothing may remain.
    assert np.abs(errors).max() < 0.25
    assert np.abs(np.mean(errors, axis=0)).max() < 0.02


def test_a_pair_brought_down_further_keeps_its_truth(photos: Path) -> None:
    pair = generated_pairs(list_photos(photos, "all"), 1)[0]
    large, small = pair.load(640), pair.load(64)
    assert max(small.image_a.shape) == 64
    point = np.array([[20.0, 30.0]])
    scale_a = np.array(small.image_a.shape[::-1]) / large.image_a.shape[::-1]
    scale_b = np.array(small.image_b.shape[::-1]) / large.image_b.shape[::-1]
    expected = (apply_homography(large.homography, point) + 0.5) * scale_b - 0.5
    there = apply_homography(small.homography, (point + 0.5) * scale_a - 0.5)
    np.testing.assert_allclose(there, expected, atol=1e-9)


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
def test_every_homography_overlaps_and_keeps_view_a_before_the_camera(
    level: generated.Level,
) -> None:
    size = 240, 320
    for index in range(100):
        homography = draw_homography(np.random.default_rng([5, index]), size, level)
        assert np.isfinite(apply_homography(homography, corners_xy(size))).all()
        assert overlap(np.eye(3), homography, size, 24) >= MIN_OVERLAP


FROZEN_CORNERS = [
    [[75.928, 76.594], [465.487, 88.139], [442.326, 398.734], [34.086, 363.645]],
    [[166.946, -89.074], [533.25, 71.566], [463.496, 409.667], [65.063, 353.537]],
    [[63.785, 162.13], [253.92, 114.485], [290.601, 256.7], [99.904, 305.502]],
]


@pytest.mark.parametrize("index", [0, 1, 2])
def test_the_frozen_seed_and_levels_still_draw_the_first_pairs(index: int) -> None:
    rng = np.random.default_rng([GENERATED_SEED, index])
    homography = draw_homography(rng, (400, 533), LEVELS[index])
    corners = apply_homography(homography, corners_xy((400, 533)))
    np.testing.assert_allclose(corners, FROZEN_CORNERS[index], atol=2e-3)


def test_levels_grow_harder() -> None:
    for easier, harder in itertools.pairwise(LEVELS):
        for name in ("zoom", "roll_deg", "tilt_deg", "shift", "gamma", "contrast", "bias", "noise"):
            assert getattr(easier, name) < getattr(harder, name)
        assert easier.jpeg > harder.jpeg


def test_what_cannot_be_drawn_from_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least one"):
        generated_pairs([], 3)
    with pytest.raises(ConfigError, match="at least 1 pair"):
        generated_pairs([tmp_path / "a.png"], 0)
    (tmp_path / "a.png").write_bytes(b"not an image")
    with pytest.raises(TiepointError, match=r"a\.png"):
        generated_pairs([tmp_path / "a.png"], 1)[0].load(640)
