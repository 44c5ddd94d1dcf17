"""Making folders, and writing files so that no reader ever sees half of one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

from tiepoint.errors import OutputError


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


def write_bytes(path: str | PathLike[str], data: bytes) -> None:
    """Write a whole file or none: an earlier one stays until the new one is complete.

    Two processes may write the same path; the file of the later one stays.

    Raises:
        OutputError: The file cannot be written; its `__cause__` is the OSError.
    """
    with replacing(Path(path)) as partial, partial.open("xb") as file:
        file.write(data)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Path of a new file in the same folder, which replaces `path` at the end.

    Raises:
        OutputError: It cannot be written. The file at `path` stays, and the new one is removed.
    """
    # The name is short, because that of `path` may already be as long as the file system allows.
    partial = path.with_name(f".{os.getpid()}-{secrets.token_hex(6)}.partial")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:  # also when interrupted
        partial.unlink(missing_ok=True)


def unwritable(path: Path, error: Exception) -> OutputError:
    """The error of a file that the operating system or a library does not write."""
    reason = getattr(error, "strerror", None) or str(error)
    return OutputError(
        f"{path}: cannot be written ({reason}); check that the folder exists, is writable and has "
        "space left"
    )
