"""Detection in tiles gives the keypoints of the whole image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from support.tiled import XY_PX, Damaged, assert_identical, assert_same
from tiepoint import Detector
from tiepoint.errors import ConfigError, ImageError, TooManyPixelsError
from tiepoint.images.arrays import Decoded
from tiepoint.images.windows import Window
from tiepoint.tiles.detection import LARGE_PX, detect_tiled
from tiepoint.tiles.margins import margin_px


@pytest.mark.parametrize("tile_px", [64, 96, 136, 200, 512])
def test_any_tile_size_gives_the_keypoints_of_the_whole(
    picture: np.ndarray, detector: Detector, tile_px: int
) -> None:
    assert_same(detect_tiled(picture, detector, tile_px=tile_px), detector(picture))


@pytest.mark.parametrize("offset", range(8))
def test_every_position_of_a_seam_in_a_cell(
    picture: np.ndarray, detector: Detector, offset: int
) -> None:
    part = picture[offset:200, 2 * offset : 260]
    assert_same(detect_tiled(part, detector, tile_px=64), detector(part))


@pytest.mark.parametrize(
    "settings",
    [
        {"max_keypoints": 60},
        {"nms_radius": 0, "max_keypoints": 300},
        {"nms_radius": 11},
        {"border": 40},
        {"phases": 4, "scales": (1,)},
        {"phases": 1, "scales": (1, 0.5, 0.31)},
        {"subpixel": False},
        {"descriptors": False},
        {"threshold": 0.05, "contrast": "stretch"},
    ],
    ids=str,
)
def test_all_settings(picture: np.ndarray, detector: Detector, settings: dict[str, Any]) -> None:
    tiled = detect_tiled(picture, detector, tile_px=104, **settings)
    assert_same(tiled, detector(picture, **settings))


def deep(picture: np.ndarray) -> np.ndarray:
    return picture.astype(np.uint16) * 37 + 900


def gappy(picture: np.ndarray) -> np.ndarray:
    values = picture[..., 0].astype(np.float32) * 3 - 100
    values[70:150, 100:230], values[3, 200], values[:, :9] = np.nan, np.inf, np.nan
    return values


def transparent(picture: np.ndarray) -> np.ndarray:
    alpha = np.full((*picture.shape[:2], 1), 255, np.uint8)
    alpha[:, 120:160] = 0
    return np.concatenate([picture, alpha], axis=2)


@pytest.mark.parametrize(
    "make",
    [
        deep,
        gappy,
        transparent,
        lambda p: p.astype(np.float32) / 255,
        lambda p: p[..., 0].astype(np.int32) * 70_000,
        lambda p: np.ma.masked_inside(p[..., 1], 60, 64),
        lambda p: p[..., 0] > 128,
    ],
    ids=["deep", "gaps", "alpha", "floats", "int32", "masked", "bool"],
)
def test_all_types_have_the_range_of_the_whole(
    picture: np.ndarray, detector: Detector, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tiepoint.images.windows.BLOCK_PX", 9000)  # many strips
    image = make(picture)
    assert_same(detect_tiled(image, detector, tile_px=104), detector(image))


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_file_that_is_turned_has_the_record_of_the_whole(
    picture: np.ndarray, detector: Detector, tmp_path: Path, orientation: int
) -> None:
    path, exif = tmp_path / "turned.png", Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture).save(path, exif=exif)
    tiled, whole = detect_tiled(path, detector, tile_px=104), detector(path)
    assert whole.meta["exif_orientation"] == orientation
    assert_same(tiled, whole)
    grey = detect_tiled(path, detector, tile_px=104, channels=0)
    assert grey.meta["exif_orientation"] == orientation


def test_memory_maps_and_datasets_are_read_in_windows(
    picture: np.ndarray, detector: Detector, tmp_path: Path
) -> None:
    h5py = pytest.importorskip("h5py")
    np.save(tmp_path / "picture.npy", picture)
    mapped = np.load(tmp_path / "picture.npy", mmap_mode="r")
    whole = detector(picture)
    assert_same(detect_tiled(mapped, detector, tile_px=160), whole)
    with h5py.File(tmp_path / "picture.h5", "w") as file:
        stored = file.create_dataset("pixels", data=picture, chunks=(64, 64, 3))
        assert_same(detect_tiled(stored, detector, tile_px=160), whole)


@pytest.mark.parametrize("make", [lambda p: p, deep])
def test_a_damaged_tile_ends_the_run_or_is_left_out(
    picture: np.ndarray, detector: Detector, make: Any
) -> None:
    image = Damaged(make(picture))
    with pytest.raises(ImageError, match="broken here"):
        detect_tiled(image, detector, tile_px=104, scales=(1,))
    tiled = detect_tiled(image, detector, tile_px=104, scales=(1,), on_damage="skip")
    assert [208, 0, 104, 104] in tiled.meta["damaged"]
    assert len(tiled.meta["damaged"]) < 12
    left = tiled.xy[tiled.xy[:, 1] > 210]
    assert len(left) > 5


def test_progress_counts_all_tiles_of_all_scales(picture: np.ndarray, detector: Detector) -> None:
    seen: list[tuple[int, int]] = []
    detect_tiled(
        picture, detector, tile_px=136, scales=(1, 0.5), progress=lambda *n: seen.append(n)
    )
    assert seen == [(i + 1, 8) for i in range(8)]


def test_progress_ends_at_the_number_of_all_tiles(picture: np.ndarray, detector: Detector) -> None:
    for image in (picture, np.zeros((192, 256), np.uint8), np.pad(picture[:80, :80, 0], (0, 200))):
        seen: list[tuple[int, int]] = []
        settings: Any = {"spread": True, "max_keypoints": 30, "scales": (1,)}
        detect_tiled(
            image, detector, tile_px=64, progress=lambda *n: seen.append(n), **settings  # noqa: B023
        )  # fmt: skip
        assert seen[-1][0] == seen[-1][1]
        assert seen == sorted(set(seen))


class Endless:
    """A window source of any size without pixels."""

    name, dtype, has_gaps = "endless", np.dtype(np.uint8), False

    def __init__(self, size_hw: tuple[int, int]) -> None:
        self.size_hw, self.levels = size_hw, [size_hw]

    def read(self, window: Window, level: int = 0) -> Decoded:
        raise AssertionError("refused before any pixel is read")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scales": (1, 2)}, "expected at most 1 in tiles"),
        ({"max_side": 800}, "max_side is 800, but tiles show an image at its native size"),
        ({"tile_px": 100}, "tile_px is 100, expected a multiple of 8"),
        ({"tile_px": 8}, "tile_px is 8, expected"),
        ({"on_damage": "ignore"}, "on_damage"),
        ({"threshold": 3}, "threshold is 3"),
        ({"channels": 1.0}, "channels is 1.0, expected a whole number >= 0"),
        ({"channels": "0"}, "channels is '0', expected a whole number >= 0"),
        ({"channels": True}, "channels is True"),
        ({"channels": [0, -1]}, "channels is -1"),
        ({"channels": ()}, "expected at least one"),
        ({"state": ""}, "state is '', expected the path of a file"),
        ({"state": 5}, "state is 5, expected the path of a file"),
    ],
    ids=str,
)
def test_what_tiles_cannot_do_is_refused_before_any_pixel(
    detector: Detector, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        detect_tiled(Endless((100, 100)), detector, **settings)


def test_channels_of_numpy_are_numbers(picture: np.ndarray, detector: Detector) -> None:
    one, same = (
        detect_tiled(picture, detector, tile_px=136, channels=channels)
        for channels in (np.int64(1), [1])
    )
    assert_identical(one, same)
    assert one.provenance == same.provenance
    with pytest.raises(ImageError, match="channels 3, expected some of the 3 from 0 to 2"):
        detect_tiled(picture, detector, channels=np.uint8(3))


def test_all_keypoints_of_a_large_image_are_refused_in_memory(detector: Detector) -> None:
    with pytest.raises(TooManyPixelsError, match="without max_keypoints"):
        detect_tiled(Endless((1, LARGE_PX + 1)), detector)


def test_the_margin_covers_network_and_suppression() -> None:
    assert margin_px(0) == 56 and margin_px(4) % 8 == 0 and margin_px(4) >= 56 + 36


def test_an_image_smaller_than_a_cell_has_no_keypoints(detector: Detector) -> None:
    tiled = detect_tiled(np.zeros((5, 7), np.uint8), detector)
    assert len(tiled) == 0 and tiled.descriptors is not None
    assert tiled.descriptors.shape == detector(np.zeros((5, 7), np.uint8)).descriptors.shape


@pytest.mark.parametrize("tile_px", [64, 136, 512])
@pytest.mark.parametrize(
    "settings",
    [
        {"max_keypoints": 8},
        {"max_keypoints": 60},
        {"max_keypoints": 150, "nms_radius": 2, "border": 30},
        {"max_keypoints": 100, "scales": (0.6,), "phases": 4},
        {"max_keypoints": 40, "nms_radius": 0, "covariance_scale": 0.5},
        {"max_keypoints": 100_000},
        {"max_keypoints": 500, "nms_radius": 0, "subpixel": False},
    ],
    ids=str,
)
def test_spread_keypoints_are_those_of_the_whole(
    picture: np.ndarray, detector: Detector, tile_px: int, settings: dict[str, Any]
) -> None:
    mask = np.ones(picture.shape[:2], np.uint8)
    mask[90:170, 40:200] = 0
    settings = {**settings, "spread": True, "mask": mask}
    tiled, whole = (
        detect_tiled(picture, detector, tile_px=tile_px, **settings),
        detector(picture, **settings),
    )
    if settings["max_keypoints"] < 10:
        np.testing.assert_allclose(tiled.xy, whole.xy, atol=XY_PX)
    else:
        assert_same(tiled, whole)
