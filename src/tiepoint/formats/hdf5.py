"""HDF5 files of many groups (extra `hdf5`): lazy reading, and writing that survives kills."""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from logging import getLogger
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np

from tiepoint.errors import FormatError, OutputError
from tiepoint.files.journal import Journal
from tiepoint.files.paths import exists, is_file
from tiepoint.files.writing import (
    behind_links,
    remove_stale,
    replacing,
    special_kind,
    unwritable,
)
from tiepoint.formats import fields, hdf5_reading, hdf5_writing
from tiepoint.formats.fields import Content, DamagedError
from tiepoint.formats.hdf5_rescue import copy_readable

ENDING = ".h5"

MAX_META_BYTES = 60_000
"""HDF5's own limit for an attribute is 64 KiB with its description."""

_SIGNATURE = b"\x89HDF\r\n\x1a\n"

BROKEN = (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError)
"""What h5py raises for damaged and foreign files."""

_IN_USE = ("already open", "consistency flags", "SWMR")
"""Parts of HDF5's messages for a file that another program writes, which have no errno."""

_NAMED_LOST = 5

_log = getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class GroupMapping(Mapping[Key, Value]):
    """The groups of a file by key; each is read when it is asked for.

    Attributes:
        path: The file.
        groups: Key -> path of its group in the file.
    """

    _holds: ClassVar[Content]
    _unit: ClassVar[str]
    _dataset: ClassVar[str]

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        with opened(self.path, self._holds) as file:
            self.groups: dict[Key, str] = dict(self._list_groups(file))
        if not self.groups:
            raise fields.damaged(str(self.path), f"no group has {self._dataset}", self._holds)

    def __getitem__(self, key: Key) -> Value:
        name = self.groups[key]
        with opened(self.path, self._holds) as file:
            return self._read_group(hdf5_reading.group_at(file, name), f"{self.path}: {name}")

    def __iter__(self) -> Iterator[Key]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    def __contains__(self, key: object) -> bool:
        return key in self.groups

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}, {len(self)} {self._unit})"

    @abstractmethod
    def _list_groups(self, file: Any) -> Iterable[tuple[Key, str]]: ...

    @abstractmethod
    def _read_group(self, group: Any, where: str) -> Value: ...


class GroupWriter(ABC, Generic[Key]):
    """Collects entries for one file in a journal next to it; closing writes the file.

    No other run can write the same file until this one closes or suspends.

    Attributes:
        path: The file; where it leads if a symbolic link was given.
        partial: Its journal, which exists from the first entry until the file is closed.
    """

    _title: ClassVar[bytes]
    _holds: ClassVar[Content]

    def __init__(self, path: str | PathLike[str]) -> None:
        hdf5_reading.load_h5py()
        self.path = behind_links(path)
        self._journal = Journal(self.path, self._title)
        self.partial = self._journal.path
        self._stored: Mapping[Key, str] = {}  # key -> group in the file
        self._file: Any = None  # stays open, because opening it for each entry is slow
        self._closing = ExitStack()
        try:
            remove_stale(self.path.parent)
            self._open_file()
        except BaseException:
            self.suspend()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.suspend()

    def close(self) -> None:
        """Move what was added from the journal into the file.

        Raises:
            OutputError: The file cannot be written; the journal is kept.
        """
        try:
            if self._journal:
                self._write_file(self._write_journal)
        finally:
            self.suspend()

    def suspend(self) -> None:
        """Stop without touching the file; the journal keeps what was added."""
        self._journal.release()
        self._close_file()

    def _open_file(self) -> None:
        """List what the file has; a damaged one is set aside, so that all is made again."""
        if _is_cut_off(self.path, self._holds):
            _set_aside(self.path, "all is made again")
        if not exists(self.path):
            return
        try:
            self._stored = self._groups_of(self.path)
            self._file = self._closing.enter_context(hdf5_reading.open_file(self.path))
        except DamagedError as error:
            is_hdf5 = hdf5_reading.load_h5py().is_hdf5(self.path)
            if not is_hdf5 or not isinstance(error.__cause__, hdf5_reading.DAMAGE):
                raise  # another program's, or made to do harm
            _set_aside(self.path, "all is made again")

    def _stored_group(self, key: Key) -> Any:
        """The group of an entry in the file.

        Raises:
            KeyError: There is no such entry.
            FormatError: Its group is damaged.
        """
        name = self._stored[key]
        with fields.as_damaged(f"{self.path}: {name}", BROKEN, self._holds):
            return hdf5_reading.group_at(self._file, name)

    def _write_now(self, write: Callable[[Any], str]) -> None:
        """Write an entry into the file at once, and what the journal has before it.

        Args:
            write: Writes the entry into a file of h5py; returns the path of its group.

        Raises:
            OutputError: The file cannot be written; the journal is kept.
        """
        try:
            self._write_file(lambda file: [*self._write_journal(file), write(file)])
        finally:
            self._open_file()

    def _write_file(self, write: Callable[[Any], list[str]]) -> None:
        """Replace the file by a copy with new groups, those of the journal among them.

        A part of the old file may be too damaged for that. The new one then has the other parts,
        and the old one is set aside.
        """
        self._close_file()  # Windows replaces no open file
        try:
            with _rewritten(self.path) as file:
                hdf5_reading.check_listed(file, write(file))
        except OutputError as error:
            if not _is_damage(error.__cause__) or not is_file(self.path):
                raise
            with _rewritten(self.path, is_damaged=True) as file:
                hdf5_reading.check_listed(file, write(file))
        self._journal.remove()

    def _write_journal(self, file: Any) -> list[str]:
        return [self._write_group(file, name) for name in self._journal]

    def _close_file(self) -> None:
        self._closing.close()
        self._file = None

    @abstractmethod
    def _groups_of(self, path: Path) -> Mapping[Key, str]: ...

    @abstractmethod
    def _write_group(self, file: Any, name: str) -> str:
        """Write an entry of the journal; returns the path of its group."""


@contextmanager
def opened(path: Path, holds: Content = "features") -> Iterator[Any]:
    """A file of h5py for reading.

    Raises:
        FormatError: No such file, no permission, or not HDF5.
    """
    with fields.as_damaged(str(path), BROKEN, holds), hdf5_reading.open_file(path) as file:
        yield file


def check_name(name: str) -> None:
    """Raise unless a name is a relative path below the images' folder, with `/`."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\x00" in name:
        raise FormatError(
            f"image name {name!r}: expected a path below the images' folder, such as left/1.jpg, "
            "without '.', '..' or a '/' at either end"
        )
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise FormatError(
            f"image name {name!r}: not valid Unicode, which HDF5 needs; rename the file"
        ) from error


def json_attribute(name: str, text: str) -> np.bytes_:
    """JSON text of an image or pair as an attribute of fixed length, if HDF5 can hold it."""
    data = text.encode()
    if len(data) > MAX_META_BYTES:
        raise FormatError(
            f"{name}: meta takes {len(data)} bytes, .h5 files hold at most {MAX_META_BYTES}; "
            "shorten it, or save as .npz"
        )
    return np.bytes_(data)


def _is_cut_off(path: Path, holds: Content) -> bool:
    """Whether a crash or a full disk left a file empty or cut off.

    Raises:
        FormatError: The disk cannot be read, another program writes the file, or it is no file,
            and may never end when it is read.
    """
    if kind := special_kind(path):
        raise FormatError(f"{path}: {kind}, expected a {holds} file; move it away")
    if not is_file(path):
        return False
    try:
        with path.open("rb") as file:
            start = file.read(len(_SIGNATURE))
        if start.strip(b"\0") and not start.startswith(_SIGNATURE):
            return False  # another program's: reading it raises
        hdf5_reading.load_h5py().File(path, "r").close()
    except OSError as error:
        if isinstance(error, BlockingIOError) or any(text in str(error) for text in _IN_USE):
            raise FormatError(
                f"{path}: another program has it open for writing; close that, or if it was "
                f"killed, run h5clear -s {path.name}"
            ) from error
        if error.errno is not None:
            fields.unreadable(str(path), error)
        return True
    return False


def _is_damage(error: BaseException | None) -> bool:
    """Whether an error of h5py is about what a file has, not about the disk."""
    return isinstance(error, BROKEN) and getattr(error, "errno", None) is None


def _set_aside(path: Path, outcome: str, *, linked: bool = False) -> None:
    """Keep a damaged file as `<name>.damaged1`.

    Args:
        path: The file.
        outcome: What becomes of its contents, for the message.
        linked: Leave the file in its place too, where the file system can.
    """
    count = 1
    while os.path.lexists(aside := path.with_name(f"{path.name}.damaged{count}")):
        count += 1
    try:
        if not linked:
            raise OSError
        os.link(path, aside)
    except OSError:
        path.rename(aside)
    # An error, because --quiet must not hide it.
    _log.error("%s: was damaged; is now %s, and %s", path, aside.name, outcome)


@contextmanager
def _rewritten(path: Path, *, is_damaged: bool = False) -> Iterator[Any]:
    """h5py's file: a copy of the one at `path`, or a new one, which replaces it at the end.

    Args:
        path: The file.
        is_damaged: Copy only what HDF5 can read, and set the old file aside at the end.

    Raises:
        OutputError: It cannot be written; its `__cause__` is the error of h5py.
    """
    lost = list[str]()
    with replacing(path, durable=True) as copy:  # the journal is removed after it
        try:
            if not is_damaged and exists(path):
                shutil.copyfile(path, copy)
            with hdf5_writing.writing(copy, "a") as file:
                if is_damaged:
                    hdf5_writing.reserve(file, path.stat().st_size)
                    with hdf5_reading.open_file(path) as old:
                        lost = copy_readable(old, file)
                yield file
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise unwritable(path, error) from error
        if is_damaged:
            parts = ", ".join(lost[:_NAMED_LOST]) or "nothing"
            others = f" and {len(lost) - _NAMED_LOST} more" if len(lost) > _NAMED_LOST else ""
            _set_aside(path, f"its readable parts are kept, without {parts}{others}", linked=True)
