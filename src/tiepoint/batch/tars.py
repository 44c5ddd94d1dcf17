"""Tar files of images, such as WebDataset's: read once from start to end, never unpacked."""

from __future__ import annotations

import os
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple, Self

from tiepoint.batch import remote
from tiepoint.batch.patience import patiently, unreadable
from tiepoint.errors import ImageError, UnreachableError
from tiepoint.files.reading import open_regular
from tiepoint.images.download import MAX_BYTES
from tiepoint.images.photographs import is_image_name
from tiepoint.images.urls import is_url, without_credentials

ENDINGS = (".tar", ".tar.gz", ".tgz")

MAX_HEADER_BYTES = 1_000_000
"""Most bytes of a member's long name or extended header, which tarfile holds in memory."""

_NAMES = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME)
_LONG = (*_NAMES, tarfile.GNUTYPE_LONGLINK)
_BROKEN = (tarfile.TarError, EOFError, zlib.error, ValueError, OverflowError)


@dataclass(frozen=True)
class Tar:
    """A tar file.

    Attributes:
        source: Path or URL.
        prefix: What its members' names begin with; "" if there is no other source.
    """

    source: str
    prefix: PurePosixPath


class Member(NamedTuple):
    """An image in a tar.

    Attributes:
        name: Its path there, without "./" and "/" at the start.
        data: Contents of the file, or the error why there are none.
    """

    name: str
    data: bytes | ImageError


def is_tar_name(name: str) -> bool:
    """Whether a path or URL ends as a tar does."""
    return name.lower().endswith(ENDINGS)


def without_ending(name: str) -> str:
    """A name without the ending of a tar."""
    ending = next(one for one in sorted(ENDINGS, key=len)[::-1] if name.lower().endswith(one))
    return name[: -len(ending)]


def stamp(tar: Tar) -> dict[str, Any]:
    """What changes with the contents of a tar: size, and time for a local one.

    Raises:
        ImageError: It cannot be found or reached.
    """
    if _is_local(tar.source):
        try:
            status = Path(tar.source).stat()
        except OSError as error:
            raise unreadable(tar.source, error) from error
        return {"bytes": status.st_size, "modified_ns": status.st_mtime_ns}
    return {"bytes": remote.size_of(tar.source)}


def members(tar: Tar) -> Iterator[Member]:
    """The images of a tar in their order. A connection that breaks is opened again.

    Raises:
        ImageError: No tar, a damaged one, or one that cannot be read; `UnreachableError` if another
            attempt may succeed. Members before the damage have been yielded.
    """
    found, lost = 0, 0

    def following(position: int) -> tuple[Iterator[Member], Member | None]:
        iterator = _members(tar)
        for _ in range(position):
            next(iterator, None)
        return iterator, next(iterator, None)

    iterator, member = patiently(partial(following, 0))
    while member is not None:
        found += 1
        yield member
        try:
            member = next(iterator, None)
        except UnreachableError:
            lost += 1
            if lost > _MOST_LOST:
                raise
            iterator, member = patiently(partial(following, found))


_MOST_LOST = 5
"""Connections of one tar that may break after they gave a member."""


class _BoundedInfo(tarfile.TarInfo):
    """A member whose name takes little memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        info = super().frombuf(buf, encoding, errors)
        if info.type in _LONG and info.size > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {info.size} bytes")
        return info


def _members(tar: Tar) -> Iterator[Member]:
    shown = without_credentials(tar.source)
    with closing(_open(tar.source)) as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r|*", tarinfo=_BoundedInfo) as archive:
                while (info := archive.next()) is not None:
                    _forget(archive)
                    name = _cleaned(info.name)
                    if info.isfile() and _is_image(name):
                        yield Member(name, _contents(archive, info, f"{shown}/{name}"))
        except _BROKEN as error:
            raise ImageError(f"{shown}: not a whole tar file ({error}); copy it again") from error
        except ImageError:
            raise
        except Exception as error:  # each storage has errors of its own
            raise unreadable(shown, error) from error


def _forget(archive: Any) -> None:
    """Drop the list of members, of which tarfile would keep a million."""
    archive.members.clear()


def _contents(archive: tarfile.TarFile, info: tarfile.TarInfo, shown: str) -> bytes | ImageError:
    if info.size > MAX_BYTES:
        return remote.too_large(shown)
    file = archive.extractfile(info)
    assert file is not None
    data = file.read()
    if len(data) < info.size:
        raise tarfile.ReadError("unexpected end of data")
    return data


def _cleaned(name: str) -> str:
    while name.startswith(("./", "/")):
        name = name.removeprefix("./").lstrip("/")
    return name


def _is_image(name: str) -> bool:
    parts = name.split("/")
    hidden = any(part.startswith(".") and part not in (".", "..") for part in parts)
    return is_image_name(parts[-1]) and not hidden


def _is_local(source: str) -> bool:
    return not is_url(source) and not remote.is_remote(source)


def _open(source: str) -> BinaryIO:
    if not _is_local(source):
        return remote.open_stream(source)
    try:
        return open_regular(os.fsdecode(source))
    except OSError as error:
        raise unreadable(source, error) from error
