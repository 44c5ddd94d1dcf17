"""Many pairs of images to one file of matches: resumable, one bad image harms no other pair."""

from __future__ import annotations

import time
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tiepoint.batch.worker import NO_DISK, Status
from tiepoint.config import DeviceName, MatchingConfig
from tiepoint.errors import ConfigError, TiepointError
from tiepoint.features import Features
from tiepoint.formats import H5MatchesWriter, as_json
from tiepoint.matching.match import match, record, rotation_matrix_of

CACHE_BYTES = 256 * 2**20
"""Features kept in memory, so that an image that stands in many pairs is not read for each."""

_CHECKSUMS = "features_crc32"
_COUNT = "matches"
_TURNED = "turned_deg"
_FREE = ("sources", _COUNT, _TURNED)
"""Entries of `meta` that may differ: where an image lies changes no match; the others follow."""


@dataclass(frozen=True)
class PairRecord:
    """What became of one pair.

    Attributes:
        image_a, image_b: Names of the images.
        status: "done"; "skipped": its matches were there; "failed": `error` says why; "refused":
            matches of other settings or other features stand in their place.
        matches: How many, or None if unknown.
        milliseconds: For matching, or None if nothing was matched.
        error: What went wrong and what to do, or None.
    """

    image_a: str
    image_b: str
    status: Status
    matches: int | None = None
    milliseconds: float | None = None
    error: str | None = None


def match_pairs(
    features: Mapping[str, Features],
    pairs: Iterable[tuple[str, str]],
    writer: H5MatchesWriter,
    config: MatchingConfig | None = None,
    *,
    device: DeviceName = "cpu",
    overwrite: bool = False,
) -> Iterator[PairRecord]:
    """Match pairs of images; what the file holds already, made the same way, is skipped.

    Args:
        features: By the images' names, such as `tiepoint.formats.read_h5` gives them.
        pairs: Names of two images each, such as `matching.pairing` gives their indices.
        writer: Of the matches; closed after the last pair. Whoever made it suspends it if the run
            does not come to its end.
        config: None takes the defaults.
        device: As for `tiepoint.match`.
        overwrite: Match again what was made with other settings or from other features.

    Yields:
        A record per pair, in their order.

    Raises:
        FormatError: The disk is full or the file cannot be written; what is finished is kept.
    """
    run = _Run(_Cache(features), writer, config or MatchingConfig(), device, overwrite)
    for image_a, image_b in pairs:
        yield run.one(image_a, image_b)
    writer.close()


@dataclass(frozen=True)
class _Run:
    features: _Cache
    writer: H5MatchesWriter
    config: MatchingConfig
    device: DeviceName
    overwrite: bool

    def one(self, image_a: str, image_b: str) -> PairRecord:
        try:
            a, b = self.features.get(image_a), self.features.get(image_b)
            sums = [self.features.checksums[name] for name in (image_a, image_b)]
            auto = self.config.rotation == "auto"
            matrix = rotation_matrix_of(a) if auto else None
            wanted = {**record(self.config, a, b, matrix), _CHECKSUMS: sums}
            if (image_a, image_b) in self.writer and not self.overwrite:
                return self._standing(image_a, image_b, wanted)
            start = time.perf_counter()
            found = match(a, b, rotation_matrix=matrix, config=self.config, device=self.device)
            milliseconds = 1000 * (time.perf_counter() - start)
            found = replace(found, meta={**wanted, _COUNT: len(found)})
            self.writer.add(image_a, image_b, found)
        except TiepointError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in NO_DISK:
                raise
            return PairRecord(image_a, image_b, "failed", error=f"{image_a}, {image_b}: {error}")
        return PairRecord(image_a, image_b, "done", len(found), milliseconds)

    def _standing(self, image_a: str, image_b: str, wanted: Mapping[str, Any]) -> PairRecord:
        stored = self.writer.meta((image_a, image_b))
        names = _differences(_bound(stored), _bound(as_json(wanted)))
        if not names:
            return PairRecord(image_a, image_b, "skipped", stored.get(_COUNT))
        error = (
            f"{self.writer.path}: {image_a}, {image_b}: other matches stand there "
            f"({', '.join(names)} differ); replace them with --overwrite, or name another file"
        )
        return PairRecord(image_a, image_b, "refused", error=error)


def _differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Entries, and settings, that differ."""
    names = []
    for name in sorted({*stored, *wanted}):
        left, right = stored.get(name), wanted.get(name)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            keys = sorted({*left, *right})
            names += [f"{name}.{key}" for key in keys if left.get(key) != right.get(key)]
        elif left != right:
            names.append(name)
    return names


def _bound(meta: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in meta.items() if key not in _FREE}


class _Cache:
    """Features by name, as many as fit; and a checksum of each that was read."""

    def __init__(self, source: Mapping[str, Features]) -> None:
        self._source = source
        self._kept: OrderedDict[str, Features] = OrderedDict()
        self._bytes = 0
        self.checksums: dict[str, str] = {}

    def get(self, name: str) -> Features:
        if name in self._kept:
            self._kept.move_to_end(name)
            return self._kept[name]
        if name not in self._source:
            raise ConfigError(f"there are no features of an image {name!r}")
        features = self._source[name]
        self.checksums.setdefault(name, _checksum(features))
        self._kept[name] = features
        self._bytes += _size(features)
        while self._bytes > CACHE_BYTES and len(self._kept) > 2:
            self._bytes -= _size(self._kept.popitem(last=False)[1])
        return features


def _checksum(features: Features) -> str:
    """Tells features from others, so that indices into the one are not taken for the other's."""
    total = zlib.crc32(np.ascontiguousarray(features.xy).tobytes())
    if features.descriptors is not None:
        total = zlib.crc32(np.ascontiguousarray(features.descriptors).tobytes(), total)
    return f"{total:08x}"


def _size(features: Features) -> int:
    described = features.descriptors
    return (
        features.xy.nbytes + features.scores.nbytes + (0 if described is None else described.nbytes)
    )
