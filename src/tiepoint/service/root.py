"""Files below one folder, for requests that name a path: no escape by `..`, links or races."""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from tiepoint.files.reading import open_regular
from tiepoint.service.problems import ProblemError


class Root:
    """The folder whose files requests may name.

    Args:
        folder: An existing folder; links inside it may lead to other places inside it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve(strict=True)

    def open(self, path: str, field: str) -> BinaryIO:
        """Open a regular file for reading.

        Args:
            path: Relative to the folder, with `/`.
            field: The request's field, for the error.

        Raises:
            ProblemError: A path that leads outside, or to no regular file; one answer for both, so
                that it does not show which files exist elsewhere.
        """
        try:
            place = self._inside(path)
            return self._opened(place)
        except (OSError, ValueError, RuntimeError) as error:
            raise ProblemError(
                404,
                "no_such_file",
                f"{field}: no such file below the folder of this service, expected a relative "
                "path of a regular file",
                setting=field,
            ) from error

    def _inside(self, path: str) -> PurePosixPath | Path:
        """The path below the folder without links and `..`."""
        given = PurePosixPath(path)
        if not path or given.is_absolute() or "\\" in path or "\0" in path or ":" in path:
            raise ValueError("no relative path")
        return (self._folder / given).resolve(strict=True).relative_to(self._folder)

    def _opened(self, place: PurePosixPath | Path) -> BinaryIO:
        if os.open not in os.supports_dir_fd:  # Windows
            return open_regular(self._folder / place)
        # Folder by folder and without following links, because a folder may be replaced by a link.
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name in place.parts[:-1]:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
                inner = os.open(name, flags, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = inner
            file = _regular(place.name, descriptor)
        finally:
            os.close(descriptor)
        return file


def _regular(name: str, folder: int) -> BinaryIO:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # a FIFO would wait for its writer
    descriptor = os.open(name, flags, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("not a regular file")
    return os.fdopen(descriptor, "rb")
