"""Run-length BMP, QOI and masked DDS files, which Pillow decodes with Python code."""

from __future__ import annotations

import io
from typing import Any, BinaryIO, cast

import cv2
import numpy as np
from PIL import ImageFile

from tiepoint.errors import ImageError, how_to_install
from tiepoint.images.arrays import Decoded, Pixels, with_alpha
from tiepoint.images.quiet import opencv_quiet

MAX_QOI_PIXELS = 1_000_000
"""px; Pillow needs more than 2 s for each million. The package qoi reads larger files."""

SLOW_CODECS = ("bmp_rle", "dds_rgb", "qoi")
"""Pillow's names of the decoders."""

_QOI_END = b"\0\0\0\0\0\0\0\1"
_MOST_QOI_BYTES = 5  # per pixel
_BLOCK_PX = 1 << 20
_TAIL_BYTES = 64
_DDS_HEADER_BYTES = 128  # DDS_HEADER after the signature; Direct3D 9
_FULL = 65535


def read_slow(stream: BinaryIO, image: ImageFile.ImageFile, name: str) -> Decoded | None:
    """Decode a file that Pillow has opened without its decoder, if that is in Python.

    Returns:
        None for files that Pillow decodes in C, and for small QOI files.

    Raises:
        ImageError: Damaged, or a large QOI file without the extra.
    """
    codec = image.tile[0][0] if image.tile else ""
    if codec == "bmp_rle":
        return _run_length_bmp(stream, image, name)
    if codec == "dds_rgb":
        return _masked_dds(stream, image, name)
    if codec == "qoi" and image.size[0] * image.size[1] > MAX_QOI_PIXELS:
        return _qoi(stream, image, name)
    return None


def _run_length_bmp(stream: BinaryIO, image: ImageFile.ImageFile, name: str) -> Decoded:
    stream.seek(0)
    width, height = image.size
    # Two bytes encode one pixel or more, and four bytes a jump.
    data = stream.read(image.tile[0][2] + 4 * (width + 2) * height + _TAIL_BYTES)
    pixels: Any = None
    with opencv_quiet():
        try:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error as error:
            raise _damaged(name, "run-length BMP") from error
    if pixels is None or pixels.shape[:2] != (height, width) or pixels.dtype != np.uint8:
        raise _damaged(name, "run-length BMP")
    if pixels.ndim == 3:
        cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)
    elif image.mode not in ("L", "1"):  # OpenCV keeps a palette of greys
        pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    return Decoded(pixels)


def _qoi(stream: BinaryIO, image: ImageFile.ImageFile, name: str) -> Decoded:
    try:
        import qoi
    except ImportError:
        raise ImageError(
            f"{name}: a QOI file of {image.size[0]}x{image.size[1]} px, more than the limit of "
            f"{MAX_QOI_PIXELS} px without the extra 'qoi', which is not installed: "
            f"{how_to_install('qoi')}"
        ) from None
    most = _MOST_QOI_BYTES * image.size[0] * image.size[1] + _TAIL_BYTES
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    data = stream.read(min(size, most))
    if _QOI_END not in data[-_TAIL_BYTES:]:  # the package fills what is missing
        raise _damaged(name, "QOI")
    try:
        pixels = qoi.decode(data)
    except Exception as error:
        raise _damaged(name, "QOI") from error
    return with_alpha(pixels) if pixels.shape[2] == 4 else Decoded(pixels)


def _masked_dds(stream: BinaryIO, image: ImageFile.ImageFile, name: str) -> Decoded:
    bits, masks = cast(tuple[int, tuple[int, ...]], image.tile[0][3])
    size, count = bits // 8, image.size[0] * image.size[1]
    if size not in (1, 2, 3, 4) or len(masks) not in (1, 3, 4):
        raise _damaged(name, "DDS")
    stream.seek(_DDS_HEADER_BYTES)  # Pillow's own offset is 0; its decoder reads on from here
    pixels = np.empty((count, len(masks)), np.uint8)
    for start in range(0, count, _BLOCK_PX):
        block = pixels[start : start + _BLOCK_PX]
        data = stream.read(size * len(block))
        if len(data) < size * len(block):
            raise _damaged(name, "DDS")
        padded = np.zeros((len(block), 4), np.uint8)
        padded[:, :size] = np.frombuffer(data, np.uint8).reshape(-1, size)
        values = padded.view("<u4")[:, 0]
        for channel, mask in enumerate(masks):
            block[:, channel] = _unmasked(values, mask)
    picture = pixels.reshape(image.size[1], image.size[0], len(masks))
    if len(masks) == 4:
        return with_alpha(picture)
    return Decoded(picture if len(masks) == 3 else picture[..., 0])


def _unmasked(values: Pixels, mask: int) -> Pixels:
    """The bits under a mask, scaled to 0..255 and rounded down."""
    if not mask:
        return np.zeros(len(values), np.uint8)
    lowest = mask & -mask
    highest = mask // lowest
    levels = (values & np.uint32(mask)) >> np.uint32(lowest.bit_length() - 1)
    if highest > _FULL:
        return (levels / highest * 255).astype(np.uint8)
    table = (np.arange(highest + 1) / highest * 255).astype(np.uint8)
    return np.asarray(table[levels])


def _damaged(name: str, kind: str) -> ImageError:
    return ImageError(
        f"{name}: a damaged or truncated {kind} file, expected a whole one; copy or save it again"
    )
