"""Making folders, and writing files so that no reader sees half of one."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import re
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from os import PathLike
from pathlib import Path

from tiepoint.errors import OutputError

STALE_AFTER_S = 86_400
"""Age of a temporary file whose process cannot be checked, since its last change, s."""

_ZEROS_BYTES = 1 << 20
_NOT_OFFERED = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}
"""Errors of file systems that allocate nothing in advance."""

_TEMPORARY = re.compile(r"\.tiepoint-([0-9a-f]{8})-(\d+)-[0-9a-f]{12}\.partial")
_KINDS = (
    (stat.S_ISFIFO, "a named pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def make_folder(folder: str | PathLike[str], *, advice: str = "choose another folder") -> Path:
    """Create a folder and its parents unless they exist.

    Args:
        folder: Path of the folder.
        advice: What to do if that fails, for the error.

    Raises:
        OutputError: It cannot be created; its `__cause__` is the OSError.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be made ({error.strerror}); {advice}") from error
    return path


def write_bytes(
    path: str | PathLike[str], data: bytes, *, follow: bool = True, durable: bool = False
) -> None:
    """Write a whole file or none: an earlier one stays until the new one is complete.

    Two processes may write the same path; the file of the later one stays.

    Args:
        path: The file.
        data: Its contents.
        follow: Keep a symbolic link and write the file that it leads to; or replace the link.
        durable: Return when the disk has it, so that a power failure does not lose it.

    Raises:
        OutputError: The file cannot be written; its `__cause__` is the OSError.
    """
    with (
        replacing(Path(path), follow=follow, durable=durable) as partial,
        partial.open("xb") as file,
    ):
        file.write(data)


def behind_links(path: str | PathLike[str]) -> Path:
    """The file that a path names: where it leads if it is a symbolic link, else the path itself."""
    return Path(os.path.realpath(path) if os.path.islink(path) else path)  # noqa: PTH114


@contextmanager
def replacing(path: Path, *, follow: bool = True, durable: bool = False) -> Iterator[Path]:
    """Path of a new file in the same folder, which replaces `path` at the end.

    A symbolic link stays, and the file that it leads to is replaced, unless `follow` is False.
    With `durable` the file is on the disk before it replaces the other.

    Raises:
        OutputError: It cannot be written. The file at `path` stays, and the new one is removed.
    """
    # The name is short, because that of `path` may already be as long as the file system allows.
    target = behind_links(path) if follow else path
    partial = target.with_name(temporary_name())
    try:
        yield partial
        if durable:
            _flush(partial)
        partial.replace(target)
        if durable and os.name != "nt":  # Windows opens no folder
            _flush(target.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:  # also when interrupted
        with suppress(OSError):  # a folder that cannot be looked into: the error is known already
            partial.unlink(missing_ok=True)


def allocate(descriptor: int, start: int, count: int) -> None:
    """Extend a file by space that the disk has.

    Linux allocates it. Where that is not offered (macOS, Windows, musl on some file systems), zeros
    are written, and the file system keeps their place for the data. One that writes changed data
    elsewhere, such as ZFS, keeps no place: there, writing the data can still fail.

    Args:
        descriptor: Number of the open file; its position stays.
        start: Size of the file, bytes.
        count: New bytes.

    Raises:
        OSError: The disk is full.
    """
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, start, count)
        except OSError as error:
            if error.errno not in _NOT_OFFERED:
                raise
        else:
            return
    position = os.lseek(descriptor, 0, os.SEEK_CUR)  # which HDF5 remembers on Windows
    try:
        os.lseek(descriptor, start, os.SEEK_SET)
        while count > 0:
            count -= os.write(descriptor, bytes(min(count, _ZEROS_BYTES)))
    finally:
        os.lseek(descriptor, position, os.SEEK_SET)


def temporary_name() -> str:
    """A new name of a file that `remove_stale` removes when this process has ended."""
    return f".tiepoint-{_machine()}-{os.getpid()}-{secrets.token_hex(6)}.partial"


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_stale(folder: Path) -> int:
    """Remove the temporary files in a folder that killed processes left; returns their number.

    A file of a running process stays, and so does a recent one of another machine or container.
    """
    count = 0
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = _TEMPORARY.fullmatch(entry.name)
            if match is None:
                continue
            with suppress(OSError):  # another process was faster, or has it open on Windows
                age_s = time.time() - entry.stat(follow_symlinks=False).st_mtime
                is_dead = match[1] == _machine() and not _is_running(int(match[2]))
                if is_dead or age_s > STALE_AFTER_S:
                    os.unlink(entry.path)  # noqa: PTH108 - an entry is no Path
                    count += 1
    return count


@cache
def _machine() -> str:
    """Name of the set of processes in which a process id is unique: machine and container."""
    try:
        space = os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116
    except OSError:
        space = 0
    return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:8]


def _is_running(pid: int) -> bool:
    """Whether a process may be running; always on Windows, where asking would end it."""
    if os.name == "nt":
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # of another user
        return True
    return True


def special_kind(path: str | PathLike[str]) -> str | None:
    """What a path is that may never end when it is read, such as "a named pipe (FIFO)".

    Returns:
        None for files, folders, and paths that cannot be examined.
    """
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - a million times
    except (OSError, ValueError):
        return None
    return next((kind for is_kind, kind in _KINDS if is_kind(mode)), None)


def unwritable(path: Path, error: Exception) -> OutputError:
    """The error of a file that the operating system or a library does not write."""
    reason = getattr(error, "strerror", None) or str(error)
    return OutputError(
        f"{path}: cannot be written ({reason}); check that the folder exists, is writable and has "
        "space left"
    )
