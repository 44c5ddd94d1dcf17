"""Masks in tiles: the keypoints, and the record, that the whole image has with the same mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from support.tiled import assert_same
from tiepoint import Detector, detect_tiled
from tiepoint.errors import ImageError
from tiepoint.images.masks import read_masked


def inside(picture: np.ndarray) -> np.ndarray:
    """H W bool, where keypoints are allowed."""
    allowed = np.ones(picture.shape[:2], bool)
    allowed[90:170, 40:300] = False
    return allowed


def rgba(allowed: np.ndarray, colour_in: int, colour_out: int, alpha_out: int) -> np.ndarray:
    colour = np.where(allowed, colour_in, colour_out)
    alpha = np.where(allowed, 255, alpha_out)
    return np.dstack([colour, colour, colour, alpha]).astype(np.uint8)


FORMS: dict[str, Any] = {
    "bool": lambda a: a,
    "int64": lambda a: a * np.int64(-3),
    "float64": lambda a: a * 1e300,
    "object": lambda a: a.astype(object),
    "two channels": lambda a: np.dstack([a, a]).astype(np.uint8),
    "masked array": lambda a: np.ma.masked_array(np.ones(a.shape, np.uint8), ~a),
    "white on white": lambda a: rgba(a, 255, 255, 0),
    "shape on nothing": lambda a: rgba(a, 0, 0, 0),
    "pil": lambda a: Image.fromarray(rgba(a, 255, 255, 0)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scales", [(1,), (1, 0.5)], ids=str)
def test_a_mask_of_any_form_allows_the_same_keypoints(
    picture: np.ndarray, detector: Detector, form: str, scales: tuple[float, ...]
) -> None:
    mask = FORMS[form](inside(picture))
    tiled = detect_tiled(picture, detector, tile_px=72, mask=mask, scales=scales)
    whole = detector(picture, mask=mask, scales=scales)
    assert len(whole) < len(detector(picture, scales=scales))
    assert_same(tiled, whole)


@pytest.mark.parametrize("ending", [".png", ".npy", ".tif"])
@pytest.mark.parametrize("form", ["bool", "white on white", "shape on nothing"])
def test_a_mask_in_a_file_allows_the_same_keypoints_decoded_or_in_windows(
    picture: np.ndarray, detector: Detector, tmp_path: Path, form: str, ending: str
) -> None:
    mask, path = FORMS[form](inside(picture)), tmp_path / f"mask{ending}"
    if ending == ".npy":
        np.save(path, mask)
    else:
        Image.fromarray(mask).save(path)
    tiled = detect_tiled(picture, detector, tile_px=72, mask=path)
    assert tiled.meta["mask"] == str(path)
    assert_same(tiled, detector(picture, mask=mask), apart=["mask"])


def test_an_image_that_was_read_with_its_mask_keeps_it(
    picture: np.ndarray, detector: Detector, tmp_path: Path
) -> None:
    path, mask = tmp_path / "mask.png", inside(picture)
    Image.fromarray(mask).save(path)
    image = read_masked(picture, path, "rgb")
    assert_same(detect_tiled(image, detector, tile_px=72), detector(image))
    other = np.ascontiguousarray(mask[::-1])  # a mask of the call counts instead
    tiled = detect_tiled(image, detector, tile_px=72, mask=other)
    assert_same(tiled, detector(image, mask=other))


def test_a_mask_that_is_missing_or_of_another_size_is_refused(
    picture: np.ndarray, detector: Detector, tmp_path: Path
) -> None:
    mask = inside(picture)
    with pytest.raises(ImageError, match=r"array has \(height, width\) \(90, 345\), expected"):
        detect_tiled(picture, detector, mask=mask[:90])
    with pytest.raises(ImageError, match="array: its mask cannot be read .*gone.png"):
        detect_tiled(picture, detector, mask=tmp_path / "gone.png")
