"""The measured noise floor: frames of noise, and what a checkpoint gives them."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from support.checkpoints import random_checkpoint
from tiepoint import Detector, register
from tiepoint.evaluation import noise_floor
from tiepoint.evaluation.noise_floor import (
    FRAMES,
    MARGIN,
    RANK,
    SIZES_HW,
    frames,
    measure_noise_floor,
)
from tiepoint.features import Features
from tiepoint.weights.checkpoint import BUNDLED, bundled_checkpoints, load_checkpoint


class Scorer:
    """A detector whose lowest keypoint of a frame has a score by the frame's index."""

    def __init__(self, score: Any, sparse: Any = ()) -> None:
        self.checkpoint, self.score, self.sparse = random_checkpoint(), score, sparse

    def __call__(self, *_: object, **__: object) -> Scorer:
        return self

    def stream(self, images: Any) -> Any:
        for index, image in enumerate(images):
            scores = np.linspace(1, self.score(index), RANK - (index in self.sparse))
            yield Detected(Features(np.zeros((len(scores), 2)), scores, None, image.shape))


class Detected:
    def __init__(self, features: Features) -> None:
        self.features = features

    def require(self) -> Features:
        return self.features


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the smallest frames."""
    monkeypatch.setattr(noise_floor, "SIZES_HW", SIZES_HW[:1])


def test_there_are_frames_of_all_sizes() -> None:
    shapes = [frame.shape for frame in frames()]
    assert len(shapes) == FRAMES and set(shapes) == set(SIZES_HW)


def test_frames_are_the_same_in_every_run_and_show_hardly_anything(few: None) -> None:
    first, again = list(frames()), list(frames())
    assert len(first) == len(again) == FRAMES // len(SIZES_HW)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.shape == SIZES_HW[0]
        grey = one / (257 if one.dtype == np.uint16 else 1)
        assert (grey - cv2.GaussianBlur(grey, (0, 0), 3)).std() < 2.5
    assert {one.dtype for one in first} == {np.dtype(np.uint8), np.dtype(np.uint16)}


def test_the_floor_leaves_every_frame_fewer_keypoints_than_a_registration_needs(
    few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noise_floor, "Detector", Scorer(lambda index: index * 1e-5))
    done: list[int] = []
    floor = measure_noise_floor("any", on_frame=lambda: done.append(1))
    assert len(done) == FRAMES // len(SIZES_HW)
    assert floor == pytest.approx(MARGIN * 1e-5 * (len(done) - 1), rel=0.05)


def test_frames_with_too_few_keypoints_give_no_floor(
    few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noise_floor, "Detector", Scorer(lambda index: 0.5, range(FRAMES)))
    assert measure_noise_floor("any") == 0
    monkeypatch.setattr(noise_floor, "Detector", Scorer(lambda index: 1e-3, range(1, FRAMES)))
    assert measure_noise_floor("any") == pytest.approx(MARGIN * 1e-3, rel=0.05)


def test_the_floor_is_never_above_the_threshold(
    few: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(noise_floor, "Detector", Scorer(lambda index: 0.5))
    with caplog.at_level(logging.WARNING, logger=noise_floor.__name__):
        assert measure_noise_floor("any") == random_checkpoint().detection.threshold
        assert measure_noise_floor("any", 0.3) == 0.3
    assert "noise reaches a score of 0.5" in caplog.text


@pytest.mark.weights
def test_the_bundled_floor_is_what_is_measured(few: None) -> None:
    """On the smallest frames: not above the floor of all frames, and of its magnitude."""
    for name in bundled_checkpoints():
        stored = load_checkpoint(name).detection.noise_floor
        assert stored / 20 < measure_noise_floor(BUNDLED / name) <= stored


@pytest.mark.weights
@pytest.mark.parametrize("name", bundled_checkpoints())
@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_two_dark_frames_give_no_keypoints_even_without_threshold(name: str, engine: Any) -> None:
    if engine == "torch":
        pytest.importorskip("torch")
    random = np.random.default_rng(0)
    dark = [np.clip(random.normal(8, 1, (240, 320)), 0, 255).astype(np.uint8) for _ in range(2)]
    detector = Detector(name, engine=engine, device="cpu", precision="f32", threshold=0.0)
    a, b = detector(dark)
    assert len(a) == len(b) == 0
    assert len(detector(dark[0], scales=(1.0, 0.5, 2.0))) < RANK  # enlarged noise is stronger
    assert len(detector(dark[0], noise_floor=0.0)) > 100
    registration = register(a, b)
    assert not registration.success
    assert "no keypoints in images A and B" in registration.reason


@pytest.mark.weights
@pytest.mark.parametrize("name", bundled_checkpoints())
def test_no_result_at_the_checkpoints_threshold_changes(
    name: str, photographs: list[np.ndarray]
) -> None:
    detector = Detector(name, device="cpu", precision="f32", max_side=240)
    detection = detector.checkpoint.detection
    assert 0 < detection.noise_floor < detection.threshold / 20
    for photograph in photographs[:2]:
        floored, plain = (detector(photograph, **o) for o in ({}, {"noise_floor": 0.0}))
        np.testing.assert_array_equal(floored.xy, plain.xy)
        np.testing.assert_array_equal(floored.scores, plain.scores)


@pytest.mark.weights
def test_a_checkpoint_without_the_key_has_the_points_of_noise(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(BUNDLED / "small", tmp_path / "mine"))
    measured = load_checkpoint(folder).detection
    config = json.loads((folder / "config.json").read_text())
    assert config["tiepoint"].pop("noise_floor") == measured.noise_floor
    (folder / "config.json").write_text(json.dumps(config))
    assert load_checkpoint(folder).detection == replace(measured, noise_floor=0.0)
    dark = np.random.default_rng(0).integers(7, 10, (120, 160), np.uint8)
    assert len(Detector(folder, threshold=0.0)(dark)) > 50
