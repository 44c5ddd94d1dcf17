"""Poses of known cameras: files, errors, areas, and points whose pose is known."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from tiepoint.cli import app
from tiepoint.errors import ConfigError, FormatError
from tiepoint.evaluation import metrics, poses
from tiepoint.evaluation.methods import Method
from tiepoint.evaluation.settings import PoseSettings
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
        xy = (xy + 0.5) * scale - 0.5  # as the image was brought down
        xy += np.random.default_rng(int(image[0, 0])).normal(0, noise_px, xy.shape)
        codes /= np.linalg.norm(codes, axis=1, keepdims=True)
        scores = np.linspace(1, 0, k, dtype=np.float32)
        return Features(
            xy.astype(np.float32), scores, codes.astype(np.float32), image.shape[:2], {}
        )

    return Method("scene", detect)


def test_a_folder_gives_cameras_and_poses(tmp_path: Path) -> None:
    truth = pose()
    pairs, failures = poses.read_pose_folder(
        folder_with(tmp_path, line("1.png", "2.png", truth)), "known"
    )
    assert failures == []
    (pair,) = pairs
    assert pair.name == "1.png 2.png"
    np.testing.assert_allclose(pair.cameras[0], CAMERA)
    np.testing.assert_allclose(pair.pose.rotation, truth.rotation)
    np.testing.assert_allclose(pair.pose.translation, truth.translation)


def test_cameras_follow_an_image_that_is_brought_down(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, line("1.png", "2.png", pose()))
    (pair,), _ = poses.read_pose_folder(folder, "known")
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
    pairs, (failure,) = poses.read_pose_folder(folder, "known")
    assert len(pairs) == 1
    assert message in failure.message
    assert "line 3" in failure.message


def test_a_folder_without_pairs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="expected a list of pairs"):
        poses.read_pose_folder(tmp_path, "x")
    with pytest.raises(FormatError, match="no pairs in it"):
        poses.read_pose_folder(folder_with(tmp_path), "x")
    assert len(poses.read_pose_folders([tmp_path / "gone"])[1]) == 1


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


@given(st.lists(st.floats(0, 50), min_size=1, max_size=30), st.floats(0.5, 20))
def test_the_area_is_that_under_the_curve_of_shares(errors: list[float], up_to: float) -> None:
    values = np.array(errors)
    steps = (np.arange(20_000) + 0.5) / 20_000 * up_to  # the slow way: a fine sum
    slow = np.mean([(values <= step).mean() for step in steps])
    assert metrics.area_shares(values, up_to).mean() == pytest.approx(slow, abs=1e-3)


def test_areas_of_pairs_without_an_estimate_are_zero() -> None:
    assert metrics.area_shares(np.array([math.inf, 180.0]), 20).tolist() == [0, 0]


def evaluated(
    tmp_path: Path, noise_px: float, long_side: int = 640
) -> tuple[poses.PoseEvaluation, poses.PoseRow]:
    truth = pose()
    pairs, _ = poses.read_pose_folder(folder_with(tmp_path, line("1.png", "2.png", truth)), "known")
    chosen = sees_the_scene(truth, noise_px, long_side / 640)
    settings = PoseSettings(k=300, long_side=long_side)
    evaluation = poses.evaluate_poses(pairs, [chosen], settings)
    (row,) = poses.pose_rows(evaluation)
    return evaluation, row


@pytest.mark.parametrize("long_side", [640, 320])
def test_exact_points_give_the_pose_at_any_size(tmp_path: Path, long_side: int) -> None:
    evaluation, row = evaluated(tmp_path, 0.0, long_side)
    assert evaluation.records[0].measured.error_deg < 0.05
    assert row.auc[5].mean > 0.98
    assert row.precision.mean == 1
    assert row.matches.mean == 300


def test_noise_costs_accuracy(tmp_path: Path) -> None:
    _, row = evaluated(tmp_path, 3.0)
    assert row.auc[5].mean < 0.98
    assert row.precision.mean < 0.8


def test_an_image_that_is_gone_leaves_the_pair_out(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, line("1.png", "2.png", pose()), images=False)
    pairs, _ = poses.read_pose_folder(folder, "known")
    evaluation = poses.evaluate_poses(pairs, [sees_the_scene(pose())], PoseSettings())
    assert evaluation.records == ()
    assert len(evaluation.failures) == 1


def test_what_is_wrong_with_the_run_ends_it_and_is_no_pair_left_out(tmp_path: Path) -> None:
    def missing(image: np.ndarray, k: int) -> Features:
        raise ConfigError("no such setting")

    pairs, _ = poses.read_pose_folder(
        folder_with(tmp_path, line("1.png", "2.png", pose())), "known"
    )
    with pytest.raises(ConfigError, match="no such setting"):
        poses.evaluate_poses(pairs, [Method("x", missing)], PoseSettings(k=10))


def test_table_and_json_hold_everything(tmp_path: Path) -> None:
    evaluation, _ = evaluated(tmp_path, 0.5)
    console = Console(width=132)
    with console.capture() as capture:
        console.print(poses.pose_table(evaluation))
    assert "…" not in capture.get()
    content = json.loads(poses.pose_json(evaluation, kind="pose"), parse_constant=pytest.fail)
    assert content["kind"] == "pose"
    assert content["rows"][0]["auc"]["5"]["mean"] > 0.5
    assert len(content["pairs"][0]["seed_errors_deg"]) == 3


def test_the_command_scores_real_pairs(shared: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    result = CliRunner().invoke(
        app,
        ["evaluate", "pose", str(shared / "eval" / "strecha"), "--limit", "2", "--k", "500",
         "--methods", "sift", "--json", str(report)],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    (row,) = json.loads(report.read_text())["rows"]
    assert row["pairs"] == 2
    assert row["auc"]["20"]["mean"] > 0.7
    missing = CliRunner().invoke(app, ["evaluate", "pose", str(tmp_path / "gone")])
    assert missing.exit_code == 3
