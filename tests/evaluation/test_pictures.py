"""Pictures of an evaluation: shares over the error, and worst pairs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from support.known_pairs import KnownPair, finds_nothing, knows_nothing, knows_the_truth
from tiepoint.evaluation.homography import HOMOGRAPHY, HomographyEvaluation
from tiepoint.evaluation.pictures import (
    CORRECT,
    ESTIMATE,
    TRUTH,
    WRONG,
    draw_pair,
    draw_pictures,
    draw_shares,
    draw_worst,
)
from tiepoint.evaluation.run import evaluate
from tiepoint.evaluation.settings import HomographySettings
from tiepoint.evaluation.stereo import STEREO

SETTINGS = HomographySettings(k=60)
PAIRS = [KnownPair(number) for number in range(3)]


def evaluated(*methods: object) -> HomographyEvaluation:
    return evaluate(HOMOGRAPHY, PAIRS, methods, SETTINGS)  # type: ignore[arg-type]


def count_of(picture: NDArray[np.uint8], colour: tuple[int, int, int]) -> int:
    """Pixels near a colour."""
    return int((np.abs(picture.astype(int) - colour).sum(axis=2) < 60).sum())


def test_shares_are_drawn_and_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "shares.png"
    drawn = draw_shares({"a": [0.5, 2, math.inf], "b": [4, 5, 6]}, 10, "px", path)
    assert drawn.shape == (420, 800, 3)
    np.testing.assert_array_equal(cv2.imread(str(path))[:, :, ::-1], drawn)


def test_a_better_method_has_another_curve(tmp_path: Path) -> None:
    good, bad = (
        draw_shares({"m": errors}, 10, "px", tmp_path / "s.png") for errors in ([0.1], [9.0])
    )
    assert not np.array_equal(good, bad)


@pytest.mark.parametrize("errors", [[math.inf], [0.0] * 50])
def test_one_pair_and_many_pairs_can_be_drawn(tmp_path: Path, errors: list[float]) -> None:
    assert draw_shares({"m": errors}, 10, "px", tmp_path / "s.png").any()


def test_correct_matches_are_green_and_the_outlines_coincide(tmp_path: Path) -> None:
    evaluation = evaluated(knows_the_truth())
    record, pair = evaluation.records[1], PAIRS[1].load(640)
    picture = draw_pair(evaluation.methods[0], record, pair, SETTINGS)
    assert picture.shape == (240, 640, 3)
    assert count_of(picture, CORRECT) > 500
    assert count_of(picture, WRONG) == 0
    assert count_of(picture, ESTIMATE) > count_of(picture[20:], TRUTH)  # drawn over the truth


def test_wrong_matches_are_red_and_no_estimate_draws_no_outline() -> None:
    evaluation = evaluated(knows_nothing(), finds_nothing())
    pair = PAIRS[0].load(640)
    wrong = draw_pair(evaluation.methods[0], evaluation.records[0], pair, SETTINGS)
    nothing = draw_pair(evaluation.methods[1], evaluation.records[1], pair, SETTINGS)
    assert count_of(wrong, WRONG) > 200
    assert count_of(nothing, WRONG) == count_of(nothing, CORRECT) == 0
    assert count_of(nothing, ESTIMATE) == 0
    assert count_of(nothing[20:], TRUTH) > 200


def test_the_worst_pairs_come_first_and_old_pictures_go(tmp_path: Path) -> None:
    evaluation = evaluated(knows_nothing())
    worst = sorted(evaluation.records, key=lambda record: -record.figures.error_px)
    written = draw_worst(evaluation, PAIRS, tmp_path, count=2)
    assert [path.name for path in written] == [
        f"{rank:02d} {record.pair}.png" for rank, record in enumerate(worst[:2], start=1)
    ]
    assert sorted((tmp_path / "random").iterdir()) == written
    only = draw_worst(evaluation, PAIRS, tmp_path, count=1)
    assert sorted((tmp_path / "random").iterdir()) == only


def test_names_that_no_file_system_takes_are_replaced(tmp_path: Path) -> None:
    method = replace(knows_nothing(), name="a/b:c*?")
    (path,) = draw_worst(evaluated(method), PAIRS, tmp_path, count=1)
    assert path.parent == tmp_path / "a_b_c_"
    (path,) = draw_worst(evaluated(replace(method, name="벽" * 120)), PAIRS, tmp_path, count=1)
    assert path.is_file() and set(path.parent.name) == {"벽"}


def test_homographies_have_shares_and_worst_pairs(tmp_path: Path) -> None:
    draw_pictures(evaluated(knows_nothing()), PAIRS, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["random", "shares.png"]
    assert len(list((tmp_path / "random").iterdir())) == 3


def test_a_task_without_an_error_has_no_pictures(tmp_path: Path) -> None:
    evaluation = replace(evaluated(knows_nothing()), task=STEREO)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="stereo has no error to plot"):
        draw_pictures(evaluation, PAIRS, tmp_path)
