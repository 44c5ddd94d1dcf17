"""Arguments -> shards: images by the hash of their names, each tar by itself.

A million names take about 150 MB: each is kept once, as bytes, until its shard is made.
"""

from __future__ import annotations

import glob
import hashlib
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import numpy as np

from tiepoint.batch import remote
from tiepoint.batch.ignored import kind_of
from tiepoint.batch.inputs import Input, Unreadable, as_typed, expand_one
from tiepoint.batch.tars import Tar, is_tar_name, without_ending
from tiepoint.checks import check_whole
from tiepoint.errors import ConfigError, ImageError
from tiepoint.files.paths import exists, is_folder
from tiepoint.formats.features_store import MOST_SHARDS
from tiepoint.images.download import MAX_BYTES
from tiepoint.images.photographs import is_image_name
from tiepoint.images.urls import is_url, without_credentials

IMAGES_PER_SHARD = 256
"""Mean number of images of a shard by default. A killed run repeats one shard."""

_SAME, _OTHER = b"=", b"+"
_ERRORS = "surrogatepass"  # names that are no valid text are refused later, one by one


@dataclass(frozen=True)
class Shard:
    """A part of the work that is done as a whole.

    Attributes:
        name: "00012", or "tar-<hash>" for the images of a tar.
        sources: (name, path or URL) of its images, sorted; empty for a tar.
        tar: The tar, or None.
    """

    name: str
    sources: tuple[tuple[str, str], ...] = ()
    tar: Tar | None = None


@dataclass(frozen=True)
class Worker:
    """One of several runs that share the work.

    Attributes:
        index: Its number, from 0.
        count: Number of all.

    Raises:
        ConfigError: No such worker.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        check_whole("count", self.count, minimum=1, maximum=MOST_SHARDS, unit="workers")
        if not 0 <= self.index < self.count:
            raise ConfigError(
                f"worker {self.index} of {self.count}: they are numbered from 0 to {self.count - 1}"
            )

    @classmethod
    def parse(cls, text: str) -> Worker:
        """The worker of "i/n".

        Raises:
            ConfigError: Another form, or no such worker.
        """
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal() and index.isascii() and count.isascii()):
            raise ConfigError(
                f"shard is {text!r}, expected the number of this worker and of all, such as 0/8"
            )
        return cls(int(index), int(count))


class Listing:
    """The images and tars that arguments name, ready to be cut into shards."""

    def __init__(self, items: Iterable[Input | Tar | Unreadable] = ()) -> None:
        self.tars: list[Tar] = []
        self.unreadable: list[Unreadable] = []
        self._lines: list[bytes] = []
        self._hashes = array("Q")
        for item in items:
            if isinstance(item, Tar):
                self.tars.append(item)
            elif isinstance(item, Unreadable):
                self.unreadable.append(item)
            elif "\0" in item.source:
                reason = f"{item.source!r}: a null character in its name; rename it"
                self.unreadable.append(Unreadable(item.source, reason))
            else:
                self._add(str(item.name), item.source)
        self.tars = sorted(set(self.tars), key=lambda tar: (str(tar.prefix), tar.source))

    @property
    def images(self) -> int:
        """Number of images outside tars."""
        return len(self._lines)

    def __bool__(self) -> bool:
        return bool(self._lines or self.tars or self.unreadable)

    def default_shards(self) -> int:
        """Number of shards with `IMAGES_PER_SHARD` images each, at least 1."""
        return max(1, -(-self.images // IMAGES_PER_SHARD))

    def count(self, shards: int, worker: Worker) -> int:
        """Number of images outside tars that a worker has; equal names count each."""
        numbers = np.array(self._hashes, np.uint64) % np.uint64(shards)
        return int(np.count_nonzero(numbers % np.uint64(worker.count) == np.uint64(worker.index)))

    def shards(self, count: int, worker: Worker) -> Iterator[Shard]:
        """The shards of a worker that have images, made one at a time.

        Args:
            count: Number of shards into which names are hashed.
            worker: The worker; each takes every n-th shard.
        """
        numbers = np.array(self._hashes, np.uint64) % np.uint64(count)
        order = np.argsort(numbers, kind="stable").astype(np.uint32)
        bounds = np.searchsorted(numbers[order], np.arange(count + 1, dtype=np.uint64))
        del numbers
        for position in range(worker.index, count + len(self.tars), worker.count):
            if position >= count:
                tar = self.tars[position - count]
                yield Shard(shard_name(tar), tar=tar)
                continue
            lines = [self._lines[i] for i in order[bounds[position] : bounds[position + 1]]]
            if lines:
                yield Shard(f"{position:05d}", tuple(sorted(set(map(_parsed, lines)))))

    def _add(self, name: str, source: str) -> None:
        key = name.encode(errors=_ERRORS)
        rest = source.encode(errors=_ERRORS)
        if rest.endswith(key):  # as below a folder: the name is kept once
            line = b"\0".join((key, _SAME + rest[: len(rest) - len(key)]))
        else:
            line = b"\0".join((key, _OTHER + rest))
        self._lines.append(line)
        digest = hashlib.blake2b(key, digest_size=8).digest()
        self._hashes.append(int.from_bytes(digest, "big"))


def list_sources(
    arguments: Sequence[str], listing: Iterable[str] = (), ignored: Counter[str] | None = None
) -> Iterator[Input | Tar | Unreadable]:
    """The images and tars that arguments name, found as they are needed, in no certain order.

    Names are as in `inputs.expand`: those of a single argument begin below it, those of several
    with the path as typed. A tar is named as a folder would be, without its ending.

    Args:
        arguments: Files, folders, globs, tars, URLs of http(s) and of fsspec, or "-". Tars in a
            folder are not taken, because they may be copies of what is beside them.
        listing: Lines that "-" represents, one argument each, read as needed.
        ignored: Counts the files that are not taken; see `ignored.kind_of`.

    Raises:
        ConfigError: A URL of a scheme that no installed package knows.
        MissingExtraError: A URL needs the extra `remote`.
    """
    counts: Counter[str] = Counter() if ignored is None else ignored
    alone = len(arguments) == 1 and arguments[0] != "-"
    for argument in arguments:
        lines = (line.rstrip("\r\n") for line in listing) if argument == "-" else [argument]
        for line in lines:
            if line or argument != "-":
                yield from _list_one(line, counts, alone=alone)


def _list_one(
    argument: str, ignored: Counter[str], *, alone: bool
) -> Iterator[Input | Tar | Unreadable]:
    if remote.is_remote(argument):
        yield from _list_remote(argument, ignored, alone=alone)
    elif is_url(argument) and is_tar_name(urlsplit(argument).path):
        yield Tar(argument, PurePosixPath() if alone else _path_of(argument))
    elif "\0" in argument or exists(argument) or not glob.has_magic(argument):
        if is_tar_name(argument) and "\0" not in argument and not is_folder(argument):
            yield Tar(argument, PurePosixPath() if alone else as_typed(without_ending(argument)))
        else:
            yield from expand_one(argument, ignored, alone=alone)
    else:
        if not is_image_name(argument):
            yield from _list_tars(argument, alone=alone)
        yield from expand_one(argument, ignored, alone=alone)


def _list_tars(argument: str, *, alone: bool) -> Iterator[Tar]:
    """The tars of a glob."""
    parts = Path(argument).parts
    fixed = Path(*parts[: next(i for i, part in enumerate(parts) if glob.has_magic(part))])
    prefix = PurePosixPath() if alone else as_typed(str(fixed))
    matches = glob.iglob(argument, recursive=True)  # noqa: PTH207 - as for images
    for path in sorted(filter(is_tar_name, set(matches))):
        below = PurePosixPath(*Path(path).relative_to(fixed).parts)
        yield Tar(path, prefix / without_ending(str(below)))


def _list_remote(
    argument: str, ignored: Counter[str], *, alone: bool
) -> Iterator[Input | Tar | Unreadable]:
    remote.check_scheme(urlsplit(argument).scheme)
    shown = without_credentials(argument)
    fixed, is_glob = remote.split_glob(argument)
    path = _path_of(fixed)
    prefix = PurePosixPath() if alone else path
    if is_tar_name(argument) and not is_glob:
        yield Tar(argument, prefix)
        return
    if is_image_name(argument) and not is_glob:  # not looked up: there may be a million
        yield Input(argument, PurePosixPath(path.name) if alone else path)
        return
    is_empty = True
    try:
        for url, below, size_bytes in remote.list_files(argument):
            is_empty = False
            if is_glob and is_tar_name(below):
                yield Tar(url, prefix / without_ending(below))
            elif not is_image_name(below):
                if kind := kind_of(PurePosixPath(below).name):
                    ignored[kind] += 1
            elif size_bytes is not None and size_bytes > MAX_BYTES:
                error = remote.too_large(without_credentials(url))
                yield Unreadable(without_credentials(url), str(error))
            else:
                yield Input(url, prefix / below)
    except ImageError as error:
        yield Unreadable(shown, str(error))
    else:
        if is_glob and is_empty and not alone:  # alone it is an empty run
            yield Unreadable(shown, f"{shown}: no such file, and none matches; check the address")


def _path_of(url: str) -> PurePosixPath:
    """Bucket and path of a URL, as the name of what is there."""
    split = urlsplit(url, allow_fragments=is_url(url))  # storages have # in names
    path = f"{split.netloc.rpartition('@')[2]}/{split.path}".strip("/")
    return PurePosixPath(without_ending(path) if is_tar_name(path) else path)


def _parsed(line: bytes) -> tuple[str, str]:
    """Name and source of a line."""
    key, _, rest = line.partition(b"\0")
    source = rest[1:] + key if rest.startswith(_SAME) else rest[1:]
    return key.decode(errors=_ERRORS), source.decode(errors=_ERRORS)


def shard_name(tar: Tar) -> str:
    """The name of the shard with the images of a tar."""
    identity = f"{tar.prefix}\n{without_credentials(tar.source)}"
    return f"tar-{hashlib.sha256(identity.encode(errors=_ERRORS)).hexdigest()[:16]}"
