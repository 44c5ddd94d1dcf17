"""An evaluation summed up: rows per set and method, as a table and as JSON."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich import box
from rich.table import Table

from tiepoint import __version__, planar
from tiepoint.evaluation import metrics
from tiepoint.evaluation.run import Evaluation, Measured, Record

ALL = "all"
"""Group of the rows over every pair."""


@dataclass(frozen=True)
class Mean:
    """A mean over pairs and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """One method on one group of pairs.

    Attributes:
        keypoints: Mean number of points matched per image.
        within: Share of pairs whose error is at most so many px, by px.
        within_by_seed: The same for each seed alone, in order of the seeds.
        repeatability, matches, correct, precision: Means over pairs.
    """

    group: str
    method: str
    pairs: int
    keypoints: float
    within: dict[float, Mean]
    within_by_seed: dict[float, tuple[float, ...]]
    repeatability: Mean
    matches: Mean
    correct: Mean
    precision: Mean


def rows(evaluation: Evaluation) -> list[Row]:
    """A row per method over all pairs, then per group and method; groups as they first came."""
    groups = list(dict.fromkeys(record.group for record in evaluation.records))
    found = []
    for group in [ALL, *groups] if len(groups) > 1 else groups:
        for method in evaluation.methods:
            chosen = [
                record
                for record in evaluation.records
                if record.method == method.name and group in (ALL, record.group)
            ]
            found.append(_row(group, method.name, chosen, evaluation.settings.within_px))
    return found


def table(evaluation: Evaluation) -> Table:
    """The rows for a terminal; below each mean its 95 % interval."""
    settings = evaluation.settings
    shown = Table(
        title="Share of pairs with the homography's mean corner error within so many px",
        caption=f"Under each mean its 95 % interval, pairs resampled. k = {settings.k}, long side "
        f"{settings.long_side} px, MAGSAC {metrics.MAGSAC_PX} px, median of {settings.seeds} "
        f"seeds. Repeated: points of the common view found again within "
        f"{settings.repeat_px:g} px. Correct: matches within {settings.correct_px:g} px.",
        box=box.SIMPLE_HEAD,
    )
    shown.add_column("set")
    shown.add_column("method", no_wrap=True)
    right = ["pairs", "points", *(f"{px:g} px" for px in settings.within_px)]
    for name in [*right, "repeated", "matches", "correct", "precision"]:
        shown.add_column(name, justify="right", no_wrap=True)
    last = None
    for row in rows(evaluation):
        if last not in (None, row.group):
            shown.add_section()
        cells = [row.group if row.group != last else "", row.method, str(row.pairs)]
        cells.append(f"{row.keypoints:.0f}")
        cells += [_cell(share, 2) for share in row.within.values()]
        cells += [_cell(row.repeatability, 2), _cell(row.matches, 0), _cell(row.correct, 0)]
        shown.add_row(*cells, _cell(row.precision, 2))
        last = row.group
    return shown


def as_json(evaluation: Evaluation, **more: Any) -> str:
    """Everything: settings, versions, methods, rows, pairs, failures.

    Args:
        more: Entries to add, such as what the pairs were made from.
    """
    content = {
        **more,
        "settings": {
            **asdict(evaluation.settings),
            "magsac_px": metrics.MAGSAC_PX,
            "magsac_iterations": planar.ITERATIONS,
            "magsac_confidence": planar.CONFIDENCE,
            "error_over_seeds": "median",
            "bootstrap_resamples": metrics.BOOTSTRAP_RESAMPLES,
            "bootstrap_seed": metrics.BOOTSTRAP_SEED,
            "convention": "center0",
        },
        "versions": {
            "tiepoint": __version__,
            "opencv": cv2.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
        },
        "methods": {method.name: dict(method.settings) for method in evaluation.methods},
        "rows": [asdict(row) for row in rows(evaluation)],
        "pairs": [_pair(record) for record in evaluation.records],
        "failures": [asdict(failure) for failure in evaluation.failures],
    }
    return json.dumps(_finite(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, evaluation: Evaluation, **more: Any) -> None:
    """Write `as_json`; parent folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(as_json(evaluation, **more), encoding="utf-8")


def _row(group: str, method: str, records: Sequence[Record], within_px: Sequence[float]) -> Row:
    measured = [record.measured for record in records]
    errors = np.array([one.error_px for one in measured])  # N
    by_seed = np.array([one.seed_errors_px for one in measured])  # N seeds
    counts = [(one.keypoints_a + one.keypoints_b) / 2 for one in measured]

    def mean(value: Callable[[Measured], float]) -> Mean:
        return _mean(np.array([value(one) for one in measured], dtype=np.float64))

    return Row(
        group,
        method,
        len(records),
        float(np.mean(counts)),
        {px: _mean(errors <= px) for px in within_px},
        {px: tuple((by_seed <= px).mean(axis=0).tolist()) for px in within_px},
        mean(lambda one: one.repeatability),
        mean(lambda one: one.matches),
        mean(lambda one: one.correct),
        mean(lambda one: one.precision),
    )


def _mean(values: Any) -> Mean:
    return Mean(float(np.mean(values)), *metrics.mean_interval(values))


def _pair(record: Record) -> dict[str, Any]:
    measured = record.measured
    return {
        "group": record.group,
        "pair": record.pair,
        "method": record.method,
        **asdict(measured),
        "error_px": measured.error_px,
        "precision": measured.precision,
    }


def _cell(value: Mean, digits: int) -> str:
    low, mean, high = (_number(one, digits) for one in (value.low, value.mean, value.high))
    return f"{mean}\n{low}-{high}"


def _number(value: float, digits: int) -> str:
    """Shares without their leading 0, as papers print them."""
    text = f"{value:.{digits}f}"
    return text.removeprefix("0") if digits else text


def _finite(value: Any) -> Any:
    """JSON has no infinity: an error without an estimate becomes null."""
    if isinstance(value, dict):
        return {f"{k:g}" if isinstance(k, float) else k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
