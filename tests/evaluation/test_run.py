"""The harness on methods whose result is known."""

from __future__ import annotations

import json
import math
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from tiepoint.errors import ConfigError, ImageError
from tiepoint.evaluation import report
from tiepoint.evaluation.methods import Method, method
from tiepoint.evaluation.pairs import Failure, Grey, LoadedPair
from tiepoint.evaluation.run import Evaluation, Measured, Record, evaluate, measure
from tiepoint.evaluation.settings import Frame, Settings
from tiepoint.features import Features
from tiepoint.geometry import apply_homography, inside

SIZE = 240, 320
SETTINGS = Settings(k=200)


def truth_of(number: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(number)
    matrix = np.eye(3) + rng.uniform(-0.08, 0.08, (3, 3))
    matrix[:2, 2] = rng.uniform(-20, 20, 2)
    matrix[2] = [*rng.uniform(-3e-4, 3e-4, 2), 1]
    return matrix


@dataclass(frozen=True)
class KnownPair:
    """A blank pair whose images carry the pair's number, so that a method can know the truth."""

    number: int
    group: str = "known"
    readable: bool = True

    @property
    def name(self) -> str:
        return f"pair {self.number}"

    def load(self, frame: Frame | int) -> LoadedPair:
        if not self.readable:
            raise ImageError(f"{self.name}: truncated")
        image_a, image_b = np.zeros(SIZE, np.uint8), np.ones(SIZE, np.uint8)
        image_a[0, 0] = image_b[0, 0] = self.number
        return LoadedPair(image_a, image_b, truth_of(self.number))


def features(xy: NDArray[np.float64], descriptors: NDArray[np.float64]) -> Features:
    scores = np.linspace(1, 0, len(xy), dtype=np.float32)
    return Features(xy.astype(np.float32), scores, descriptors.astype(np.float32), SIZE)


def knows_the_truth(shift: tuple[float, float] = (0, 0)) -> Method:
    """Points of A and their true places in B, moved by `shift` px, with unique descriptors."""

    def detect(image: Grey, k: int) -> Features:
        truth = truth_of(int(image[0, 0]))
        rng = np.random.default_rng(0)
        xy = rng.uniform(0, 1, (4 * k, 2)) * (SIZE[1] - 1, SIZE[0] - 1)
        codes = rng.standard_normal((4 * k, 32))
        codes /= np.linalg.norm(codes, axis=1, keepdims=True)
        there = apply_homography(truth, xy) + shift
        seen = inside(there, SIZE) & inside(there - shift, SIZE)
        return features((xy if image[1, 1] == 0 else there)[seen], codes[seen])

    return Method(f"truth+{shift}", detect)


def knows_nothing() -> Method:
    def detect(image: Grey, k: int) -> Features:
        rng = np.random.default_rng([int(image[0, 0]), int(image[1, 1])])
        codes = rng.standard_normal((k, 32))
        xy = rng.uniform(0, 1, (k, 2)) * (SIZE[1] - 1, SIZE[0] - 1)
        return features(xy, codes / np.linalg.norm(codes, axis=1, keepdims=True))

    return Method("random", detect)


def one_row(chosen: Method, count: int = 12) -> report.Row:
    (row,) = report.rows(evaluate([KnownPair(n) for n in range(count)], [chosen], SETTINGS))
    return row


def test_perfect_knowledge_scores_one_everywhere() -> None:
    row = one_row(knows_the_truth())
    assert {px: share.mean for px, share in row.within.items()} == {1: 1, 3: 1, 5: 1, 10: 1}
    assert row.within[1].low == 1
    assert row.repeatability.mean == 1
    assert row.precision.mean == 1
    assert row.matches.mean == row.correct.mean == SETTINGS.k


def test_perfect_knowledge_has_no_error_at_all() -> None:
    evaluation = evaluate([KnownPair(3)], [knows_the_truth()], SETTINGS)
    assert max(evaluation.records[0].measured.seed_errors_px) < 1e-3


@pytest.mark.parametrize("shift", [(0.5, 0), (0, -0.5), (0.5, 0.5)])
def test_a_half_pixel_shift_shows_as_just_that_error(shift: tuple[float, float]) -> None:
    evaluation = evaluate([KnownPair(n) for n in range(8)], [knows_the_truth(shift)], SETTINGS)
    for record in evaluation.records:
        assert record.measured.error_px == pytest.approx(math.hypot(*shift), abs=0.01)


def test_a_shift_beyond_a_pixel_fails_at_1_px_and_passes_at_3_px() -> None:
    row = one_row(knows_the_truth((1.0, 0.5)))
    assert row.within[1].mean == 0
    assert row.within[3].mean == 1


def test_knowing_nothing_scores_what_chance_says() -> None:
    row = one_row(knows_nothing())
    assert row.within[10].mean == 0
    area = SIZE[0] * SIZE[1]
    chance = math.pi * 3**2 / area  # a match lands within 3 px of the truth
    assert row.precision.mean < 10 * chance
    repeated = 1 - math.exp(-200 * chance)
    assert row.repeatability.mean == pytest.approx(repeated, abs=0.03)


def test_no_points_at_all_are_a_result_and_no_error() -> None:
    empty = Method("empty", lambda image, k: features(np.empty((0, 2)), np.empty((0, 8))))
    evaluation = evaluate([KnownPair(0)], [empty], SETTINGS)
    measured = evaluation.records[0].measured
    assert (measured.keypoints_a, measured.matches, measured.correct) == (0, 0, 0)
    assert measured.repeatability == measured.precision == measured.matching_score == 0
    assert measured.matching_accuracy == (0.0,) * 10
    assert math.isnan(measured.localisation_px)
    assert measured.seed_errors_px == (math.inf,) * 3
    assert evaluation.failures == ()


@pytest.mark.parametrize("workers", [1, 3])
def test_an_unreadable_pair_is_left_out_for_every_method(workers: int) -> None:
    pairs = [KnownPair(n, readable=n != 2) for n in range(5)]
    chosen = [knows_the_truth(), knows_nothing()]
    listed = Failure("list", "x", "bad line")
    evaluation = evaluate(pairs, chosen, SETTINGS, failures=[listed], workers=workers)
    assert [record.pair for record in evaluation.records[::2]] == [
        "pair 0", "pair 1", "pair 3", "pair 4",
    ]  # fmt: skip
    assert evaluation.failures == (listed, Failure("known", "pair 2", "pair 2: truncated"))


def test_the_number_of_workers_changes_nothing(photographs: list[NDArray[np.uint8]]) -> None:
    @dataclass(frozen=True)
    class Shifted:
        number: int
        group: str = "shifted"

        @property
        def name(self) -> str:
            return str(self.number)

        def load(self, frame: Frame | int) -> LoadedPair:
            image, by = photographs[0][150:450, 100:400], 3 * self.number
            truth = np.array([[1, 0, -by], [0, 1, -by], [0, 0, 1.0]])
            crop = np.ascontiguousarray(image[by : by + 200, by : by + 200])
            return LoadedPair(np.ascontiguousarray(image[:200, :200]), crop, truth)

    pairs, chosen = [Shifted(n) for n in range(6)], [method("sift"), method("orb")]
    settings = replace(SETTINGS, k=100)
    alone = evaluate(pairs, chosen, settings, workers=1)
    together = evaluate(pairs, chosen, settings, workers=4)
    assert alone.records == together.records
    assert np.median([record.measured.error_px for record in alone.records]) < 0.5


def test_pairs_are_reported_one_by_one_on_the_callers_thread() -> None:
    seen: list[int] = []
    evaluate(
        [KnownPair(n) for n in range(7)],
        [knows_nothing()],
        SETTINGS,
        workers=3,
        on_pair=lambda: seen.append(threading.get_ident()),
    )
    assert seen == [threading.get_ident()] * 7


def test_only_the_k_best_are_matched() -> None:
    pair = KnownPair(4).load(640)
    a, b = (knows_the_truth().detect(image, 100) for image in (pair.image_a, pair.image_b))
    measured = measure(a, b, pair, replace(SETTINGS, k=17))
    assert measured.keypoints_a == measured.keypoints_b == measured.matches == 17


def test_settings_and_methods_that_make_no_sense_are_refused() -> None:
    for wrong in ({"k": 0}, {"seeds": 1.5}, {"estimator": "guess"}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Settings(**wrong)  # type: ignore[arg-type]
    for frame in ({}, {"long_side": True}, {"long_side": 1, "short_side": 1}, {"crop_hw": (0, 1)}):
        with pytest.raises(ConfigError, match="frame|long_side|crop_hw"):
            Frame(**frame)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no name twice"):
        evaluate([KnownPair(0)], [knows_nothing(), knows_nothing()], SETTINGS)
    with pytest.raises(ConfigError, match="at least one"):
        evaluate([KnownPair(0)], [], SETTINGS)
    with pytest.raises(ConfigError, match="workers is 0"):
        evaluate([KnownPair(0)], [knows_nothing()], SETTINGS, workers=0)


def made_by_hand() -> Evaluation:
    def record(group: str, pair: str, name: str, *errors: float) -> Record:
        accuracy = tuple(n / 20 for n in range(1, 11))
        figures = Measured(100, 90, 40, 10, 0.5, 0.8, 50.0, accuracy, errors)
        return Record(group, pair, name, figures)

    return Evaluation(
        Settings(k=100),
        (Method("sift", knows_nothing().detect), Method("mine", knows_nothing().detect)),
        (
            record("wall", "1", "sift", 0.5, 0.9, 7),
            record("wall", "1", "mine", 0.5, 2, 2),
            record("boat", "1", "sift", math.inf, math.inf, 1),
            record("boat", "1", "mine", 0.1, 0.1, 0.1),
        ),
        (Failure("boat", "2", "gone"),),
    )


def test_rows_stand_for_all_pairs_and_for_each_set() -> None:
    rows = report.rows(made_by_hand())
    assert [(row.group, row.method, row.pairs) for row in rows] == [
        ("all", "sift", 2), ("all", "mine", 2), ("wall", "sift", 1), ("wall", "mine", 1),
        ("boat", "sift", 1), ("boat", "mine", 1),
    ]  # fmt: skip
    assert [share.mean for share in rows[0].within.values()] == [0.5, 0.5, 0.5, 0.5]
    assert [share.mean for share in rows[1].within.values()] == [0.5, 1, 1, 1]
    assert rows[0].within_by_seed[1] == (0.5, 0.5, 0.5)
    assert rows[0].keypoints == 95
    assert rows[0].precision.mean == 0.25


def test_rows_hold_areas_accuracy_localisation_and_score() -> None:
    row = report.rows(made_by_hand())[0]  # SIFT's errors are 0.9 px and infinite
    assert row.auc[1].mean == pytest.approx((0.1 + 0) / 2)
    assert row.auc[5].mean == pytest.approx((1 - 0.9 / 5) / 2)
    assert row.matching_accuracy[3] == pytest.approx(0.15)
    assert row.localisation_px.mean == pytest.approx(0.8)
    assert row.matching_score.mean == pytest.approx(10 / 50)
    console = Console(width=132)
    with console.capture() as capture:
        console.print(report.detail_table(made_by_hand()))
    assert "…" not in capture.get()


def test_a_shift_is_the_localisation_error() -> None:
    row = one_row(knows_the_truth((0.6, 0.8)))
    assert row.localisation_px.mean == pytest.approx(1.0, abs=0.05)
    assert row.matching_accuracy[1.0] + row.matching_accuracy[2.0] > 1


def test_half_a_view_in_common_does_not_lower_the_matching_score() -> None:
    """Points that the other image cannot show are not asked for."""
    xy = np.random.default_rng(0).uniform(0, 1, (150, 2)) * (SIZE[1] - 1, SIZE[0] - 1)
    codes = np.random.default_rng(1).standard_normal((150, 32))
    moved = np.array([[1.0, 0, -160], [0, 1, 0], [0, 0, 1]])
    seen = xy[:, 0] >= 160
    a = features(xy, codes)
    b = features(xy[seen] - (160, 0), codes[seen])
    blank = np.zeros(SIZE, np.uint8)
    measured = measure(a, b, LoadedPair(blank, blank, moved), SETTINGS)
    assert measured.matching_score == 1


def test_one_set_alone_has_no_second_row() -> None:
    only = replace(made_by_hand(), records=made_by_hand().records[:2])
    assert [row.group for row in report.rows(only)] == ["wall", "wall"]


def test_json_holds_everything_and_no_infinity(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.json"
    report.write_text(path, report.as_json(made_by_hand(), kind="homography"))
    content = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert content["kind"] == "homography"
    assert content["settings"]["k"] == 100
    assert content["settings"]["estimator_px"] == 1.5
    assert content["versions"]["opencv"]
    assert content["rows"][0]["within"]["1"]["mean"] == 0.5
    assert content["pairs"][2]["seed_errors_px"] == [None, None, 1]
    assert content["pairs"][2]["error_px"] is None
    assert content["failures"] == [{"group": "boat", "name": "2", "message": "gone"}]


def test_the_table_shows_means_and_intervals_uncut() -> None:
    console = Console(width=132)
    with console.capture() as capture:
        console.print(report.table(made_by_hand()))
    text = capture.get()
    assert "…" not in text
    assert ".50" in text
    assert "1.00-1.00" in text
