"""Image files -> PIL images whose headers are read: formats, their order, and why others are not.

A format of an optional package names its extra. Formats that the user has registered with Pillow
are tried after the others.
"""

from __future__ import annotations

import io
import os
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from typing import Any, BinaryIO

from PIL import Image, ImageFile

from tiepoint.errors import ImageError
from tiepoint.images.bounded import ReadLimited, check_header
from tiepoint.images.photographs import EXTRAS
from tiepoint.images.quiet import logger_quiet

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

WHOLE_FILE_BYTES = 64 * 2**20
"""Largest WebP, AVIF or HEIF file; their decoders hold the whole file in memory."""

OWN_FORMATS = (*FORMATS, "HEIF")
"""Formats whose signature is decisive; all others are of openers that the user has registered."""

_NOT_THIS_FORMAT = (SyntaxError, IndexError, TypeError, struct.error)
"""Errors by which an opener rejects a file of another format; Pillow's `Image.open`."""

_WHOLE_FILE_FORMATS = ("WEBP", "AVIF", "HEIF")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

Opener = tuple[Callable[..., Any], Callable[[bytes], Any] | None]
"""Reader, and test of the first 16 bytes."""

_warnings_lock = threading.Lock()


def _renew_lock() -> None:
    global _warnings_lock  # noqa: PLW0603
    _warnings_lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # a child must not inherit a held lock
    os.register_at_fork(after_in_child=_renew_lock)


@contextmanager
def pillow_warnings_silenced() -> Iterator[None]:
    """Silence Pillow's warnings about unusual headers.

    The lock is needed because `catch_warnings` is not thread-safe; only headers are read under it.
    """
    with _warnings_lock, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        with logger_quiet("PIL.TiffImagePlugin"):
            yield


@cache
def _load_modules() -> None:
    for module in FORMATS.values():
        with suppress(ImportError):  # AVIF came with Pillow 11.3
            import_module(f"PIL.{module}")


@cache
def _heif_opener() -> Opener | None:
    """HEIF by pillow-heif, which is not registered with Pillow: that is the user's decision."""
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        return None
    return HeifImageFile, is_heif


def is_heif(prefix: bytes) -> bool:
    """Whether the first 16 bytes are those of a HEIF file, such as a phone's `.heic`."""
    return prefix[4:8] == b"ftyp" and prefix[8:12] in _HEIF_BRANDS


def openers() -> dict[str, Opener]:
    """Format -> opener: those of `FORMATS`, HEIF, and those that the user has registered."""
    _load_modules()
    found: dict[str, Opener] = {name: Image.OPEN[name] for name in FORMATS if name in Image.OPEN}
    found |= {
        name: (factory, accept)
        for name, (factory, accept) in list(Image.OPEN.items())  # threads may register more
        if name not in FORMATS and not getattr(factory, "__module__", "").startswith("PIL.")
    }
    if "HEIF" not in found and (heif := _heif_opener()):
        found["HEIF"] = heif
    return found


def open_image(stream: BinaryIO, prefix: bytes, name: str) -> ImageFile.ImageFile:
    """`Image.open` without its size limit, which is global and also warns.

    Args:
        stream: The file, seekable.
        prefix: Its first 16 bytes.
        name: Name in error messages.

    Raises:
        ImageError: No known format, a missing extra, a damaged header.
    """
    cause: Exception | None = None
    found = None
    with pillow_warnings_silenced():
        for format_name, (factory, accept) in openers().items():
            try:
                if not _accepts(format_name, accept, prefix):
                    continue
                if format_name in _WHOLE_FILE_FORMATS:
                    _check_file_size(stream, format_name, name)
                check_header(stream, format_name, name)
                # libtiff uses the file itself, whose directories `tiff_pages` has checked.
                source: Any = stream if format_name == "TIFF" else ReadLimited(stream)
                source.seek(0)
                image: ImageFile.ImageFile = factory(source, "")
                return image
            except ImageError:
                raise
            except Exception as error:  # noqa: BLE001 - a damaged header may raise anything
                if format_name in OWN_FORMATS or not isinstance(error, _NOT_THIS_FORMAT):
                    found, cause = format_name, error
    if found is None:
        raise _unknown(prefix, name)
    raise ImageError(
        f"{name}: a damaged or unsupported {found} file ({reason_of(cause)}), "
        "expected a whole one; copy or save it again"
    ) from cause


def _accepts(format_name: str, accept: Callable[[bytes], Any] | None, prefix: bytes) -> bool:
    """Whether an opener is tried. Those of the user follow Pillow: without a test they are."""
    if format_name in OWN_FORMATS:
        return accept is not None and accept(prefix) is True
    answer = accept is None or accept(prefix)
    return bool(answer) and not isinstance(answer, str)  # text is the reason for a refusal


def reason_of(error: Exception | None) -> str:
    """An exception's text, or its type if it has none."""
    return str(error) or type(error).__name__


def _check_file_size(stream: BinaryIO, format_name: str, name: str) -> None:
    size = stream.seek(0, io.SEEK_END)
    if size > WHOLE_FILE_BYTES:
        raise ImageError(
            f"{name}: {size} bytes are more than the limit of {WHOLE_FILE_BYTES} bytes for "
            f"{format_name} files; convert it to another format"
        )


def _unknown(prefix: bytes, name: str) -> ImageError:
    if is_heif(prefix):
        return ImageError(
            f"{name}: a HEIF file, which needs the extra 'heif', which is not installed: "
            f"{EXTRAS['.heic']}"
        )
    known = ", ".join(FORMATS)
    return ImageError(
        f"{name}: not an image in a known format, expected one of {known}; "
        "read others with another library and pass the array"
    )
