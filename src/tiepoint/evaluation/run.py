"""Every method on every pair: load, detect, match, estimate, measure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import ConfigError, MissingExtraError, TiepointError
from tiepoint.evaluation import metrics
from tiepoint.evaluation.methods import Method
from tiepoint.evaluation.pairs import Failure, LoadedPair, Named, Pair
from tiepoint.evaluation.partial import Partial, restored
from tiepoint.evaluation.settings import Settings
from tiepoint.features import Features, covariances_of
from tiepoint.matching.match import match


@dataclass(frozen=True)
class Measured:
    """One method's figures on one pair.

    Attributes:
        keypoints_a, keypoints_b: Points matched, at most k.
        matches, correct: Mutual nearest neighbours, and those of them that are right.
        repeatability: 0..1.
        localisation_px: Mean distance of repeated points from their true places; NaN without any.
        common: Matched points of the common view, the mean of both images.
        matching_accuracy: Share of the matches within each of `Settings.accuracy_px`.
        seed_errors_px: Mean corner error of each estimate; infinite where there is none.
    """

    keypoints_a: int
    keypoints_b: int
    matches: int
    correct: int
    repeatability: float
    localisation_px: float
    common: float
    matching_accuracy: tuple[float, ...]
    seed_errors_px: tuple[float, ...]

    @property
    def error_px(self) -> float:
        """The median over the seeds."""
        return float(np.median(self.seed_errors_px))

    @property
    def precision(self) -> float:
        """Share of the matches that are right; 0 without matches."""
        return self.correct / self.matches if self.matches else 0.0

    @property
    def matching_score(self) -> float:
        """Right matches over the points of the common view (Mikolajczyk and Schmid, 2005)."""
        return self.correct / self.common if self.common else 0.0


Item = TypeVar("Item")
Done = TypeVar("Done")


@dataclass(frozen=True)
class Record(Generic[Done]):
    """Which method on which pair, and its figures."""

    group: str
    pair: str
    method: str
    measured: Done


@dataclass(frozen=True)
class Evaluation:
    """Records by pair, then by method, in the order given; and what could not be read."""

    settings: Settings
    methods: tuple[Method, ...]
    records: tuple[Record[Measured], ...]
    failures: tuple[Failure, ...]


def evaluate(
    pairs: Sequence[Pair],
    methods: Sequence[Method],
    settings: Settings,
    *,
    failures: Sequence[Failure] = (),
    workers: int = 1,
    partial: Partial | None = None,
    on_pair: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Run every method on every pair. The result does not depend on the number of workers.

    Args:
        failures: What was lost while listing the pairs; kept in the result.
        workers: Threads; each has one pair in memory.
        partial: Pairs that are done already are taken from it, and others are noted in it.
        on_pair: Called once per pair done, in order.

    Raises:
        ConfigError: No methods, two of one name, or fewer than one worker.
    """
    records, lost = measured_pairs(
        pairs, methods, lambda pair: _measure_pair(pair, methods, settings), Measured,
        failures=failures, workers=workers, partial=partial, on_pair=on_pair,
    )  # fmt: skip
    return Evaluation(settings, tuple(methods), records, lost)


def check_methods(methods: Sequence[Method], workers: int = 1) -> None:
    """Raise unless results can be told apart by the methods' names.

    Raises:
        ConfigError: No methods, two of one name, or fewer than one worker.
    """
    names = [method.name for method in methods]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"methods are {names}, expected at least one and no name twice")
    if workers < 1:
        raise ConfigError(f"workers is {workers}, expected at least 1")


def measure(
    a: Features,
    b: Features,
    pair: LoadedPair,
    settings: Settings,
    again: metrics.Repeated | None = None,
) -> Measured:
    """Compare the features of a pair of images with its truth.

    Args:
        again: Repeatability, if it was measured at another size.
    """
    truth = pair.homography
    best_a, best_b = a.top(settings.k), b.top(settings.k)
    xy_a, xy_b, around = _matched(best_a, best_b, settings)
    estimates = [
        metrics.estimate_homography(
            xy_a, xy_b, seed, around, settings.estimator, settings.estimator_px
        )
        for seed in range(settings.seeds)
    ]
    again = again or _repeated(a, b, pair, settings)
    return Measured(
        keypoints_a=len(best_a),
        keypoints_b=len(best_b),
        matches=len(xy_a),
        correct=int(metrics.correct_matches(xy_a, xy_b, truth, settings.correct_px).sum()),
        repeatability=again.share,
        localisation_px=again.localisation_px,
        common=metrics.common_points(best_a.xy, best_b.xy, truth, a.size_hw, b.size_hw),
        matching_accuracy=metrics.matching_accuracy(xy_a, xy_b, truth, settings.accuracy_px),
        seed_errors_px=tuple(metrics.corner_error(h, truth, a.size_hw) for h in estimates),
    )


Matched = tuple[
    NDArray[np.float32], NDArray[np.float32], tuple[NDArray[np.float32], NDArray[np.float32]] | None
]
"""M 2 px of A and of B, and the covariances of both where they are known."""


def matched(method: Method, pair: LoadedPair, settings: Settings) -> Matched:
    """What a method matches on a pair."""
    a, b = _both(method, pair, settings.k)
    return _matched(a.top(settings.k), b.top(settings.k), settings)


def _matched(a: Features, b: Features, settings: Settings) -> Matched:
    pairs = match(a, b, rotation=settings.rotation).pairs  # M 2
    return a.xy[pairs[:, 0]], b.xy[pairs[:, 1]], covariances_of(a, b, pairs)


def _repeated(a: Features, b: Features, pair: LoadedPair, settings: Settings) -> metrics.Repeated:
    k = settings.repeat_k or settings.k
    return metrics.repeated(
        a.xy, b.xy, pair.homography, a.size_hw, b.size_hw, k, settings.repeat_px
    )


def _measure_pair(pair: Pair, methods: Sequence[Method], settings: Settings) -> list[Measured]:
    loaded = pair.load(settings.frame)
    other = None if settings.repeat_frame is None else pair.load(settings.repeat_frame)
    found = []
    for method in methods:
        a, b = _both(method, loaded, settings.k)
        again = None
        if other is not None:
            again = _repeated(
                *_both(method, other, settings.repeat_k or settings.k), other, settings
            )
        found.append(measure(a, b, loaded, settings, again))
    return found


def _both(method: Method, pair: LoadedPair, k: int) -> tuple[Features, Features]:
    a = method.features(pair.image_a, pair.names[0], k)
    return a, method.features(pair.image_b, pair.names[1], k)


def measured_pairs(
    pairs: Sequence[Named],
    methods: Sequence[Method],
    measure_one: Callable[[Named], list[Done]],
    kind: type[Done],
    *,
    failures: Sequence[Failure],
    workers: int,
    partial: Partial | None,
    on_pair: Callable[[], None],
) -> tuple[tuple[Record[Done], ...], tuple[Failure, ...]]:
    """Every pair by all methods or by none: rows of a table stand for the same pairs.

    Args:
        measure_one: Figures of each method on a pair; called from several threads.
        kind: Of the figures, a dataclass.
        failures, workers, partial, on_pair: See `evaluate`.

    Returns:
        Records by pair, then by method; and what could not be read, `failures` first.
    """
    check_methods(methods, workers)
    done = {} if partial is None else partial.done

    def work(pair: Named) -> list[Done] | Failure:
        held = done.get((pair.group, pair.name))
        if held is not None:
            return [restored(kind, values) for values in held]
        try:
            return measure_one(pair)
        except (ConfigError, MissingExtraError):
            raise  # of the run, not of a pair
        except TiepointError as error:
            return Failure(pair.group, pair.name, str(error))

    records: list[Record[Done]] = []
    lost = list(failures)
    for pair, outcome in zip(pairs, in_order(pairs, work, workers), strict=True):
        if isinstance(outcome, Failure):
            lost.append(outcome)
        else:
            if partial is not None and (pair.group, pair.name) not in done:
                partial.add(pair.group, pair.name, outcome)
            named = zip(methods, outcome, strict=True)
            records += [Record(pair.group, pair.name, m.name, figures) for m, figures in named]
        on_pair()
    return tuple(records), tuple(lost)


def in_order(items: Sequence[Item], work: Callable[[Item], Done], workers: int) -> Iterator[Done]:
    """The work of several threads, in the order of the items."""
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="tiepoint-evaluate") as pool:
        try:
            yield from pool.map(work, items)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
