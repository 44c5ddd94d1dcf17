"""Locks: one process at a time writes a file, on every system."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tiepoint.errors import OutputError
from tiepoint.files.writing import unwritable

if TYPE_CHECKING:
    from filelock import BaseFileLock

WAIT_S, POLL_S = 0.2, 0.02
"""A run that ends at this moment is waited for, s; and the time between two attempts."""

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
"""Errors of file systems without locks."""


class LockedError(OutputError):
    """Another run is writing the file."""


class WriteLock:
    """The right to write a file, held until it is released or this process ends.

    It is a hidden file next to the other, `.<name>.lock`, which goes with the release.

    Args:
        path: The file to write; it need not exist.

    Raises:
        LockedError: Another run holds the lock.
        OutputError: The folder cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        from filelock import FileLock, SoftFileLock, Timeout

        self._file = path.with_name(f".{path.name}.lock")
        try:
            path.parent.stat()  # filelock would create a missing folder
            try:
                self._lock: BaseFileLock = _acquired(FileLock(self._file, thread_local=False))
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                self._file.unlink(missing_ok=True)
                self._file = path.with_name(f".{path.name}.lock-owner")
                self._lock = _acquired(SoftFileLock(self._file, thread_local=False))
        except Timeout as error:
            raise LockedError(
                f"{path}: another run is writing it; wait until that ends, or name another file"
            ) from error
        except OSError as error:
            raise unwritable(path, error) from error

    def release(self) -> None:
        """Let others write."""
        if os.name != "nt" and self._lock.is_locked:
            # Before the release: a run that waits sees that its file is gone, and makes another.
            with suppress(OSError):
                self._file.unlink(missing_ok=True)
        self._lock.release()


def _acquired(lock: BaseFileLock) -> BaseFileLock:
    lock.acquire(timeout=WAIT_S, poll_interval=POLL_S)
    return lock
