"""The scale between the heat map's width and the scatter of positions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from tiepoint import Detector
from tiepoint.cli import app
from tiepoint.errors import CheckpointError, ConfigError
from tiepoint.evaluation.calibration import LEAST_MATCHES, calibrate, differences, store
from tiepoint.evaluation.generated import generated_pairs
from tiepoint.evaluation.homography_pairs import LoadedHomography
from tiepoint.features import Features
from tiepoint.weights.checkpoint import locate

MEASURED = ("covariance_scale", "noise_floor")
"""What the command measures, as config.json names it."""


@pytest.fixture(scope="module")
def folder(photographs: list[NDArray[np.uint8]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of photographs."""
    path = tmp_path_factory.mktemp("photographs")
    for number, photograph in enumerate(photographs):
        cv2.imwrite(str(path / f"{number}.png"), photograph)
    return path


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The quicker one of the bundled checkpoints, to be written to."""
    return Path(shutil.copytree(locate("small"), tmp_path / "checkpoint"))


def test_differences_and_what_they_are_measured_by_are_those_of_the_true_places() -> None:
    """B at twice the size: A's covariances count fourfold there."""
    truth = np.diag([2.0, 2.0, 1.0])
    xy = np.array([[10, 20], [30, 5], [50, 40]], np.float32)
    described = np.eye(3, dtype=np.float32)
    around = np.tile(np.diag([1.0, 0.5]).astype(np.float32), (3, 1, 1))
    a = Features(xy, np.ones(3, np.float32), described, (60, 80), covariance=around)
    there = 2 * xy + np.array([[1, 0], [0, -2], [30, 0]], np.float32)  # the last is another corner
    b = Features(there, np.ones(3, np.float32), described, (120, 160), covariance=around)
    blank = np.zeros((60, 80), np.uint8)
    offset, spread = differences(a, b, LoadedHomography(blank, blank, truth))
    np.testing.assert_allclose(offset, [[1, 0], [0, -2]], atol=1e-5)
    np.testing.assert_allclose(spread, np.tile(np.diag([5.0, 2.5]), (2, 1, 1)), atol=1e-5)


@pytest.mark.weights
def test_the_bundled_scale_is_what_photographs_show(folder: Path) -> None:
    """On other pictures than those that it was fitted on; and wider blobs scatter more."""
    found = calibrate("default", generated_pairs(sorted(folder.iterdir()), 24, seed=3))
    held = Detector("default").checkpoint.detection.covariance_scale
    assert held is not None
    assert found.scale == pytest.approx(held, rel=0.3)
    assert found.stated_px[-1] > 1.5 * found.stated_px[0]
    assert found.measured_px[-1] > 1.3 * found.measured_px[0]
    assert found.matches > LEAST_MATCHES


def test_one_broken_photograph_stops_nothing(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    photos = [*sorted(folder.iterdir()), tmp_path / "broken.png"]
    assert calibrate("small", generated_pairs(photos, 15, seed=3)).matches > LEAST_MATCHES


def test_too_few_matches_are_no_calibration(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "blank.png"), np.full((200, 300), 90, np.uint8))
    with pytest.raises(ConfigError, match="give more photographs"):
        calibrate("default", generated_pairs([tmp_path / "blank.png"], 3, seed=3))


@pytest.mark.usefixtures("small_frames")
def test_the_command_writes_what_the_detector_then_uses(copied: Path, folder: Path) -> None:
    before = json.loads((copied / "config.json").read_text())
    for name in MEASURED:
        before["tiepoint"].pop(name, None)
    (copied / "config.json").write_text(json.dumps(before))
    arguments = ["calibrate", str(copied), "--photos", str(folder), "--count", "6"]
    result = CliRunner().invoke(app, [*arguments, "--no-write"])
    assert result.exit_code == 0, result.output
    assert json.loads((copied / "config.json").read_text()) == before
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    after = json.loads((copied / "config.json").read_text())
    scale, floor = (after["tiepoint"].pop(name) for name in MEASURED)
    assert after == before
    assert f"scale {scale:g} from" in result.output
    assert f"noise floor {floor:g}" in result.output
    detection = Detector(copied).checkpoint.detection
    assert (detection.covariance_scale, detection.noise_floor) == (scale, floor)


def test_a_checkpoint_of_transformers_is_not_marked(copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text())
    config.pop("tiepoint")
    (copied / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="transformers' rules"):
        store(copied, {"covariance_scale": 0.3})


@pytest.mark.parametrize("wrong", [0, -1.0, "wide", float("nan"), True])
def test_a_scale_that_is_none_is_refused(copied: Path, wrong: object) -> None:
    config = json.loads((copied / "config.json").read_text())
    config["tiepoint"]["covariance_scale"] = wrong
    (copied / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"covariance_scale|a number that is nan"):
        Detector(copied)
