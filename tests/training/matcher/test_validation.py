"""Held-out pairs: the poses and homographies of their ground truth are right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from support.checkpoints import random_checkpoint
from tiepoint.registration import epipolar
from tiepoint.training.matcher.bank import Scenes, write_shard
from tiepoint.training.matcher.drawing import scene_features
from tiepoint.training.matcher.settings import SMOKE_DATA
from tiepoint.training.matcher.validation import HeldOut, Validation, flat_figures
from tiepoint.training.matcher.workers import Drawing


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[HeldOut]:
    """A flat scene and one with depth."""
    detector = Drawing(random_checkpoint(), SMOKE_DATA, 3).detector(1)
    path: Path = tmp_path_factory.mktemp("bank") / "held-out.safetensors"
    drawn = [
        scene_features(detector, replace(SMOKE_DATA, two_camera_share=share), 3, 1)
        for share in (0.0, 1.0)
    ]
    write_shard(path, drawn)
    return Validation(Scenes([path])).pairs


def exact(pair: HeldOut) -> tuple[np.ndarray, np.ndarray]:
    """Exact positions of A's keypoints in both images."""
    a, _ = pair.sides
    known = np.isfinite(a.other_xy[:, 0]) & ~a.doubtful
    return a.xy[known], a.other_xy[known]


def test_all_pairs_of_a_flat_scene_have_its_homography(pairs: list[HeldOut]) -> None:
    planar = [pair for pair in pairs if pair.kind == "planar"]
    assert len(planar) == 6
    checked = 0
    for pair in planar:
        xy_a, xy_b = exact(pair)
        if len(xy_a) >= 10:
            assert pair.is_right(xy_a, xy_b) == 1
            assert pair.is_right(xy_a, xy_b[::-1]) == 0
            checked += 1
    assert checked >= 3


def test_exact_positions_are_on_the_epipolar_lines_of_the_pose(pairs: list[HeldOut]) -> None:
    two = [pair for pair in pairs if pair.kind == "two_camera"]
    assert two
    checked = 0
    for pair in two:
        assert pair.pose is not None and pair.intrinsics is not None
        cameras = pair.intrinsics, pair.intrinsics
        xy_a, xy_b = exact(pair)
        fundamental = epipolar.pixel_matrix(pair.pose.essential, cameras)
        assert np.all(epipolar.sampson_px(fundamental, xy_a, xy_b) < 0.01)
        checked += len(xy_a)
    assert checked > 50


def test_no_matches_give_no_pose(pairs: list[HeldOut]) -> None:
    nothing = np.zeros((0, 2), np.float32)
    assert all(pair.is_right(nothing, nothing) == 0 for pair in pairs)


def test_rows_and_names_are_one_level_in_the_log() -> None:
    assert flat_figures({"planar": {"recall": 1 / 3}}) == {"planar_recall": 0.33333}
