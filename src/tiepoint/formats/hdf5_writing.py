"""Writing HDF5 files on a disk that may be full.

HDF5 does not survive a write that fails: it cannot close the file, which may lose what it had
before, and often the process crashes. So the space is taken before HDF5 needs it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tiepoint.files.writing import allocate
from tiepoint.formats.hdf5_reading import load_h5py

SPARE_BYTES = 1 << 20
"""Space for what HDF5 adds to new data; its lists of names take up to 1/16 of a file more."""

MOST_SPARE_BYTES = 1 << 26


@contextmanager
def writing(path: Path, mode: str) -> Iterator[Any]:
    """h5py's file in one of its modes.

    Raises:
        OSError: It cannot be opened or completed.
    """
    try:
        file = load_h5py().File(path.absolute(), mode)
    except OSError as error:  # whose text has several lines
        if error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno)) from error
    try:
        yield file
    except BaseException:
        with suppress(OSError):  # the first error is the cause
            close(file)
        raise
    close(file)


def reserve(file: Any, count: int) -> None:
    """Take disk space at the end of a file of h5py, before data are written; see `allocate`.

    Args:
        file: The file, opened by an absolute path; nothing is done for one in memory.
        count: Size of the new data, bytes.

    Raises:
        OSError: The disk is full. The file can still be closed, and keeps what it has.
    """
    if file.driver != "sec2":
        return
    descriptor, size = file.id.get_vfd_handle(), file.id.get_filesize()
    held = os.fstat(descriptor)
    if not os.path.samestat(held, os.stat(file.filename)):  # noqa: PTH116
        return  # a number of another C runtime, which is possible on Windows
    start, end = held.st_size, size + count + SPARE_BYTES + min(size // 16, MOST_SPARE_BYTES)
    if start < end:
        allocate(descriptor, start, end - start)


def close(file: Any) -> None:
    """Complete a file, and return the space that was reserved and not used.

    Raises:
        OSError: It cannot be written.
    """
    try:
        try:
            file.flush()
            path, size = file.filename, file.id.get_filesize()
        finally:
            file.close()
    except RuntimeError as error:  # of h5py
        raise OSError(str(error)) from error
    if os.stat(path).st_size > size:  # noqa: PTH116
        os.truncate(path, size)
