"""Figures of homographies, by methods whose result is known."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from support.known_pairs import (
    SIZE,
    KnownPair,
    features,
    finds_nothing,
    knows_nothing,
    knows_the_truth,
    truth_of,
)
from tiepoint.evaluation import metrics, summary
from tiepoint.evaluation.homography import (
    HOMOGRAPHY,
    HomographyEvaluation,
    HomographyFigures,
    HomographyMeans,
    detail_table,
    matched,
    measure,
)
from tiepoint.evaluation.homography_pairs import LoadedHomography
from tiepoint.evaluation.methods import Method, method
from tiepoint.evaluation.run import evaluate
from tiepoint.evaluation.settings import FrameSize, HomographySettings
from tiepoint.evaluation.task import Failure, Record
from tiepoint.geometry import apply_homography

SETTINGS = HomographySettings(k=200)


def means_of(chosen: Method, count: int = 12) -> HomographyMeans:
    pairs = [KnownPair(number) for number in range(count)]
    (row,) = summary.rows(evaluate(HOMOGRAPHY, pairs, [chosen], SETTINGS))
    return row.means


def figures_of(chosen: Method, settings: HomographySettings = SETTINGS) -> HomographyFigures:
    evaluation = evaluate(HOMOGRAPHY, [KnownPair(3)], [chosen], settings)
    return evaluation.records[0].figures


def test_perfect_knowledge_scores_one_everywhere() -> None:
    means = means_of(knows_the_truth())
    assert {px: share.mean for px, share in means.within.items()} == {1: 1, 3: 1, 5: 1, 10: 1}
    assert means.within[1].low == 1
    assert means.repeatability.mean == 1
    assert means.precision.mean == 1
    assert means.matches.mean == means.correct.mean == SETTINGS.k


def test_perfect_knowledge_has_no_error_at_all() -> None:
    assert max(figures_of(knows_the_truth()).seed_errors_px) < 1e-3


@pytest.mark.parametrize("shift", [(0.5, 0), (0, -0.5), (0.5, 0.5)])
def test_a_half_pixel_shift_shows_as_just_that_error(shift: tuple[float, float]) -> None:
    pairs = [KnownPair(number) for number in range(8)]
    evaluation = evaluate(HOMOGRAPHY, pairs, [knows_the_truth(shift)], SETTINGS)
    for record in evaluation.records:
        assert record.figures.error_px == pytest.approx(math.hypot(*shift), abs=0.01)


def test_a_shift_beyond_a_pixel_fails_at_1_px_and_passes_at_3_px() -> None:
    means = means_of(knows_the_truth((1.0, 0.5)))
    assert means.within[1].mean == 0
    assert means.within[3].mean == 1


def test_knowing_nothing_scores_as_often_as_chance() -> None:
    means = means_of(knows_nothing())
    assert means.within[10].mean == 0
    chance = math.pi * 3**2 / (SIZE[0] * SIZE[1])  # a match is within 3 px of the truth
    assert means.precision.mean < 10 * chance
    repeated = 1 - math.exp(-200 * chance)
    assert means.repeatability.mean == pytest.approx(repeated, abs=0.03)


def test_no_points_at_all_are_a_result_and_no_error() -> None:
    evaluation = evaluate(HOMOGRAPHY, [KnownPair(0)], [finds_nothing()], SETTINGS)
    figures = evaluation.records[0].figures
    assert (figures.keypoints_a, figures.matches, figures.correct) == (0, 0, 0)
    assert figures.repeatability == figures.precision == figures.matching_score == 0
    assert figures.matching_accuracy == (0.0,) * 10
    assert math.isnan(figures.localisation_px)
    assert figures.seed_errors_px == (math.inf,) * 3
    assert evaluation.failures == ()


def test_a_method_without_points_has_a_row_of_zeros_and_an_unknown_localisation() -> None:
    means = means_of(finds_nothing(), count=3)
    assert [share.mean for share in means.within.values()] == [0, 0, 0, 0]
    assert means.auc[10].mean == means.precision.mean == 0
    assert math.isnan(means.localisation_px.mean)


def test_only_the_k_best_are_matched() -> None:
    pair = KnownPair(4).load(640)
    a, b = (knows_the_truth().detect(image, 100) for image in (pair.image_a, pair.image_b))
    figures = measure(a, b, pair, replace(SETTINGS, k=17))
    assert figures.keypoints_a == figures.keypoints_b == figures.matches == 17


def test_the_number_of_seeds_is_the_number_of_estimates_and_their_median_counts() -> None:
    figures = figures_of(knows_nothing(), replace(SETTINGS, seeds=5))
    assert len(figures.seed_errors_px) == 5
    assert figures.error_px == sorted(figures.seed_errors_px)[2]


def test_a_shift_is_the_localisation_error() -> None:
    means = means_of(knows_the_truth((0.6, 0.8)))
    assert means.localisation_px.mean == pytest.approx(1.0, abs=0.05)
    assert means.matching_accuracy[1.0] + means.matching_accuracy[2.0] > 1


def test_half_a_view_in_common_does_not_lower_the_matching_score() -> None:
    """Points that the other image cannot show are not counted."""
    xy = np.random.default_rng(0).uniform(0, 1, (150, 2)) * (SIZE[1] - 1, SIZE[0] - 1)
    codes = np.random.default_rng(1).standard_normal((150, 32))
    half = np.array([[1.0, 0, -160], [0, 1, 0], [0, 0, 1]])
    shown = xy[:, 0] >= 160
    a = features(xy, codes)
    b = features(xy[shown] - (160, 0), codes[shown])
    blank = np.zeros(SIZE, np.uint8)
    figures = measure(a, b, LoadedHomography(blank, blank, half), SETTINGS)
    assert figures.matching_score == 1


def test_repeatability_may_be_measured_at_another_size_and_number_of_points() -> None:
    @dataclass(frozen=True)
    class TwoSizes(KnownPair):
        """The truth at the usual size, no truth at the other."""

        def load(self, frame: FrameSize | int) -> LoadedHomography:
            asked.append(frame)
            loaded = super().load(frame)
            if frame == SETTINGS.frame:
                return loaded
            return replace(
                loaded, homography=loaded.homography + np.array([[0, 0, 99], [0] * 3, [0] * 3])
            )

    asked: list[FrameSize | int] = []
    small = FrameSize(short_side=100)
    settings = replace(SETTINGS, repeat_frame=small, repeat_k=30)
    evaluation = evaluate(HOMOGRAPHY, [TwoSizes(3)], [knows_the_truth()], settings)
    figures = evaluation.records[0].figures
    assert asked == [SETTINGS.frame, small]
    assert figures.precision == 1
    assert figures.repeatability < 0.2


def test_matched_points_are_those_that_the_figures_count() -> None:
    pair = KnownPair(5).load(640)
    xy_a, xy_b, covariances = matched(knows_the_truth((0.6, 0.8)), pair, SETTINGS)
    assert covariances is None
    assert len(xy_a) == len(xy_b) == SETTINGS.k
    off_px = np.hypot(*(xy_b - apply_homography(truth_of(5), xy_a)).T)
    np.testing.assert_allclose(off_px, 1, atol=1e-3)


def made_by_hand() -> HomographyEvaluation:
    def record(group: str, pair: str, name: str, *errors: float) -> Record[HomographyFigures]:
        accuracy = tuple(n / 20 for n in range(1, 11))
        figures = HomographyFigures(100, 90, 40, 10, 0.5, 0.8, 50.0, accuracy, errors)
        return Record(group, pair, name, figures)

    return HomographyEvaluation(
        HOMOGRAPHY,
        HomographySettings(k=100),
        (Method("sift", knows_nothing().detect), Method("mine", knows_nothing().detect)),
        (
            record("wall", "1", "sift", 0.5, 0.9, 7),
            record("wall", "1", "mine", 0.5, 2, 2),
            record("boat", "1", "sift", math.inf, math.inf, 1),
            record("boat", "1", "mine", 0.1, 0.1, 0.1),
        ),
        (Failure("boat", "2", "gone"),),
    )


def test_rows_are_over_all_pairs_and_over_each_set() -> None:
    rows = summary.rows(made_by_hand())
    assert [(row.group, row.method, row.pairs) for row in rows] == [
        ("all", "sift", 2), ("all", "mine", 2), ("wall", "sift", 1), ("wall", "mine", 1),
        ("boat", "sift", 1), ("boat", "mine", 1),
    ]  # fmt: skip
    assert [share.mean for share in rows[0].means.within.values()] == [0.5, 0.5, 0.5, 0.5]
    assert [share.mean for share in rows[1].means.within.values()] == [0.5, 1, 1, 1]
    assert rows[0].means.within_by_seed[1] == (0.5, 0.5, 0.5)
    assert rows[0].keypoints == 95
    assert rows[0].means.precision.mean == 0.25


def test_rows_hold_areas_accuracy_localisation_and_score() -> None:
    means = summary.rows(made_by_hand())[0].means  # SIFT's errors are 0.9 px and infinite
    assert means.auc[1].mean == pytest.approx((0.1 + 0) / 2)
    assert means.auc[5].mean == pytest.approx((1 - 0.9 / 5) / 2)
    assert means.matching_accuracy[3] == pytest.approx(0.15)
    assert means.localisation_px.mean == pytest.approx(0.8)
    assert means.matching_score.mean == pytest.approx(10 / 50)


def slow_means(figures: list[HomographyFigures]) -> dict[str, float]:
    """Means written out one by one."""
    count, total = len(figures), dict.fromkeys(("within", "auc", "precision", "score"), 0.0)
    for one in figures:
        error = sorted(one.seed_errors_px)[1]
        total["within"] += 1 if error <= 3 else 0
        total["auc"] += max(0.0, 1 - error / 3)
        total["precision"] += one.correct / one.matches
        total["score"] += one.correct / one.common
    return {name: value / count for name, value in total.items()}


def test_means_equal_their_slow_twins() -> None:
    rng, figures = np.random.default_rng(0), []
    for _ in range(40):
        matches = int(rng.integers(1, 90))
        correct = int(rng.integers(0, matches + 1))
        errors = tuple(rng.exponential(3, 3).tolist())
        figures.append(
            HomographyFigures(90, 80, matches, correct, 0.5, 0.8, 70.0, (0.5,) * 10, errors)
        )
    means = HOMOGRAPHY.average(figures, SETTINGS)
    assert {
        "within": means.within[3].mean,
        "auc": means.auc[3].mean,
        "precision": means.precision.mean,
        "score": means.matching_score.mean,
    } == pytest.approx(slow_means(figures))


def printed(table: object) -> str:
    console = Console(width=132)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_the_tables_show_means_and_intervals_uncut() -> None:
    text = printed(summary.table(made_by_hand()))
    assert "…" not in text
    assert ".50" in text
    assert "1.00-1.00" in text
    details = printed(detail_table(made_by_hand()))
    assert "…" not in details
    assert details.count("wall") == 2


def test_the_caption_names_what_decides_the_figures() -> None:
    plain = HOMOGRAPHY.caption(SETTINGS)
    assert "k = 200, long side 640 px, MAGSAC and robust least squares at 1.5 px" in plain
    other = replace(SETTINGS, repeat_frame=FrameSize(crop_hw=(240, 320)), repeat_k=300)
    assert "within 3 px of 300 points, 320x240 px cut out." in HOMOGRAPHY.caption(other)


def test_the_report_lists_the_inlier_distance_only_where_it_decides() -> None:
    refined = HOMOGRAPHY.constants(SETTINGS)
    assert refined["refined_inliers_px"] == 3.0
    assert "refined_inliers_px" not in HOMOGRAPHY.constants(replace(SETTINGS, estimator="ransac"))
    assert refined["bootstrap_resamples"] == metrics.BOOTSTRAP_RESAMPLES


def test_json_holds_everything_and_no_infinity() -> None:
    text = summary.as_json(made_by_hand(), kind="homography")
    content = json.loads(text, parse_constant=pytest.fail)
    assert content["kind"] == "homography"
    assert content["settings"]["k"] == 100
    assert content["settings"]["estimator_px"] == 1.5
    assert content["versions"]["opencv"]
    assert content["rows"][0]["within"]["1"]["mean"] == 0.5
    assert content["pairs"][2]["seed_errors_px"] == [None, None, 1]
    assert content["pairs"][2]["error_px"] is None
    assert content["failures"] == [{"group": "boat", "name": "2", "message": "gone"}]


def test_json_keeps_its_keys() -> None:
    content = json.loads(summary.as_json(made_by_hand()))
    assert list(content["rows"][0]) == [
        "group", "method", "pairs", "keypoints", "within", "within_by_seed", "repeatability",
        "matches", "correct", "precision", "auc", "localisation_px", "matching_score",
        "matching_accuracy",
    ]  # fmt: skip
    assert list(content["pairs"][0]) == [
        "group", "pair", "method", "keypoints_a", "keypoints_b", "matches", "correct",
        "repeatability", "localisation_px", "common", "matching_accuracy", "seed_errors_px",
        "error_px", "precision", "matching_score",
    ]  # fmt: skip
    assert asdict(SETTINGS).keys() <= content["settings"].keys()


@pytest.mark.parametrize(("name", "within_px"), [("sift", 0.5), ("orb", 2.0)])
def test_real_methods_align_a_shifted_photograph(
    photographs: list[NDArray[np.uint8]], name: str, within_px: float
) -> None:
    image = photographs[0][100:400, 100:400]
    truth = np.array([[1, 0, -12], [0, 1, -7], [0, 0, 1.0]])
    a, b = (np.ascontiguousarray(one) for one in (image[:250, :250], image[7:257, 12:262]))
    pair = LoadedHomography(a, b, truth)
    figures = measure(*method(name).features_of_pair(pair, 100), pair, replace(SETTINGS, k=100))
    assert figures.error_px < within_px
    assert figures.precision > 0.9
