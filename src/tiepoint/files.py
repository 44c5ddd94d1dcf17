"""Making folders, and writing files so that no reader ever sees half of one."""

from __future__ import annotations

import os
import secrets
from os import PathLike
from pathlib import Path

from tiepoint.errors import FormatError


def make_folder(folder: str | PathLike[str], *, advice: str = "choose another place") -> Path:
    """Create a folder, and those above it, unless it is there.

    Args:
        advice: What the error tells the caller to do.

    Raises:
        FormatError: It cannot be created; its `__cause__` is the OSError.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FormatError(f"{path}: cannot be made ({error.strerror}); {advice}") from error
    return path


def write_bytes(path: str | PathLike[str], data: bytes) -> None:
    """Write a whole file or none: what stood at `path` stays until the new file is complete.

    Two processes that write the same path do not disturb each other; the later one stays.

    Raises:
        FormatError: The file cannot be written; its `__cause__` is the OSError.
    """
    target = Path(path)
    # The name is short, since the target's may already be as long as the file system allows.
    partial = target.with_name(f".{os.getpid()}-{secrets.token_hex(6)}.partial")
    try:
        with partial.open("xb") as file:
            file.write(data)
        partial.replace(target)
    except OSError as error:
        raise FormatError(
            f"{target}: cannot be written ({error.strerror}); "
            "check that the folder exists, is writable and has space left"
        ) from error
    finally:  # also when interrupted
        partial.unlink(missing_ok=True)
