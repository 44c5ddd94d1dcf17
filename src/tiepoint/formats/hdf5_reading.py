"""Reading HDF5 files of others: nothing outside the file is opened, and memory is checked first.

Soft and external links are not followed. Data sets whose values are in other files are refused:
virtual ones and those with external storage.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import import_extra
from tiepoint.files.reading import open_regular
from tiepoint.formats.fields import FREE_BYTES, check_expansion, unreadable

Value = TypeVar("Value")

DAMAGE = (OSError, RuntimeError, KeyError)
"""What HDF5 itself raises for damaged objects; an OSError with an errno is the disk's."""

MAX_ATTRIBUTE_BYTES = 65_536
DEEPEST = 100
"""Most folders above a group."""

_SHUFFLE, _FLETCHER32, _DEFLATE, _LZF = 2, 3, 1, 32000
_LZF_EXPANSION = 88  # 264 bytes of 3


@contextmanager
def open_file(path: Path) -> Iterator[Any]:
    """h5py's file for reading, by way of a regular file of Python.

    So HDF5 has no name by which it could open another file: it does that for the sources of a
    virtual data set, and would wait for a FIFO.

    Raises:
        FormatError: No such file, no permission, or no regular file.
        OSError: Not HDF5.
    """
    h5py = load_h5py()
    try:
        stream = open_regular(path)
    except OSError as error:
        unreadable(str(path), error)
    with stream, h5py.File(stream, "r") as file:
        yield file


def load_h5py() -> Any:
    """h5py.

    Raises:
        MissingExtraError: It is not installed.
    """
    return import_extra("h5py", "reading and writing .h5 files", "hdf5")


def unless_damaged(read: Callable[..., Value], *arguments: Any) -> Value | None:
    """The result of `read(*arguments)`; None if HDF5 finds the object damaged.

    Raises:
        OSError: The disk could not be read; the object may be whole.
    """
    try:
        return read(*arguments)
    except DAMAGE as error:
        if getattr(error, "errno", None) is not None:
            raise
        return None


def members(group: Any) -> dict[str, bool | None]:
    """Names of the members of a group that are in the file itself -> whether each is a group.

    A damaged member has None, so that it costs none of the others.
    """
    h5py = load_h5py()
    kinds: dict[str, bool | None] = {}
    for found in group:
        # h5py gives bytes for a damaged name.
        name = found.decode("utf-8", "surrogateescape") if isinstance(found, bytes) else found
        key = name.encode("utf-8", "surrogateescape")
        if group.id.links.get_info(key).type == h5py.h5l.TYPE_HARD:
            info = unless_damaged(h5py.h5o.get_info, group.id, key)
            if info is None:
                kinds[name] = None
            elif info.type in (h5py.h5o.TYPE_GROUP, h5py.h5o.TYPE_DATASET):
                kinds[name] = info.type == h5py.h5o.TYPE_GROUP
    return kinds


def group_at(file: Any, name: str) -> Any:
    """The group at a path whose parts are all in the file itself; KeyError if there is none."""
    group = file
    for part in name.split("/"):
        if not _is_hard(group, part):
            raise KeyError(f"{name} is not in the file itself")
        group = group[part]
    if not isinstance(group, load_h5py().Group):
        raise KeyError(f"{name} is no group")
    return group


def _is_hard(group: Any, name: str) -> bool:
    key = name.encode("utf-8", "surrogateescape")
    links = group.id.links
    return bool(links.exists(key) and links.get_info(key).type == load_h5py().h5l.TYPE_HARD)


def groups_with(file: Any, dataset: str) -> Iterator[str]:
    """Paths of the groups that hold a data set of this name, sorted within each folder.

    A damaged group is among them, because it may have held one; reading it raises.

    Raises:
        OSError, RuntimeError, KeyError: The file itself cannot be listed.
        ValueError: Groups in a circle, or one folder in two places: 60 levels of two links each
            would be 2^60 paths.
    """
    address_of = load_h5py().h5o.get_info
    waiting, folders = [("", file)], dict[int, str]()
    while waiting:
        path, group = waiting.pop()
        if path.count("/") > DEEPEST:
            raise ValueError(f"groups are nested more than {DEEPEST} deep")
        kinds = _members_below(path, group)
        is_ours = kinds is None or not kinds.get(dataset, True)
        if path and is_ours:
            yield path
        if kinds is None:
            continue
        # A damaged data set of an image is no image of its own.
        wanted = (True,) if is_ours else (True, None)
        names = sorted((name for name in kinds if kinds[name] in wanted), reverse=True)
        if names:
            first = folders.setdefault(address_of(group.id).addr, path)
            if first != path:
                raise ValueError(
                    f"group {path!r} is {first or '/'!r} again, perhaps a circle; expected a tree"
                )
        waiting += [
            (f"{path}/{name}" if path else name, _opened_member(group, name)) for name in names
        ]


def _members_below(path: str, group: Any) -> dict[str, bool | None] | None:
    """The members of a group; None for a damaged one, unless it is the file itself."""
    if not path:
        return members(group)
    return None if group is None else unless_damaged(members, group)


def _opened_member(group: Any, name: str) -> Any:
    """A group inside another, or None for a damaged one."""
    return unless_damaged(lambda: group[name])


def check_listed(file: Any, paths: Iterable[str]) -> None:
    """Raise unless each path is found when its folders are listed.

    A damaged folder may take a new group that no reader ever finds.
    """
    listed: dict[str, set[Any]] = {}
    for path in paths:
        folder = ""
        for part in path.split("/"):
            if folder not in listed:
                listed[folder] = set(file[folder or "/"])
            if part not in listed[folder]:
                raise KeyError(f"{path} cannot be found again")
            folder = f"{folder}/{part}" if folder else part


def arrays(group: Any, names: Iterable[str]) -> dict[str, NDArray[Any]]:
    """The data sets of a group, as numbers.

    Raises:
        ValueError: No numbers, values in other files, a compression that is not checked, or sizes
            that the file cannot hold.
    """
    datasets = {name: _dataset(group, name) for name in names}
    file_bytes = group.file.id.get_filesize()
    memory_bytes = sum(one.size * max(one.dtype.itemsize, 4) for one in datasets.values())
    stored_bytes = sum(one.id.get_storage_size() for one in datasets.values())
    check_expansion(memory_bytes, min(stored_bytes, file_bytes))
    for name, dataset in datasets.items():
        _check_chunks(dataset, name, file_bytes)
    return {name: np.asarray(dataset[()]) for name, dataset in datasets.items()}


def length(group: Any, name: str) -> int:
    """The number of rows of a data set, which is not read."""
    shape = _dataset(group, name).shape
    if not shape:
        raise ValueError(f"{name} is a single number, expected rows")
    return int(shape[0])


def text_attribute(group: Any, key: str) -> str:
    """An attribute of fixed length: libhdf5 crashes on damaged ones of variable length."""
    attribute = group.attrs.get_id(key)
    kind = attribute.dtype
    if kind.kind != "S":
        raise ValueError(f"attribute {key} is {kind}, expected text of fixed length")
    if attribute.shape != () or kind.itemsize > MAX_ATTRIBUTE_BYTES:
        raise ValueError(f"attribute {key} is {kind} of shape {attribute.shape}, expected one text")
    return bytes(group.attrs[key]).decode()


def _dataset(group: Any, name: str) -> Any:
    dataset = group[name] if _is_hard(group, name) else None
    if not isinstance(dataset, load_h5py().Dataset) or dataset.shape is None:
        raise ValueError(f"{name} is no data set in the file itself")
    if dataset.dtype.kind not in "fiu":
        raise ValueError(f"{name} is {dataset.dtype}, expected numbers")
    if dataset.is_virtual or dataset.external:
        raise ValueError(f"the values of {name} are in other files, which are not opened; copy it")
    return dataset


def _check_chunks(dataset: Any, name: str, file_bytes: int) -> None:
    """Raise ValueError unless the chunks of a data set expand to their declared size at most."""
    if dataset.chunks is None:
        return
    chunk_bytes = math.prod(dataset.chunks) * dataset.dtype.itemsize
    if chunk_bytes > max(FREE_BYTES, dataset.nbytes):
        raise ValueError(f"{name} has chunks of {chunk_bytes} bytes for {dataset.nbytes} bytes")
    settings = dataset.id.get_create_plist()
    filters = [settings.get_filter(index)[0] for index in range(settings.get_nfilters())]
    packers = [one for one in filters if one not in (_SHUFFLE, _FLETCHER32)]
    if packers not in ([], [_DEFLATE], [_LZF]):
        raise ValueError(f"{name} has the HDF5 filters {filters}, expected gzip, lzf or none")
    chunks: list[tuple[tuple[int, ...], int, int]] = []
    if packers:
        dataset.id.chunk_iter(
            lambda chunk: chunks.append((chunk.chunk_offset, chunk.filter_mask, chunk.size))
        )
    for offset, skipped, size in chunks:
        if size > min(file_bytes, 2 * chunk_bytes + 1024):
            raise ValueError(f"{name} has a chunk of {size} bytes for {chunk_bytes} bytes")
        if packers == [_LZF] and _LZF_EXPANSION * size > 4 * FREE_BYTES:
            raise ValueError(f"{name} has a chunk of {size} bytes, too large for lzf")
        if packers == [_DEFLATE] and not skipped:
            unpacking = zlib.decompressobj()
            packed = dataset.id.read_direct_chunk(offset)[1]
            # fletcher32 adds 4 bytes if it comes first.
            if len(unpacking.decompress(packed, chunk_bytes + 5)) > chunk_bytes + 4:
                raise ValueError(f"{name} has a chunk that expands beyond {chunk_bytes} bytes")
