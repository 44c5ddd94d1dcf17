"""The ways to choose keypoints in tiles, with everything that images and settings may have."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.tiled import Damaged, assert_identical, assert_same
from tiepoint import Detector, detect_tiled
from tiepoint.errors import ImageError, OutputError
from tiepoint.formats import fields
from tiepoint.tiles import mapped

BEST, ALL = {"max_keypoints": 90}, {"mapped": True}
SPREAD = {"max_keypoints": 70, "spread": True, "scales": (1,)}
WAYS = pytest.mark.parametrize("way", [BEST, ALL, SPREAD], ids=["best", "all", "spread"])


def without_mapped(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != "mapped"}


@WAYS
@pytest.mark.parametrize("offset", range(8))
def test_every_position_of_a_seam_in_a_cell(
    picture: np.ndarray, detector: Detector, way: dict[str, Any], offset: int
) -> None:
    part = picture[offset:200, 2 * offset : 260]
    tiled = detect_tiled(part, detector, tile_px=64, **way)
    assert_same(tiled, detector(part, **without_mapped(way)))


@WAYS
@pytest.mark.parametrize("seed", range(6))
def test_random_tiles_masks_gaps_scales_and_covariances(
    picture: np.ndarray, detector: Detector, way: dict[str, Any], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    image = picture[..., int(rng.integers(3))].astype(np.float32) * rng.uniform(0.5, 3)
    top, left = rng.integers(200), rng.integers(280)
    image[top : top + 40, left : left + 50] = np.nan
    mask = np.ones(image.shape, np.uint8)
    mask[rng.integers(100) :, : rng.integers(60)] = 0
    settings = {"scales": (1, 0.7), "covariance_scale": 0.3, "border": int(rng.integers(30)), **way}
    tile_px = 8 * int(rng.integers(8, 45))
    tiled = detect_tiled(image, detector, mask=mask, tile_px=tile_px, **settings)
    assert tiled.covariance is not None
    assert_same(tiled, detector(image, mask=mask, **without_mapped(settings)))


@WAYS
def test_a_channel_and_damaged_tiles(
    picture: np.ndarray, detector: Detector, way: dict[str, Any]
) -> None:
    settings = {**way, "scales": (1,), "tile_px": 72}
    damaged = detect_tiled(
        Damaged(picture), detector, on_damage="skip", channels=1, **settings
    )  # fmt: skip
    lost = damaged.meta["damaged"]
    assert 0 < len(lost) < 12
    mask = np.ones(picture.shape[:2], np.uint8)
    for x, y, width, height in lost:
        mask[y : y + height, x : x + width] = 0
    kept = mask[np.rint(damaged.xy[:, 1]).astype(int), np.rint(damaged.xy[:, 0]).astype(int)]
    assert kept.mean() > 0.98  # refinement may cross a seam
    if way is ALL:
        whole = detect_tiled(picture, detector, channels=1, mapped=True, **without_mapped(settings))
        far = (np.abs(whole.xy - (300, 20)).max(axis=1) > 72 + 72 + 100).sum()
        assert far > 20 and len(damaged) >= far


@WAYS
def test_any_number_of_cores_gives_the_same_bits(
    picture: np.ndarray, detector: Detector, way: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for cores in (1, 3):
        monkeypatch.setattr(Detector, "in_flight", cores)
        results.append(detect_tiled(picture, detector, tile_px=64, **way))
    assert_identical(*results)


def test_keypoints_on_disk_are_mapped_and_best_first(
    picture: np.ndarray, detector: Detector, tmp_path: Path
) -> None:
    state = tmp_path / "deep" / "picture.tiles"
    tiled = detect_tiled(picture, detector, tile_px=64, mapped=True, state=state)
    assert tiled.descriptors is not None and isinstance(tiled.descriptors.base, np.memmap)
    assert list(state.parent.iterdir()) == []
    in_memory = detect_tiled(picture, detector, tile_px=64)
    assert_identical(tiled, in_memory)


def test_an_image_without_keypoints_has_no_file(detector: Detector) -> None:
    for way in (ALL, SPREAD):
        tiled = detect_tiled(np.zeros((90, 100), np.uint8), detector, tile_px=64, **way)
        assert len(tiled) == 0
        assert tiled.descriptors is not None and tiled.descriptors.shape[1] > 0


def test_more_keypoints_than_a_file_holds_are_refused(
    picture: np.ndarray, detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mapped.MOST_KEYPOINTS == fields.MAX_KEYPOINTS
    monkeypatch.setattr("tiepoint.tiles.run.MOST_KEYPOINTS", 50)
    with pytest.raises(ImageError, match="more than 50 keypoints, which no file holds; raise the"):
        detect_tiled(picture, detector, tile_px=64, mapped=True)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="reserves no space")
def test_a_full_disk_is_an_error_and_no_crash(
    picture: np.ndarray, detector: Detector, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    state = tmp_path / "picture.tiles"
    with pytest.raises(OutputError, match="No space left"):
        detect_tiled(picture, detector, tile_px=64, mapped=True, state=state)
    assert [path.name for path in tmp_path.iterdir()] == ["picture.tiles"]


def test_max_keypoints_is_kept_with_mapped(picture: np.ndarray, detector: Detector) -> None:
    tiled = detect_tiled(picture, detector, tile_px=64, mapped=True, max_keypoints=30)
    assert_identical(tiled, detect_tiled(picture, detector, tile_px=64, max_keypoints=30))
