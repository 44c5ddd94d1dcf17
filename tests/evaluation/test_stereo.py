"""Matches of a scene whose depth is known."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from tiepoint.cli import app
from tiepoint.errors import FormatError
from tiepoint.evaluation import summary
from tiepoint.evaluation.methods import Method, method
from tiepoint.evaluation.pair_lists import read_folders
from tiepoint.evaluation.run import evaluate
from tiepoint.evaluation.settings import FrameSize, StereoSettings
from tiepoint.evaluation.stereo import STEREO, WITHIN_PX, measure, read_disparity
from tiepoint.features import Features


def features(xy: NDArray[np.float64]) -> Features:
    return Features(
        xy.astype(np.float32), np.ones(len(xy), np.float32), np.eye(len(xy), 8, dtype=np.float32),
        (40, 60),
    )  # fmt: skip


def test_matches_count_where_the_disparity_is_known() -> None:
    disparity = np.full((40, 60), 5.0, np.float32)
    disparity[:, 30:] = 0  # unknown
    xy = np.array([[10, 10], [20.4, 15], [25, 20], [45, 30]])
    there = xy - (5, 0) + np.array([[0.5, 0], [0, 2.5], [9, 0], [0, 0]])
    found = measure(features(xy), features(there), disparity, -1.0)
    assert (found.keypoints_a, found.matches) == (4, 3)
    assert found.within == pytest.approx((1 / 3, 1 / 3, 2 / 3, 2 / 3))


@pytest.mark.parametrize("counts", [(0, 0), (0, 4), (4, 0)])
def test_no_matches_are_within_nothing(counts: tuple[int, int]) -> None:
    a, b = (features(np.full((count, 2), 9.0)) for count in counts)
    found = measure(a, b, np.full((40, 60), 5.0, np.float32), 1.0)
    assert (found.keypoints_a, found.keypoints_b) == counts
    assert (found.matches, found.within) == (0, (0.0,) * len(WITHIN_PX))


def test_points_of_unknown_disparity_count_neither_way() -> None:
    xy = np.array([[10.0, 10], [20, 20], [30, 30]])
    found = measure(features(xy), features(xy), np.zeros((40, 60), np.float32), -1.0)
    assert (found.keypoints_a, found.matches, found.within[0]) == (3, 0, 0.0)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_shares_equal_their_slow_twin(sign: float) -> None:
    rng = np.random.default_rng(3)
    disparity = rng.uniform(-3, 9, (40, 60)).clip(0).astype(np.float32)  # a quarter unknown
    xy = rng.uniform((-0.5, -0.5), (59.5, 39.5), (8, 2)).astype(np.float32)
    off = rng.uniform(-4, 4, (8, 2))
    shift = np.array([disparity[round(float(y)), round(float(x))] for x, y in xy.tolist()])
    there = xy + np.stack([sign * shift, np.zeros(8)], axis=1) + off
    known = [index for index in range(8) if shift[index] > 0]
    found = measure(features(xy), features(there), disparity, sign)
    assert found.matches == len(known)
    for limit, share in zip(WITHIN_PX, found.within, strict=True):
        slow = sum(float(np.hypot(*off[index])) <= limit for index in known) / len(known)
        assert share == pytest.approx(slow)


def test_a_disparity_file_is_read_in_px(tmp_path: Path) -> None:
    levels = np.array([[0, 256, 384], [1, 65535, 512]], np.uint16)
    cv2.imwrite(str(tmp_path / "d.png"), levels)
    found = read_disparity(tmp_path / "d.png", np.zeros((2, 3), np.uint8))
    np.testing.assert_array_equal(found, levels / 256)
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((2, 3), np.uint8), "expected a PNG of 16 bits"),
        (np.zeros((9, 5), np.uint16), "5x9 px, image A has 3x2"),
        (None, "expected a PNG of 16 bits"),
    ],
)
def test_a_file_that_is_no_disparity_is_refused(
    tmp_path: Path, pixels: NDArray[np.generic] | None, message: str
) -> None:
    if pixels is not None:
        cv2.imwrite(str(tmp_path / "d.png"), pixels)
    with pytest.raises(FormatError, match=message):
        read_disparity(tmp_path / "d.png", np.zeros((2, 3, 3), np.uint8))


@pytest.mark.parametrize("sign", ["2", "0", "x", "1.0"])
def test_a_sign_that_is_none_is_refused(tmp_path: Path, sign: str) -> None:
    (tmp_path / "pairs.txt").write_text(f"a b d {sign}\na b d +1\n")
    (pair,), (failure,) = read_folders(STEREO, [tmp_path])
    assert pair.sign == 1
    assert f"line 1: sign is '{sign}', expected 1 or -1" in failure.message


@pytest.fixture
def folder(tmp_path: Path, photographs: list[NDArray[np.uint8]]) -> Path:
    """A photograph in two layers, the lower half nearer: it moves by 12 px, the rest by 4."""
    grey = cv2.resize(photographs[0], (320, 320), interpolation=cv2.INTER_AREA)
    moved = np.where(np.arange(320)[:, None] < 160, 4, 12)
    columns = np.arange(320)[None] + moved
    cv2.imwrite(str(tmp_path / "A.png"), grey)
    cv2.imwrite(
        str(tmp_path / "B.png"),
        np.take_along_axis(grey, np.minimum(columns, 319), axis=1),
    )
    disparity = np.broadcast_to(moved * 256, (320, 320)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "disparity.png"), disparity)
    (tmp_path / "pairs.txt").write_text("# a comment\nA.png B.png disparity.png -1\n")
    return tmp_path


def test_points_are_compared_in_px_of_the_whole_image(folder: Path) -> None:
    """At a quarter of the size the method reports a quarter of the coordinates."""
    asked = []

    def knows(image: NDArray[np.uint8], k: int) -> Features:
        asked.append(image.shape)
        xy = np.array([[10.0, 10], [30, 20], [50, 70]])
        if len(asked) % 2 == 0:  # image B
            xy -= np.array([[4, 0], [4, 0], [12, 0]]) / 4
        scores = np.ones(3, np.float32)
        codes = np.eye(3, 8, dtype=np.float32)
        return Features(xy.astype(np.float32), scores, codes, image.shape[:2])

    pairs, _ = read_folders(STEREO, [folder])
    settings = StereoSettings(k=3, frame=FrameSize(long_side=80))
    evaluation = evaluate(STEREO, pairs, [Method("knows", knows)], settings)
    assert asked == [(80, 80)] * 2
    assert evaluation.records[0].figures.within == (1.0,) * 4


def test_rows_are_over_all_sets(folder: Path) -> None:
    pairs, _ = read_folders(STEREO, [folder])
    methods = [method("sift"), method("orb")]
    evaluation = evaluate(STEREO, pairs * 2, methods, StereoSettings(k=50))
    sift, orb = summary.rows(evaluation)
    assert (sift.method, sift.pairs, orb.method, orb.pairs) == ("sift", 2, "orb", 2)
    assert sift.means.matches.low == sift.means.matches.high  # the same pair twice
    assert list(sift.means.within) == list(WITHIN_PX)


def test_the_command_scores_all_methods_on_a_known_scene(folder: Path) -> None:
    out = folder / "report.json"
    result = CliRunner().invoke(
        app, ["evaluate", "stereo", str(folder), "--k", "300", "-o", str(out)]
    )
    assert result.exit_code == 0, result.output
    content = json.loads(out.read_text())
    assert [row["method"] for row in content["rows"]] == ["base", "sift", "orb"]
    for row in content["rows"]:
        assert row["within"]["3"]["mean"] > 0.7
        assert row["matches"]["mean"] > 50


def test_an_interrupted_evaluation_resumes_after_the_pairs_that_are_done(folder: Path) -> None:
    out = folder / "report.json"
    arguments = ["evaluate", "stereo", str(folder), "--methods", "orb", "-o", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tiepoint.evaluation.resume.ResumeFile.finish", lambda self: None)
        CliRunner().invoke(app, arguments)
    pairs = json.loads(out.read_text())["pairs"]
    (folder / "A.png").unlink()  # what is done is not measured again
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert json.loads(out.read_text())["pairs"] == pairs


def test_what_cannot_be_read_is_reported_and_left_out(folder: Path) -> None:
    with (folder / "pairs.txt").open("a") as file:
        file.write("A.png B.png disparity.png 2\nA.png B.png gone.png 1\n")
    cv2.imwrite(str(folder / "small.png"), np.zeros((9, 9), np.uint16))
    with (folder / "pairs.txt").open("a") as file:
        file.write("A.png B.png small.png 1\n")
    result = CliRunner().invoke(app, ["evaluate", "stereo", str(folder), "--methods", "orb"])
    assert result.exit_code == 1
    for said in ("line 3", "gone.png", "9x9 px", "3 could not be read"):
        assert said in result.stderr
    empty = CliRunner().invoke(app, ["evaluate", "stereo", str(folder / "none")])
    assert empty.exit_code == 3
