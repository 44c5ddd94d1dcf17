"""Any image source -> upright pixels: path, URL, bytes, file, PIL image, array, tensor."""

from __future__ import annotations

import io
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tiepoint.checks import check_choice, check_whole
from tiepoint.errors import ImageError
from tiepoint.files.paths import is_folder
from tiepoint.files.reading import open_regular
from tiepoint.files.writing import special_kind
from tiepoint.images.arrays import ChannelOrder, Decoded, Pixels, from_array
from tiepoint.images.decoding import decode, from_pil
from tiepoint.images.download import fetch
from tiepoint.images.urls import LONGEST_URL, is_url, without_credentials

__all__ = ["DEFAULT_MAX_PIXELS", "ChannelOrder", "Source", "SourceImage", "read"]

Source = Any
"""Any source of `read`; arrays and tensors of all libraries are recognised, so it has no bound."""

DEFAULT_MAX_PIXELS = 250_000_000
"""px; more than the largest camera sensors (200 Mpx), and less than 2 GB of memory to decode."""

MAX_PIXELS_VARIABLE = "TIEPOINT_MAX_PIXELS"
_LONGEST_NAME = 300
_OTHER_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://|data:", re.IGNORECASE)
_EXPECTED = (
    "expected a path, an http(s) URL, bytes, a binary file, a PIL image, "
    "a NumPy array or a torch tensor"
)


@dataclass(frozen=True, eq=False)
class SourceImage:
    """An upright image with its name and its mask.

    Attributes:
        pixels: H W (grey) or H W 3 (RGB), C-contiguous and read-only, in the image's own values:
            uint8, uint16 or float32; float64 for whole numbers that float32 does not represent.
            An array that needs no conversion shares its memory with the caller's.
        name: The path as given, the URL without credentials, the file's own name, or the kind of
            the source: "bytes", "file object", "PIL image", "array", "tensor".
        exif_orientation: EXIF orientation of the file, 1 to 8; 1 if it has none. It is already
            applied to the pixels.
        mask: H W bool, True where keypoints are allowed; None allows them everywhere.
        mask_name: The mask's path as given, or "array" for a mask in memory; None without mask.
        valid: H W bool, False for pixels without data; None if all pixels have data.
    """

    pixels: Pixels
    name: str
    exif_orientation: int = 1
    mask: NDArray[np.bool_] | None = None
    mask_name: str | None = None
    valid: NDArray[np.bool_] | None = None

    @property
    def size_hw(self) -> tuple[int, int]:
        """(height, width) of the upright image, px."""
        height, width = self.pixels.shape[:2]
        return height, width


class NamedBytes(bytes):
    """The bytes of an image file, with the name that results and messages state.

    Args:
        data: Contents of the file.
        name: Where it came from.
    """

    name: str

    def __new__(cls, data: bytes, name: str) -> NamedBytes:
        named = super().__new__(cls, data)
        named.name = name
        return named

    def __reduce__(self) -> tuple[type[NamedBytes], tuple[bytes, str]]:
        return type(self), (bytes(self), self.name)


def read(
    source: Source, *, channel_order: ChannelOrder = "rgb", max_pixels: int | None = None
) -> SourceImage:
    """Read one image from any source; all sources of one file give the same pixels.

    Files keep their depth: 8 bits give uint8, 16 bits uint16, floats and other whole numbers
    float32. Images with alpha are blended with white, and the EXIF orientation is applied. Of
    several frames or pages the first is read; of a TIFF file the first that is no thumbnail.
    Decoding takes less than 12 bytes of memory a pixel, or 13 for RGB floats, plus 200 MB.

    No data have: fully transparent pixels, masked elements of a NumPy masked array, NaN, infinity,
    floats beyond 1e37, and pixels whose bands all have the no-data value of a GeoTIFF file.

    Args:
        source: A path (str or PathLike); an http(s) URL; the bytes of an image file; a file
            opened in binary mode, read from its start, its position restored; a PIL image of any
            mode; an array `H W`, `H W 1`, `H W 3` or `H W 4` (whole numbers, floats, bool) or an
            object that NumPy converts to one; a torch tensor `H W` or `C H W` of the same types;
            or a SourceImage, which is returned. No source is changed.
        channel_order: Order of the colours in arrays and tensors: "rgb", or "bgr" as in OpenCV.
            Other sources define their own order.
        max_pixels: px; a larger file is refused before it is decoded. None is the environment
            variable TIEPOINT_MAX_PIXELS, or else `DEFAULT_MAX_PIXELS`. Arrays and PIL images in
            memory are not limited.

    Returns:
        The upright pixels with the source's name and EXIF orientation.

    Raises:
        ImageError: Missing, a folder, not an image, truncated, empty, too large, an unsupported
            type or shape.
        ConfigError: An unknown channel order, or a limit that is no whole number.
    """
    check_choice("channel_order", channel_order, get_args(ChannelOrder))
    if isinstance(source, SourceImage):
        return source
    decoded, name = decoded_of(source, channel_order, max_pixels)
    pixels = decoded.pixels.view()  # the caller's own array remains writeable
    pixels.flags.writeable = False
    return SourceImage(pixels, name, decoded.exif_orientation, valid=decoded.seen)


def decoded_of(
    source: Source, channel_order: ChannelOrder = "rgb", max_pixels: int | None = None
) -> tuple[Decoded, str]:
    """The image of a source with its alpha, and its name; arguments and errors as for `read`."""
    limit = _pixel_limit(max_pixels)
    if isinstance(source, str | os.PathLike):
        return _read_named(os.fsdecode(source), limit)
    if isinstance(source, bytes | bytearray | memoryview):
        name = source.name if isinstance(source, NamedBytes) else "bytes"
        return decode(io.BytesIO(source), name, limit), name
    if isinstance(source, Image.Image):
        name = _text(getattr(source, "filename", "")) or "PIL image"
        return from_pil(source, name, limit), name
    if _is_tensor(source):
        array = _tensor_to_array(source)
        return from_array(array, "tensor", channel_order, layout="chw"), "tensor"
    if hasattr(source, "__array__") or hasattr(source, "__array_interface__"):
        array = _as_array(source)
        return from_array(array, "array", channel_order, layout="hwc"), "array"
    if callable(getattr(source, "read", None)):
        return _read_file(source, limit)
    raise ImageError(f"an object of type {type(source).__name__} is not an image: {_EXPECTED}")


def is_source(source: object) -> bool:
    """Whether `read` takes objects of this type."""
    types = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image, SourceImage)
    return (
        isinstance(source, types)
        or _is_tensor(source)
        or any(hasattr(source, name) for name in ("__array__", "__array_interface__"))
        or callable(getattr(source, "read", None))
    )


def _pixel_limit(max_pixels: int | None) -> int:
    name = "max_pixels"
    value: Any = max_pixels
    if max_pixels is None:
        text = os.environ.get(MAX_PIXELS_VARIABLE) or str(DEFAULT_MAX_PIXELS)
        name, value = MAX_PIXELS_VARIABLE, int(text) if text.isdecimal() else text
    check_whole(name, value, minimum=1, unit="px")
    return int(value)


def _read_named(name: str, limit: int) -> tuple[Decoded, str]:
    if not name:
        raise ImageError(f"an empty path is not an image: {_EXPECTED}")
    if is_url(name):
        shown = without_credentials(name)
        if len(name) > LONGEST_URL:
            raise ImageError(
                f"{_shortened(shown)}: a URL of {len(name)} characters, more than the limit of "
                f"{LONGEST_URL}; download it and pass its path or bytes"
            )
        return decode(io.BytesIO(fetch(name)), shown, limit), shown
    if scheme := _OTHER_SCHEME.match(name):
        raise ImageError(
            f"{_shortened(without_credentials(name))}: only http:// and https:// are supported, "
            f"not {scheme[0]}; download it and pass its path or bytes"
        )
    return _read_path(name, limit)


def _read_path(name: str, limit: int) -> tuple[Decoded, str]:
    with _open(name) as stream:
        return decode(stream, name, limit), name


def _open(name: str) -> BinaryIO:
    if kind := special_kind(name):
        raise ImageError(f"{name}: {kind}, expected an image file; pass the bytes of the image")
    try:
        return open_regular(name)
    except FileNotFoundError as error:
        name = _shortened(name)
        hint = ""
        if not Path(name).is_absolute():
            with suppress(OSError):  # the working folder is removed
                hint = f" (looked for in {Path.cwd()})"
        raise ImageError(f"{name}: no such file; check the path{hint}") from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        if isinstance(error, IsADirectoryError | PermissionError) and is_folder(name):
            raise ImageError(
                f"{name}: a folder, expected an image file; pass the files inside it"
            ) from error
        reason = getattr(error, "strerror", None) or error
        name = _shortened(name)
        raise ImageError(f"{name}: cannot be opened ({reason}); check path and rights") from error


def _shortened(name: str) -> str:
    """A name for an error message, which may be a whole image passed as text."""
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."


def _read_file(file: Any, limit: int) -> tuple[Decoded, str]:
    name = _text(getattr(file, "name", "")) or "file object"
    try:
        try:
            position = file.tell()
            file.seek(0)
        except (AttributeError, OSError, ValueError):
            position = None  # a pipe or a socket: the rest is the image
        data = file.read()
        if position is not None:
            file.seek(position)
    except Exception as error:
        raise ImageError(f"{name}: the file object cannot be read ({error})") from error
    if isinstance(data, str):
        raise ImageError(f'{name}: opened as text, expected bytes; open it with mode "rb"')
    if not isinstance(data, bytes | bytearray | memoryview):
        raise ImageError(f"{name}: read() returned {type(data).__name__}, expected bytes")
    return decode(io.BytesIO(data), name, limit), name


def _text(value: object) -> str:
    """A name as text; file objects of open descriptors have a number as name, which gives ""."""
    return os.fsdecode(value) if isinstance(value, str | bytes | os.PathLike) else ""


def _is_tensor(source: object) -> bool:
    """Whether this is a torch tensor or a subclass, without importing torch."""
    return any(
        base.__name__ == "Tensor" and base.__module__.split(".")[0] == "torch"
        for base in type(source).__mro__
    )


def _tensor_to_array(tensor: Any) -> np.ndarray[Any, Any]:
    try:
        tensor = tensor.detach().cpu()
        if str(tensor.dtype) == "torch.bfloat16":  # a type that NumPy does not have
            tensor = tensor.float()
        return np.asarray(tensor.numpy())
    except Exception as error:
        raise ImageError(
            f"tensor: cannot be read as an array ({error}); "
            "pass a dense tensor of whole numbers or floats"
        ) from error


def _as_array(source: Any) -> np.ndarray[Any, Any]:
    try:
        return (
            np.ma.asarray(source) if isinstance(source, np.ma.MaskedArray) else np.asarray(source)
        )
    except Exception as error:
        kind = type(source).__name__
        raise ImageError(f"array: NumPy cannot read this {kind} ({error}): {_EXPECTED}") from error
