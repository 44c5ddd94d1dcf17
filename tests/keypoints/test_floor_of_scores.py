"""The noise floor: no keypoint below it, whatever the threshold, the scale and the engine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from support.checkpoints import random_checkpoint
from support.heatmaps import ALL, empty_map
from support.selection import select
from tiepoint import Detector
from tiepoint.keypoints.result import Keypoints, tighten_threshold


def three_peaks() -> np.ndarray:
    heatmap = empty_map()
    heatmap[5, 5], heatmap[5, 20], heatmap[18, 10] = 0.001, 0.002, 0.3
    return heatmap


@pytest.mark.parametrize(
    ("threshold", "noise_floor", "left"),
    [(0.0, 0.0, 3), (0.0, 0.001, 2), (0.0, 0.01, 1), (0.1, 0.001, 1), (0.001, 0.5, 0)],
)
def test_a_peak_must_exceed_threshold_and_floor(
    threshold: float, noise_floor: float, left: int
) -> None:
    config = replace(ALL, threshold=threshold, noise_floor=noise_floor)
    xy, scores = select(three_peaks(), config)
    assert len(xy) == len(scores) == left


@pytest.mark.parametrize("spread", [False, True])
def test_torch_leaves_the_same_peaks(spread: bool) -> None:
    torch = pytest.importorskip("torch")
    from tiepoint.keypoints import on_torch

    heatmap = three_peaks()
    config = replace(ALL, noise_floor=0.0015, max_keypoints=3, spread=spread)
    xy, scores = select(heatmap, config)
    flat = on_torch.select(torch.from_numpy(heatmap)[None], [heatmap.shape], config)
    assert len(xy) == 2
    np.testing.assert_array_equal(flat.xy.numpy(), xy)
    np.testing.assert_array_equal(flat.scores.numpy(), scores)


def test_a_threshold_tightened_for_the_next_scale_keeps_the_floor() -> None:
    config = replace(ALL, noise_floor=0.2, max_keypoints=2)
    scores = np.array([0.5, 0.4], np.float32)
    full = Keypoints(np.zeros((2, 2), np.float32), scores, None)
    assert tighten_threshold(config, [full]).min_score == pytest.approx(0.4)
    few = Keypoints(np.zeros((1, 2), np.float32), scores[:1], None)
    assert tighten_threshold(config, [few]).min_score == 0.2


@pytest.mark.parametrize("engine", ["openvino", "torch"])
@pytest.mark.parametrize("scales", [(1.0,), (1.0, 0.6)])
def test_a_detector_takes_its_checkpoints_floor_unless_it_is_given_another(
    engine: Any, scales: tuple[float, ...]
) -> None:
    if engine == "torch":
        pytest.importorskip("torch")
    origin = random_checkpoint()
    image = np.random.default_rng(3).integers(0, 256, (60, 90), np.uint8)
    detector = Detector(origin, engine=engine, device="cpu", threshold=0.0, scales=scales)
    every = detector(image)
    floor = float(np.median(every.scores))
    floored = replace(origin, detection=replace(origin.detection, noise_floor=floor))
    detector = Detector(floored, engine=engine, device="cpu", threshold=0.0, scales=scales)
    above = detector(image)
    assert 10 < len(above) < len(every)
    kept = every.scores > floor
    np.testing.assert_allclose(above.xy, every.xy[kept], atol=1e-4)
    np.testing.assert_allclose(above.descriptors, every.descriptors[kept], atol=1e-5)
    assert above.provenance.settings["noise_floor"] == floor
    assert len(detector(image, noise_floor=0.0)) == len(every)
