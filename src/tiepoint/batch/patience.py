"""Sources that do not answer now are tried again a few times; bad ones are not."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

from tiepoint.errors import EngineError, ImageError, TiepointError, UnreachableError
from tiepoint.files.lock import LockedError

DELAYS_S = (0.5, 1.0, 2.0)
"""Pauses between the attempts to read a source, s."""

_PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
"""Errors of libraries for remote storage that another attempt does not change."""

_OF_THE_MOMENT = {
    number
    for name in (
        "EIO", "ESTALE", "ETIMEDOUT", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH",
        "ECONNRESET", "ECONNABORTED", "ECONNREFUSED", "EREMOTEIO", "EBUSY", "EMFILE", "ENFILE",
    )
    if (number := getattr(errno, name, None)) is not None
}  # fmt: skip
"""Errors of a disk or network drive, or for want of file handles."""

Value = TypeVar("Value")


def is_temporary(error: TiepointError) -> bool:
    """Whether the same image may be processed by a later run, with nothing changed."""
    if isinstance(error, UnreachableError | EngineError | LockedError):
        return True
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in _OF_THE_MOMENT


def patiently(work: Callable[[], Value]) -> Value:
    """The result of `work`; after an `UnreachableError` it is tried again, with growing pauses.

    Raises:
        ImageError: `work` raised it; an `UnreachableError` only at the last attempt.
    """
    for delay_s in DELAYS_S:
        try:
            return work()
        except UnreachableError:
            time.sleep(delay_s)
    return work()


def unreadable(name: str, error: Exception) -> ImageError:
    """The error of a source that a library for remote storage did not read."""
    reason = str(error) or type(error).__name__
    if isinstance(error, FileNotFoundError):
        return ImageError(f"{name}: no such file; check the address")
    if isinstance(error, _PERMANENT):
        return ImageError(f"{name}: cannot be read ({reason}); check the address and rights")
    return UnreachableError(f"{name}: cannot be reached ({reason}); run again later")
