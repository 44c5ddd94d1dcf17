"""Evaluation by homographies: corner error, repeatability, correct matches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from tiepoint.evaluation import homography_pairs, metrics, summary
from tiepoint.evaluation.estimators import INLIER_FACTOR, estimate_homography
from tiepoint.evaluation.homography_pairs import HomographyPair, LoadedHomography
from tiepoint.evaluation.methods import Method, Pairing, nearest_neighbours
from tiepoint.evaluation.metrics import Mean, Repeatability, mean_of
from tiepoint.evaluation.settings import HomographySettings
from tiepoint.evaluation.summary import Line, mean_cell, number
from tiepoint.evaluation.task import ErrorAxis, Evaluation, Figures, Task
from tiepoint.features import Features, covariances_of
from tiepoint.geometry import Float, Matrix

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
        repeatability, localisation_px: See `Repeatability`.
        common: See `metrics.common_points`.
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
    """One method's means over pairs; dicts are by limit in px.

    Attributes:
        within: Share of pairs whose error is at most the limit.
        within_by_seed: The same for each seed alone, in order of the seeds.
        localisation_px: Mean over the pairs with repeated keypoints.
        auc: Area under the share of pairs over their error, up to the limit.
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

Matched = tuple[Float, Float, tuple[Float, Float] | None]
"""M 2 px of A and of B, and the covariances of both where they are known."""


def measure(
    a: Features,
    b: Features,
    pair: LoadedHomography,
    settings: HomographySettings,
    repeated: Repeatability | None = None,
    pairing: Pairing = nearest_neighbours,
) -> HomographyFigures:
    """Compare features with the ground truth; `repeated` may have been measured at another size."""
    truth = pair.homography
    best_a, best_b = a.top(settings.k), b.top(settings.k)
    matches = _matched(best_a, best_b, settings, pairing)
    xy_a, xy_b, _ = matches
    estimates = (estimate(matches, seed, settings) for seed in range(settings.seeds))
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


def estimate(matches: Matched, seed: int, settings: HomographySettings) -> Matrix | None:
    """The homography of one seed; see `estimate_homography`."""
    estimator, threshold_px = settings.estimator, settings.estimator_px
    xy_a, xy_b, covariances = matches
    return estimate_homography(xy_a, xy_b, seed, covariances, estimator, threshold_px)


def matched(method: Method, pair: LoadedHomography, settings: HomographySettings) -> Matched:
    """A method's matched points on a pair."""
    a, b = method.features_of_pair(pair, settings.k)
    return _matched(a.top(settings.k), b.top(settings.k), settings, method.pairing)


def _matched(a: Features, b: Features, settings: HomographySettings, pairing: Pairing) -> Matched:
    pairs = pairing(a, b, settings.rotation).pairs  # M 2
    return a.xy[pairs[:, 0]], b.xy[pairs[:, 1]], covariances_of(a, b, pairs)


def _repeatability(
    a: Features, b: Features, pair: LoadedHomography, settings: HomographySettings
) -> Repeatability:
    k, within_px = settings.repeat_k or settings.k, settings.repeat_px
    return metrics.repeatability(a.xy, b.xy, pair.homography, a.size_hw, b.size_hw, k, within_px)


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
        figures.append(measure(a, b, loaded, settings, repeated, method.pairing))
    return figures


def _average(figures: Sequence[HomographyFigures], settings: HomographySettings) -> HomographyMeans:
    errors = np.array([one.error_px for one in figures])  # N
    by_seed = np.array([one.seed_errors_px for one in figures])  # N seeds
    accuracy = np.mean([one.matching_accuracy for one in figures], axis=0)
    limits_px = settings.within_px
    return HomographyMeans(
        within={px: mean_of(errors <= px) for px in limits_px},
        within_by_seed={px: tuple((by_seed <= px).mean(axis=0).tolist()) for px in limits_px},
        repeatability=mean_of([one.repeatability for one in figures]),
        matches=mean_of([one.matches for one in figures]),
        correct=mean_of([one.correct for one in figures]),
        precision=mean_of([one.precision for one in figures]),
        auc={px: mean_of(metrics.area_shares(errors, px)) for px in limits_px},
        localisation_px=mean_of(
            [one.localisation_px for one in figures if math.isfinite(one.localisation_px)]
        ),
        matching_score=mean_of([one.matching_score for one in figures]),
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
    parse_line=homography_pairs.parse_line,
    read_other=homography_pairs.read_hpatches,
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
        values = {f"AUC {px:g}": area.mean for px, area in means.auc.items()}
        values |= {f"acc. {px:g}": means.matching_accuracy[px] for px in DETAILED_PX}
        values |= {"local.": means.localisation_px.mean, "score": means.matching_score.mean}
        cells = {heading: number(value, 2) for heading, value in values.items()}
        lines.append(Line([row.group, row.method], cells))
    return summary.table_of(
        "Areas under the curve, matching accuracy, localisation, matching score",
        "AUC N: area under the share of pairs up to N px. Acc. N: share of matches correct within "
        "N px. Local.: mean distance of repeated points from their true position, px. Score: "
        "correct matches over points of the common view.",
        ["set", "method"],
        lines,
    )
