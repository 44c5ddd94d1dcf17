"""Copying what HDF5 can still read of a damaged file into a new one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tiepoint.formats import hdf5_reading
from tiepoint.formats.hdf5_reading import unless_damaged


def copy_readable(old: Any, new: Any) -> list[str]:
    """Copy the readable groups, data sets, links and attributes of a file.

    Args:
        old: Damaged file of h5py.
        new: Empty file of h5py, open for writing.

    Returns:
        Paths of what could not be copied, as `group/member` or `group@attribute`.
    """
    copies: dict[int, str] = {}  # address in the old file -> path in the new one
    waiting, lost = [("", old)], list[str]()
    while waiting:
        path, group = waiting.pop()
        into = new[path or "/"]
        lost += _copy_attributes(group, into, path)
        names = unless_damaged(_names, group)
        if names is None:
            lost.append(path or "/")
            continue
        for found in names:
            key = found if isinstance(found, bytes) else found.encode("utf-8", "surrogateescape")
            shown = key.decode("utf-8", "replace")
            member = f"{path}/{shown}" if path else shown
            kind = unless_damaged(_copy_member, group, into, key, copies)
            if kind is None:
                lost.append(member)
            elif kind == "group":
                waiting.append((into[key].name.strip("/"), group[key]))
    return lost


def _names(held: Any) -> list[Any]:
    return list(held)


def _copy_member(group: Any, into: Any, key: bytes, copies: dict[int, str]) -> str:
    """Copy a data set or a link, or make an empty group; returns which it is.

    Raises:
        OSError, RuntimeError, KeyError: It is damaged.
    """
    h5py = hdf5_reading.load_h5py()
    if group.id.links.get_info(key).type != h5py.h5l.TYPE_HARD:
        into[key] = group.get(key, getlink=True)  # it leads to the same place again
        return "link"
    info = h5py.h5o.get_info(group.id, key)
    if info.addr in copies:  # a second link to one object, and perhaps a circle
        into[key] = into.file[copies[info.addr]]
        return "link"
    if info.type == h5py.h5o.TYPE_GROUP:
        group[key]  # raises if it cannot be opened
        copies[info.addr] = into.create_group(key).name
        return "group"
    h5py.h5o.copy(group.id, key, into.id, key)
    copies[info.addr] = into[key].name
    return "data set"


def _copy_attributes(group: Any, into: Any, path: str) -> Iterator[str]:
    """Copy the attributes of fixed length; yields the others, and those that are damaged."""
    names = unless_damaged(_names, group.attrs)
    if names is None:
        yield f"{path}@"
    for name in names or ():
        is_copied = unless_damaged(_copy_attribute, group, into, name)
        if not is_copied:
            yield f"{path}@{name}"


def _copy_attribute(group: Any, into: Any, name: str) -> bool:
    # libhdf5 crashes on damaged ones of variable length.
    if group.attrs.get_id(name).dtype.hasobject:
        return False
    into.attrs[name] = group.attrs[name]
    return True
