"""Image files and PIL images -> pixels, with Pillow.

`sixteen_bit` reads the files that Pillow would truncate to 8 bits. Intact JPEGs, by far the most
frequent files, are decoded by simplejpeg to the same pixels in less time.
"""

from __future__ import annotations

import io
import logging
import os
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from typing import Any, BinaryIO

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, JpegImagePlugin, TiffImagePlugin

from tiepoint.errors import ImageError
from tiepoint.images.arrays import (
    Decoded,
    Pixels,
    as_float32,
    not_finite,
    whole_as_floats,
    with_alpha,
)
from tiepoint.images.gaps import NO_DATA, equal_to
from tiepoint.images.sixteen_bit import (
    deep_colour,
    float_tiff_size,
    read_deep_colour,
    read_float_tiff,
    tiff_tags,
    white_where,
)

FORMATS = {
    "JPEG": "JpegImagePlugin",
    "PNG": "PngImagePlugin",
    "TIFF": "TiffImagePlugin",
    "WEBP": "WebPImagePlugin",
    "BMP": "BmpImagePlugin",
    "GIF": "GifImagePlugin",
    "PPM": "PpmImagePlugin",
    "JPEG2000": "Jpeg2KImagePlugin",
    "AVIF": "AvifImagePlugin",
    "ICO": "IcoImagePlugin",
    "PSD": "PsdImagePlugin",
    "QOI": "QoiImagePlugin",
    "DDS": "DdsImagePlugin",
    "SGI": "SgiImagePlugin",
}
"""Supported formats and their modules in Pillow. Not supported are formats without a signature,
which accept any bytes (TGA), and formats that start other programs (EPS)."""

_SAMPLE_FORMAT, _UNSIGNED, _SIGNED = 339, (1,), (2,)  # TIFF 6.0, section 19
_TIFF_SIGNATURES = (b"II*\0", b"MM\0*")
_GREY_MODES = ("1", "L", "LA", "La")
_JPEG_COLOURS = {"L": "GRAY", "RGB": "RGB"}
_PIXEL_BYTES, _HEADER_BYTES = 3, 2**20
"""Largest JPEG to read, per pixel and in addition; a longer file has other data after the image,
such as a film."""

_ROWS = 16
"""Rows of an image to convert at a time; Pillow converts more at once more slowly, and keeps three
copies of them."""

logger = logging.getLogger(__name__)
_warnings_lock = threading.Lock()


def _renew_lock() -> None:
    global _warnings_lock  # noqa: PLW0603
    _warnings_lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # a child must not inherit a held lock
    os.register_at_fork(after_in_child=_renew_lock)


def decode(stream: BinaryIO, name: str, max_pixels: int) -> Decoded:
    """Decode the first image of a file.

    Args:
        stream: The file, seekable; the caller closes it.
        name: Name in error messages.
        max_pixels: px; compared with the header before decoding. Pillow's own limit
            (`PIL.Image.MAX_IMAGE_PIXELS`) is neither used nor changed, but its GIF, WebP and ICO
            modules apply it.

    Returns:
        The upright image.

    Raises:
        ImageError: Empty, not an image, truncated, damaged, too large.
    """
    stream.seek(0)
    prefix = stream.read(16)
    if not prefix:
        raise ImageError(f"{name}: empty (0 bytes), expected an image file")
    try:
        image = _open(stream, prefix, name)
    except ImageError:
        is_tiff = prefix.startswith(_TIFF_SIGNATURES)
        floats = _float_tiff(stream, name, max_pixels) if is_tiff else None
        if floats is None:
            raise
        return floats
    _check_size(image.size, name, max_pixels)
    sound = _sound_jpeg(image, stream)
    if sound is not None:
        orientation = _orientation(image)
        return Decoded(sound).upright(orientation)
    deep = deep_colour(image, name)
    if deep is None:
        return _loaded(image, name, own=True)
    orientation, _ = _load(image, name, own=True)
    stream.seek(0)
    decoded = read_deep_colour(stream.read(), deep, name)
    return decoded.upright(orientation, applied=deep.upright)


def from_pil(image: Image.Image, name: str, max_pixels: int) -> Decoded:
    """Read a PIL image of any mode; returns and raises like `decode`.

    A file that PIL has opened but not loaded is read like the file itself, 16-bit colours
    included. A loaded image has the depth that PIL gave it. Of several frames the current one is
    read.
    """
    if 0 in image.size:
        raise ImageError(f"{name}: a PIL image of {image.size[0]}x{image.size[1]} px has no pixels")
    if isinstance(image, ImageFile.ImageFile) and image.tile:
        _check_size(image.size, name, max_pixels)
        if deep_colour(image, name) is not None:
            data = _unread_file(image)
            if data is not None:
                return decode(io.BytesIO(data), name, max_pixels)
    return _loaded(image, name, own=False)


def _loaded(image: Image.Image, name: str, *, own: bool) -> Decoded:
    orientation, is_upright = _load(image, name, own=own)
    return _decoded(image, name).upright(orientation, applied=is_upright)


@contextmanager
def _pillow_warnings_silenced() -> Iterator[None]:
    """Silence Pillow's warnings about unusual headers.

    The lock is needed because `catch_warnings` is not thread-safe; only headers are read under it.
    """
    with _warnings_lock, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


@cache
def _openers() -> dict[str, tuple[Any, Any]]:
    """Format -> (reader, test of the first 16 bytes), as Pillow's modules register them."""
    for module in FORMATS.values():
        with suppress(ImportError):  # AVIF came with Pillow 11.3
            import_module(f"PIL.{module}")
    return {name: Image.OPEN[name] for name in FORMATS if name in Image.OPEN}


def _open(stream: BinaryIO, prefix: bytes, name: str) -> ImageFile.ImageFile:
    """`Image.open` without its size limit, which is global and also warns."""
    cause: Exception | None = None
    found = None
    with _pillow_warnings_silenced():
        for format_name, (factory, accept) in _openers().items():
            try:
                if accept is None or accept(prefix) is not True:
                    continue
                found = format_name
                stream.seek(0)
                image: ImageFile.ImageFile = factory(stream, "")
                return image
            except Exception as error:  # noqa: BLE001 - a damaged header may raise anything
                cause = error
    if found is None:
        known = ", ".join(FORMATS)
        raise ImageError(
            f"{name}: not an image in a known format, expected one of {known}; "
            "read others with another library and pass the array"
        )
    raise ImageError(
        f"{name}: a damaged or unsupported {found} file ({_reason(cause)}), expected a whole one; "
        "copy or save it again"
    ) from cause


def _float_tiff(stream: BinaryIO, name: str, max_pixels: int) -> Decoded | None:
    stream.seek(0)
    data = stream.read()
    with _pillow_warnings_silenced():
        tags = tiff_tags(data)
    size = float_tiff_size(tags, len(data))
    if size is None:
        return None
    _check_size(size, name, max_pixels)
    return read_float_tiff(data, tags)


def _check_size(size_wh: tuple[int, int], name: str, max_pixels: int) -> None:
    width, height = size_wh
    if width * height > max_pixels:
        raise ImageError(
            f"{name}: {width}x{height} px are more than the limit of {max_pixels} px; "
            "raise max_pixels or TIEPOINT_MAX_PIXELS if you trust the file"
        )


def _sound_jpeg(image: ImageFile.ImageFile, stream: BinaryIO) -> Pixels | None:
    """Decode an intact JPEG with simplejpeg, as stored; None leaves all other files to Pillow.

    Pillow holds the GIL while it copies pixels, which takes as long as decoding. Threads that read
    photographs would block one another.
    """
    colours = _JPEG_COLOURS.get(image.mode)
    if colours is None or not isinstance(image, JpegImagePlugin.JpegImageFile):
        return None
    width, height = image.size
    position = stream.tell()
    try:
        stream.seek(0)
        data = stream.read(_PIXEL_BYTES * width * height + _HEADER_BYTES)
        if simplejpeg.decode_jpeg_header(data)[:2] == (height, width):  # else beyond the data read
            pixels: Pixels = simplejpeg.decode_jpeg(data, colours, strict=True)
            return pixels[..., 0] if image.mode == "L" else pixels
    except Exception as error:  # noqa: BLE001 - Pillow tolerates more, and explains the rest
        logger.debug("simplejpeg failed (%s), decoding with Pillow", error)
    stream.seek(position)
    return None


def _load(image: Image.Image, name: str, *, own: bool) -> tuple[int, bool]:
    """Decode the pixels; returns the EXIF orientation and whether Pillow has applied it."""
    orientation = None
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        orientation = _orientation(image)
        if own:
            _ease_tiff_load(image)
    try:
        image.load()
    except Exception as error:  # Pillow raises nearly anything for a damaged file
        raise ImageError(
            f"{name}: a damaged or truncated {image.format or 'PIL'} image ({_reason(error)}), "
            "expected a whole one; copy or save it again"
        ) from error
    return (_orientation(image), False) if orientation is None else (orientation, True)


def _orientation(image: Image.Image) -> int:
    """The EXIF or XMP orientation, 1 to 8; 1 if it is missing or unreadable."""
    with _pillow_warnings_silenced():
        try:
            value = image.getexif().get(ExifTags.Base.Orientation, 1)
        except Exception:  # noqa: BLE001 - a damaged EXIF block does not affect the pixels
            return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _ease_tiff_load(image: TiffImagePlugin.TiffImageFile) -> None:
    """Disable the side effects of `load` that may raise: EXIF parsing and the pixel limit."""
    with _pillow_warnings_silenced(), suppress(Exception):
        for block in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo, ExifTags.IFD.Interop):
            image.getexif().pop(block, None)
        width, height = getattr(image, "_tile_size", image.size)
        if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
            image.im = Image.core.new(image.mode, (width, height))  # type: ignore[attr-defined]


def _unread_file(image: ImageFile.ImageFile) -> bytes | None:
    """The file of an image that PIL has opened but not loaded; its position is restored."""
    try:
        file = image.fp
        if file is None or image.tell() != 0 or image.format not in FORMATS:
            return None
        position = file.tell()
        file.seek(0)
        data = file.read()
        file.seek(position)
    except Exception:  # noqa: BLE001 - a closed file leaves PIL's own 8 bits
        return None
    return data


def _decoded(image: Image.Image, name: str) -> Decoded:
    """A loaded PIL image, as stored."""
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    try:
        if image.mode.startswith("I;16"):
            decoded = _sixteen_bit_grey(image, tags)
        elif image.mode == "F":
            pixels = as_float32(np.asarray(image))
            decoded = Decoded(pixels).without(not_finite(pixels))
        elif image.mode == "I" or (image.mode == "L" and tags.get(_SAMPLE_FORMAT) == _SIGNED):
            decoded = Decoded(_whole_numbers(_stored(image, tags)))
        else:
            decoded = _eight_bit(image)
        if NO_DATA in tags:
            bands, colours = _stored(image, tags), len(set(image.getbands()) - {"A", "a"})
            bands = bands[..., :colours] if bands.ndim == 3 else bands
            decoded = decoded.without(equal_to(bands, tags[NO_DATA]))
        return decoded
    except Exception as error:
        raise ImageError(
            f"{name}: a PIL image of mode {image.mode} cannot be read ({_reason(error)}); "
            'convert it with .convert("RGB")'
        ) from error


def _stored(image: Image.Image, tags: Mapping[int, Any]) -> NDArray[Any]:
    """The bands of a PIL image in the file's type, H W or H W C."""
    bands = np.asarray(image)
    if image.mode == "L" and tags.get(_SAMPLE_FORMAT) == _SIGNED:
        return bands.view(np.int8)
    is_unsigned = tags.get(ExifTags.Base.BitsPerSample) == (32,) and _SAMPLE_FORMAT not in tags
    is_unsigned |= tags.get(_SAMPLE_FORMAT) == _UNSIGNED
    return bands.view(np.uint32) if image.mode == "I" and is_unsigned else bands


def _eight_bit(image: Image.Image) -> Decoded:
    is_grey = image.mode in _GREY_MODES
    if image.mode in ("La", "RGBa") or image.has_transparency_data:
        return with_alpha(_in_strips(image.convert("LA" if is_grey else "RGBA")))
    target = "L" if is_grey else "RGB"
    return Decoded(_in_strips(image if image.mode == target else image.convert(target)))


def _in_strips(image: Image.Image) -> Pixels:
    """`np.asarray`, a few rows at a time."""
    width, height = image.size

    def rows(top: int, bottom: int) -> Pixels:
        # Like `image.crop`, but without the size limit, which is global and also warns.
        return np.asarray(image._new(image.im.crop((0, top, width, bottom))))

    first = rows(0, 1)
    pixels = np.empty((height, *first.shape[1:]), first.dtype)
    for top in range(0, height, _ROWS):
        bottom = min(top + _ROWS, height)
        pixels[top:bottom] = rows(top, bottom)
    return pixels


def _sixteen_bit_grey(image: Image.Image, tags: Mapping[int, Any]) -> Decoded:
    pixels = np.array(image, dtype=np.uint16)  # H W, this machine's byte order
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        return white_where(pixels, (transparent,))
    if tags.get(ExifTags.Base.BitsPerSample) == (12,):
        pixels = (pixels.astype(np.uint32) * 65535 // 4095).astype(np.uint16)
    if tags.get(ExifTags.Base.PhotometricInterpretation) == 0:
        pixels = 65535 - pixels  # 0 is white; Pillow inverts only 8 bits
    return Decoded(pixels)


def _whole_numbers(pixels: NDArray[Any]) -> Pixels:
    """Mode I has 32 bits but mostly holds images of 16 bits."""
    if pixels.dtype.itemsize == 4 and pixels.min() >= 0 and pixels.max() <= 65535:
        return pixels.astype(np.uint16)
    return whole_as_floats(pixels)


def _reason(error: Exception | None) -> str:
    return str(error) or type(error).__name__
