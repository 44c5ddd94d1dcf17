"""Run an evaluation task: every method on every pair, on several threads, resumable."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import cv2

from tiepoint.errors import ConfigError, MissingExtraError, TiepointError
from tiepoint.evaluation.methods import Method
from tiepoint.evaluation.resume import ResumeFile, from_json
from tiepoint.evaluation.task import (
    Evaluation,
    Failure,
    FiguresT,
    MeansT,
    PairT,
    Record,
    SettingsT,
    Task,
)

Item = TypeVar("Item")
Result = TypeVar("Result")


def evaluate(
    task: Task[PairT, SettingsT, FiguresT, MeansT],
    pairs: Sequence[PairT],
    methods: Sequence[Method],
    settings: SettingsT,
    *,
    failures: Sequence[Failure] = (),
    workers: int = 1,
    resume: ResumeFile | None = None,
    on_pair: Callable[[], None] = lambda: None,
) -> Evaluation[SettingsT, FiguresT, MeansT]:
    """Run every method on every pair. The result does not depend on the number of workers.

    A pair that cannot be read or measured is left out for all methods, so that all rows of a table
    are over the same pairs.

    Args:
        failures: What was lost while listing the pairs; kept in the result.
        workers: Threads; each has one pair in memory.
        resume: File of the pairs that are done already; further pairs are appended to it.
        on_pair: Called once per pair done, in order, on the calling thread.

    Raises:
        ConfigError: See `check_methods`.
    """
    check_methods(methods, workers)
    done = {} if resume is None else resume.done

    def measured(pair: PairT) -> list[FiguresT] | Failure:
        stored = done.get((pair.group, pair.name))
        if stored is not None and len(stored) == len(methods):
            return [from_json(task.figures, values) for values in stored]
        try:
            return task.measure(pair, methods, settings)
        except (ConfigError, MissingExtraError):
            raise  # an error of the run, not of this pair
        except (TiepointError, cv2.error, MemoryError) as error:
            return Failure(pair.group, pair.name, str(error).strip() or type(error).__name__)

    records: list[Record[FiguresT]] = []
    lost = list(failures)
    for pair, outcome in zip(pairs, in_order(pairs, measured, workers), strict=True):
        if isinstance(outcome, Failure):
            lost.append(outcome)
        else:
            if resume is not None and (pair.group, pair.name) not in done:
                resume.add(pair.group, pair.name, outcome)
            for method, figures in zip(methods, outcome, strict=True):
                records.append(Record(pair.group, pair.name, method.name, figures))
        on_pair()
    return Evaluation(task, settings, tuple(methods), tuple(records), tuple(lost))


def check_methods(methods: Sequence[Method], workers: int = 1) -> None:
    """Raise ConfigError for no methods, two of one name, or fewer than one worker."""
    names = [method.name for method in methods]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"methods are {names}, expected at least one and no name twice")
    if workers < 1:
        raise ConfigError(f"workers is {workers}, expected at least 1")


def in_order(
    items: Sequence[Item], work: Callable[[Item], Result], workers: int
) -> Iterator[Result]:
    """Map `work` over items on several threads; results keep their order."""
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="tiepoint-evaluate") as pool:
        try:
            yield from pool.map(work, items)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
