"""Several scales of an image: one list of keypoints, each where it belongs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

import tiepoint
from tiepoint.cli import app
from tiepoint.config import DetectionConfig, ProcessorConfig
from tiepoint.errors import CheckpointError, ConfigError
from tiepoint.keypoints.result import Keypoints, merge_scales, tighten_threshold
from tiepoint.network.inputs import prepare
from tiepoint.training.presets import PYRAMID
from tiepoint.weights.checkpoint import BUNDLED, bundled_checkpoints


@pytest.fixture(scope="module")
def photograph() -> NDArray[np.uint8]:
    from skimage import data

    return np.ascontiguousarray(cv2.cvtColor(data.coffee(), cv2.COLOR_RGB2GRAY)[:240, :320])


@pytest.fixture(scope="module")
def detector() -> tiepoint.Detector:
    return tiepoint.Detector(threshold=0.0, max_keypoints=200)


def level(*points: tuple[float, float, float]) -> Keypoints[NDArray[np.float32]]:
    x, y, score = np.array(points, np.float32).T
    return Keypoints(np.stack([x, y], axis=1), score, np.stack([score, score], axis=1))


def test_scales_come_in_one_list_best_first_with_ties_by_y_then_x() -> None:
    first, second = level((5, 5, 0.9), (9, 2, 0.4)), level((3, 2, 0.4), (1, 1, 0.95), (0, 0, 0.1))
    found = merge_scales([first, second], 4)
    assert found.xy.tolist() == [[1, 1], [5, 5], [3, 2], [9, 2]]
    assert found.descriptors is not None
    np.testing.assert_array_equal(found.descriptors[:, 0], found.scores)
    assert merge_scales([first], None) is first
    bare = [one._replace(descriptors=None) for one in (first, second)]
    assert merge_scales(bare, None).descriptors is None


@pytest.mark.parametrize("max_side", [None, 160, 999])
def test_a_scale_is_a_part_of_the_size_that_max_side_leaves(max_side: int | None) -> None:
    image = np.zeros((240, 320), np.uint8)
    config = ProcessorConfig(max_side)
    _, (whole,) = prepare([image], config, 1)
    _, (half,) = prepare([image], config, 0.5)
    assert half.resized_hw == tuple(side // 2 for side in whole.resized_hw)
    assert half.image_hw == (240, 320)


def test_a_pyramid_is_its_levels_together(
    detector: tiepoint.Detector, photograph: NDArray[np.uint8]
) -> None:
    every = 5000  # more than there are
    whole, half = (detector(photograph, scales=(s,), max_keypoints=every) for s in (1, 0.5))
    both = detector(photograph, scales=(1, 0.5), max_keypoints=every)
    assert len(both) == len(whole) + len(half)
    places = {*map(tuple, whole.xy.tolist()), *map(tuple, half.xy.tolist())}
    assert {*map(tuple, both.xy.tolist())} == places
    assert (np.diff(both.scores) <= 0).all()
    assert both.provenance.settings["scales"] == [1, 0.5]
    for most in (200, 350):
        best = detector(photograph, scales=(1, 0.5), max_keypoints=most)
        np.testing.assert_array_equal(best.xy, both.xy[:most])
        np.testing.assert_array_equal(best.scores, both.scores[:most])
        np.testing.assert_allclose(best.descriptors, both.descriptors[:most], atol=1e-6)


def test_each_keypoint_states_the_scale_at_which_it_was_found(
    detector: tiepoint.Detector, photograph: NDArray[np.uint8]
) -> None:
    both = detector(photograph, scales=(1, 0.5), max_side=160, max_keypoints=None)
    coarse = detector(photograph, scales=(0.5,), max_side=160, max_keypoints=None)
    assert both.scales_px.dtype == np.float32 and set(both.scales_px.tolist()) == {2.0, 4.0}
    assert set(coarse.scales_px.tolist()) == {4.0}
    at_half = both.take(both.scales_px == 4)
    assert {*map(tuple, at_half.xy.tolist())} == {*map(tuple, coarse.xy.tolist())}
    assert both.px_per_input_px == 2.0
    streamed = next(detector.stream([photograph], scales=(1, 0.5), max_side=160, max_keypoints=9))
    np.testing.assert_array_equal(streamed.features.scales_px, both.scales_px[:9])
    odd = detector(photograph[:, :313], max_side=100, scales=(1,))
    np.testing.assert_allclose(odd.scales_px, 3.13, rtol=1e-6)


def test_no_point_that_would_stay_is_below_what_is_looked_for_at_the_next_scale() -> None:
    config = DetectionConfig(threshold=0.1, max_keypoints=2)
    strong, weak = level((5, 5, 0.9), (9, 2, 0.4)), level((3, 2, 0.3), (1, 1, 0.2))
    asked = tighten_threshold(config, [strong, weak]).threshold
    assert 0.19 < asked < 0.2  # a score of .2 may come before the weak one's last
    assert tighten_threshold(config, [strong, level((1, 1, 0.9))]) == config  # too few so far
    assert tighten_threshold(replace(config, max_keypoints=None), [strong]).threshold == 0.1
    assert tighten_threshold(replace(config, threshold=0.5), [strong]).threshold == 0.5


def test_an_image_and_its_half_match_better_with_a_pyramid(
    detector: tiepoint.Detector, photograph: NDArray[np.uint8]
) -> None:
    small = cv2.resize(photograph, None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA)
    b = detector(small, max_keypoints=100)
    right = []
    for scales in ((1.0,), (1.0, 0.7, 0.4)):
        a = detector(photograph, scales=scales, max_keypoints=400)
        i, j = tiepoint.match(a, b).pairs.T
        there = (a.xy[i] + 0.5) * 0.4 - 0.5
        right.append(int((np.hypot(*(there - b.xy[j]).T) < 2).sum()))
    assert right[1] > 1.5 * right[0]


@pytest.mark.parametrize(
    "scales", [(), (0,), (2.5,), (1, 1), (-0.5,), (float("nan"),), 0.5, ([1],), "1", (True,)]
)
def test_nonsense_scales_are_refused(scales: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="scales"):
        tiepoint.Detector(scales=scales)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_an_enlarged_image_has_its_keypoints_where_they_belong(
    detector: tiepoint.Detector, photograph: NDArray[np.uint8], kind: type
) -> None:
    """As if it had been enlarged before, half-pixel exact, whatever its type."""
    image = photograph[:120, :160]
    given = image.astype(np.float32) / 255 if kind is np.float32 else image.astype(kind)
    given = given * np.uint16(257) if kind is np.uint16 else given
    found = detector(given, scales=(1.5,))
    height, width = image.shape[:2]
    size_wh = round(width * 1.5), round(height * 1.5)
    large = cv2.resize(given, size_wh, interpolation=cv2.INTER_CUBIC)
    expected = detector(np.clip(large, 0, 1) if kind is np.float32 else large, scales=(1,))
    scale = np.array([width / large.shape[1], height / large.shape[0]])
    assert len(found) == len(expected) > 30
    np.testing.assert_allclose(found.xy, (expected.xy + 0.5) * scale - 0.5, atol=1e-3)
    assert found.size_hw == (height, width)


def test_the_command_line_takes_scales(photograph: NDArray[np.uint8], tmp_path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), photograph)
    out = tmp_path / "a.npz"
    command = ["detect", str(tmp_path / "a.png"), "-o", str(out), "--scales"]
    result = CliRunner().invoke(app, [*command, "1,0.5"])
    assert result.exit_code == 0, result.output
    assert tiepoint.load(out).provenance.settings["scales"] == [1, 0.5]
    assert CliRunner().invoke(app, [*command, "1;2"]).exit_code == 2


def test_spreading_over_several_scales_is_refused(detector: tiepoint.Detector) -> None:
    with pytest.raises(ConfigError, match="spread goes with one scale"):
        detector(np.zeros((40, 40), np.uint8), scales=(1, 0.5), spread=True)


def test_spreading_takes_one_scale_unless_told(
    detector: tiepoint.Detector, photograph: NDArray[np.uint8]
) -> None:
    spread = detector(photograph, spread=True)
    assert spread.provenance.settings["scales"] == [1]
    assert len(spread) == 200


def test_a_checkpoint_says_at_which_scales_it_looks(
    photograph: NDArray[np.uint8], tmp_path: Path
) -> None:
    for name in bundled_checkpoints():
        assert tiepoint.Detector(name).provenance().settings["scales"] == list(PYRAMID)
    copy = shutil.copytree(BUNDLED / "small", tmp_path / "own")
    config = json.loads((copy / "config.json").read_text())
    for own, seen in (({"scales": [0.7]}, (0.7,)), ({}, (1,))):
        config["tiepoint"] = {"version": 1, "rules": "exact", **own}
        (copy / "config.json").write_text(json.dumps(config))
        by_itself, told = tiepoint.Detector(copy), tiepoint.Detector("small", scales=seen, phases=1)
        assert by_itself(photograph).provenance.settings["scales"] == list(seen)
        np.testing.assert_array_equal(by_itself(photograph).xy, told(photograph).xy)
    config["tiepoint"]["scales"] = [-1]
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"config.json: scales holds -1"):
        tiepoint.Detector(copy)
