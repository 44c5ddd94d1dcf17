"""16-bit colour and float TIFF files, which Pillow truncates to 8 bits or refuses, with OpenCV.

OpenCV reads a file only after Pillow has decoded it, or if its directory shows that it is complete.
Otherwise OpenCV would fill missing parts with zeros and write messages to stderr.
"""

from __future__ import annotations

import zlib
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin
from PIL.ExifTags import Base as Tag

from tiepoint.errors import ImageError
from tiepoint.images.arrays import Array, Decoded, Pixels, as_float32, not_finite, with_alpha
from tiepoint.images.gaps import NO_DATA, equal_to

_FULL = 65535
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EXTRA_SAMPLES = 338  # TIFF 6.0, section 18: 0 unspecified, 1 premultiplied alpha, 2 alpha
_TILE_OFFSETS, _TILE_BYTE_COUNTS = 324, 325  # TIFF 6.0, section 15
_SAMPLE_FORMAT = 339  # TIFF 6.0, section 19: 1 unsigned, 3 float


@dataclass(frozen=True)
class DeepColour:
    """Layout of the 16-bit colours in a file.

    Attributes:
        maximum: Value of white; less than 65535 in some PPM files.
        grey: Whether the image is grey with alpha.
        alpha: Whether the fourth channel is alpha.
        premultiplied: Whether the colours are already multiplied by alpha.
        transparent: The transparent colour, if there is one.
        upright: Whether OpenCV applies the orientation, as it does for TIFF's own tag.
        no_data: Text of GDAL's tag for pixels without data, if there is one.
    """

    maximum: int = _FULL
    grey: bool = False
    alpha: bool = True
    premultiplied: bool = False
    transparent: tuple[int, ...] | None = None
    upright: bool = False
    no_data: str | None = None


def deep_colour(image: ImageFile.ImageFile, name: str) -> DeepColour | None:
    """The layout of 16-bit colours in a file that Pillow has opened, not loaded; None without any.

    Raises:
        ImageError: A layout that neither Pillow nor OpenCV reads correctly.
    """
    if image.mode not in ("RGB", "RGBA", "RGBX") or not image.tile:
        return None
    arguments = image.tile[0][3]
    raw_mode = arguments if isinstance(arguments, str) else (arguments or ("",))[0]
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return _deep_tiff(image, str(raw_mode), name)
    if image.format == "PNG" and ";16" in str(raw_mode):
        transparent = image.info.get("transparency")
        return DeepColour(
            grey=str(raw_mode).startswith("LA"),
            alpha=image.mode == "RGBA",
            transparent=transparent if isinstance(transparent, tuple) else None,
        )
    if image.format == "PPM" and isinstance(arguments, tuple) and len(arguments) == 2:
        maximum = arguments[1]
        return DeepColour(maximum=maximum) if isinstance(maximum, int) and maximum > 255 else None
    return None


def _deep_tiff(image: TiffImagePlugin.TiffImageFile, raw_mode: str, name: str) -> DeepColour | None:
    tags = image.tag_v2
    if set(_tuple(tags.get(Tag.BitsPerSample))) != {16}:
        return None
    if tags.get(Tag.PlanarConfiguration, 1) != 1:
        raise ImageError(
            f"{name}: a TIFF of 16-bit colours in separate planes, expected interleaved colours; "
            "save it with planar configuration 1, or pass the array"
        )
    premultiplied, is_upright = raw_mode.startswith("RGBa"), Tag.Orientation in tags
    return DeepColour(
        alpha=image.mode == "RGBA",
        premultiplied=premultiplied,
        upright=is_upright,
        no_data=tags.get(NO_DATA),
    )


def read_deep_colour(data: bytes, deep: DeepColour, name: str) -> Decoded:
    """Read a file that Pillow has decoded without an error; see `DeepColour.upright`.

    Returns:
        H W 3 uint16 RGB, or H W for grey with alpha, on white.
    """
    array = _imdecode(_pixels_of_png(data) if data.startswith(_PNG_SIGNATURE) else data)
    if array is None or array.dtype != np.uint16 or array.ndim != 3:
        raise ImageError(
            f"{name}: 16-bit colours that OpenCV cannot read; save it as PNG, or pass the array"
        )
    gaps = equal_to(array[..., :3], deep.no_data)
    image = _rgb_from_bgr(array, alpha=deep.alpha, premultiplied=deep.premultiplied)  # H W 3
    if deep.transparent is not None:
        image = white_where(image.pixels, deep.transparent)
    pixels = image.pixels
    if deep.maximum != _FULL:
        wide = pixels.astype(np.uint32) * _FULL + deep.maximum // 2
        pixels = np.minimum(wide // deep.maximum, _FULL).astype(np.uint16)
    pixels = np.ascontiguousarray(pixels[..., 0]) if deep.grey else pixels
    return replace(image, pixels=pixels).without(gaps)


def _pixels_of_png(data: bytes) -> bytes:
    """The file reduced to its first image.

    OpenCV would allocate up to 4 GB for a chunk with a damaged length, and its versions treat
    gamma, EXIF and animation differently.
    """
    parts, at = [_PNG_SIGNATURE], len(_PNG_SIGNATURE)
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            break
        if data[at + 4 : at + 8] in (b"IHDR", b"IDAT"):  # transparency is in `DeepColour`
            checksum = zlib.crc32(data[at + 4 : end])  # Pillow accepts a wrong one
            parts += [data[at:end], checksum.to_bytes(4, "big")]
        at = end + 4
    return b"".join([*parts, b"\0\0\0\0IEND\xaeB`\x82"])


def white_where(pixels: Pixels, colour: tuple[int, ...]) -> Decoded:
    """H W or H W C with one colour white and without data, as PNG's tRNS requires for 16 bits."""
    is_colour = pixels == np.array(colour)  # H W or H W C
    if pixels.ndim == 3:
        is_colour = is_colour.all(axis=-1)  # H W
    white = pixels.copy()
    white[is_colour] = _FULL
    return Decoded(white).without(is_colour)


def tiff_tags(data: bytes) -> dict[int, Any]:
    """The first directory of a TIFF file; empty if there is no readable one."""
    try:
        directory = Image.Exif()
        directory.load(data)
        return dict(directory)
    except Exception:  # noqa: BLE001 - Pillow raises nearly anything for damaged bytes
        return {}


def float_tiff_size(tags: dict[int, Any], file_bytes: int) -> tuple[int, int] | None:
    """(width, height) if `read_float_tiff` can read the file, else None.

    It reads layouts that Pillow does not support (floats in colour or of 64 bits, big-endian grey
    with white as zero), if every strip or tile is inside the file.
    """
    try:
        width, height = int(tags[Tag.ImageWidth]), int(tags[Tag.ImageLength])
        samples = int(tags.get(Tag.SamplesPerPixel, 1))
        bits, kinds = set(_tuple(tags[Tag.BitsPerSample])), set(_tuple(tags.get(_SAMPLE_FORMAT, 1)))
        starts = _tuple(tags.get(Tag.StripOffsets, tags.get(_TILE_OFFSETS)))
        counts = _tuple(tags.get(Tag.StripByteCounts, tags.get(_TILE_BYTE_COUNTS)))
        ends = [start + count for start, count in zip(starts, counts, strict=True)]
        is_whole = min((*ends, width, height)) > 0 and max(ends, default=0) <= file_bytes
    except Exception:  # noqa: BLE001 - missing tags, or tags of another type
        return None
    is_float = kinds == {3} and bits in ({32}, {64}) and samples in (1, 3, 4)
    is_inverted_grey = kinds == {1} and bits == {16} and samples == 1
    is_planar = samples > 1 and tags.get(Tag.PlanarConfiguration, 1) != 1
    readable = (is_float or is_inverted_grey) and ends and is_whole and not is_planar
    return (width, height) if readable else None


def read_float_tiff(data: bytes, tags: dict[int, Any]) -> Decoded | None:
    """Read a TIFF for which `float_tiff_size` returned a size.

    Returns:
        The upright image (OpenCV rotates it); None if OpenCV fails.
    """
    array = _imdecode(data)
    if array is None or array.dtype not in (np.uint16, np.float32, np.float64):
        return None
    orientation = tags.get(Tag.Orientation, 1)
    orientation = orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1
    return _finish_tiff(array, tags).upright(orientation, applied=True)


def _finish_tiff(array: Array, tags: dict[int, Any]) -> Decoded:
    gaps = equal_to(array[..., :3] if array.ndim == 3 else array, tags.get(NO_DATA))
    pixels: Pixels = array if array.dtype == np.uint16 else as_float32(array)
    if pixels.ndim == 2:
        if tags.get(Tag.PhotometricInterpretation) == 0:  # white is zero
            full = _FULL if pixels.dtype == np.uint16 else 1
            pixels = (full - pixels).astype(pixels.dtype)
        image = Decoded(pixels)
    else:
        extra = _tuple(tags.get(_EXTRA_SAMPLES, 2))
        image = _rgb_from_bgr(pixels, alpha=0 not in extra, premultiplied=1 in extra)
    return image.without(gaps).without(not_finite(image.pixels))


def _imdecode(data: bytes) -> Array | None:
    with suppress(cv2.error):
        array: Array | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        return array
    return None


def _rgb_from_bgr(array: Array, *, alpha: bool, premultiplied: bool) -> Decoded:
    """H W 3 or H W 4 in OpenCV's order -> H W 3 RGB, blended with white if alpha counts."""
    if array.shape[2] == 4 and alpha:
        rgba = cv2.cvtColor(array, cv2.COLOR_BGRA2RGBA)
        return with_alpha(rgba, premultiplied=premultiplied)
    code = cv2.COLOR_BGR2RGB if array.shape[2] == 3 else cv2.COLOR_BGRA2RGB
    return Decoded(np.asarray(cv2.cvtColor(array, code)))


def _tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else () if value is None else (value,)
