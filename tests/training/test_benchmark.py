"""The held-out benchmark: other photographs than those trained on, and a threshold for them."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tiepoint.detector import Detector
from tiepoint.images.photographs import part_of
from tiepoint.training.detector import benchmark
from tiepoint.training.detector.benchmark import Benchmark
from tiepoint.weights.checkpoint import BUNDLED, DEFAULT


@pytest.fixture
def photos(tmp_path: Path, photographs: list[NDArray[np.uint8]]) -> Path:
    """A folder with photographs of both parts."""
    for number in range(12):
        image = photographs[number % len(photographs)]
        cv2.imwrite(str(tmp_path / f"photo_{number}.jpg"), image)
    return tmp_path


def test_only_held_out_photographs_are_measured(photos: Path) -> None:
    held_out = Benchmark([photos], 2)
    parts = {part_of(path.name) for path in photos.iterdir()}
    assert parts == {"training", "development"}
    assert held_out.photos and all(part_of(p.name) == "development" for p in held_out.photos)
    assert len(held_out.pairs) == 2


def test_figures_stand_beside_sift_and_orb(photos: Path) -> None:
    found = Benchmark([photos], 2).measure(BUNDLED / DEFAULT)
    assert set(found) == {"tiepoint", "sift", "orb"}
    for figures in found.values():
        assert all(0 <= value <= 1 for value in figures.values())
        assert figures["repeatability"] > 0.1


def test_the_threshold_leaves_the_median_photograph_the_points_it_should_have(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "TARGET_KEYPOINTS", 100)
    held_out = Benchmark([photos], 1)
    threshold = held_out.threshold(BUNDLED / DEFAULT)
    detector = Detector(threshold=threshold, max_side=640, scales=(1,))
    counts = [len(features) for _, features, _ in detector.stream(held_out.photos)]
    # Half of them have that many or more, half of them that many or fewer; it is rounded.
    assert sum(count >= 95 for count in counts) >= len(counts) / 2
    assert sum(count <= 105 for count in counts) >= len(counts) / 2


def test_without_photographs_there_is_nothing_to_measure(tmp_path: Path) -> None:
    empty = Benchmark([], 5)
    assert empty.measure(BUNDLED / DEFAULT) == {} and empty.threshold(tmp_path) is None


def test_a_folder_without_a_held_out_part_is_logged_and_left_out(
    photos: Path, tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
) -> None:
    other = tmp_path_factory.mktemp("empty")
    with caplog.at_level(logging.INFO, logger=benchmark.__name__):
        held_out = Benchmark([other, photos], 2)
    assert held_out.photos and all(path.parent == photos for path in held_out.photos)
    assert "no held-out photographs" in caplog.text


def test_without_matches_positions_are_not_calibrated_and_the_log_has_the_reason(
    photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    held_out = Benchmark([photos], 2)
    for path in held_out.photos:
        path.unlink()
    assert held_out.covariance_scale(BUNDLED / "small") is None
    assert "positions are not calibrated" in caplog.text


def test_without_pairs_there_is_no_covariance_scale(tmp_path: Path) -> None:
    assert Benchmark([], 5).covariance_scale(tmp_path) is None


def test_held_out_photographs_that_cannot_be_read_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "skimage_cc0_bad.png").write_bytes(b"no picture")
    broken = Benchmark([tmp_path], 3)
    assert broken.measure(BUNDLED / DEFAULT) == {} and broken.threshold(BUNDLED / DEFAULT) is None
    assert "skimage_cc0_bad.png" in caplog.text
