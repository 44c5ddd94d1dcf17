"""Image files and PIL images -> pixels, with Pillow.

Other modules read what Pillow would truncate to 8 bits, refuse, or decode with Python code:
`tiff_samples`, `sixteen_bit`, `netpbm`, `slow_formats` and `lean_formats`. Intact JPEGs, by far the
most frequent files, are decoded by simplejpeg, if installed, to the same pixels in less time.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, ImagePalette, JpegImagePlugin, TiffImagePlugin

from tiepoint.errors import ImageError, TooManyPixelsError
from tiepoint.images.arrays import (
    Decoded,
    Pixels,
    as_float32,
    blend_on_white,
    not_finite,
    stored_view,
    upright_size,
    whole_as_floats,
)
from tiepoint.images.gaps import NO_DATA, equal_to
from tiepoint.images.lean_formats import read_lean
from tiepoint.images.netpbm import is_slow, read_netpbm
from tiepoint.images.openers import FORMATS, open_image, pillow_warnings_silenced, reason_of
from tiepoint.images.quiet import libtiff_quiet
from tiepoint.images.sixteen_bit import (
    is_deep_png,
    raw_mode_of,
    read_deep_png,
    white_where,
)
from tiepoint.images.slow_formats import SLOW_CODECS, read_slow

_SAMPLE_FORMAT, _UNSIGNED, _SIGNED = 339, (1,), (2,)  # TIFF 6.0, section 19
_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # classic and BigTIFF
_GREY_MODES = ("1", "L", "LA", "La")
_JPEG_COLOURS = {"L": "GRAY", "RGB": "RGB"}
_FEW_BITS = {"L;2": 85, "L;4": 17}
"""Pillow's names of the grey of a PNG that it scales to 8 bits, and by how much."""

_PIXEL_BYTES, _HEADER_BYTES = 3, 2**20
"""Largest JPEG to read, per pixel and in addition; a longer file has other data after the image,
such as a film."""

_ROWS = 16
"""Rows of an image to copy at a time; Pillow copies more at once more slowly, and keeps three
copies of them."""

_COPIED_PX, _CONVERTED_PX = 1 << 14, 1 << 18
"""Fewest pixels to copy at a time, so that rows may be short; the same to another mode."""

_MOST_ROWS = 15_000_000
"""Pillow keeps a pointer to each row, of 8 bytes: `SPARE_BYTES` of `lean_formats`."""

try:
    import simplejpeg
except ImportError:  # without the extra `jpeg` Pillow decodes to the same pixels
    simplejpeg = None

logger = logging.getLogger(__name__)


def decode(stream: BinaryIO, name: str, max_pixels: int) -> Decoded:
    """Decode the first image of a file; of a TIFF the first that is no thumbnail.

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
    if prefix.startswith(_TIFF_SIGNATURES):
        try:
            return _tiff(stream, prefix, name, max_pixels)
        except (TypeError, ValueError, OverflowError) as error:
            raise _damaged_tag(name, error) from error
    image = open_image(stream, prefix, name)
    _check_size(image.size, name, max_pixels)
    sound = _sound_jpeg(image, stream)
    if sound is not None:
        return Decoded(sound).upright(_orientation(image))
    _mend_transparency(image)
    special = _special(image, stream, prefix, name)
    return _loaded(image, name, own=True) if special is None else special


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
        if _is_special(image):
            file = _unread_file(image)
            if file is not None:
                position = file.tell()
                try:
                    return decode(file, name, max_pixels)
                finally:
                    file.seek(position)
    return _loaded(image, name, own=False)


def _tiff(stream: BinaryIO, prefix: bytes, name: str, max_pixels: int) -> Decoded:
    from tiepoint.images import tiff_pages  # on first use: tifffile takes 50 ms

    page, errors = tiff_pages.full_picture(stream, name)
    tiff_pages.check_raw(page, name)
    _check_size((page.imagewidth, page.imagelength), name, max_pixels)
    layout = tiff_pages.segments_of(page, stream, name)
    reason = tiff_pages.reason_against(page)
    # Pillow ignores alpha and further bands in planes; libtiff refuses a clipped strip.
    is_ours = page.dtype != np.uint8 or layout.planes > 1 or layout.is_clipped
    if reason is None and is_ours:
        return _tiff_samples(stream, page, layout, name)
    if reason and tiff_pages.is_truncated_by_pillow(page):
        raise tiff_pages.refused(name, reason, errors)
    try:
        image = open_image(tiff_pages.starting_at(stream, page), prefix, name)
    except ImageError as error:
        if reason is None:
            return _tiff_samples(stream, page, layout, name)
        raise tiff_pages.refused(name, reason, errors) from error
    _check_size(image.size, name, max_pixels)
    _mend_palette(image)
    return _loaded(image, name, own=True)


def _damaged_tag(name: str, error: Exception) -> ImageError:
    from tiepoint.images.tiff_pages import damaged

    return damaged(name, f"a tag of the wrong type, {reason_of(error)}")


def _tiff_samples(stream: BinaryIO, page: Any, layout: Any, name: str) -> Decoded:
    from tiepoint.images.tiff_samples import read_samples

    return read_samples(stream, page, layout, name)


def _mend_palette(image: ImageFile.ImageFile) -> None:
    """Colours of 0..255 instead of 0..65535, as some programs write them."""
    values = image.tag_v2.get(320) if isinstance(image, TiffImagePlugin.TiffImageFile) else None
    if image.mode in ("P", "PA") and values and max(values) <= 255:
        image.palette = ImagePalette.raw("RGB;L", bytes(values))


def _mend_transparency(image: ImageFile.ImageFile) -> None:
    """A transparent grey of 2 or 4 bits as 8 bits, as which Pillow compares it."""
    factor = _FEW_BITS.get(raw_mode_of(image)) if image.format == "PNG" else None
    grey = image.info.get("transparency")
    if factor and isinstance(grey, int):
        image.info["transparency"] = grey * factor


def _is_special(image: ImageFile.ImageFile) -> bool:
    """Whether Pillow alone would not read an opened file as `decode` does."""
    return (
        isinstance(image, TiffImagePlugin.TiffImageFile)
        or image.format in ("JPEG2000", "WEBP")
        or image.tile[0][0] in SLOW_CODECS
        or is_deep_png(image)
        or (image.format == "PNG" and raw_mode_of(image) in _FEW_BITS)
        or is_slow(image)
    )


def _special(
    image: ImageFile.ImageFile, stream: BinaryIO, prefix: bytes, name: str
) -> Decoded | None:
    """Decode a file without Pillow's decoder; None if that serves."""
    if is_deep_png(image):
        return read_deep_png(
            lambda: open_image(stream, prefix, name), lambda png: _load(png, name, own=True)[0]
        )
    if is_slow(image):
        return read_netpbm(stream, image, name)
    lean = read_lean(stream, image, name)
    if lean is not None:
        return lean.upright(_orientation(image))
    slow = read_slow(stream, image, name)
    return None if slow is None else slow.upright(_orientation(image))


def _loaded(image: Image.Image, name: str, *, own: bool) -> Decoded:
    orientation, is_upright = _load(image, name, own=own)
    turn = 1 if is_upright else orientation
    return _decoded(image, name, turn).upright(orientation, applied=True)


def _check_size(size_wh: tuple[int, int], name: str, max_pixels: int) -> None:
    width, height = size_wh
    if width * height > max_pixels:
        raise TooManyPixelsError(
            f"{name}: {width}x{height} px are more than the limit of {max_pixels} px; "
            "raise max_pixels or TIEPOINT_MAX_PIXELS if you trust the file"
        )
    if height > _MOST_ROWS:
        raise ImageError(
            f"{name}: {width}x{height} px are more than the limit of {_MOST_ROWS} rows; "
            "save it with fewer rows"
        )


def _sound_jpeg(image: ImageFile.ImageFile, stream: BinaryIO) -> Pixels | None:
    """Decode an intact JPEG with simplejpeg, as stored; None leaves all other files to Pillow.

    Pillow holds the GIL while it copies pixels, which takes as long as decoding. Threads that read
    photographs would block one another.
    """
    colours = _JPEG_COLOURS.get(image.mode)
    is_jpeg = isinstance(image, JpegImagePlugin.JpegImageFile)
    if simplejpeg is None or colours is None or not is_jpeg:
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
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    is_libtiff = bool(tiles) and tiles[0][0] == "libtiff"
    try:
        with libtiff_quiet() if is_libtiff else nullcontext():
            image.load()
    except Exception as error:  # Pillow raises nearly anything for a damaged file
        raise ImageError(
            f"{name}: a damaged or truncated {image.format or 'PIL'} image ({reason_of(error)}), "
            "expected a whole one; copy or save it again"
        ) from error
    return (_orientation(image), False) if orientation is None else (orientation, True)


def _orientation(image: Image.Image) -> int:
    """The EXIF or XMP orientation, 1 to 8; 1 if it is missing or unreadable."""
    with pillow_warnings_silenced():
        try:
            value = image.getexif().get(ExifTags.Base.Orientation, 1)
        except Exception:  # noqa: BLE001 - a damaged EXIF block does not affect the pixels
            return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _ease_tiff_load(image: TiffImagePlugin.TiffImageFile) -> None:
    """Disable the side effects of `load` that may raise: EXIF parsing and the pixel limit."""
    with pillow_warnings_silenced(), suppress(Exception):
        for block in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo, ExifTags.IFD.Interop):
            image.getexif().pop(block, None)
        width, height = getattr(image, "_tile_size", image.size)
        if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
            image.im = Image.core.new(image.mode, (width, height))  # type: ignore[attr-defined]


def _unread_file(image: ImageFile.ImageFile) -> BinaryIO | None:
    """The file of an image that PIL has opened but not loaded, if it can be read from its start."""
    try:
        file: Any = image.fp
        if file is None or image.tell() != 0 or image.format not in FORMATS:
            return None
        file.seek(file.tell())
    except Exception:  # noqa: BLE001 - a closed file leaves PIL's own 8 bits
        return None
    return cast(BinaryIO, file) if isinstance(file, io.IOBase) else None


def _decoded(image: Image.Image, name: str, turn: int) -> Decoded:
    """A loaded PIL image, turned by an EXIF orientation."""
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
            decoded, turn = _eight_bit(image, turn), 1
        if NO_DATA in tags:
            bands, colours = _stored(image, tags), len(set(image.getbands()) - {"A", "a"})
            bands = bands[..., :colours] if bands.ndim == 3 else bands
            decoded = decoded.without(equal_to(bands, tags[NO_DATA]))
        return decoded.upright(turn)
    except Exception as error:
        raise ImageError(
            f"{name}: a PIL image of mode {image.mode} cannot be read ({reason_of(error)}); "
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


def _eight_bit(image: Image.Image, turn: int) -> Decoded:
    is_grey = image.mode in _GREY_MODES
    has_alpha = image.mode in ("La", "RGBa") or image.has_transparency_data
    target = ("LA" if is_grey else "RGBA") if has_alpha else ("L" if is_grey else "RGB")
    size_hw = upright_size(image.size[::-1], turn)
    pixels = np.empty(size_hw if is_grey else (*size_hw, 3), np.uint8)
    alpha = np.empty(size_hw, np.uint8) if has_alpha else None
    width, height = image.size
    at_once = max(_ROWS, (_COPIED_PX if image.mode == target else _CONVERTED_PX) // width)
    for top in range(0, height, at_once):
        bottom = min(top + at_once, height)
        # Like `image.crop`, but without the size limit, which is global and also warns.
        strip = image._new(image.im.crop((0, top, width, bottom)))
        rows = np.asarray(strip if strip.mode == target else strip.convert(target))
        if alpha is not None:
            stored_view(alpha, turn)[top:bottom] = rows[..., -1]
            rows = rows[..., 0] if is_grey else rows[..., :3]
        stored_view(pixels, turn)[top:bottom] = rows
    return Decoded(pixels, None if alpha is None else blend_on_white(pixels, alpha))


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
