"""TIFF directories with wrong bytes."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc

import numpy as np
import pytest
import tifffile
from PIL import Image

from support.image_files import encode
from tiepoint.errors import ImageError
from tiepoint.images.reading import read

RANDOM = np.random.default_rng(17)
SMALL = encode(Image.fromarray(RANDOM.integers(0, 256, (8, 8, 3), dtype=np.uint8)), "TIFF")


def entries_of(data: bytes) -> list[int]:
    """Places of the entries of the first directory of a little-endian file."""
    start = struct.unpack("<I", data[4:8])[0]
    return [start + 2 + 12 * i for i in range(struct.unpack("<H", data[start : start + 2])[0])]


@pytest.mark.parametrize("values", [1, 2, 3, 1000])
@pytest.mark.parametrize("kind", [1, 2, 5, 7, 12, 16])
def test_a_tag_of_another_type_or_count_is_read_or_refused(kind: int, values: int) -> None:
    for place in entries_of(SMALL):
        data = bytearray(SMALL)
        data[place + 2 : place + 8] = struct.pack("<HI", kind, values)
        try:
            assert read(bytes(data)).size_hw == (8, 8)
        except ImageError as error:
            assert "TIFF" in str(error) or "px are more than" in str(error)


def test_a_width_of_two_values_takes_no_memory() -> None:
    data = bytearray(SMALL)
    (place,) = (place for place in entries_of(SMALL) if data[place : place + 2] == b"\0\1")
    data[place + 4] = 2
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(ImageError, match="tag 256 has 2 values of type 4, not 1 whole number"):
        read(bytes(data))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20
    assert time.process_time() - start < 1


@pytest.mark.parametrize("options", [{}, {"bigtiff": True}, {"byteorder": ">"}, {"tile": (16, 16)},
                                     {"compression": "zlib", "predictor": True},
                                     {"planarconfig": "separate"}])  # fmt: skip
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_wrong_bytes_in_a_directory_raise_no_other_error(
    dtype: type, options: dict[str, object]
) -> None:
    pixels = RANDOM.integers(0, 100, (20, 24, 3)).astype(dtype)
    pixels = np.moveaxis(pixels, -1, 0).copy() if "planarconfig" in options else pixels
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, metadata=None, photometric="rgb", **options)  # type: ignore[arg-type]
    seed = buffer.getvalue()
    order = "little" if seed[:2] == b"II" else "big"
    start = int.from_bytes(seed[8:16] if "bigtiff" in options else seed[4:8], order)  # type: ignore[arg-type]
    refused = 0
    for _ in range(150):
        data = bytearray(seed)
        for at in RANDOM.integers(start, min(start + 250, len(seed)), 2):
            data[at] = RANDOM.choice([0, 1, 2, 3, 4, 5, 7, 8, 12, 13, 16, 255])
        try:
            read(bytes(data), max_pixels=1_000_000)
        except ImageError:
            refused += 1
    assert refused > 5
