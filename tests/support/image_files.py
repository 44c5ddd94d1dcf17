"""Writers of image files that Pillow cannot write: 16-bit and float PNG and TIFF, byte by byte; and
damage."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]


def encode(image: Image.Image, format_name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def exif_block(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png16(pixels: Array, *extra_chunks: bytes) -> bytes:
    """H W 1/2/3/4 uint16 -> PNG: grey, grey + alpha, RGB, RGBA."""
    height, width, channels = pixels.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    body = png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + b"".join(extra_chunks) + body


def tiff(
    pixels: Array,
    *,
    order: str = "<",
    photometric: int | None = None,
    extra: int | None = None,
    orientation: int | None = None,
    planar: int = 1,
    no_data: str | None = None,
    more_tags: dict[int, list[int]] | None = None,
) -> bytes:
    """H W C of any NumPy type -> an uncompressed TIFF of one strip (one per plane)."""
    height, width, channels = pixels.shape
    stored = pixels.transpose(2, 0, 1) if planar == 2 else pixels
    data = stored.astype(stored.dtype.newbyteorder(order)).tobytes()  # type: ignore[arg-type]
    strips = channels if planar == 2 else 1
    strip_bytes = len(data) // strips
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    tags = {
        256: [width],
        257: [height],
        258: [pixels.dtype.itemsize * 8] * channels,
        259: [1],
        262: [(2 if channels > 2 else 1) if photometric is None else photometric],
        273: [8 + i * strip_bytes for i in range(strips)],
        277: [channels],
        278: [height],
        279: [strip_bytes] * strips,
        284: [planar],
        339: [kind] * channels,
        **(more_tags or {}),
    }
    if extra is not None:
        tags[338] = [extra]
    if orientation is not None:
        tags[274] = [orientation]
    if no_data is not None:  # GDAL's, as text
        tags[42113] = [*no_data.encode(), 0]
    data += b"\0" * (len(data) % 2)
    values_at = 8 + len(data) + 2 + 12 * len(tags) + 4
    entries, values = b"", b""
    for tag, numbers in sorted(tags.items()):
        code, letter = (4, "I") if tag in (273, 279, 34665) else (3, "H")
        code, letter = (2, "B") if tag == 42113 else (code, letter)
        packed = struct.pack(order + letter * len(numbers), *numbers)
        entries += struct.pack(order + "HHI", tag, code, len(numbers))
        if len(packed) <= 4:
            entries += packed.ljust(4, b"\0")
        else:
            entries += struct.pack(order + "I", values_at + len(values))
            values += packed + b"\0" * (len(packed) % 2)
    magic = b"II*\0" if order == "<" else b"MM\0*"
    directory = struct.pack(order + "H", len(tags)) + entries + b"\0\0\0\0"
    return magic + struct.pack(order + "I", 8 + len(data)) + data + directory + values


def as_seen(pixels: Array, orientation: int) -> Array:
    """The EXIF standard's table, by NumPy: where row 0 and column 0 of the file are seen."""
    turned = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.swapaxes(0, 1),
        6: np.rot90(pixels, -1),
        7: pixels[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(pixels, 1),
    }
    return turned[orientation]


def on_white_slowly(pixels: Array, full: int) -> Array:
    """Alpha on white in exact fractions, rounded to nearest, halves up."""
    out = np.empty(pixels[..., :-1].shape, pixels.dtype)
    for index in np.ndindex(*out.shape):
        alpha = int(pixels[(*index[:-1], -1)])
        total = int(pixels[index]) * alpha + full * (full - alpha)
        out[index] = (2 * total + full) // (2 * full)
    return out


def damaged(data: bytes, random: np.random.Generator) -> bytes:
    """A file with a few bytes changed, an end cut off, or a part repeated or lost."""
    array = np.frombuffer(data, np.uint8).copy()
    kind = random.integers(4)
    if kind == 0:  # a few bytes anywhere
        at = random.integers(0, len(array), random.integers(1, 6))
        array[at] = random.integers(0, 256, len(at))
    elif kind == 1:  # the header
        at = random.integers(0, min(80, len(array)), random.integers(1, 6))
        array[at] = random.choice([0, 1, 127, 255], len(at))
    elif kind == 2:  # cut off
        array = array[: random.integers(0, len(array))]
    else:  # a part repeated or lost
        start, stop = np.sort(random.integers(0, len(array), 2))
        array = np.concatenate([array[:stop], array[start:]])
    return array.tobytes()
