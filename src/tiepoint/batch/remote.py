"""Storage behind a URL, such as s3://, by fsspec (extra `remote`): listed and read as it comes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, BinaryIO, NamedTuple, TypeVar
from urllib.parse import urlsplit

from tiepoint.batch.patience import patiently, unreadable
from tiepoint.errors import ConfigError, ImageError, import_extra
from tiepoint.images.download import MAX_BYTES
from tiepoint.images.urls import is_url, without_credentials

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_MAGIC = re.compile(r"[*[]")  # a ? may begin a query
_BLOCK_BYTES = 2**22
"""Bytes requested at a time from a file that is read from its start to its end."""

Value = TypeVar("Value")


class Found(NamedTuple):
    """A file below a URL.

    Attributes:
        url: Its own URL.
        below: Its path below the URL that was listed, with `/`.
        size_bytes: None if the storage does not state it.
    """

    url: str
    below: str
    size_bytes: int | None


def is_remote(text: str) -> bool:
    """Whether this is a URL of a scheme other than http and https."""
    return _SCHEME.match(text) is not None and not is_url(text)


@cache
def check_scheme(scheme: str) -> None:
    """Raise for the scheme of a URL that cannot be read, without a connection.

    Raises:
        ConfigError: No installed package knows it.
        MissingExtraError: The extra `remote` is not installed.
    """
    core = _core(scheme)
    with _as_config_errors(f"{scheme}:// sources"):
        core.get_filesystem_class(scheme)


def split_glob(url: str) -> tuple[str, bool]:
    """The folder above the first `*` or `[` of a glob, or the URL itself; and whether it is one."""
    magic = _MAGIC.search(url)
    return (url, False) if magic is None else (url[: magic.start()].rpartition("/")[0], True)


def list_files(url: str) -> Iterator[Found]:
    """The files below the URL of a folder, or those that a glob gives; hidden ones are left out.

    Memory grows with the largest single folder only.

    Raises:
        ConfigError: A scheme that no installed package knows.
        ImageError: It cannot be listed; `UnreachableError` if that may change.
        MissingExtraError: The extra `remote` is not installed.
    """
    files, root = _filesystem(url)
    root = root.rstrip("/")
    shown = without_credentials(url)
    fixed, is_glob = split_glob(root)
    if is_glob:
        matches = _asked(shown, partial(files.glob, root, detail=True))
        entries = [entry for _, entry in sorted(matches.items())]
        base = split_glob(url)[0]
        yield from _visible(base, fixed, (e for e in entries if e["type"] != "directory"))
        return
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        listed = _asked(shown, partial(files.ls, folder, detail=True))
        names = {entry["name"].rstrip("/"): entry for entry in listed}
        own = names.pop(folder, None)  # the file itself, or what marks a folder
        if own is not None and folder == root and not names:
            names[folder] = own
        folders = [name for name, entry in names.items() if entry["type"] == "directory"]
        below = [name for name in folders if name.startswith(f"{folder}/")]
        waiting += sorted(below, reverse=True)  # the last is the next
        ordered = (names[one] for one in sorted(names) if names[one]["type"] != "directory")
        yield from _visible(url, root, ordered)


def read_bytes(url: str) -> bytes:
    """The bytes of a file.

    Raises:
        ImageError: It cannot be read, or is larger than `MAX_BYTES`; `UnreachableError` if another
            attempt may succeed.
    """
    files, path = _filesystem(url)
    data: bytes = _asked(without_credentials(url), lambda: files.cat_file(path), again=False)
    if len(data) > MAX_BYTES:  # listings state sizes, but not of all storages
        raise too_large(without_credentials(url))
    return data


def open_stream(url: str) -> BinaryIO:
    """A file to be read from its start to its end.

    Raises:
        ImageError: It cannot be opened; see `read_bytes`.
    """
    files, path = _filesystem(url)

    def opened() -> BinaryIO:
        stream: BinaryIO = files.open(path, "rb", block_size=_BLOCK_BYTES)
        return stream

    return _asked(without_credentials(url), opened)


def size_of(url: str) -> int | None:
    """The size of a file in bytes; None if the storage does not state it.

    Raises:
        ImageError: See `read_bytes`.
    """
    files, path = _filesystem(url)
    size: int | None = _asked(without_credentials(url), lambda: files.size(path))
    return size


def too_large(name: str) -> ImageError:
    """The error of a file above the limit of downloads."""
    return ImageError(f"{name}: larger than {MAX_BYTES // 2**20} MiB, the limit for remote images")


def _core(scheme: str) -> Any:
    return import_extra("fsspec.core", f"reading {scheme}:// sources", "remote")


def _filesystem(url: str) -> tuple[Any, str]:
    """fsspec's file system of a URL, and the path in it.

    Raises:
        ConfigError: A scheme that no installed package knows, or settings that it lacks.
        UnreachableError: Its server does not answer or refuses the connection.
    """
    core, shown = _core(urlsplit(url).scheme), without_credentials(url)
    with _as_config_errors(shown):
        try:
            files, path = core.url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError):
            raise
        except Exception as error:  # some connect at once, each with errors of its own
            raise unreadable(shown, error) from error
    return files, path


@contextmanager
def _as_config_errors(shown: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise ConfigError(f"{shown}: needs one more package: {error}") from error
    except ValueError as error:
        raise ConfigError(f"{shown}: {error}") from error


def _asked(name: str, work: Callable[[], Value], *, again: bool = True) -> Value:
    """What a storage answers; without one it is asked several times, if `again`."""

    def once() -> Value:
        try:
            return work()
        except ImageError:
            raise
        except Exception as error:  # each storage has errors of its own
            raise unreadable(name, error) from error

    return patiently(once) if again else once()


def _visible(base: str, root: str, entries: Iterator[Any]) -> Iterator[Found]:
    """Entries below `root` with URLs below `base`, which is the same place as typed."""
    for entry in entries:
        below = entry["name"][len(root) :].strip("/")
        url = f"{base.rstrip('/')}/{below}" if below else base
        name = below or root.rpartition("/")[2]
        if not any(part.startswith(".") and part not in (".", "..") for part in name.split("/")):
            yield Found(url, name, entry.get("size"))
