"""A journal of results: a file to which each is appended, so that a kill at any time loses none.

HDF5 is not safe against kills: one that comes while its tables are written can cost the whole
file. A journal, `<name>.partial`, can lose only its last record. Closing a writer moves the results
into the HDF5 file, which appears under its name when it is complete. One process at a time has the
journal: it takes the lock before it looks at any file.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from io import FileIO
from logging import getLogger
from pathlib import Path
from typing import Literal

from tiepoint.errors import FormatError
from tiepoint.files.lock import WriteLock
from tiepoint.files.writing import special_kind, unwritable

PARTIAL = ".partial"

_RECORD = struct.Struct("<IQI")  # bytes of the name, bytes of the result, CRC-32 of both

_log = getLogger(__name__)


class Journal:
    """Named results, appended one by one; a later one of the same name replaces the earlier.

    Args:
        target: The file that the results are for. The journal is next to it, as `<name>.partial`.
            An existing one is resumed; the first `add` starts a new one.
        title: First line of the file, which identifies its contents.
        path: The journal's own path, if it is another one.

    Raises:
        FormatError: A foreign file.
        OutputError: It cannot be written, or another run is writing it.
    """

    def __init__(self, target: Path, title: bytes, path: Path | None = None) -> None:
        self.path = path or target.with_name(target.name + PARTIAL)
        self._target = target
        self._title = title
        self._lock: WriteLock | None = WriteLock(target)
        self._file: FileIO | None = None
        self._end = 0
        self._starts: dict[str, int] = {}
        try:
            if self.path.exists():
                self._open()
                _log.info("%s: resumes with %d results", self.path, len(self))
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
            OutputError: It cannot be written (its `__cause__` is the OSError).
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

    def flush(self) -> None:
        """Wait until the results are on the disk, so that a power failure does not lose them.

        Raises:
            OutputError: The disk is full or failed.
        """
        if self._file is not None:
            try:
                os.fsync(self._file.fileno())
            except OSError as error:
                raise unwritable(self.path, error) from error

    def read(self, name: str) -> bytes:
        """The result of this name.

        Raises:
            KeyError: There is none.
            FormatError: Its record was changed by another program.
        """
        start = self._starts[name]
        assert self._file is not None
        self._file.seek(start)
        record = _next_record(self._file)
        if record is None:
            raise FormatError(
                f"{self.path}: the record of {name} was changed by another program; delete the "
                "journal and run again"
            )
        return record[1]

    def release(self) -> None:
        """Close the file and let others write; a file without results is deleted."""
        if self._file is not None:
            self._file.close()
            self._file = None
            if not self._starts and self._end == len(self._title):
                self.path.unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def remove(self) -> None:
        """Forget the results and delete the file; the lock stays until the release."""
        self._starts.clear()
        if self._file is not None:
            self._file.close()
            self._file = None
        self.path.unlink(missing_ok=True)

    def _open(self) -> None:
        """Open or start the file, alone; drop a torn record at its end."""
        if self._lock is None:  # after a release, others may have written
            self._lock = WriteLock(self._target)
            self._starts.clear()
        if kind := special_kind(self.path):  # reading it might never end
            raise FormatError(f"{self.path}: {kind}, not a journal; move it away")
        try:
            mode: Literal["r+b", "x+b"] = "r+b" if self.path.exists() else "x+b"
            file = self._file = self.path.open(mode, buffering=0)
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
            torn_bytes = file.seek(0, os.SEEK_END) - self._end
            if torn_bytes:
                _log.warning("%s: drops a torn record of %d bytes", self.path, torn_bytes)
                file.truncate(self._end)
        except OSError as error:
            raise unwritable(self.path, error) from error

    def _note(self, name: str, start: int) -> None:
        self._starts.pop(name, None)
        self._starts[name] = start


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
    if zlib.crc32(payload, zlib.crc32(name)) != crc:
        return None
    try:
        return name.decode(), payload
    except UnicodeDecodeError:  # no name that we write
        return None


def _write_all(journal: FileIO, data: bytes) -> None:
    """Pass data to the operating system at once, which keeps it when this process is killed."""
    left = memoryview(data)
    while left:
        left = left[journal.write(left) :]
