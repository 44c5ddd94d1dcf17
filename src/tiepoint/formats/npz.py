"""NumPy's .npz files of others: no pickles, and no array larger than the file can hold."""

from __future__ import annotations

import lzma
import math
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from tiepoint.files.reading import open_regular
from tiepoint.formats import fields
from tiepoint.formats.fields import Content

MAX_ARRAYS = 64
MAX_DIRECTORY_BYTES = 1_000_000
"""Most bytes of the zip's list of entries."""

_BROKEN = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, ValueError, KeyError, EOFError,
    NotImplementedError, RuntimeError,
)  # fmt: skip
"""What NumPy and zipfile raise for damaged and foreign files."""

_END_OF_ZIP, _END_BYTES, _LONGEST_COMMENT = b"PK\x05\x06", 22, 65_535


class Arrays(Mapping[str, NDArray[Any]]):
    """The arrays of an open file by name; each is read once, when it is first asked for."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._entries = {one.filename.removesuffix(".npy"): one for one in archive.infolist()}
        self._arrays: dict[str, NDArray[Any]] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._arrays:
            self._arrays[name] = self._read(name)
        return self._arrays[name]

    def _read(self, name: str) -> NDArray[Any]:
        entry = self._entries[name]
        with self._archive.open(entry) as file:
            shape, is_fortran, dtype = _header(file, entry.file_size, name)
            data = bytearray(file.read())
        return np.ndarray(shape, dtype, data, order="F" if is_fortran else "C")

    def __contains__(self, name: object) -> bool:
        return name in self._entries  # Mapping's own would read the array

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


@contextmanager
def opened(source: Path | BinaryIO, name: str, holds: Content = "features") -> Iterator[Arrays]:
    """The arrays of a file by name, without pickles.

    Raises:
        FormatError: No such file, or a damaged or foreign one; also from the body of the `with`.
    """
    with fields.as_damaged(name, _BROKEN, holds), ExitStack() as stack:
        file = stack.enter_context(open_regular(source)) if isinstance(source, Path) else source
        file_bytes = file.seek(0, os.SEEK_END)
        _check_directory(file, file_bytes)
        archive = stack.enter_context(zipfile.ZipFile(file))
        entries = archive.infolist()
        if len(entries) > MAX_ARRAYS:
            raise ValueError(f"{len(entries)} arrays, the limit is {MAX_ARRAYS}")
        fields.check_expansion(sum(one.file_size for one in entries), file_bytes)
        yield Arrays(archive)


def packed(**arrays: Any) -> bytes:
    """The bytes of a file. Not compressed: descriptors hardly shrink, and packing is slow."""
    buffer = BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _check_directory(file: BinaryIO, file_bytes: int) -> None:
    """Raise for a list of entries that zipfile would need much memory for."""
    file.seek(0)
    if file.read(len(npy.MAGIC_PREFIX)) == npy.MAGIC_PREFIX:
        raise ValueError("one bare array")
    file.seek(max(0, file_bytes - _END_BYTES - _LONGEST_COMMENT))
    tail = file.read()
    end = tail.rfind(_END_OF_ZIP)
    if end < 0 or len(tail) - end < _END_BYTES:
        raise zipfile.BadZipFile("no zip archive of arrays")
    directory_bytes = int.from_bytes(tail[end + 12 : end + 16], "little")
    # A zip64 archive has its numbers elsewhere, and all ones here.
    if directory_bytes > MAX_DIRECTORY_BYTES and directory_bytes != 2**32 - 1:
        raise ValueError(f"a list of entries of {directory_bytes} bytes")
    file.seek(0)


def _header(file: Any, entry_bytes: int, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran's order, and type of an array without objects.

    Raises:
        ValueError: Objects, or a header that does not declare just the bytes that follow it.
    """
    version = npy.read_magic(file)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"{name} is of .npy version {version}, expected 1.0 or 2.0")
    shape, is_fortran, dtype = read(file)
    if dtype.hasobject or dtype.subdtype is not None:
        raise ValueError(f"{name} is of {dtype}, expected numbers or text")
    declared = math.prod(shape) * dtype.itemsize
    held = entry_bytes - file.tell()
    if declared != held:
        raise ValueError(f"{name} declares {declared} bytes, the file has {held}")
    return shape, is_fortran, dtype
