"""Evaluation by homographies: corner error, repeatability, correct matches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from tiepoint.evaluation import metrics, summary
from tiepoint.evaluation.estimators import INLIER_FACTOR, estimate_homography
from tiepoint.evaluation.homography_pairs import (
    HomographyPair,
    LoadedHomography,
    parse_line,
    read_hpatches,
)
from tiepoint.evaluation.methods import Method
from tiepoint.evaluation.metrics import Mean, Repeatability, mean_of
from tiepoint.evaluation.settings import HomographySettings
from tiepoint.evaluation.summary import Line, mean_cell, number
from tiepoint.evaluation.task import ErrorAxis, Evaluation, Figures, Task
from tiepoint.features import Features, covariances_of
from tiepoint.matching.match import match

ESTIMATOR_NAMES = {
    "refined": "MAGSAC and robust least squares",
    "ransac": "OpenCV's RANSAC",
    "poselib": "PoseLib's LO-RANSAC",
}
DETAILED_PX = (1.0, 3.0, 5.0, 10.0)


@dataclass(frozen=True)
class HomographyFigures(Figures):
    """One method's figures on one pair.

    Attributes:
        correct: Number of correct matches.
        repeatability: 0..1.
        localisation_px: Mean distance of repeated keypoints from their true position; NaN
            without any.
        common: Matched keypoints inside the common view, the mean of both images.
        matching_accuracy: Share of the matches within each of `HomographySettings.accuracy_px`.
        seed_errors_px: Mean corner error of each estimate; infinite without one.
    """

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
        """Share of correct matches; 0 without matches."""
        return self.correct / self.matches if self.matches else 0.0

    @property
    def matching_score(self) -> float:
        """Correct matches over keypoints in common view (Mikolajczyk and Schmid, 2005)."""
        return self.correct / self.common if self.common else 0.0


@dataclass(frozen=True)
class HomographyMeans:
    """One method's means over pairs.

    Attributes:
        within: Limit in px -> share of pairs whose error is at most this.
        within_by_seed: The same for each seed alone, in order of the seeds.
        localisation_px: Mean over the pairs with repeated keypoints.
        auc: Limit in px -> area under the share of pairs over their error, up to this.
        matching_accuracy: Distance in px -> share of matches that are correct within this.
    """

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


HomographyEvaluation = Evaluation[HomographySettings, HomographyFigures, HomographyMeans]

Matched = tuple[
    NDArray[np.float32], NDArray[np.float32], tuple[NDArray[np.float32], NDArray[np.float32]] | None
]
"""M 2 px of A and of B, and the covariances of both where they are known."""


def measure(
    a: Features,
    b: Features,
    pair: LoadedHomography,
    settings: HomographySettings,
    repeated: Repeatability | None = None,
) -> HomographyFigures:
    """Compare the features of a pair of images with its ground truth.

    Args:
        repeated: Repeatability, if it was measured at another size.
    """
    truth = pair.homography
    best_a, best_b = a.top(settings.k), b.top(settings.k)
    xy_a, xy_b, covariances = _matched(best_a, best_b, settings)
    estimates = [
        estimate_homography(
            xy_a, xy_b, seed, covariances, settings.estimator, settings.estimator_px
        )
        for seed in range(settings.seeds)
    ]
    repeated = repeated or _repeatability(a, b, pair, settings)
    return HomographyFigures(
        keypoints_a=len(best_a),
        keypoints_b=len(best_b),
        matches=len(xy_a),
        correct=int(metrics.correct_matches(xy_a, xy_b, truth, settings.correct_px).sum()),
        repeatability=repeated.share,
        localisation_px=repeated.localisation_px,
        common=metrics.common_points(best_a.xy, best_b.xy, truth, a.size_hw, b.size_hw),
        matching_accuracy=metrics.matching_accuracy(xy_a, xy_b, truth, settings.accuracy_px),
        seed_errors_px=tuple(metrics.corner_error(h, truth, a.size_hw) for h in estimates),
    )


def matched(method: Method, pair: LoadedHomography, settings: HomographySettings) -> Matched:
    """A method's matched points on a pair."""
    a, b = method.features_of_pair(pair, settings.k)
    return _matched(a.top(settings.k), b.top(settings.k), settings)


def _matched(a: Features, b: Features, settings: HomographySettings) -> Matched:
    pairs = match(a, b, rotation=settings.rotation).pairs  # M 2
    return a.xy[pairs[:, 0]], b.xy[pairs[:, 1]], covariances_of(a, b, pairs)


def _repeatability(
    a: Features, b: Features, pair: LoadedHomography, settings: HomographySettings
) -> Repeatability:
    k = settings.repeat_k or settings.k
    return metrics.repeatability(
        a.xy, b.xy, pair.homography, a.size_hw, b.size_hw, k, settings.repeat_px
    )


def _measure_pair(
    pair: HomographyPair, methods: Sequence[Method], settings: HomographySettings
) -> list[HomographyFigures]:
    loaded = pair.load(settings.frame)
    resized = None if settings.repeat_frame is None else pair.load(settings.repeat_frame)
    figures = []
    for method in methods:
        a, b = method.features_of_pair(loaded, settings.k)
        repeated = None
        if resized is not None:
            resized_ab = method.features_of_pair(resized, settings.repeat_k or settings.k)
            repeated = _repeatability(*resized_ab, resized, settings)
        figures.append(measure(a, b, loaded, settings, repeated))
    return figures


def _average(figures: Sequence[HomographyFigures], settings: HomographySettings) -> HomographyMeans:
    errors = np.array([one.error_px for one in figures])  # N
    by_seed = np.array([one.seed_errors_px for one in figures])  # N seeds
    accuracy = np.mean([one.matching_accuracy for one in figures], axis=0)
    localisation_px = [one.localisation_px for one in figures]

    def mean(value: Callable[[HomographyFigures], float]) -> Mean:
        return mean_of([value(one) for one in figures])

    return HomographyMeans(
        within={px: mean_of(errors <= px) for px in settings.within_px},
        within_by_seed={
            px: tuple((by_seed <= px).mean(axis=0).tolist()) for px in settings.within_px
        },
        repeatability=mean(lambda one: one.repeatability),
        matches=mean(lambda one: one.matches),
        correct=mean(lambda one: one.correct),
        precision=mean(lambda one: one.precision),
        auc={px: mean_of(metrics.area_shares(errors, px)) for px in settings.within_px},
        localisation_px=mean_of([px for px in localisation_px if math.isfinite(px)]),
        matching_score=mean(lambda one: one.matching_score),
        matching_accuracy=dict(zip(settings.accuracy_px, accuracy.tolist(), strict=True)),
    )


def _cells(means: HomographyMeans) -> dict[str, str]:
    return {
        **{f"{px:g} px": mean_cell(share, 2) for px, share in means.within.items()},
        "repeated": mean_cell(means.repeatability, 2),
        "matches": mean_cell(means.matches, 0),
        "correct": mean_cell(means.correct, 0),
        "precision": mean_cell(means.precision, 2),
    }


def _caption(settings: HomographySettings) -> str:
    repeated_at = ""
    if settings.repeat_frame is not None:
        repeated_at = f" of {settings.repeat_k or settings.k} points, {settings.repeat_frame}"
    return (
        f"Under each mean its 95 % interval, pairs resampled. k = {settings.k}, {settings.frame}, "
        f"{ESTIMATOR_NAMES[settings.estimator]} at {settings.estimator_px:g} px, median of "
        f"{settings.seeds} seeds. Repeated: points of the common view found again within "
        f"{settings.repeat_px:g} px{repeated_at}. Correct: matches within "
        f"{settings.correct_px:g} px."
    )


def _constants(settings: HomographySettings) -> dict[str, Any]:
    if settings.estimator != "refined":
        return summary.OVER_PAIRS
    return {**summary.OVER_PAIRS, "refined_inliers_px": INLIER_FACTOR * settings.estimator_px}


HOMOGRAPHY = Task(
    kind="homography",
    line="imgA imgB and the 9 numbers of the homography, row by row",
    field_count=11,
    parse_line=parse_line,
    read_other=read_hpatches,
    other_layout="HPatches' folders i_* and v_* with H_1_2 ... in them",
    measure=_measure_pair,
    figures=HomographyFigures,
    derived=("error_px", "precision", "matching_score"),
    error_axis=ErrorAxis("error_px", 10.0, "px"),
    average=_average,
    cells=_cells,
    title="Share of pairs whose homography has a mean corner error within N px",
    caption=_caption,
    constants=_constants,
)
"""Pairs with a known homography: `imgA imgB h11 h12 h13 h21 ... h33`, or HPatches' folders."""


def detail_table(evaluation: HomographyEvaluation) -> Table:
    """Further figures of the same rows, over all pairs and per group."""
    lines = []
    for row in summary.rows(evaluation):
        means = row.means
        cells = {f"AUC {px:g}": number(area.mean, 2) for px, area in means.auc.items()}
        cells |= {f"acc. {px:g}": number(means.matching_accuracy[px], 2) for px in DETAILED_PX}
        cells["local."] = number(means.localisation_px.mean, 2)
        cells["score"] = number(means.matching_score.mean, 2)
        lines.append(Line([row.group, row.method], cells))
    return summary.table_of(
        "Areas under the curve, matching accuracy, localisation, matching score",
        "AUC N: area under the share of pairs up to N px. Acc. N: share of matches correct within "
        "N px. Local.: mean distance of repeated points from their true position, px. Score: "
        "correct matches over points of the common view.",
        ["set", "method"],
        lines,
    )
