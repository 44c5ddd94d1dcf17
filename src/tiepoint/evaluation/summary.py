"""Summary of an evaluation: rows per set and method, as a table and as JSON."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, NamedTuple

import cv2
import numpy as np
from rich import box
from rich.markup import escape
from rich.table import Table

from tiepoint._version import __version__
from tiepoint.evaluation import metrics
from tiepoint.evaluation.methods import Method
from tiepoint.evaluation.task import Evaluation, Failure, MeansT
from tiepoint.registration import planar

ALL = "all"
"""Group of the rows over every pair."""

OVER_PAIRS = {
    "magsac_iterations": planar.ITERATIONS,
    "magsac_confidence": planar.CONFIDENCE,
    "error_over_seeds": "median",
    "bootstrap_resamples": metrics.BOOTSTRAP_RESAMPLES,
    "bootstrap_seed": metrics.BOOTSTRAP_SEED,
    "convention": "center0",
}
"""Constants that decide figures over pairs too; listed in reports."""


@dataclass(frozen=True)
class Row(Generic[MeansT]):
    """One method on one group of pairs: counts, and the task's means."""

    group: str
    method: str
    pairs: int
    keypoints: float
    """Mean number matched per image."""
    means: MeansT


def rows(evaluation: Evaluation[Any, Any, MeansT]) -> list[Row[MeansT]]:
    """A row per method over all pairs, then per group and method; groups in order of appearance.

    A single group has no rows over all pairs, and a task without groups no others.
    """
    task, records = evaluation.task, evaluation.records
    groups = list(dict.fromkeys(record.group for record in records))
    if len(groups) > 1 or not task.by_group:
        groups = [ALL, *groups] if task.by_group else [ALL]
    found = []
    for group in groups if records else ():
        of_group = [record for record in records if group in (ALL, record.group)]
        for method in evaluation.methods:
            figures = [record.figures for record in of_group if record.method == method.name]
            keypoints = np.mean([(one.keypoints_a + one.keypoints_b) / 2 for one in figures])
            means = task.average(figures, evaluation.settings)
            found.append(Row(group, method.name, len(figures), float(keypoints), means))
    return found


def table(evaluation: Evaluation[Any, Any, Any]) -> Table:
    """The rows for a terminal; below each mean its 95 % interval."""
    task = evaluation.task
    lines, last_group = [], None
    for row in rows(evaluation):
        is_new = row.group != last_group
        names = [row.group if is_new else "", row.method] if task.by_group else [row.method]
        counts = {"pairs": str(row.pairs), "points": f"{row.keypoints:.0f}"}
        cells = {**counts, **task.cells(row.means)}
        lines.append(Line(names, cells, new_section=is_new and last_group is not None))
        last_group = row.group
    headings = ["set", "method"] if task.by_group else ["method"]
    return table_of(task.title, task.caption(evaluation.settings), headings, lines)


class Line(NamedTuple):
    """A line of a table: names on the left, then heading -> text of each column of numbers."""

    names: Sequence[str]
    cells: Mapping[str, str]
    new_section: bool = False  # whether a rule separates it from the line above


def table_of(title: str, caption: str, headings: Sequence[str], lines: Sequence[Line]) -> Table:
    """A table of lines; the last of the names' headings is the method's, which never wraps."""
    shown = Table(title=title, caption=caption, box=box.SIMPLE_HEAD)
    for heading in headings:
        shown.add_column(heading, no_wrap=heading == headings[-1])
    for heading in lines[0].cells if lines else ():
        shown.add_column(heading, justify="right", no_wrap=True)
    for line in lines:
        if line.new_section:
            shown.add_section()
        shown.add_row(*map(escape, line.names), *line.cells.values())  # [brackets] are markup
    return shown


def mean_cell(value: metrics.Mean, digits: int) -> str:
    """A mean as tables show it, its interval below."""
    low, mean, high = (number(one, digits) for one in (value.low, value.mean, value.high))
    return f"{mean}\n{low}-{high}"


def number(value: float, digits: int) -> str:
    """A number as tables show it: shares without their leading 0, as in papers."""
    text = f"{value:.{digits}f}"
    return text.removeprefix("0") if digits else text


def as_json(evaluation: Evaluation[Any, Any, Any], **more: Any) -> str:
    """Everything: settings, versions, methods, rows, pairs, failures, and `more` entries."""
    task = evaluation.task
    settings = {**asdict(evaluation.settings), **task.constants(evaluation.settings)}
    row_values = []
    for row in rows(evaluation):
        values = asdict(row)
        means = values.pop("means")
        if not task.by_group:
            del values["group"]
        row_values.append({**values, **means})
    pairs = []
    for record in evaluation.records:
        values = asdict(record)
        figures = values.pop("figures")
        derived = {name: getattr(record.figures, name) for name in task.derived}
        pairs.append({**values, **figures, **derived})
    return document(settings, evaluation.methods, row_values, pairs, evaluation.failures, more)


def document(
    settings: Mapping[str, Any],
    methods: Sequence[Method],
    rows: Sequence[Mapping[str, Any]],
    pairs: Sequence[Mapping[str, Any]],
    failures: Sequence[Failure],
    more: Mapping[str, Any],
) -> str:
    """A report of any kind as JSON, with what is needed to reproduce it."""
    content = {
        **more,
        "settings": dict(settings),
        "versions": {
            "tiepoint": __version__,
            "opencv": cv2.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
        },
        "methods": {method.name: dict(method.settings) for method in methods},
        "rows": rows,
        "pairs": pairs,
        "failures": [asdict(failure) for failure in failures],
    }
    return json.dumps(_finite(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """Replace infinity and NaN, which JSON lacks, by null."""
    if isinstance(value, dict):
        return {f"{k:g}" if isinstance(k, float) else k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
