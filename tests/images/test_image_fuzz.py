"""Damaged files: each gives an image or an ImageError, and nothing else."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from PIL import Image

from support.image_files import damaged, encode, exif_block, png16, tiff
from tiepoint.errors import ImageError
from tiepoint.images.reading import read

RANDOM = np.random.default_rng(1)
COLOUR = RANDOM.integers(0, 256, (12, 10, 3), dtype=np.uint8)
PICTURE = Image.fromarray(COLOUR)
DEEP = COLOUR.astype(np.uint16) * 257
SEEDS = {
    "jpeg": encode(PICTURE, "JPEG", exif=exif_block(6)),
    "png": encode(PICTURE, "PNG", exif=exif_block(6)),
    "palette": encode(PICTURE.quantize(8), "PNG", transparency=2),
    "png16": png16(DEEP),
    "tiff": encode(PICTURE, "TIFF", exif=exif_block(6)),
    "lzw": encode(PICTURE, "TIFF", compression="tiff_lzw"),
    "tiff16": tiff(DEEP, orientation=5),
    "float": tiff((DEEP / 65535).astype(np.float32), order=">", orientation=5),
    "webp": encode(PICTURE, "WEBP"),
    "gif": encode(PICTURE.quantize(8), "GIF"),
    "bmp": encode(PICTURE, "BMP"),
    "ppm": encode(PICTURE, "PPM"),
}


@pytest.mark.parametrize("name", SEEDS)
def test_a_damaged_file_gives_an_image_or_an_image_error(name: str) -> None:
    random = np.random.default_rng(len(name) + 2)
    outcomes = {"image": 0, "refused": 0}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(150):
            try:
                pixels = read(damaged(SEEDS[name], random), max_pixels=200_000).pixels
            except ImageError as error:
                assert str(error).startswith("bytes: ")
                outcomes["refused"] += 1
                continue
            outcomes["image"] += 1
            assert pixels.dtype in (np.uint8, np.uint16, np.float32)
            assert pixels.ndim == 2 or pixels.shape[2:] == (3,)
            assert pixels.size > 0
    assert outcomes["refused"] > 10
    assert not [str(warning.message) for warning in caught]
