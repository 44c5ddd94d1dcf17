"""Writing the features of many images to one HDF5 file, so that a kill at any time costs nothing.

HDF5 is not safe against kills: one that comes while its tables are written can cost the whole
file. So finished images are appended to a journal, `<name>.partial`, in which only the last record
can be torn. Closing puts them all into the file, which appears under its name when it is whole.
"""

from __future__ import annotations

import os
import secrets
import shutil
import struct
import zlib
from io import BytesIO, FileIO
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from tiepoint.errors import FormatError
from tiepoint.features import Features
from tiepoint.formats import fields, h5, npz
from tiepoint.formats.fields import Summary

PARTIAL = ".partial"

_MAGIC = b"tiepoint journal 1\n"
_RECORD = struct.Struct("<IQI")  # bytes of the name, bytes of the features, CRC-32 of both


class H5Writer:
    """Collects features of many images for one file; see `tiepoint.formats.h5` for its layout.

    Images that the file holds already stay in it. As a context manager it closes at the end, and
    after an exception it suspends instead: the next writer of the same path goes on from there.

    Args:
        path: Of the file; its journal lies beside it until it is closed.
        half: Descriptors as float16, half the size, with a relative error of 0.0005.

    Raises:
        FormatError: The file or its journal is damaged, foreign, or being written by another
            process; or the folder cannot be written.
        MissingExtraError: The extra `hdf5` is not installed.
    """

    def __init__(self, path: str | PathLike[str], *, half: bool = False) -> None:
        h5.load_h5py()
        self.path = Path(path)
        self.partial = self.path.with_name(self.path.name + PARTIAL)
        self._half = half
        self._journal: FileIO | None = None
        self._end = 0
        self._records: dict[str, int] = {}  # name -> where its record starts; the last one counts
        self._stored: Any = None
        self._stored_names: frozenset[str] = frozenset()
        self._data_like: set[str] = set()
        try:
            if self.partial.exists():
                self._open_journal()
            if self.path.exists():
                self._open_stored()
        except BaseException:
            self._release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.suspend()

    def __contains__(self, name: object) -> bool:
        return name in self._records or name in self._stored_names

    def __len__(self) -> int:
        return len(self._stored_names | self._records.keys())

    def summarise(self, name: str) -> Summary:
        """Count, image size and `meta` of an image that is finished.

        Raises:
            KeyError: There is none of that name.
            FormatError: It is damaged.
        """
        if name in self._records:
            features = self.read(name)
            return Summary(len(features), features.size_hw, dict(features.meta))
        if name not in self._stored_names:
            raise KeyError(name)
        return h5.summarise_group(self._stored[name], f"{self.path}: {name}")

    def read(self, name: str) -> Features:
        """The features of an image that is finished; raises as `summarise`."""
        if name in self._records:
            assert self._journal is not None
            self._journal.seek(self._records[name])
            record = _next_record(self._journal)
            if record is None:
                raise fields.damaged(str(self.partial), f"the record of {name} has changed")
            return npz.decode(BytesIO(record[1]), f"{self.partial}: {name}")
        if name not in self._stored_names:
            raise KeyError(name)
        return h5.read_group(self._stored[name], f"{self.path}: {name}")

    def add(self, name: str, features: Features) -> None:
        """Keep one image's features; earlier ones of the same name are replaced.

        Args:
            name: Its path relative to the images' folder, with `/`.
            features: Of that image.

        Raises:
            FormatError: The name is no such path or clashes with another's, `meta` holds what
                JSON cannot or is too long, or the disk is full (its `__cause__` is the OSError).
        """
        self._check_name(name)
        h5.check_meta(name, features)
        payload, key = npz.encode(features), name.encode()
        head = _RECORD.pack(len(key), len(payload), zlib.crc32(payload, zlib.crc32(key)))
        if self._journal is None:
            self._open_journal()
        assert self._journal is not None
        try:
            self._journal.seek(self._end)
            _write_all(self._journal, head + key + payload)
        except OSError as error:
            raise _unwritable(self.partial, error) from error
        self._note(name, self._end)
        self._end += len(head) + len(key) + len(payload)

    def close(self) -> None:
        """Put what was added into the file and remove the journal.

        Raises:
            FormatError: The file cannot be written; the journal is kept.
        """
        try:
            if self._records:
                self._assemble()
                self.partial.unlink(missing_ok=True)
        finally:
            self.suspend()

    def suspend(self) -> None:
        """Stop without touching the file; the journal keeps what was added."""
        empty = self._journal is not None and not self._records
        self._release()
        if empty:
            self.partial.unlink(missing_ok=True)

    def _assemble(self) -> None:
        half_done = self.path.with_name(f".{os.getpid()}-{secrets.token_hex(6)}{PARTIAL}")
        try:
            if self._stored is not None:
                self._stored.close()
                self._stored = None
                shutil.copyfile(self.path, half_done)
            with h5.load_h5py().File(half_done, "a") as file:
                for name in self._records:
                    h5.write_group(file, name, self.read(name), half=self._half)
            half_done.replace(self.path)
        except (OSError, RuntimeError, ValueError, TypeError) as error:
            raise _unwritable(self.path, error) from error
        finally:
            half_done.unlink(missing_ok=True)

    def _open_journal(self) -> None:
        """Open or start the journal, alone; drop a record at its end that a kill tore."""
        try:
            mode: Literal["r+b", "x+b"] = "r+b" if self.partial.exists() else "x+b"
            self._journal = self.partial.open(mode, buffering=0)
            _lock(self._journal, self.partial)
            start = self._journal.read(len(_MAGIC))
            if not _MAGIC.startswith(start):
                raise FormatError(
                    f"{self.partial}: not a journal that tiepoint wrote; move it away"
                )
            if start != _MAGIC:  # new, or killed at once
                self._journal.seek(0)
                _write_all(self._journal, _MAGIC)
            self._end = len(_MAGIC)
            while record := _next_record(self._journal):
                self._note(record[0], self._end)
                self._end = self._journal.tell()
            self._journal.truncate(self._end)
        except OSError as error:
            raise _unwritable(self.partial, error) from error

    def _open_stored(self) -> None:
        names = h5.H5Features(self.path)
        self._stored = h5.load_h5py().File(self.path, "r")
        self._stored_names = frozenset(names)
        for name in names:
            self._note_groups(name)

    def _check_name(self, name: str) -> None:
        h5.check_name(name)
        parts = name.split("/")
        above = ["/".join(parts[:end]) for end in range(1, len(parts)) if parts[end] in h5.DATASETS]
        clash = [other for other in above if other in self]
        clash += [part for key in h5.DATASETS if (part := f"{name}/{key}") in self._data_like]
        if clash:
            raise FormatError(
                f"image name {name!r}: its place in the file is that of the data of {clash[0]!r}; "
                "rename one of the two"
            )

    def _note(self, name: str, start: int) -> None:
        self._records.pop(name, None)
        self._records[name] = start
        self._note_groups(name)

    def _note_groups(self, name: str) -> None:
        """Remember folders that are called as a data set is, so that none is put there."""
        parts = name.split("/")
        for end in range(1, len(parts)):
            if parts[end] in h5.DATASETS:
                self._data_like.add("/".join(parts[: end + 1]))

    def _release(self) -> None:
        for file in (self._journal, self._stored):
            if file is not None:
                file.close()
        self._journal = self._stored = None


def _next_record(journal: FileIO) -> tuple[str, bytes] | None:
    """Name and features at the journal's position, or None at its end or at a torn record."""
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


def _unwritable(path: Path, error: Exception) -> FormatError:
    reason = getattr(error, "strerror", None) or str(error)
    return FormatError(
        f"{path}: cannot be written ({reason}); check that the folder exists, is writable and has "
        "space left"
    )
