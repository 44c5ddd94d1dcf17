"""An evaluation summed up: rows per set and method, as a table and as JSON."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich import box
from rich.table import Table

from tiepoint._version import __version__
from tiepoint.evaluation import metrics
from tiepoint.evaluation.methods import Method
from tiepoint.evaluation.pairs import Failure
from tiepoint.evaluation.run import Evaluation, Measured, Record
from tiepoint.evaluation.settings import Settings
from tiepoint.registration import planar

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
        auc: Area under the share of pairs over their error, up to so many px, by px.
        repeatability, matches, correct, precision: Means over pairs.
        localisation_px: Mean over pairs with repeated points.
        matching_score: Right matches over points of the common view, mean over pairs.
        matching_accuracy: Share of matches right within so many px, mean over pairs, by px.
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
    auc: dict[float, Mean]
    localisation_px: Mean
    matching_score: Mean
    matching_accuracy: dict[float, float]


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
            found.append(_row(group, method.name, chosen, evaluation.settings))
    return found


def errors_px(evaluation: Evaluation, method: str) -> list[float]:
    """A method's error on each pair, in order."""
    return [one.measured.error_px for one in evaluation.records if one.method == method]


def table(evaluation: Evaluation) -> Table:
    """The rows for a terminal; below each mean its 95 % interval."""
    settings = evaluation.settings
    shown = Table(
        title="Share of pairs with the homography's mean corner error within so many px",
        caption=f"Under each mean its 95 % interval, pairs resampled. k = {settings.k}, "
        f"{settings.frame}, {ESTIMATOR_NAMES[settings.estimator]} at {settings.estimator_px:g} px, "
        f"median of {settings.seeds} seeds. Repeated: points of the common view found again within "
        f"{settings.repeat_px:g} px{_repeated_at(settings)}. Correct: matches within "
        f"{settings.correct_px:g} px.",
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
        cells += [cell(share, 2) for share in row.within.values()]
        cells += [cell(row.repeatability, 2), cell(row.matches, 0), cell(row.correct, 0)]
        shown.add_row(*cells, cell(row.precision, 2))
        last = row.group
    return shown


def _repeated_at(settings: Settings) -> str:
    """Where repeatability is measured, if not where all else is."""
    if settings.repeat_frame is None:
        return ""
    return f" of {settings.repeat_k or settings.k} points, {settings.repeat_frame}"


DETAILED_PX = (1.0, 3.0, 5.0, 10.0)


def detail_table(evaluation: Evaluation) -> Table:
    """Further figures of the same rows, over all pairs and per group."""
    shown = Table(
        title="Areas under the curve, matching accuracy, localisation, matching score",
        caption="AUC: of the shares of pairs up to so many px. Accuracy: share of matches right "
        "within so many px. Localisation: mean distance of repeated points, px. Score: right "
        "matches over points of the common view.",
        box=box.SIMPLE_HEAD,
    )
    shown.add_column("set")
    shown.add_column("method", no_wrap=True)
    names = [f"AUC {px:g}" for px in evaluation.settings.within_px]
    names += [f"acc. {px:g}" for px in DETAILED_PX]
    for name in [*names, "local.", "score"]:
        shown.add_column(name, justify="right", no_wrap=True)
    for row in rows(evaluation):
        shares = [row.matching_accuracy[px] for px in DETAILED_PX]
        cells = [_number(area.mean, 2) for area in row.auc.values()]
        cells += [_number(share, 2) for share in shares]
        cells += [_number(row.localisation_px.mean, 2), _number(row.matching_score.mean, 2)]
        shown.add_row(row.group, row.method, *cells)
    return shown


ESTIMATOR_NAMES = {
    "refined": "MAGSAC and robust least squares",
    "ransac": "OpenCV's RANSAC",
    "poselib": "PoseLib's LO-RANSAC",
}

OVER_PAIRS = {
    "magsac_iterations": planar.ITERATIONS,
    "magsac_confidence": planar.CONFIDENCE,
    "error_over_seeds": "median",
    "bootstrap_resamples": metrics.BOOTSTRAP_RESAMPLES,
    "bootstrap_seed": metrics.BOOTSTRAP_SEED,
    "convention": "center0",
}
"""What else decides figures over pairs; goes into their reports."""


def as_json(evaluation: Evaluation, **more: Any) -> str:
    """Everything: settings, versions, methods, rows, pairs, failures.

    Args:
        more: Entries to add, such as what the pairs were made from.
    """
    settings = {**asdict(evaluation.settings), **OVER_PAIRS}
    if evaluation.settings.estimator == "refined":
        settings["refined_inliers_px"] = metrics.INLIER_PARTS * evaluation.settings.estimator_px
    pairs = [_pair(record) for record in evaluation.records]
    found = [asdict(row) for row in rows(evaluation)]
    return document(settings, evaluation.methods, found, pairs, evaluation.failures, more)


def document(
    settings: Mapping[str, Any],
    methods: Sequence[Method],
    rows: Sequence[Mapping[str, Any]],
    pairs: Sequence[Mapping[str, Any]],
    failures: Sequence[Failure],
    more: Mapping[str, Any],
) -> str:
    """An evaluation of any kind as JSON, with what is needed to make it again."""
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


def write_text(path: Path, text: str) -> None:
    """Write a report; parent folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _row(group: str, method: str, records: Sequence[Record[Measured]], settings: Settings) -> Row:
    within_px = settings.within_px
    measured = [record.measured for record in records]
    errors = np.array([one.error_px for one in measured])  # N
    by_seed = np.array([one.seed_errors_px for one in measured])  # N seeds
    counts = [(one.keypoints_a + one.keypoints_b) / 2 for one in measured]

    def mean(value: Callable[[Measured], float]) -> Mean:
        return mean_of(np.array([value(one) for one in measured], dtype=np.float64))

    return Row(
        group,
        method,
        len(records),
        float(np.mean(counts)),
        {px: mean_of(errors <= px) for px in within_px},
        {px: tuple((by_seed <= px).mean(axis=0).tolist()) for px in within_px},
        mean(lambda one: one.repeatability),
        mean(lambda one: one.matches),
        mean(lambda one: one.correct),
        mean(lambda one: one.precision),
        {px: mean_of(metrics.area_shares(errors, px)) for px in within_px},
        mean_of([one.localisation_px for one in measured if math.isfinite(one.localisation_px)]),
        mean(lambda one: one.matching_score),
        dict(
            zip(
                settings.accuracy_px,
                np.mean([one.matching_accuracy for one in measured], axis=0).tolist(),
                strict=True,
            )
        ),
    )


def mean_of(values: Any) -> Mean:
    """The mean over pairs with its interval; NaN without pairs."""
    if len(values) == 0:
        return Mean(math.nan, math.nan, math.nan)
    return Mean(float(np.mean(values)), *metrics.mean_interval(values))


def _pair(record: Record[Measured]) -> dict[str, Any]:
    measured = record.measured
    return {
        "group": record.group,
        "pair": record.pair,
        "method": record.method,
        **asdict(measured),
        "error_px": measured.error_px,
        "precision": measured.precision,
        "matching_score": measured.matching_score,
    }


def cell(value: Mean, digits: int) -> str:
    """A mean as tables show it, its interval below."""
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
