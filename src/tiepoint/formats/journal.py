"""Collecting results for one HDF5 file, so that a kill at any time costs nothing.

HDF5 is not safe against kills: one that comes while its tables are written can cost the whole
file. So finished results are appended to a journal, `<name>.partial`, in which only the last record
can be torn. Closing puts them all into the file, which appears under its name when it is whole.
"""

from __future__ import annotations

import os
import secrets
import shutil
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, Literal

from tiepoint.errors import FormatError
from tiepoint.formats import fields, h5

PARTIAL = ".partial"

_RECORD = struct.Struct("<IQI")  # bytes of the name, bytes of the result, CRC-32 of both


class Journal:
    """Named results, appended one by one; a later one of the same name replaces the earlier.

    Args:
        path: Of the journal. One that is there is read; a new one is made by the first `add`.
        title: First line of the file, which tells what it holds.

    Raises:
        FormatError: A damaged or foreign file, or one that another process is writing.
    """

    def __init__(self, path: Path, title: bytes) -> None:
        self.path = path
        self._title = title
        self._file: FileIO | None = None
        self._end = 0
        self._starts: dict[str, int] = {}
        if path.exists():
            try:
                self._open()
            except BaseException:
                self.release()
                raise

    def __contains__(self, name: object) -> bool:
        return name in self._starts

    def __iter__(self) -> Iterator[str]:
        """The names, in the order of their last records."""
        return iter(self._starts)

    def __len__(self) -> int:
        return len(self._starts)

    def add(self, name: str, payload: bytes) -> None:
        """Append a result.

        Raises:
            FormatError: It cannot be written (its `__cause__` is the OSError).
        """
        key = name.encode()
        head = _RECORD.pack(len(key), len(payload), zlib.crc32(payload, zlib.crc32(key)))
        if self._file is None:
            self._open()
        assert self._file is not None
        try:
            self._file.seek(self._end)
            _write_all(self._file, head + key + payload)
        except OSError as error:
            raise unwritable(self.path, error) from error
        self._note(name, self._end)
        self._end += len(head) + len(key) + len(payload)

    def read(self, name: str) -> bytes:
        """The result of this name; raises KeyError if there is none."""
        start = self._starts[name]
        assert self._file is not None
        self._file.seek(start)
        record = _next_record(self._file)
        if record is None:
            raise fields.damaged(str(self.path), f"the record of {name} has changed")
        return record[1]

    def release(self) -> None:
        """Close the file and leave it, unless nothing was ever added."""
        if self._file is not None:
            self._file.close()
            self._file = None
            if not self._starts and self._end == len(self._title):
                self.path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Forget the results and delete the file, since they are elsewhere now."""
        self._starts.clear()
        if self._file is not None:
            self._file.close()
            self._file = None
        self.path.unlink(missing_ok=True)

    def _open(self) -> None:
        """Open or start the file, alone; drop a record at its end that a kill tore."""
        try:
            mode: Literal["r+b", "x+b"] = "r+b" if self.path.exists() else "x+b"
            file = self._file = self.path.open(mode, buffering=0)
            _lock(file, self.path)
            start = file.read(len(self._title))
            if not self._title.startswith(start):
                raise FormatError(f"{self.path}: not a journal that tiepoint wrote; move it away")
            if start != self._title:  # new, or killed at once
                file.seek(0)
                _write_all(file, self._title)
            self._end = len(self._title)
            while record := _next_record(file):
                self._note(record[0], self._end)
                self._end = file.tell()
            file.truncate(self._end)
        except OSError as error:
            raise unwritable(self.path, error) from error

    def _note(self, name: str, start: int) -> None:
        self._starts.pop(name, None)
        self._starts[name] = start


@contextmanager
def rewritten(path: Path) -> Iterator[Any]:
    """h5py's file, a copy of the one at `path` if there is one, which takes its place at the end.

    Raises:
        FormatError: It cannot be written; what stood at `path` stays.
    """
    half_done = path.with_name(f".{os.getpid()}-{secrets.token_hex(6)}{PARTIAL}")
    try:
        if path.exists():
            shutil.copyfile(path, half_done)
        with h5.load_h5py().File(half_done, "a") as file:
            yield file
        half_done.replace(path)
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise unwritable(path, error) from error
    finally:
        half_done.unlink(missing_ok=True)


def unwritable(path: Path, error: Exception) -> FormatError:
    """The error of a file that the operating system or HDF5 does not write."""
    reason = getattr(error, "strerror", None) or str(error)
    return FormatError(
        f"{path}: cannot be written ({reason}); check that the folder exists, is writable and has "
        "space left"
    )


def _next_record(journal: FileIO) -> tuple[str, bytes] | None:
    """Name and result at the journal's position, or None at its end or at a torn record."""
    head = journal.read(_RECORD.size)
    if len(head) < _RECORD.size:
        return None
    name_bytes, payload_bytes, crc = _RECORD.unpack(head)
    start = journal.tell()
    left = journal.seek(0, os.SEEK_END) - start
    journal.seek(start)
    if name_bytes + payload_bytes > left:
        return None
    name, payload = journal.read(name_bytes), journal.read(payload_bytes)
    whole = zlib.crc32(payload, zlib.crc32(name)) == crc
    return (name.decode(), payload) if whole else None


def _write_all(journal: FileIO, data: bytes) -> None:
    """Write to the operating system at once: what it has, a kill of this process cannot take."""
    left = memoryview(data)
    while left:
        left = left[journal.write(left) :]


def _lock(file: FileIO, path: Path) -> None:
    """Keep a second process from the same journal, where the system has such locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise FormatError(
            f"{path}: another process is writing it; wait for that, or name another file"
        ) from error
    except OSError:  # a file system without locks
        return
