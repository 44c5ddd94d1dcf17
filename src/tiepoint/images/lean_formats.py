"""JPEG 2000, WebP and AVIF in bounded memory: some decoders need many bytes a pixel.

Pillow decodes JPEG 2000 tile by tile, but truncates 16-bit colours to 8 bits. OpenCV needs fewer
bytes a pixel for an image of one tile, and keeps 16 bits.
"""

from __future__ import annotations

import re
from typing import Any, BinaryIO, NamedTuple

import cv2
import numpy as np
from PIL import ImageFile

from tiepoint.errors import ImageError
from tiepoint.images.arrays import Decoded, Pixels, bands, blend_on_white
from tiepoint.images.quiet import opencv_quiet

PIXEL_BYTES, SPARE_BYTES = 12, 120 * 10**6
"""Memory to decode an image: per pixel, and in addition."""

_WEBP_BY_PILLOW = 17  # bytes a pixel, measured
_SIZ = re.compile(rb"\xff\x4f\xff\x51.{4}(.{32})(..)", re.DOTALL)  # ISO 15444-1, A.5.1
_AV1 = re.compile(rb"av1C\x81.(.)", re.DOTALL)  # AV1 in ISOBMFF, section 2.3.3
_AV1_DEEP, _AV1_HALF_CHROMA = 0x40, 0x0C
_HEADER_BYTES = 1 << 16
_FULL = 65535


class Components(NamedTuple):
    """Pixels of a JPEG 2000 image and of a tile; bits of each component, negative if signed."""

    pixels: int
    tile_pixels: int
    bits: tuple[int, ...]


def read_lean(stream: BinaryIO, image: ImageFile.ImageFile, name: str) -> Decoded | None:
    """Decode a file that Pillow has opened, where Pillow needs too much memory or loses bits.

    Returns:
        The image as stored; None for all files that Pillow decodes.

    Raises:
        ImageError: Damaged, or more memory than `PIXEL_BYTES` and `SPARE_BYTES`.
    """
    if image.format == "WEBP":
        return _webp(stream, image, name)
    if image.format in ("AVIF", "HEIF"):
        a_pixel = _heif_bytes(image) if image.format == "HEIF" else _avif_bytes(stream, image)
        needed = int(a_pixel * image.width * image.height)
        limit = PIXEL_BYTES * image.width * image.height + SPARE_BYTES
        if needed > limit:
            raise _too_much(name, image.format, needed, limit)
    if image.format != "JPEG2000":
        return None
    position = stream.tell()
    found = components_of(stream)
    stream.seek(position)
    if found is None:
        return None
    count, is_colour = len(found.bits), image.mode in ("RGB", "RGBA")
    is_deep = is_colour and max(map(abs, found.bits)) > 8
    if is_deep and (len(set(found.bits)) != 1 or not 8 < found.bits[0] <= 16):
        raise ImageError(
            f"{name}: a JPEG 2000 file with samples of {'/'.join(map(str, found.bits))} bits, "
            "expected the same 8 to 16 bits in each component; save it as PNG or TIFF"
        )
    limit = PIXEL_BYTES * found.pixels + SPARE_BYTES
    by_pillow = 6 * count * found.tile_pixels + (7 if is_colour else 4) * found.pixels
    if not is_deep and by_pillow <= limit:
        return None
    size = 2 if is_deep else 1
    extra = 4 * size if count == 4 else 1
    by_opencv = (4 * count + count * size + extra) * found.pixels
    if not is_colour or by_opencv > limit:
        raise _too_much(name, "JPEG 2000", min(by_pillow, by_opencv), limit)
    pixels = _by_opencv(stream, "JPEG 2000", name)
    if pixels.shape[2:] != (count,) or pixels.dtype.itemsize != size:
        raise _not_whole(name, "JPEG 2000")
    colours, alpha = _rgb(pixels)
    largest = 2 ** found.bits[0] - 1
    if is_deep and largest != _FULL:
        for part in (colours, alpha):
            if part is not None:
                _scale(part, largest)
    return _on_white(colours, alpha)


def components_of(stream: BinaryIO) -> Components | None:
    """The size and the components of a JPEG 2000 file; None if its header is not near the start."""
    stream.seek(0)
    header = stream.read(_HEADER_BYTES)
    found = _SIZ.search(header)
    if found is None:
        return None
    sizes = np.frombuffer(found[1], ">u4").astype(np.int64)
    size, origin, tile = sizes[0:2], sizes[2:4], sizes[4:6]
    bits = header[found.end() : found.end() + 3 * int.from_bytes(found[2], "big") : 3]
    if (size <= origin).any() or not bits:
        return None
    area = np.minimum(tile, size - origin)
    return Components(
        int((size - origin).prod()),
        int(area.prod()),
        tuple(-(value - 127) if value & 128 else value + 1 for value in bits),
    )


def _heif_bytes(image: ImageFile.ImageFile) -> float:
    """Memory for a pixel of a HEIF file, measured."""
    if image.info.get("bit_depth", 8) <= 8:
        return 10.5
    return (16 if image.info.get("chroma") == 444 else 13.8) + 4 * (image.mode == "RGBA")


def _avif_bytes(stream: BinaryIO, image: ImageFile.ImageFile) -> float:
    """Memory for a pixel of an AVIF file, measured. Pillow hides its bits and chroma."""
    position = stream.tell()
    stream.seek(0)
    # The third byte of an AV1 configuration has the flags; the largest of a file counts.
    flags = [found[1][0] for found in _AV1.finditer(stream.read())] or [_AV1_DEEP]
    stream.seek(position)
    sample_bytes = 1 + any(flag & _AV1_DEEP for flag in flags)
    samples = 1.5 if all(flag & _AV1_HALF_CHROMA == _AV1_HALF_CHROMA for flag in flags) else 3
    alpha = 2.4 + sample_bytes if image.mode == "RGBA" else 0
    return 9 + samples * sample_bytes + alpha


def _webp(stream: BinaryIO, image: ImageFile.ImageFile, name: str) -> Decoded | None:
    pixels = image.size[0] * image.size[1]
    limit = PIXEL_BYTES * pixels + SPARE_BYTES
    if pixels * _WEBP_BY_PILLOW <= limit:
        return None
    if getattr(image, "n_frames", 1) > 1:
        raise _too_much(name, "animated WebP", pixels * _WEBP_BY_PILLOW, limit)
    found = _by_opencv(stream, "WebP", name)
    if found.shape[:2] != image.size[::-1] or found.ndim != 3:
        raise _not_whole(name, "WebP")
    return _on_white(*_rgb(found))


def _by_opencv(stream: BinaryIO, kind: str, name: str) -> Pixels:
    stream.seek(0)
    data = np.frombuffer(stream.read(), np.uint8)
    pixels: Any = None
    with opencv_quiet():
        try:
            pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        except cv2.error as error:
            raise _not_whole(name, kind) from error
    if pixels is None:
        raise _not_whole(name, kind)
    return np.asarray(pixels)


def _rgb(pixels: Pixels) -> tuple[Pixels, Pixels | None]:
    """H W 3 or H W 4 in OpenCV's order -> H W 3 RGB, and alpha."""
    if pixels.shape[2] == 3:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)), None
    alpha = np.ascontiguousarray(pixels[..., 3])
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB)), alpha


def _scale(pixels: Pixels, largest: int) -> None:
    """Make `largest` full scale, in place."""
    for band in bands(pixels.shape):
        pixels[band] = pixels[band].astype(np.uint32) * _FULL // largest


def _on_white(colours: Pixels, alpha: Pixels | None) -> Decoded:
    return Decoded(colours, None if alpha is None else blend_on_white(colours, alpha))


def _too_much(name: str, kind: str, needed: int, limit: int) -> ImageError:
    return ImageError(
        f"{name}: this {kind} file needs {needed // 10**6} MB of memory, more than the limit of "
        f"{limit // 10**6} MB; save it as PNG or TIFF"
    )


def _not_whole(name: str, kind: str) -> ImageError:
    return ImageError(
        f"{name}: a damaged or unsupported {kind} file, expected a whole one; "
        "copy it again, or save it as PNG or TIFF"
    )
