"""Every method on every pair: load, detect, match, estimate, measure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from tiepoint.errors import ConfigError, TiepointError
from tiepoint.evaluation import metrics
from tiepoint.evaluation.methods import Method
from tiepoint.evaluation.pairs import Failure, LoadedPair, Pair
from tiepoint.evaluation.settings import Settings
from tiepoint.features import Features, covariances_of
from tiepoint.matching import match


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


@dataclass(frozen=True)
class Record:
    """Which method on which pair, and its figures."""

    group: str
    pair: str
    method: str
    measured: Measured


@dataclass(frozen=True)
class Evaluation:
    """Records by pair, then by method, in the order given; and what could not be read."""

    settings: Settings
    methods: tuple[Method, ...]
    records: tuple[Record, ...]
    failures: tuple[Failure, ...]


def evaluate(
    pairs: Sequence[Pair],
    methods: Sequence[Method],
    settings: Settings,
    *,
    failures: Sequence[Failure] = (),
    workers: int = 1,
    on_pair: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Run every method on every pair. The result does not depend on the number of workers.

    Args:
        failures: What was lost while listing the pairs; kept in the result.
        workers: Threads; each has one pair in memory.
        on_pair: Called once per pair done, in order.

    Raises:
        ConfigError: No methods, two of one name, or fewer than one worker.
    """
    check_methods(methods, workers)
    records: list[Record] = []
    lost = list(failures)
    for outcome in in_order(pairs, lambda pair: _pair(pair, methods, settings), workers):
        if isinstance(outcome, Failure):
            lost.append(outcome)
        else:
            records += outcome
        on_pair()
    return Evaluation(settings, tuple(methods), tuple(records), tuple(lost))


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


def measure(a: Features, b: Features, pair: LoadedPair, settings: Settings) -> Measured:
    """Compare the features of a pair of images with its truth."""
    truth = pair.homography
    best_a, best_b = a.top(settings.k), b.top(settings.k)
    pairs = match(best_a, best_b, rotation=settings.rotation).pairs  # M 2
    xy_a, xy_b = best_a.xy[pairs[:, 0]], best_b.xy[pairs[:, 1]]  # M 2
    around = covariances_of(best_a, best_b, pairs)
    estimates = [
        metrics.estimate_homography(xy_a, xy_b, seed, around) for seed in range(settings.seeds)
    ]
    again = metrics.repeated(
        a.xy, b.xy, truth, a.size_hw, b.size_hw, settings.k, settings.repeat_px
    )
    return Measured(
        keypoints_a=len(best_a),
        keypoints_b=len(best_b),
        matches=len(pairs),
        correct=int(metrics.correct_matches(xy_a, xy_b, truth, settings.correct_px).sum()),
        repeatability=again.share,
        localisation_px=again.localisation_px,
        common=metrics.common_points(best_a.xy, best_b.xy, truth, a.size_hw, b.size_hw),
        matching_accuracy=metrics.matching_accuracy(xy_a, xy_b, truth, settings.accuracy_px),
        seed_errors_px=tuple(metrics.corner_error(h, truth, a.size_hw) for h in estimates),
    )


def _pair(pair: Pair, methods: Sequence[Method], settings: Settings) -> list[Record] | Failure:
    """All methods on one pair, or none: rows of the table stand for the same pairs."""
    try:
        loaded = pair.load(settings.long_side)
        records = []
        for method in methods:
            a = method.features(loaded.image_a, loaded.names[0], settings.k)
            b = method.features(loaded.image_b, loaded.names[1], settings.k)
            measured = measure(a, b, loaded, settings)
            records.append(Record(pair.group, pair.name, method.name, measured))
    except TiepointError as error:
        return Failure(pair.group, pair.name, str(error))
    return records


Item = TypeVar("Item")
Done = TypeVar("Done")


def in_order(items: Sequence[Item], work: Callable[[Item], Done], workers: int) -> Iterator[Done]:
    """The work of several threads, in the order of the items."""
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="tiepoint-evaluate") as pool:
        try:
            yield from pool.map(work, items)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
