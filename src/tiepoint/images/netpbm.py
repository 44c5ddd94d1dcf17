"""PBM, PGM and PPM files that Pillow decodes with Python code, decoded with NumPy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from PIL import ImageFile

from tiepoint.errors import ImageError
from tiepoint.images.arrays import Array, Decoded, Pixels

_BLOCK_BYTES = 1 << 20
_DIGITS = b"0123456789"
_SPACE = b" \t\n\v\f\r"
_COMMENT = re.compile(rb"#[^\n\r]*[\n\r]")
_LONGEST_NUMBER = 10


def is_slow(image: ImageFile.ImageFile) -> bool:
    """Whether Pillow has no decoder in C for an opened file."""
    return image.format == "PPM" and bool(image.tile) and image.tile[0][0] in ("ppm", "ppm_plain")


def read_netpbm(stream: BinaryIO, image: ImageFile.ImageFile, name: str) -> Decoded:
    """Decode a file for which `is_slow` holds; values are scaled so that white is full scale.

    Returns:
        uint8 for a maximum of up to 255, else uint16.

    Raises:
        ImageError: Too short, or with values that are no numbers or too large.
    """
    codec, _, offset, arguments = image.tile[0]
    width, height = image.size
    channels = 3 if image.mode == "RGB" else 1
    count = width * height * channels
    stream.seek(offset)
    if image.mode == "1":
        pixels = np.empty(count, np.uint8)
        _fill(pixels, _bits(stream, name), name)
    else:
        maximum = next(value for value in _as_tuple(arguments) if isinstance(value, int))
        pixels = np.empty(count, np.uint8 if maximum < 256 else np.uint16)
        numbers = _numbers if codec == "ppm_plain" else _binary
        table = _scaled(maximum)
        _fill(pixels, (_looked_up(table, part, maximum, name) for part in numbers(
            stream, pixels.dtype, name)), name)  # fmt: skip
    return Decoded(pixels.reshape((height, width, 3) if channels == 3 else (height, width)))


def _scaled(maximum: int) -> Pixels:
    """Value in the file -> value of full scale, rounded to nearest."""
    full = 255 if maximum < 256 else 65535
    values = np.arange(maximum + 1) * (full / maximum)
    table: Pixels = np.rint(values) if full == 255 else np.floor(values + 0.5)
    return table.astype(np.uint8 if full == 255 else np.uint16)


def _looked_up(table: Pixels, values: Array, maximum: int, name: str) -> Pixels:
    if values.size and int(values.max()) > maximum:
        if values.dtype.itemsize > 2:  # a number in ASCII, which Pillow refuses
            raise _damaged(name, f"the value {int(values.max())} for a maximum of {maximum}")
        values = np.minimum(values, maximum)
    pixels: Pixels = table[values]
    return pixels


def _fill(pixels: Pixels, parts: Iterator[Array], name: str) -> None:
    done = 0
    for part in parts:
        missing = len(pixels) - done
        pixels[done : done + min(missing, len(part))] = part[:missing]
        done += min(missing, len(part))
        if done == len(pixels):
            return
    raise _damaged(name, f"{done} of {len(pixels)} values")


def _binary(stream: BinaryIO, dtype: Any, name: str) -> Iterator[Array]:
    size = dtype.itemsize
    while block := stream.read(_BLOCK_BYTES):
        whole = len(block) - len(block) % size
        yield np.frombuffer(block[:whole], f">u{size}")


def _numbers(stream: BinaryIO, dtype: Any, name: str) -> Iterator[Array]:
    rest = b""
    for block in _without_comments(stream, name):
        text = rest + block
        cut = len(text) if not block else max(text.rfind(space) for space in _SPACE) + 1
        text, rest = text[:cut], text[cut:]
        if len(rest) > _LONGEST_NUMBER or text.translate(None, _DIGITS + _SPACE):
            raise _damaged(name, "not whole numbers")
        if any(character in text for character in _DIGITS):
            yield np.minimum(np.fromstring(text.decode("ascii"), np.int64, sep=" "), 2**31).astype(
                np.uint32
            )


def _bits(stream: BinaryIO, name: str) -> Iterator[Array]:
    for block in _without_comments(stream, name):
        digits = block.translate(None, _SPACE)
        if digits.translate(None, b"01"):
            raise _damaged(name, "not zeros and ones")
        yield np.frombuffer(digits.translate(bytes.maketrans(b"01", b"\xff\0")), np.uint8)


def _without_comments(stream: BinaryIO, name: str) -> Iterator[bytes]:
    """The text in blocks, the last of which is empty."""
    rest = b""
    while block := stream.read(_BLOCK_BYTES):
        text = _COMMENT.sub(b"", rest + block)
        if rest and text[:1] == b"#":
            raise _damaged(name, f"a comment of more than {_BLOCK_BYTES} bytes")
        start = text.find(b"#")
        text, rest = (text, b"") if start < 0 else (text[:start], b"#")
        yield text
    yield b""


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _damaged(name: str, reason: str) -> ImageError:
    return ImageError(
        f"{name}: a damaged or truncated PPM file ({reason}), expected a whole one; "
        "copy or save it again"
    )
