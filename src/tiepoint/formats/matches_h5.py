"""Matches of many pairs in one HDF5 file, in hloc's layout (extra `hdf5`).

A group per pair, `<image a>/<image b>`, with `-` for every `/` inside a name:

    matches0          N_A  index in B of each keypoint of A, -1 for none
    matching_scores0  N_A  scores, 0 for none

hloc writes int16, which overflows from 32,768 keypoints on, and float16; here they are int32 and
float32, which hloc reads as well. The attributes `names` and `meta` (JSON) say the images' real
names and how the matches were made; hloc's own files have neither, and their names stay with `-`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from tiepoint.errors import FormatError
from tiepoint.features import Matches
from tiepoint.formats import fields, h5, matches_npz
from tiepoint.formats.journal import PARTIAL, Journal, rewritten
from tiepoint.formats.matches_npz import damaged

ENDING = ".h5"
Names = tuple[str, str]

_TITLE = b"tiepoint matches journal 1\n"
_BROKEN = (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError)
"""What h5py raises for damaged and foreign files."""


class H5Matches(Mapping[Names, Matches]):
    """The pairs of a file by the names of their images; each is read when it is asked for.

    Args:
        path: The file.

    Raises:
        FormatError: No such file, a damaged one, or one without matches.
        MissingExtraError: The extra `hdf5` is not installed.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        with h5.opened(self.path) as file, _explained(str(self.path)):
            self._groups = dict(_pairs(file))
        if not self._groups:
            raise damaged(str(self.path), "no group has matches0")

    def __getitem__(self, names: Names) -> Matches:
        key = self._groups[names]
        with h5.opened(self.path) as file:
            return _read_group(file[key], f"{self.path}: {key}")

    def meta(self, names: Names) -> dict[str, Any]:
        """How the matches of a pair were made, without reading them; empty in hloc's files."""
        key = self._groups[names]
        with h5.opened(self.path) as file, _explained(f"{self.path}: {key}"):
            stored = _meta(file[key], f"{self.path}: {key}")
        return {name: value for name, value in stored.items() if name != fields.TURNED}

    def __iter__(self) -> Iterator[Names]:
        return iter(self._groups)

    def __len__(self) -> int:
        return len(self._groups)

    def __contains__(self, names: object) -> bool:
        return names in self._groups

    def __repr__(self) -> str:
        return f"H5Matches({str(self.path)!r}, {len(self)} pairs)"


def read_matches_h5(path: str | PathLike[str]) -> H5Matches:
    """The pairs of a file, tiepoint's or hloc's, as a mapping: (name a, name b) -> Matches.

    Raises:
        FormatError: No such file, a damaged one, or one without matches; also when a pair is
            asked for that is damaged.
        MissingExtraError: The extra `hdf5` is not installed.
    """
    return H5Matches(path)


class H5MatchesWriter:
    """Collects matches of many pairs for one file, by way of a journal that survives kills.

    Pairs that the file holds already stay in it. As a context manager it closes at the end, and
    after an exception it suspends instead: the next writer of the same path goes on from there.

    Args:
        path: Of the file; its journal lies beside it until it is closed.

    Raises:
        FormatError: The file or its journal is damaged, foreign, or being written by another
            process; or the folder cannot be written.
        MissingExtraError: The extra `hdf5` is not installed.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        h5.load_h5py()
        self.path = Path(path)
        self.partial = self.path.with_name(self.path.name + PARTIAL)
        self._journal = Journal(self.partial, _TITLE)
        try:
            self._stored: Mapping[Names, Matches] = (
                H5Matches(self.path) if self.path.exists() else {}
            )
        except BaseException:
            self.suspend()
            raise
        journalled = [_from_journal(key) for key in self._journal]
        self._names: set[object] = {*self._stored, *journalled}
        self._groups = {_group(*names): names for names in [*self._stored, *journalled]}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.suspend()

    def __contains__(self, names: object) -> bool:
        return names in self._names

    def __len__(self) -> int:
        return len(self._groups)

    def meta(self, names: Names) -> dict[str, Any]:
        """How the matches of a pair that is finished were made.

        Raises:
            KeyError: There is no such pair.
            FormatError: It is damaged.
        """
        if self._is_new(names):
            return dict(self._read_new(names).meta)
        if isinstance(self._stored, H5Matches):
            return self._stored.meta(names)
        raise KeyError(names)

    def add(self, name_a: str, name_b: str, matches: Matches) -> None:
        """Keep the matches of one pair; earlier ones of the same names are replaced.

        Args:
            name_a, name_b: Of the images, relative to the images' folder, with `/`.
            matches: Of that pair, each keypoint of A at most once.

        Raises:
            FormatError: A name is no such path, the pair's group is that of other names, a
                keypoint of A has two matches, or the disk is full (its `__cause__` is the OSError).
        """
        for name in (name_a, name_b):
            h5.check_name(name)
        names, group = (name_a, name_b), _group(name_a, name_b)
        taken = self._groups.get(group, names)
        if taken != names:
            raise FormatError(
                f"{name_a} and {name_b}: hloc's files write / as -, so their group {group!r} is "
                f"that of {taken[0]} and {taken[1]} too; rename one of the images"
            )
        if len(np.unique(matches.pairs[:, 0])) < len(matches):
            raise FormatError(
                f"{name_a} and {name_b}: a keypoint of {name_a} has two matches; .h5 files hold "
                "one for each"
            )
        _check_meta(names, matches)
        self._journal.add("\x00".join(names), matches_npz.encode(matches))
        self._groups[group] = names
        self._names.add(names)

    def close(self) -> None:
        """Put what was added into the file and remove the journal.

        Raises:
            FormatError: The file cannot be written; the journal is kept.
        """
        try:
            if self._journal:
                with rewritten(self.path) as file:
                    for key in self._journal:
                        names = _from_journal(key)
                        _write_group(file, names, self._read_new(names))
                self._journal.remove()
        finally:
            self.suspend()

    def suspend(self) -> None:
        """Stop without touching the file; the journal keeps what was added."""
        self._journal.release()

    def _is_new(self, names: object) -> bool:
        return isinstance(names, tuple) and "\x00".join(names) in self._journal

    def _read_new(self, names: Names) -> Matches:
        payload = self._journal.read("\x00".join(names))
        return matches_npz.decode(BytesIO(payload), f"{self.partial}: {names[0]}, {names[1]}")


def _from_journal(key: str) -> Names:
    name_a, _, name_b = key.partition("\x00")
    return name_a, name_b


def _group(name_a: str, name_b: str) -> str:
    return f"{name_a.replace('/', '-')}/{name_b.replace('/', '-')}"


def _check_meta(names: Names, matches: Matches) -> tuple[bytes, bytes]:
    texts = json.dumps(names).encode(), fields.meta_text(matches).encode()
    if sum(map(len, texts)) > h5.MAX_META_BYTES:
        raise FormatError(
            f"{names[0]} and {names[1]}: names and meta take {sum(map(len, texts))} bytes, .h5 "
            f"files hold at most {h5.MAX_META_BYTES}; shorten them"
        )
    return texts


def _write_group(file: Any, names: Names, matches: Matches) -> None:
    """Write one pair into an open file; what was there under its names is replaced."""
    names_text, meta_text = _check_meta(names, matches)
    key = _group(*names)
    if key in file:
        del file[key]
    group = file.create_group(key)
    index_a, index_b = matches.pairs.T  # M each
    counts = matches.meta.get("keypoints")
    least = int(index_a.max()) + 1 if len(matches) else 0
    count = max(least, counts[0]) if isinstance(counts, list | tuple) and counts else least
    partners, scores = np.full(count, -1, np.int32), np.zeros(count, np.float32)  # N_A each
    partners[index_a], scores[index_a] = index_b, matches.scores
    group["matches0"], group["matching_scores0"] = partners, scores
    group.attrs["names"], group.attrs["meta"] = np.bytes_(names_text), np.bytes_(meta_text)


def _read_group(group: Any, where: str) -> Matches:
    with _explained(where):
        partners, scores = group["matches0"][()], group["matching_scores0"][()]  # N_A each
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
    return fields.parse_meta(h5.text_of(group, "meta"), where) if "meta" in group.attrs else {}


def _pairs(file: Any) -> Iterator[tuple[Names, str]]:
    """The images' names and the group of each pair, sorted by group."""
    for first in sorted(file):
        seconds = file[first]
        if not isinstance(seconds, h5.load_h5py().Group):
            continue
        for second in sorted(seconds):
            group = seconds.get(second)
            if isinstance(group, h5.load_h5py().Group) and "matches0" in group:
                names = [first, second]
                if "names" in group.attrs:
                    names = json.loads(h5.text_of(group, "names"))
                name_a, name_b = map(str, names)
                yield (name_a, name_b), f"{first}/{second}"


@contextmanager
def _explained(where: str) -> Iterator[None]:
    try:
        yield
    except FormatError:
        raise
    except _BROKEN as error:
        raise damaged(where, str(error)) from error
