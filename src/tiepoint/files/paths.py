"""Whether a path of the user exists. Python 3.11's Path raises for names too long or forbidden."""

# ruff: noqa: PTH110, PTH112, PTH113

from __future__ import annotations

import os
import re
from os import PathLike
from pathlib import Path

UNSAFE = re.compile(r'[\x00-\x1f\\:*?"<>|]')
"""Characters that some system does not allow in a file name, those between folders aside."""


def exists(path: str | PathLike[str]) -> bool:
    """Whether there is something; False too if the system does not let us look."""
    return os.path.exists(path)


def is_folder(path: str | PathLike[str]) -> bool:
    """Whether it is a folder, or a link to one."""
    return os.path.isdir(path)


def is_file(path: str | PathLike[str]) -> bool:
    """Whether it is a regular file, or a link to one."""
    return os.path.isfile(path)


def is_same(a: str | PathLike[str], b: str | PathLike[str]) -> bool:
    """Whether both exist and are one file or folder, whatever their spelling or links."""
    return exists(a) and exists(b) and Path(a).samefile(b)
