"""Poses of known cameras: files, errors, areas, and points whose pose is known."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from tiepoint.cli import app
from tiepoint.errors import ConfigError
from tiepoint.evaluation import pose as poses
from tiepoint.evaluation import summary
from tiepoint.evaluation.methods import Method
from tiepoint.evaluation.pair_lists import read_folder
from tiepoint.evaluation.pose import POSE
from tiepoint.evaluation.run import evaluate
from tiepoint.evaluation.settings import PoseSettings
from tiepoint.evaluation.task import Evaluation
from tiepoint.features import Features
from tiepoint.registration import epipolar

CAMERA = np.array([[500.0, 0, 319.5], [0, 510.0, 239.5], [0, 0, 1]])
SIZE = 480, 640


def turned(degrees: float, axis: tuple[float, float, float] = (0, 1, 0)) -> np.ndarray:
    direction = np.array(axis) / np.linalg.norm(axis)
    return cv2.Rodrigues(math.radians(degrees) * direction)[0]


def pose(degrees: float = 8.0, moved: tuple[float, float, float] = (1, 0.1, 0.2)) -> epipolar.Pose:
    translation = np.array(moved) / np.linalg.norm(moved)
    return epipolar.Pose(turned(degrees, (0.2, 1, 0.1)), translation)


def line(name_a: str, name_b: str, truth: epipolar.Pose) -> str:
    numbers = [CAMERA[0, 0], CAMERA[1, 1], CAMERA[0, 2], CAMERA[1, 2]] * 2
    transform = np.eye(4)
    transform[:3, :3], transform[:3, 3] = truth.rotation, 2.5 * truth.translation
    return " ".join([name_a, name_b, *(repr(float(n)) for n in (*numbers, *transform.ravel()))])


def folder_with(tmp_path: Path, *lines: str, images: bool = True) -> Path:
    folder = tmp_path / "known"
    folder.mkdir()
    (folder / "pairs.txt").write_text("\n".join(("# a comment", "", *lines)), encoding="utf-8")
    if images:
        for number in (1, 2):
            cv2.imwrite(str(folder / f"{number}.png"), np.full(SIZE, number, np.uint8))
    return folder


def sees_the_scene(truth: epipolar.Pose, noise_px: float = 0.0, scale: float = 1.0) -> Method:
    """Points of a scene as both cameras see them; the images carry their number."""

    def detect(image: np.ndarray, k: int) -> Features:
        rng = np.random.default_rng(0)
        points = rng.uniform([-2, -1.5, 4], [2, 1.5, 9], (k, 3))
        codes = rng.standard_normal((k, 32))
        if image[0, 0] == 2:
            points = points @ truth.rotation.T + truth.translation
        seen = points @ CAMERA.T
        xy = seen[:, :2] / seen[:, 2:]
        xy = (xy + 0.5) * scale - 0.5  # as the image is downscaled
        xy += np.random.default_rng(int(image[0, 0])).normal(0, noise_px, xy.shape)
        codes /= np.linalg.norm(codes, axis=1, keepdims=True)
        scores = np.linspace(1, 0, k, dtype=np.float32)
        return Features(
            xy.astype(np.float32), scores, codes.astype(np.float32), image.shape[:2], {}
        )

    return Method("scene", detect)


def test_a_folder_gives_cameras_and_poses(tmp_path: Path) -> None:
    truth = pose()
    pairs, failures = read_folder(
        POSE, folder_with(tmp_path, line("1.png", "2.png", truth)), "known"
    )
    assert failures == []
    (pair,) = pairs
    assert pair.name == "1.png 2.png"
    np.testing.assert_allclose(pair.cameras[0], CAMERA)
    np.testing.assert_allclose(pair.pose.rotation, truth.rotation)
    np.testing.assert_allclose(pair.pose.translation, truth.translation)


def test_cameras_follow_an_image_that_is_brought_down(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, line("1.png", "2.png", pose()))
    (pair,), _ = read_folder(POSE, folder, "known")
    loaded = pair.load(320)
    assert loaded.image_a.shape == (240, 320)
    point = np.array([0.3, -0.2, 1.0])
    before, after = CAMERA @ point, loaded.cameras[0] @ point
    np.testing.assert_allclose(after[:2], (before[:2] + 0.5) / 2 - 0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1.png 2.png 1 2 3", "5 fields, expected 26"),
        (line("1.png", "2.png", pose()).replace("500.0", "x", 1), "expected numbers"),
        (line("1.png", "2.png", pose()).replace("500.0", "-3", 1), "focal lengths are -3"),
        ("1.png 2.png " + "1 " * 24, "no rotation"),
    ],
)
def test_a_bad_line_is_a_failure_with_its_number(tmp_path: Path, text: str, message: str) -> None:
    folder = folder_with(tmp_path, text, line("1.png", "2.png", pose()))
    pairs, (failure,) = read_folder(POSE, folder, "known")
    assert len(pairs) == 1
    assert message in failure.message
    assert "line 3" in failure.message


@pytest.mark.parametrize("degrees", [0.0, 0.5, 7.0, 120.0])
def test_the_error_is_the_larger_of_two_angles(degrees: float) -> None:
    truth = pose()
    off = epipolar.Pose(turned(degrees) @ truth.rotation, truth.translation)
    assert poses.pose_error_deg(off, truth) == pytest.approx(degrees, abs=1e-4)
    beside = epipolar.Pose(truth.rotation, turned(degrees, (0, 0, 1)) @ np.array([1.0, 0, 0]))
    along = epipolar.Pose(truth.rotation, np.array([1.0, 0, 0]))
    assert poses.pose_error_deg(beside, along) == pytest.approx(degrees, abs=1e-4)
    back = epipolar.Pose(truth.rotation, -truth.translation)
    assert poses.pose_error_deg(back, truth) == pytest.approx(180)
    assert poses.pose_error_deg(None, truth) == 180


def evaluated(
    tmp_path: Path, noise_px: float, long_side: int = 640
) -> tuple[
    Evaluation[poses.PoseSettings, poses.PoseFigures, poses.PoseMeans], summary.Row[poses.PoseMeans]
]:
    truth = pose()
    pairs, _ = read_folder(POSE, folder_with(tmp_path, line("1.png", "2.png", truth)), "known")
    chosen = sees_the_scene(truth, noise_px, long_side / 640)
    settings = PoseSettings(k=300, long_side=long_side)
    evaluation = evaluate(POSE, pairs, [chosen], settings)
    (row,) = summary.rows(evaluation)
    return evaluation, row


@pytest.mark.parametrize("long_side", [640, 320])
def test_exact_points_give_the_pose_at_any_size(tmp_path: Path, long_side: int) -> None:
    evaluation, row = evaluated(tmp_path, 0.0, long_side)
    assert evaluation.records[0].figures.error_deg < 0.05
    assert row.means.auc[5].mean > 0.98
    assert row.means.precision.mean == 1
    assert row.means.matches.mean == 300


def test_noise_costs_accuracy(tmp_path: Path) -> None:
    _, row = evaluated(tmp_path, 3.0)
    assert row.means.auc[5].mean < 0.98
    assert row.means.precision.mean < 0.8


def test_an_image_that_is_gone_leaves_the_pair_out(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, line("1.png", "2.png", pose()), images=False)
    pairs, _ = read_folder(POSE, folder, "known")
    evaluation = evaluate(POSE, pairs, [sees_the_scene(pose())], PoseSettings())
    assert evaluation.records == ()
    assert len(evaluation.failures) == 1


def test_what_is_wrong_with_the_run_ends_it_and_is_no_pair_left_out(tmp_path: Path) -> None:
    def missing(image: np.ndarray, k: int) -> Features:
        raise ConfigError("no such setting")

    pairs, _ = read_folder(POSE, folder_with(tmp_path, line("1.png", "2.png", pose())), "known")
    with pytest.raises(ConfigError, match="no such setting"):
        evaluate(POSE, pairs, [Method("x", missing)], PoseSettings(k=10))


def looking_at_nothing(found: int) -> Method:
    """Points without partners: `found` in A, none in B."""

    def detect(image: np.ndarray, k: int) -> Features:
        count = found if image[0, 0] == 1 else 0
        xy = np.random.default_rng(0).uniform(0, 400, (count, 2)).astype(np.float32)
        codes = np.eye(count, 32, dtype=np.float32)
        return Features(xy, np.ones(count, np.float32), codes, image.shape[:2])

    return Method("blind", detect)


@pytest.mark.parametrize("found", [0, 5])
def test_no_matches_are_a_result_and_no_error(tmp_path: Path, found: int) -> None:
    pairs, _ = read_folder(POSE, folder_with(tmp_path, line("1.png", "2.png", pose())), "known")
    evaluation = evaluate(POSE, pairs, [looking_at_nothing(found)], PoseSettings(k=10))
    figures = evaluation.records[0].figures
    assert (figures.keypoints_a, figures.matches, figures.correct) == (found, 0, 0)
    assert figures.precision == 0
    assert figures.seed_errors_deg == (180.0,) * 3
    (row,) = summary.rows(evaluation)
    assert [area.mean for area in row.means.auc.values()] == [0, 0, 0]
    assert row.keypoints == found / 2


def test_two_methods_are_compared_on_every_pair(tmp_path: Path) -> None:
    truth = pose()
    lines = [line("1.png", "2.png", truth), line("1.png", "2.png", pose(40.0))]
    pairs, _ = read_folder(POSE, folder_with(tmp_path, *lines), "known")
    methods = [sees_the_scene(truth), looking_at_nothing(3)]
    evaluation = evaluate(POSE, pairs, methods, PoseSettings(k=200, long_side=640))
    errors = {name: [one.error_deg for one in evaluation.figures_of(name)] for name in
              ("scene", "blind")}  # fmt: skip
    assert errors["scene"][0] < 0.05
    assert errors["scene"][1] == pytest.approx(32, abs=1)  # the second line's truth is another
    assert errors["blind"] == [180, 180]


def test_correct_matches_equal_their_slow_twin(tmp_path: Path) -> None:
    """The distance of each match from its epipolar lines, written out."""
    truth = pose()
    pairs, _ = read_folder(POSE, folder_with(tmp_path, line("1.png", "2.png", truth)), "known")
    loaded, method = pairs[0].load(640), sees_the_scene(truth, 2.0)
    a, b = method.features_of_pair(loaded, 150)
    inverse = np.linalg.inv(CAMERA)
    x, y, z = truth.translation
    skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    fundamental = inverse.T @ skew @ truth.rotation @ inverse
    count = 0
    for xy_a, xy_b in zip(a.xy.astype(float), b.xy.astype(float), strict=True):
        line_b, line_a = fundamental @ [*xy_a, 1], fundamental.T @ [*xy_b, 1]
        off = abs(np.array([*xy_b, 1]) @ line_b)
        count += off / math.sqrt(sum(line_b[:2] ** 2) + sum(line_a[:2] ** 2)) <= 2
    figures = poses.measure(a, b, loaded, PoseSettings(k=150, long_side=640))
    assert figures.matches == 150
    assert 0 < figures.correct == count < 150


def test_table_and_json_hold_everything(tmp_path: Path) -> None:
    evaluation, _ = evaluated(tmp_path, 0.5)
    console = Console(width=132)
    with console.capture() as capture:
        console.print(summary.table(evaluation))
    assert "…" not in capture.get()
    content = json.loads(summary.as_json(evaluation, kind="pose"), parse_constant=pytest.fail)
    assert content["kind"] == "pose"
    assert content["rows"][0]["auc"]["5"]["mean"] > 0.5
    assert len(content["pairs"][0]["seed_errors_deg"]) == 3


def test_the_command_scores_real_pairs(shared: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    result = CliRunner().invoke(
        app,
        ["evaluate", "pose", str(shared / "eval" / "strecha"), "--limit", "2", "--k", "500",
         "--methods", "sift", "-o", str(report)],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    (row,) = json.loads(report.read_text())["rows"]
    assert row["pairs"] == 2
    assert row["auc"]["20"]["mean"] > 0.7
    missing = CliRunner().invoke(app, ["evaluate", "pose", str(tmp_path / "gone")])
    assert missing.exit_code == 3
