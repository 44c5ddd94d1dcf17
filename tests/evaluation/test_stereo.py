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
from tiepoint.evaluation.stereo import measure_stereo
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
    found = measure_stereo(features(xy), features(there), disparity, -1.0)
    assert (found.keypoints_a, found.matches) == (4, 3)
    assert found.within == pytest.approx((1 / 3, 1 / 3, 2 / 3, 2 / 3))


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


def test_the_command_scores_all_methods_on_a_known_scene(folder: Path) -> None:
    out = folder / "report.json"
    result = CliRunner().invoke(
        app, ["evaluate", "stereo", str(folder), "--k", "300", "--json", str(out)]
    )
    assert result.exit_code == 0, result.output
    content = json.loads(out.read_text())
    assert [row["method"] for row in content["rows"]] == ["base", "sift", "orb"]
    for row in content["rows"]:
        assert row["within"]["3"]["mean"] > 0.7
        assert row["matches"]["mean"] > 50


def test_a_stopped_evaluation_goes_on_where_it_was(folder: Path) -> None:
    out = folder / "report.json"
    arguments = ["evaluate", "stereo", str(folder), "--methods", "orb", "--json", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tiepoint.evaluation.partial.Partial.finish", lambda self: None)
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
