"""Rows, tables and JSON of a task of any kind."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from tiepoint.evaluation.methods import Method
from tiepoint.evaluation.metrics import Mean, mean_of
from tiepoint.evaluation.summary import (
    Line,
    as_json,
    document,
    mean_cell,
    number,
    rows,
    table,
    table_of,
)
from tiepoint.evaluation.task import Evaluation, Failure, Figures, Record, Task
from tiepoint.features import Features


@dataclass(frozen=True)
class Score(Figures):
    score: float

    @property
    def doubled(self) -> float:
        return 2 * self.score


@dataclass(frozen=True)
class Means:
    score: Mean
    by_limit: dict[float, float]


@dataclass(frozen=True)
class Limits:
    limits: tuple[float, ...] = (1.0, 2.5)


def task_of(**changes: Any) -> Task:
    values: dict[str, Any] = {
        "kind": "score",
        "line": "a b",
        "field_count": 2,
        "parse_line": None,
        "measure": None,
        "figures": Score,
        "derived": ("doubled",),
        "average": average,
        "cells": lambda means: {"score": mean_cell(means.score, 2)},
        "title": "Scores",
        "caption": lambda settings: f"limits {settings.limits}",
        "constants": lambda settings: {"constant": len(settings.limits)},
        **changes,
    }
    return Task(**values)


def average(figures: Sequence[Score], settings: Limits) -> Means:
    scores = [one.score for one in figures]
    return Means(
        mean_of(scores),
        {limit: float(np.mean(np.array(scores) <= limit)) for limit in settings.limits},
    )


def evaluation_of(*records: tuple[str, str, float], **changes: Any) -> Evaluation:
    """Records (group, method, score) of numbered pairs."""

    def detect(image: np.ndarray, k: int) -> Features:
        raise AssertionError("nothing is detected here")

    names = list(dict.fromkeys(method for _, method, _ in records))
    return Evaluation(
        task_of(**changes),
        Limits(),
        tuple(Method(name, detect, {"of": name}) for name in names),
        tuple(
            Record(group, f"pair {number}", method, Score(10, 20, 5, score))
            for number, (group, method, score) in enumerate(records)
        ),
        (Failure("x", "lost", "gone"),),
    )


TWO_SETS = (("x", "m", 1.0), ("x", "n", 2.0), ("y", "m", 3.0), ("y", "n", 4.0), ("x", "m", 5.0))


def printed(shown: object, width: int = 100) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(shown)
    return capture.get()


def test_nothing_measured_has_no_rows_and_an_empty_table() -> None:
    empty = evaluation_of()
    assert rows(empty) == []
    assert table(empty).row_count == 0
    assert json.loads(as_json(empty))["rows"] == []


def test_one_record_has_one_row_of_its_own_set() -> None:
    (row,) = rows(evaluation_of(("x", "m", 1.5)))
    assert (row.group, row.method, row.pairs, row.keypoints) == ("x", "m", 1, 15.0)
    assert row.means.score == Mean(1.5, 1.5, 1.5)


def test_several_sets_have_rows_over_all_pairs_first() -> None:
    found = rows(evaluation_of(*TWO_SETS))
    assert [(row.group, row.method, row.pairs, row.means.score.mean) for row in found] == [
        ("all", "m", 3, 3.0), ("all", "n", 2, 3.0), ("x", "m", 2, 3.0), ("x", "n", 1, 2.0),
        ("y", "m", 1, 3.0), ("y", "n", 1, 4.0),
    ]  # fmt: skip


def test_a_task_without_sets_has_rows_over_all_pairs_only() -> None:
    evaluation = evaluation_of(*TWO_SETS, by_group=False)
    assert [(row.group, row.method, row.pairs) for row in rows(evaluation)] == [
        ("all", "m", 3), ("all", "n", 2),
    ]  # fmt: skip
    assert "set" not in printed(table(evaluation))
    assert all("group" not in row for row in json.loads(as_json(evaluation))["rows"])


def test_a_table_names_each_set_once_and_separates_them() -> None:
    shown = table(evaluation_of(*TWO_SETS))
    assert list(shown.columns[0].cells) == ["all", "", "x", "", "y", ""]
    assert [row.end_section for row in shown.rows] == [False, True, False, True, False, False]
    assert [column.header for column in shown.columns] == [
        "set", "method", "pairs", "points", "score",
    ]  # fmt: skip
    text = printed(shown)
    assert "Scores" in text
    assert "limits (1.0, 2.5)" in text


def test_brackets_in_a_name_are_shown() -> None:
    shown = table_of("title", "", ["set", "method"], [Line(["photos [old]", "[/x]"], {"n": "1"})])
    text = printed(shown)
    assert "photos [old]" in text and "[/x]" in text


def test_json_flattens_rows_and_figures_and_lists_derived_values() -> None:
    content = json.loads(as_json(evaluation_of(*TWO_SETS), kind="score", folders=["x"]))
    assert list(content) == [
        "kind", "folders", "settings", "versions", "methods", "rows", "pairs", "failures",
    ]  # fmt: skip
    assert content["settings"] == {"limits": [1.0, 2.5], "constant": 2}
    assert content["methods"] == {"m": {"of": "m"}, "n": {"of": "n"}}
    first = content["rows"][0]
    assert list(first) == ["group", "method", "pairs", "keypoints", "score", "by_limit"]
    assert first["by_limit"] == {"1": pytest.approx(1 / 3), "2.5": pytest.approx(1 / 3)}
    assert content["pairs"][1] == {
        "group": "x", "pair": "pair 1", "method": "n", "keypoints_a": 10, "keypoints_b": 20,
        "matches": 5, "score": 2.0, "doubled": 4.0,
    }  # fmt: skip
    assert content["failures"] == [{"group": "x", "name": "lost", "message": "gone"}]


def test_json_has_no_infinity_at_any_depth() -> None:
    deep = {"a": [1.0, math.inf, {"b": (math.nan, "inf", None, True)}]}
    content = json.loads(document(deep, [], [], [], [], {}), parse_constant=pytest.fail)
    assert content["settings"] == {"a": [1.0, None, {"b": [None, "inf", None, True]}]}


def test_json_keeps_names_of_any_script_readable() -> None:
    assert "벽" in document({}, [], [], [], [Failure("벽", "1", "없음")], {})


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(0.5, 2, ".50"), (1.0, 2, "1.00"), (0.004, 2, ".00"), (12.6, 0, "13"), (0.0, 0, "0"),
     (math.nan, 2, "nan"), (10.25, 1, "10.2")],
)  # fmt: skip
def test_numbers_lose_only_the_zero_before_the_point(value: float, digits: int, text: str) -> None:
    assert number(value, digits) == text


def test_a_mean_shows_its_interval_below() -> None:
    assert mean_cell(Mean(0.5, 0.25, 1.0), 2) == ".50\n.25-1.00"


def test_a_table_of_no_lines_still_has_its_title() -> None:
    assert "Nothing" in printed(table_of("Nothing", "at all", ["method"], [Line(["m"], {})]))
