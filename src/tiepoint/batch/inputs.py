"""Files, folders, globs, URLs and lists -> one input per image, always in the same order."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from tiepoint.batch.stores import is_overlay
from tiepoint.images.photographs import is_image_name

_URL = re.compile(r"https?://", re.IGNORECASE)
_UNSAFE = re.compile(r'[\x00-\x1f\\:*?"<>|]')  # not allowed in a file name somewhere


@dataclass(frozen=True)
class Input:
    """One image.

    Attributes:
        source: Path or URL, as the detector accepts it.
        name: Relative path of its results below the output folder, without "..".
    """

    source: str
    name: PurePosixPath


@dataclass(frozen=True)
class Unreadable:
    """An argument that cannot be used, and why."""

    source: str
    reason: str


def expand(arguments: Sequence[str], listing: Iterable[str] = ()) -> Iterator[Input | Unreadable]:
    """The images that arguments name, each once, found as they are needed.

    A single folder or glob gives names relative to it. With other arguments, names begin with its
    path as typed, so that left/1.png and right/1.png stay apart. Hidden files and overlays of
    earlier runs are left out of folders and globs.

    Args:
        arguments: Files, folders (with all below them), globs (`**` too), URLs, or "-".
        listing: Lines that "-" represents, one argument each, read as needed.

    Yields:
        Inputs, sorted within a folder. `Unreadable` for a folder that cannot be listed, and for an
        input with the name of another.
    """
    if len(arguments) == 1 and arguments[0] != "-":
        yield from _expand_one(arguments[0], alone=True)  # one walk meets nothing twice
        return
    yield from _distinct(_expand_all(arguments, listing))


def _expand_all(arguments: Sequence[str], listing: Iterable[str]) -> Iterator[Input | Unreadable]:
    for argument in arguments:
        if argument == "-":
            for line in listing:
                if name := line.rstrip("\r\n"):
                    yield from _expand_one(name, alone=False)
        else:
            yield from _expand_one(argument, alone=False)


def _expand_one(argument: str, *, alone: bool) -> Iterator[Input | Unreadable]:
    if _URL.match(argument):
        yield Input(argument, _name_of_url(argument))
    elif Path(argument).is_dir():
        yield from _walk(argument, PurePosixPath() if alone else _name_as_typed(argument))
    elif glob.has_magic(argument) and not os.path.lexists(argument):
        yield from _glob(argument, alone=alone)
    else:
        yield Input(argument, _name_as_typed(argument))


def _distinct(items: Iterable[Input | Unreadable]) -> Iterator[Input | Unreadable]:
    sources: dict[int, int] = {}  # name -> source, as hashes: 0.1 GB for a million inputs
    for item in items:
        if isinstance(item, Unreadable):
            yield item
            continue
        name, source = hash(item.name), hash(_identity(item.source))
        if name not in sources:
            sources[name] = source
            yield item
        elif sources[name] != source:
            yield Unreadable(
                item.source,
                f"another input already goes to {item.name}; give the folder above both, or "
                "write them to two output folders",
            )


def _walk(folder: str, prefix: PurePosixPath) -> Iterator[Input | Unreadable]:
    images, folders = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):  # a link may lead in a circle
                    folders.append(entry.name)
                elif is_image_name(entry.name):
                    images.append(entry.name)
    except OSError as error:
        yield Unreadable(folder, f"{folder}: cannot be listed ({error.strerror})")
    for name in sorted(images):
        path = Path(folder, name)
        if not is_overlay(path):
            yield Input(str(path), prefix / name)
    for name in sorted(folders):
        yield from _walk(str(Path(folder, name)), prefix / name)


def _glob(pattern: str, *, alone: bool) -> Iterator[Input]:
    parts = Path(pattern).parts
    fixed = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    base = Path(*parts[:fixed])
    prefix = PurePosixPath() if alone else _name_as_typed(str(base))
    matches = glob.iglob(pattern, recursive=True)  # noqa: PTH207 - pathlib's enters hidden folders
    for path in map(Path, sorted(set(matches))):
        below = path.relative_to(base)
        if is_image_name(path.name) and path.is_file() and not is_overlay(path):
            climbs = ".." in below.parts
            yield Input(str(path), prefix / (path.name if climbs else PurePosixPath(*below.parts)))


def _name_as_typed(argument: str) -> PurePosixPath:
    """The path itself if it is below the current folder, else its last part."""
    path = Path(argument)
    if path.is_absolute() or path.drive or ".." in path.parts:
        return PurePosixPath(Path(os.path.abspath(argument)).name)  # noqa: PTH100 - no links
    return PurePosixPath(*path.parts)


def _name_of_url(url: str) -> PurePosixPath:
    split = urlsplit(url)
    parts = [_UNSAFE.sub("_", part) for part in unquote(split.path).split("/")]
    parts = [part for part in parts if part not in ("", ".", "..")]
    name = PurePosixPath(_UNSAFE.sub("_", split.netloc.rpartition("@")[2]), *parts)
    if split.query:  # often the only difference between two images
        digest = hashlib.sha256(split.query.encode()).hexdigest()[:8]
        name = name.with_name(f"{name.stem}-{digest}{name.suffix}")
    return name


def _identity(source: str) -> str:
    return source if _URL.match(source) else os.path.abspath(source)  # noqa: PTH100 - no links
