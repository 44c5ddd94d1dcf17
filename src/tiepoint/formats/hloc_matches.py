"""Matches of many pairs in one HDF5 file, in hloc's layout (extra `hdf5`).

A group per pair, `<image a>/<image b>`, with `-` for every `/` inside a name:

    matches0          N_A  index in B of each keypoint of A, -1 for none
    matching_scores0  N_A  scores, 0 for none

hloc writes int16, which overflows from 32,768 keypoints on, and float16. tiepoint writes int32 and
float32, which hloc reads as well. The attributes `names` and `meta` (JSON) hold the images' real
names and how the matches were made. hloc's own files have neither, so their names keep the `-`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from tiepoint.errors import FormatError
from tiepoint.features import Matches
from tiepoint.files.reading import parse_json
from tiepoint.formats import fields, hdf5, hdf5_reading, hdf5_writing, matches_npz
from tiepoint.formats.fields import DamagedError
from tiepoint.formats.hdf5_reading import unless_damaged

Names = tuple[str, str]


class H5Matches(hdf5.GroupMapping[Names, Matches]):
    """The pairs of a file by the names of their images; see `read_matches_h5`."""

    _holds, _unit, _dataset = "matches", "pairs", "matches0"

    def meta(self, names: Names) -> dict[str, Any]:
        """How the matches of a pair were made, without reading them; empty in hloc's files."""
        key = self.groups[names]
        with hdf5.opened(self.path, "matches") as file:
            return _public_meta(hdf5_reading.group_at(file, key), f"{self.path}: {key}")

    def _list_groups(self, file: Any) -> Iterator[tuple[Names, str]]:
        return _pairs(file)

    def _read_group(self, group: Any, where: str) -> Matches:
        return _read_group(group, where)


def read_matches_h5(path: str | PathLike[str]) -> H5Matches:
    """The pairs of a file, tiepoint's or hloc's, as a mapping: (name a, name b) -> Matches.

    Raises:
        FormatError: No such file, a damaged one, or one without matches. Asking the mapping for a
            damaged pair raises it too.
        MissingExtraError: The extra `hdf5` is not installed.
    """
    return H5Matches(path)


class H5MatchesWriter(hdf5.GroupWriter[Names]):
    """Collects matches of many pairs for one file; closes, suspends and fails as `H5Writer`.

    Args:
        path: The file to write; its journal is next to it until it is closed.
    """

    _title, _holds = b"tiepoint matches journal 1\n", "matches"

    def __init__(self, path: str | PathLike[str]) -> None:
        super().__init__(path)
        self._names: set[Names] = {*self._stored, *map(_names, self._journal)}
        self._groups = {_group(*names): names for names in self._names}

    def __contains__(self, names: object) -> bool:
        return names in self._names

    def __len__(self) -> int:
        return len(self._groups)

    def meta(self, names: Names) -> dict[str, Any]:
        """How the matches of a finished pair were made.

        Raises:
            KeyError: There is no such pair.
            FormatError: It is damaged.
        """
        if _journal_key(names) in self._journal:
            return dict(self.read(names).meta)
        group = self._stored_group(names)
        return _public_meta(group, f"{self.path}: {self._stored[names]}")

    def read(self, names: Names) -> Matches:
        """Matches of a finished pair; raises as `meta`."""
        if _journal_key(names) in self._journal:
            payload = self._journal.read(_journal_key(names))
            return matches_npz.decode(BytesIO(payload), f"{self.partial}: {', '.join(names)}")
        group = self._stored_group(names)
        return _read_group(group, f"{self.path}: {self._stored[names]}")

    def add(self, name_a: str, name_b: str, matches: Matches) -> None:
        """Store the matches of one pair; they replace earlier ones of the same names.

        Args:
            name_a, name_b: Paths of the images relative to the images' folder, with `/`.
            matches: Matches of that pair, at most one for each keypoint of A.

        Raises:
            FormatError: A name is no such path, the pair's group is that of other names, a keypoint
                of A has two matches, or `meta` holds what JSON cannot or is too long.
            OutputError: The journal cannot be written (its `__cause__` is the OSError).
        """
        for name in (name_a, name_b):
            hdf5.check_name(name)
        names, group = (name_a, name_b), _group(name_a, name_b)
        taken = self._groups.get(group, names)
        if taken != names and self._is_damaged(taken):  # its real names may be these
            self._names.discard(taken)
        elif taken != names:
            raise FormatError(
                f"{name_a} and {name_b}: hloc's files write / as -, so their group {group!r} is "
                f"that of {taken[0]} and {taken[1]} too; rename one of the images"
            )
        index_a = np.sort(matches.pairs[:, 0])  # M; np.unique takes ten times as long
        if (index_a[1:] == index_a[:-1]).any():
            raise FormatError(
                f"{name_a} and {name_b}: a keypoint of {name_a} has two matches; .h5 files hold "
                "one for each"
            )
        if len(matches) and matches.pairs.max() >= fields.MAX_KEYPOINTS:
            raise FormatError(
                f"{name_a} and {name_b}: index {matches.pairs.max()}, files keep up to "
                f"{fields.MAX_KEYPOINTS - 1}"
            )
        text = fields.meta_text(matches)
        _attributes(names, text)  # refused now, not at the end
        self._journal.add(_journal_key(names), matches_npz.encode(matches, text))
        self._groups[group] = names
        self._names.add(names)

    def _is_damaged(self, names: Names) -> bool:
        try:
            self.meta(names)
        except DamagedError:
            return True
        return False

    def _groups_of(self, path: Path) -> Mapping[Names, str]:
        return H5Matches(path).groups

    def _write_group(self, file: Any, name: str) -> str:
        _write_group(file, _names(name), self.read(_names(name)))
        return _group(*_names(name))


def _journal_key(names: Names) -> str:
    return "\x00".join(names)


def _names(journal_key: str) -> Names:
    name_a, _, name_b = journal_key.partition("\x00")
    return name_a, name_b


def _group(name_a: str, name_b: str) -> str:
    return f"{name_a.replace('/', '-')}/{name_b.replace('/', '-')}"


def _attributes(names: Names, meta_text: str) -> dict[str, np.bytes_]:
    texts = {"names": json.dumps(names), "meta": meta_text}
    return {key: hdf5.json_attribute(" and ".join(names), text) for key, text in texts.items()}


def _write_group(file: Any, names: Names, matches: Matches) -> None:
    """Write one pair into an open file; it replaces an earlier one of the same names."""
    key = _group(*names)
    if key in file:
        del file[key]
    index_a, index_b = matches.pairs.T  # M each
    counts = matches.meta.get("keypoints")
    least = int(index_a.max()) + 1 if len(matches) else 0
    stated = counts[0] if isinstance(counts, list | tuple) and counts else 0
    is_count = isinstance(stated, int) and least <= stated <= fields.MAX_KEYPOINTS
    count = stated if is_count else least
    partners, scores = np.full(count, -1, np.int32), np.zeros(count, np.float32)  # N_A each
    partners[index_a], scores[index_a] = index_b, matches.scores
    attributes = _attributes(names, fields.meta_text(matches))
    hdf5_writing.reserve(file, sum(one.nbytes for one in (partners, scores, *attributes.values())))
    group = file.create_group(key)
    group["matches0"], group["matching_scores0"] = partners, scores
    group.attrs.update(attributes)


def _read_group(group: Any, where: str) -> Matches:
    with fields.as_damaged(where, hdf5.BROKEN, "matches"):
        held = hdf5_reading.arrays(group, ["matches0", "matching_scores0"])
        partners, scores = held["matches0"], held["matching_scores0"]  # N_A each
        if partners.ndim != 1 or scores.shape != partners.shape or partners.dtype.kind != "i":
            raise ValueError(
                f"matches0 is {partners.dtype} of shape {partners.shape} and matching_scores0 of "
                f"shape {scores.shape}, expected whole numbers, one each for a keypoint"
            )
        index_a = np.flatnonzero(partners >= 0)  # M
        order = np.argsort(-scores[index_a].astype(np.float32), kind="stable")  # M
        index_a = index_a[order]
        pairs = np.stack([index_a, partners[index_a]], axis=1)  # M 2
        return matches_npz.matches_from(where, pairs, scores[index_a], _meta(group, where))


def _meta(group: Any, where: str) -> dict[str, Any]:
    with fields.as_damaged(where, hdf5.BROKEN, "matches"):
        text = hdf5_reading.text_attribute(group, "meta") if "meta" in group.attrs else "{}"
        return fields.parse_meta(text, where)


def _public_meta(group: Any, where: str) -> dict[str, Any]:
    return {name: value for name, value in _meta(group, where).items() if name != fields.TURNED}


def _pairs(file: Any) -> Iterator[tuple[Names, str]]:
    """The images' names and the group of each pair, sorted by group.

    A damaged group is among them, so that reading it raises; it has the names of its group.
    """
    for first, is_group in sorted(hdf5_reading.members(file).items()):
        if is_group is False:
            continue
        seconds, kinds = _opened(file, first)
        if kinds is None:  # with all its pairs
            yield (first, ""), first
        for second in sorted(kinds or ()):
            if kinds and kinds[second] is not False:
                names = _stored_names(seconds, first, second)
                if names is not None:
                    yield names, f"{first}/{second}"


def _stored_names(seconds: Any, first: str, second: str) -> Names | None:
    """The images' names of one pair; None for a group that holds no matches."""
    group, kinds = _opened(seconds, second)
    if kinds is None:
        return first, second
    if kinds.get("matches0", True):  # a group of that name, or nothing
        return None
    text = unless_damaged(
        lambda: hdf5_reading.text_attribute(group, "names") if "names" in group.attrs else None
    )
    if text is None:
        return first, second
    name_a, name_b = map(str, parse_json(text))
    return name_a, name_b


def _opened(parent: Any, name: str) -> tuple[Any, dict[str, bool | None] | None]:
    """A group and its members; None for the members of a damaged one."""
    group = unless_damaged(hdf5_reading.group_at, parent, name)
    return group, None if group is None else unless_damaged(hdf5_reading.members, group)
