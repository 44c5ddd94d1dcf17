"""Files, folders, globs, URLs and lists -> one input per image, always in the same order."""

from __future__ import annotations

import glob
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from tiepoint.batch.ignored import LINKED_FOLDERS, kind_of
from tiepoint.batch.stores import is_overlay
from tiepoint.files.paths import UNSAFE
from tiepoint.files.writing import special_kind
from tiepoint.images.photographs import is_image_name
from tiepoint.images.slides import is_zarr_folder
from tiepoint.images.urls import is_url, without_credentials

_NAMED_LENGTH = 300
"""Characters of a wrong argument that are shown."""


@dataclass(frozen=True)
class Input:
    """One image.

    Attributes:
        source: Path or URL, as the detector accepts it; a URL may contain credentials.
        name: Relative path of its results below the output folder, without "..".
    """

    source: str
    name: PurePosixPath


@dataclass(frozen=True)
class Unreadable:
    """An argument that cannot be used, and why."""

    source: str
    reason: str


def expand(
    arguments: Sequence[str], listing: Iterable[str] = (), ignored: Counter[str] | None = None
) -> Iterator[Input | Unreadable]:
    """The images that arguments name, each once, found as they are needed.

    A single folder or glob gives names relative to it. With other arguments, names begin with its
    path as typed, so that left/1.png and right/1.png stay apart. Hidden files and overlays of
    earlier runs are left out of folders and globs.

    Args:
        arguments: Files, folders (with all below them), globs (`**` too), URLs, or "-".
        listing: Lines that "-" represents, one argument each, read as needed.
        ignored: Counts the files of folders and globs that are not taken, by ending; see
            `ignored.kind_of`.

    Yields:
        Inputs, sorted within a folder. `Unreadable` for an argument or a folder that cannot be
        used, and for an input with the name of another.
    """
    counts: Counter[str] = Counter() if ignored is None else ignored
    if len(arguments) == 1 and arguments[0] != "-":
        yield from expand_one(arguments[0], counts, alone=True)  # one walk meets nothing twice
        return
    yield from _distinct(_expand_all(arguments, listing, counts))


def _expand_all(
    arguments: Sequence[str], listing: Iterable[str], ignored: Counter[str]
) -> Iterator[Input | Unreadable]:
    for argument in arguments:
        if argument == "-":
            for line in listing:
                if name := line.rstrip("\r\n"):
                    yield from expand_one(name, ignored, alone=False)
        else:
            yield from expand_one(argument, ignored, alone=False)


def expand_one(
    argument: str, ignored: Counter[str], *, alone: bool
) -> Iterator[Input | Unreadable]:
    """The images that one argument of `expand` names; `alone` if there is no other argument."""
    shown = without_credentials(argument)
    shown = shown if len(shown) <= _NAMED_LENGTH else f"{shown[:_NAMED_LENGTH]}..."
    if not argument:
        yield Unreadable(shown, "'': an empty argument; expected a file, folder, glob or URL")
        return
    if "\0" in argument:
        yield Unreadable(shown, f"{shown!r}: a null character, which no path or URL contains")
        return
    try:
        if is_url(argument):
            yield Input(argument, _name_of_url(argument))
        elif os.path.isdir(argument) and not is_zarr_folder(argument):  # noqa: PTH112 - Path.is_dir raises for some names
            yield from _walk(argument, PurePosixPath() if alone else as_typed(argument), ignored)
        elif glob.has_magic(argument) and not os.path.lexists(argument):
            yield from _glob(argument, ignored, alone=alone)
        else:
            yield _input_or_refusal(argument, as_typed(argument))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or without_credentials(str(error))
        yield Unreadable(shown, f"{shown}: cannot be used ({reason}); check it")


def _input_or_refusal(path: str, name: PurePosixPath) -> Input | Unreadable:
    if kind := special_kind(path):
        return Unreadable(path, f"{path}: {kind}, expected an image file; copy it to a file first")
    return Input(path, name)


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
                without_credentials(item.source),
                f"another input already goes to {item.name}; give the folder above both, or "
                "write them to two output folders",
            )


def _walk(
    folder: str, prefix: PurePosixPath, ignored: Counter[str]
) -> Iterator[Input | Unreadable]:
    waiting = [(folder, prefix)]  # no recursion: folders may be nested a thousand deep
    while waiting:
        folder, prefix = waiting.pop()
        images, folders = [], []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if _is_folder(entry):
                        folders.append(entry.name)
                    elif is_image_name(entry.name):
                        images.append(entry.name)
                    else:
                        _ignore(entry, ignored)
        except OSError as error:
            yield Unreadable(folder, f"{folder}: cannot be listed ({error.strerror})")
        for name in sorted(images):
            path = Path(folder, name)
            if not is_overlay(path):
                yield _input_or_refusal(str(path), prefix / name)
        below = sorted(folders, reverse=True)  # the last is the next
        waiting += [(str(Path(folder, name)), prefix / name) for name in below]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)  # a link may lead in a circle
    except OSError:
        return False


def _ignore(entry: os.DirEntry[str], ignored: Counter[str]) -> None:
    kind = kind_of(entry.name)
    if entry.is_symlink() and os.path.isdir(entry.path):  # noqa: PTH112
        kind = LINKED_FOLDERS
    if kind is not None:
        ignored[kind] += 1


def _glob(pattern: str, ignored: Counter[str], *, alone: bool) -> Iterator[Input | Unreadable]:
    parts = Path(pattern).parts
    fixed = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    base = Path(*parts[:fixed])
    prefix = PurePosixPath() if alone else as_typed(str(base))
    matches = glob.iglob(pattern, recursive=True)  # noqa: PTH207 - pathlib's enters hidden folders
    for path in map(Path, sorted(set(matches))):
        below = path.relative_to(base)
        if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises for some names
            continue
        if not is_image_name(path.name):
            if kind := kind_of(path.name):
                ignored[kind] += 1
        elif not is_overlay(path):
            climbs = ".." in below.parts
            name = prefix / (path.name if climbs else PurePosixPath(*below.parts))
            yield _input_or_refusal(str(path), name)


def as_typed(argument: str) -> PurePosixPath:
    """The path itself if it is below the current folder, else its last part."""
    path = Path(argument)
    if path.is_absolute() or path.drive or ".." in path.parts:
        return PurePosixPath(Path(os.path.abspath(argument)).name)  # noqa: PTH100 - no links
    return PurePosixPath(*path.parts)


def _name_of_url(url: str) -> PurePosixPath:
    """Host and path, as a relative path without "..".

    Raises:
        ValueError: A broken URL, without its credentials in the message.
    """
    try:
        split = urlsplit(url)
        host, _ = split.hostname or "", split.port
    except ValueError:
        raise ValueError("host or port of this URL is broken") from None
    if not any(letter.isalnum() for letter in host):
        raise ValueError("this URL names no host")
    parts = [UNSAFE.sub("_", part).rstrip(" .") for part in unquote(split.path).split("/")]
    netloc = UNSAFE.sub("_", split.netloc.rpartition("@")[2]).strip(" .")
    name = PurePosixPath(netloc, *filter(None, parts))
    if split.query:  # often the only difference between two images
        digest = hashlib.sha256(split.query.encode()).hexdigest()[:8]
        name = name.with_name(f"{name.stem}-{digest}{name.suffix}")
    return name


def _identity(source: str) -> str:
    return source if is_url(source) else os.path.abspath(source)  # noqa: PTH100 - no links
