"""Many pairs of images -> one file of matches: resumable, one bad image harms no other pair."""

from __future__ import annotations

import json
import time
import zlib
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Unpack

import numpy as np
from threadpoolctl import threadpool_limits

from tiepoint.batch.fingerprint import IMAGE, MASK
from tiepoint.batch.records import PairRecord, stops_a_run
from tiepoint.config import DeviceName, MatchingConfig, MatchingOptions, resolve
from tiepoint.errors import ConfigError, TiepointError
from tiepoint.features import Features, Matches
from tiepoint.formats import DamagedError, as_json
from tiepoint.matching.descriptors import rotation_matrix_of
from tiepoint.matching.learned.choice import MatcherSource, checked_matcher, matcher_for
from tiepoint.matching.learned.matcher import LearnedMatcher
from tiepoint.matching.match import match, record
from tiepoint.network.cores import usable_cores

CACHE_BYTES = 256 * 2**20
"""Default size of the features in memory."""

Names = tuple[str, str]

_CHECKSUMS = "features_crc32"
_COUNT = "matches"
_TURNED = "turned_deg"
_IMAGES = "images_crc32"
_FREE = ("sources", _COUNT, _TURNED, _IMAGES)
"""Entries of `meta` that may differ: the path of an image changes no match, the others follow."""

CHANGED, DAMAGED = "the image changed", "the output was damaged"
"""Reasons for replacing earlier matches."""


class MatchesStore(Protocol):
    """Keeps the matches of each pair of names, such as `tiepoint.formats.H5MatchesWriter`."""

    path: Path

    def __contains__(self, names: object, /) -> bool: ...
    def meta(self, names: tuple[str, str], /) -> Mapping[str, Any]: ...
    def add(self, name_a: str, name_b: str, matches: Matches, /) -> None: ...
    def close(self) -> None: ...


def match_pairs(
    features: Mapping[str, Features],
    pairs: Iterable[tuple[str, str]],
    writer: MatchesStore,
    config: MatchingConfig | None = None,
    *,
    device: DeviceName = "cpu",
    matcher: MatcherSource = None,
    overwrite: bool = False,
    cache_bytes: int = CACHE_BYTES,
    threads: int | None = None,
    examine: Callable[[Names], Callable[[Matches], None]] | None = None,
    **overrides: Unpack[MatchingOptions],
) -> Iterator[PairRecord]:
    """Match pairs of images; pairs that the file holds with the same settings are skipped.

    Args:
        features: Features by image name, such as from `tiepoint.formats.read_h5`.
        pairs: Names of two images each.
        writer: Writer of the matches, closed after the last pair. The caller suspends it if the run
            does not reach its end.
        config: Settings; None takes the defaults.
        device, matcher: As for `tiepoint.match`.
        overwrite: Replace matches of other settings or other features.
        cache_bytes: Memory for features, so that an image of many pairs is read once.
        threads: Number of pairs matched at a time; None takes one per core. While they are, matrix
            products of the whole process run on one core each.
        examine: Called with the names of each pair that is to be matched. What it returns is called
            with the matches, in the thread that found them, before the writer gets them.
        overrides: Single settings of `MatchingConfig`, which replace those of `config`.

    Yields:
        A record for each pair, in order.

    Raises:
        ConfigError: A setting out of range, or a matcher for another method.
        CheckpointError: No such matcher, or a damaged one.
        OutputError: The disk is full or the file cannot be written; finished pairs are kept.
    """
    settings = resolve(config or MatchingConfig(), overrides)
    matcher = checked_matcher(
        settings.method, matcher, layers=settings.layers, device=device, threads=threads
    )
    count = usable_cores(threads)
    waiting: deque[tuple[Names, _Job | PairRecord]] = deque()
    limits = threadpool_limits(1 if count > 1 else None, user_api="blas")
    with limits, ThreadPoolExecutor(count) as pool:
        cache = _FeaturesCache(features, cache_bytes)
        means = _Means(settings, device, matcher, threads)
        run = _Run(cache, writer, means, examine, overwrite=overwrite, pool=pool)
        try:
            for names in pairs:
                while len(waiting) >= 2 * count or any(names == other for other, _ in waiting):
                    yield run.finish(*waiting.popleft())
                waiting.append((names, run.begin(names)))
            while waiting:
                yield run.finish(*waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)
    writer.close()


class _Job(NamedTuple):
    """A pair that is being matched."""

    matches: Future[tuple[Matches, float]]
    """The matches, and the time that they took in ms."""
    meta: dict[str, Any]
    redone: str | None


class _Means(NamedTuple):
    """What all pairs are matched with."""

    config: MatchingConfig
    device: DeviceName
    matcher: LearnedMatcher | None
    threads: int | None

    def matcher_for(self, a: Features, b: Features) -> LearnedMatcher | None:
        """The learned matcher of a pair; None for nearest neighbours."""
        if self.config.method != "learned" or self.matcher is not None:
            return self.matcher
        return matcher_for(
            a, b, layers=self.config.layers, device=self.device, threads=self.threads
        )


@dataclass(frozen=True)
class _Run:
    """The steps of one pair; only matching and examining run in other threads."""

    cache: _FeaturesCache
    writer: MatchesStore
    means: _Means
    examine: Callable[[Names], Callable[[Matches], None]] | None
    overwrite: bool
    pool: ThreadPoolExecutor

    def begin(self, names: Names) -> _Job | PairRecord:
        """Hand a pair to the pool; or its record if there is nothing to match."""
        try:
            return self._begin(names)
        except TiepointError as error:
            return _failed(names, error)

    def _begin(self, names: Names) -> _Job | PairRecord:
        (a, checksum_a), (b, checksum_b) = (self.cache.get(name) for name in names)
        config, device = self.means.config, self.means.device
        matrix = rotation_matrix_of(a) if config.rotation == "auto" else None
        matcher = self.means.matcher_for(a, b)
        wanted = {
            **record(config, a, b, matrix, matcher),
            _CHECKSUMS: [checksum_a, checksum_b],
            _IMAGES: [_image_checksum(a), _image_checksum(b)],
        }
        redone = None
        if names in self.writer and not self.overwrite:
            stored = _stored_record(names, self.writer, wanted)
            if isinstance(stored, PairRecord):
                return stored
            redone = stored
        examined = None if self.examine is None else self.examine(names)

        def timed() -> tuple[Matches, float]:
            start = time.perf_counter()
            matches = match(
                a, b, rotation_matrix=matrix, matcher=matcher, config=config, device=device
            )
            milliseconds = 1000 * (time.perf_counter() - start)
            if examined is not None:
                examined(matches)
            return matches, milliseconds

        return _Job(self.pool.submit(timed), wanted, redone)

    def finish(self, names: Names, begun: _Job | PairRecord) -> PairRecord:
        """The record of a pair, after its matches have been written."""
        if isinstance(begun, PairRecord):
            return begun
        try:
            matches, milliseconds = begun.matches.result()
            self.writer.add(*names, replace(matches, meta={**begun.meta, _COUNT: len(matches)}))
        except TiepointError as error:
            return _failed(names, error)
        return PairRecord(*names, "done", len(matches), milliseconds, redone=begun.redone)


def _failed(names: Names, error: TiepointError) -> PairRecord:
    if stops_a_run(error):
        raise error
    return PairRecord(*names, "failed", error=f"{', '.join(names)}: {error}")


def _stored_record(
    names: tuple[str, str], writer: MatchesStore, wanted: Mapping[str, Any]
) -> PairRecord | str:
    """The record of a pair with earlier matches, or the reason why they are replaced."""
    try:
        stored = writer.meta(names)
    except DamagedError:
        return DAMAGED
    differences = _differences(_bound(stored), _bound(as_json(wanted)))
    if not differences:
        return PairRecord(*names, "skipped", stored.get(_COUNT))
    follows = {"keypoints", _CHECKSUMS}  # from other images
    if follows.issuperset(differences) and _differ(stored.get(_IMAGES), wanted[_IMAGES]):
        return CHANGED
    reason = f"other matches are in their place ({', '.join(differences)} differ)"
    error = (
        f"{writer.path}: {', '.join(names)}: {reason}; replace them with --overwrite, or name "
        "another file"
    )
    return PairRecord(*names, "refused", error=error, reason=reason)


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


class _FeaturesCache:
    """The features that were used last, as many as fit, and a checksum of each image."""

    def __init__(self, source: Mapping[str, Features], max_bytes: int) -> None:
        self._source, self._max_bytes, self._bytes = source, max_bytes, 0
        self._features: OrderedDict[str, Features] = OrderedDict()
        self._checksums: dict[str, str] = {}

    def get(self, name: str) -> tuple[Features, str]:
        """The features of an image and their checksum."""
        if name not in self._source:
            raise ConfigError(f"there are no features of an image {name!r}")
        features = self._features.pop(name, None)
        if features is None:
            features = self._source[name]
            self._bytes += _size_bytes(features)
            self._checksums.setdefault(name, _checksum(features))
        self._features[name] = features  # the newest
        while self._bytes > self._max_bytes and len(self._features) > 2:
            self._bytes -= _size_bytes(self._features.popitem(last=False)[1])
        return features, self._checksums[name]


def _checksum(features: Features) -> str:
    """Checksum of features, so that matches of other features are not taken for theirs."""
    total = zlib.crc32(np.ascontiguousarray(features.xy).tobytes())
    if features.descriptors is not None:
        total = zlib.crc32(np.ascontiguousarray(features.descriptors).tobytes(), total)
    return f"{total:08x}"


def _image_checksum(features: Features) -> str | None:
    """Checksum of the fingerprints of the image and its mask; None if the features have none."""
    prints = [features.meta[name] for name in (IMAGE, MASK) if features.meta.get(name) is not None]
    if not prints:
        return None
    text = "".join(json.dumps(one, sort_keys=True) for one in prints)
    return f"{zlib.crc32(text.encode()):08x}"


def _differ(stored: object, wanted: Sequence[str | None]) -> bool:
    """Whether one of two images is known to have changed."""
    if not isinstance(stored, list | tuple) or len(stored) != len(wanted):
        return False
    pairs = zip(stored, wanted, strict=True)
    return any(before != now for before, now in pairs if before is not None and now is not None)


def _size_bytes(features: Features) -> int:
    descriptors_bytes = 0 if features.descriptors is None else features.descriptors.nbytes
    return features.xy.nbytes + features.scores.nbytes + descriptors_bytes
