"""One task of any kind, run over pairs: order, threads, failures, interruption and resuming."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from tiepoint.errors import ConfigError, FormatError, ImageError, MissingExtraError
from tiepoint.evaluation.methods import Method
from tiepoint.evaluation.resume import ResumeFile
from tiepoint.evaluation.run import check_methods, evaluate, in_order
from tiepoint.evaluation.task import Failure, Figures, Task
from tiepoint.features import Features


@dataclass(frozen=True)
class Number:
    """A pair that is only a number."""

    value: int
    group: str = "numbers"

    @property
    def name(self) -> str:
        return str(self.value)


@dataclass(frozen=True)
class Product(Figures):
    product: int
    parts: tuple[float, ...]


def named(*names: str) -> list[Method]:
    def detect(image: np.ndarray, k: int) -> Features:
        raise AssertionError("this task detects nothing")

    return [Method(name, detect) for name in names]


def multiply(pair: Number, methods: Sequence[Method], factor: int) -> list[Product]:
    return [
        Product(1, 3, pair.value, factor * pair.value * number, (0.5, float(number)))
        for number, _ in enumerate(methods, start=1)
    ]


def task_of(measure: Callable[[Number, Sequence[Method], int], list[Product]]) -> Task:
    return Task(
        kind="numbers",
        line="a b",
        field_count=2,
        parse_line=lambda folder, group, fields: Number(int(fields[0]), group),
        measure=measure,
        figures=Product,
        average=lambda figures, settings: None,
        cells=lambda means: {},
        title="numbers",
        caption=str,
    )


NUMBERS = task_of(multiply)
PAIRS = [Number(value) for value in range(7)]


def products(pairs: Sequence[Number], workers: int = 1, task: Task = NUMBERS) -> list[int]:
    evaluation = evaluate(task, pairs, named("one", "two"), 10, workers=workers)
    return [record.figures.product for record in evaluation.records]


def test_no_pairs_are_an_evaluation_without_records() -> None:
    evaluation = evaluate(NUMBERS, [], named("one"), 10)
    assert evaluation.records == evaluation.failures == ()


def test_one_pair_has_a_record_per_method_in_their_order() -> None:
    evaluation = evaluate(NUMBERS, [Number(3, "group")], named("one", "two"), 10)
    shown = [(one.group, one.pair, one.method, one.figures.product) for one in evaluation.records]
    assert shown == [("group", "3", "one", 30), ("group", "3", "two", 60)]
    assert evaluation.settings == 10
    assert [method.name for method in evaluation.methods] == ["one", "two"]


def test_many_pairs_keep_their_order_whatever_the_number_of_workers() -> None:
    def late_first(pair: Number, methods: Sequence[Method], factor: int) -> list[Product]:
        if pair.value == 0 and later.wait(timeout=2):  # the first pair is done last
            assert len(seen) > 0
        seen.append(pair.value)
        if pair.value:
            later.set()
        return multiply(pair, methods, factor)

    seen: list[int] = []
    later = threading.Event()
    alone = products(PAIRS)
    assert products(PAIRS, workers=3, task=task_of(late_first)) == alone
    assert alone[:4] == [0, 0, 10, 20]
    assert seen[0] != 0


def test_figures_of_a_method_are_in_the_order_of_the_pairs() -> None:
    evaluation = evaluate(NUMBERS, PAIRS, named("one", "two"), 10)
    assert [one.product for one in evaluation.figures_of("two")] == [20 * n for n in range(7)]
    assert evaluation.figures_of("three") == []


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("error", [ImageError, FormatError, cv2.error, MemoryError])
def test_a_pair_that_cannot_be_read_is_left_out_for_every_method(
    workers: int, error: type[Exception]
) -> None:
    def broken_at_two(pair: Number, methods: Sequence[Method], factor: int) -> list[Product]:
        if pair.value == 2:
            raise error("truncated")
        return multiply(pair, methods, factor)

    listed = Failure("list", "x", "bad line")
    evaluation = evaluate(
        task_of(broken_at_two), PAIRS, named("one", "two"), 10, failures=[listed], workers=workers
    )
    assert [record.pair for record in evaluation.records[::2]] == ["0", "1", "3", "4", "5", "6"]
    assert evaluation.failures == (listed, Failure("numbers", "2", "truncated"))


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(
    "error", [ConfigError("no such setting"), MissingExtraError("x", "pose"), ZeroDivisionError()]
)
def test_an_error_of_the_run_ends_it_and_is_no_pair_left_out(
    workers: int, error: Exception
) -> None:
    def wrong(pair: Number, methods: Sequence[Method], factor: int) -> list[Product]:
        raise error

    with pytest.raises(type(error)):
        evaluate(task_of(wrong), PAIRS, named("one"), 10, workers=workers)


def test_pairs_are_reported_one_by_one_on_the_callers_thread() -> None:
    seen: list[int] = []
    evaluate(
        NUMBERS, PAIRS, named("one"), 10, workers=3,
        on_pair=lambda: seen.append(threading.get_ident()),
    )  # fmt: skip
    assert seen == [threading.get_ident()] * 7


def test_methods_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(ConfigError, match="no name twice"):
        evaluate(NUMBERS, PAIRS, named("one", "one"), 10)
    with pytest.raises(ConfigError, match="at least one"):
        evaluate(NUMBERS, PAIRS, [], 10)
    with pytest.raises(ConfigError, match="workers is 0"):
        evaluate(NUMBERS, PAIRS, named("one"), 10, workers=0)
    check_methods(named("one", "two"), 1)


def interrupted_after(count: int) -> Task:
    """A run that is killed before its pair number `count`."""

    def measure(pair: Number, methods: Sequence[Method], factor: int) -> list[Product]:
        if pair.value == count:
            raise KeyboardInterrupt
        return multiply(pair, methods, factor)

    return task_of(measure)


@pytest.mark.parametrize("done", [0, 1, 4])
def test_an_interrupted_run_resumes_after_the_pairs_that_are_done(
    tmp_path: Path, done: int
) -> None:
    measured: list[int] = []

    def counted(pair: Number, methods: Sequence[Method], factor: int) -> list[Product]:
        measured.append(pair.value)
        return multiply(pair, methods, factor)

    path, methods = tmp_path / "run.partial", named("one", "two")
    with pytest.raises(KeyboardInterrupt):
        resume = ResumeFile(path, {"k": 1})
        evaluate(interrupted_after(done), PAIRS, methods, 10, resume=resume)
    resume = ResumeFile(path, {"k": 1})
    assert len(resume.done) == done
    evaluation = evaluate(task_of(counted), PAIRS, methods, 10, resume=resume)
    assert evaluation.records == evaluate(NUMBERS, PAIRS, methods, 10).records
    assert measured == list(range(done, 7))


def test_a_finished_run_is_not_measured_a_second_time(tmp_path: Path) -> None:
    path, methods = tmp_path / "run.partial", named("one")
    first = evaluate(NUMBERS, PAIRS, methods, 10, resume=ResumeFile(path, {}))
    again = evaluate(interrupted_after(0), PAIRS, methods, 10, resume=ResumeFile(path, {}))
    assert again.records == first.records
    assert len(path.read_text().splitlines()) == 1 + len(PAIRS)  # nothing is appended twice


def test_a_pair_that_could_not_be_read_is_tried_again(tmp_path: Path) -> None:
    def broken(pair: Number, methods: Sequence[Method], factor: int) -> list[Product]:
        raise ImageError("gone")

    path, methods = tmp_path / "run.partial", named("one")
    lost = evaluate(task_of(broken), PAIRS[:2], methods, 10, resume=ResumeFile(path, {}))
    assert len(lost.failures) == 2
    mended = evaluate(NUMBERS, PAIRS[:2], methods, 10, resume=ResumeFile(path, {}))
    assert len(mended.records) == 2


def test_results_come_in_order_and_the_rest_is_cancelled_when_the_caller_leaves() -> None:
    started: list[int] = []

    def work(value: int) -> int:
        started.append(value)
        return value * value

    results = in_order(range(1000), work, 1)
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    results.close()
    count = len(started)
    assert list(in_order(range(5), work, 4)) == [0, 1, 4, 9, 16]
    assert len(started) == count + 5  # none of the 1000 ran on
