"""Several methods on one pair of images."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import tiepoint
from tiepoint.config import RegistrationConfig
from tiepoint.errors import CheckpointError, ConfigError, ImageError
from tiepoint.evaluation import comparison_views as views
from tiepoint.evaluation.approaches import Approach, Making
from tiepoint.evaluation.compare import Comparison, compare
from tiepoint.evaluation.settings import COMPARED, CompareSettings
from tiepoint.features import Features
from tiepoint.images.reading import SourceImage, read
from tiepoint.weights.checkpoint import bundled_checkpoints

TRUTH = np.array([[0.95, 0.08, 20], [-0.05, 0.95, 25], [5e-5, 5e-5, 1]])
UNTIMED = CompareSettings(repeats=0)
Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]


@pytest.fixture(scope="module")
def pair(photographs: list[NDArray[np.uint8]]) -> Pair:
    photo = photographs[2]
    return photo, cv2.warpPerspective(photo, TRUTH, photo.shape[1::-1])


@pytest.fixture(scope="module")
def comparison(pair: Pair) -> Comparison:
    return compare(*pair, ["small", "sift", "orb", "missing"], settings=UNTIMED)


def moved(name: str, shift_px: float) -> Approach:
    """SIFT whose keypoints of the second image are off by some px, as if it were sure of them."""
    sift, calls = Making(1024)("sift"), itertools.count()

    def detect(image: SourceImage, k: int) -> Features:
        features = sift.detect(image, k)
        xy = features.xy + np.float32([shift_px * (next(calls) % 2), 0])
        return replace(features, xy=xy)

    return replace(sift, name=name, detect=detect)


def test_the_default_has_every_bundled_checkpoint_and_opencv() -> None:
    assert set(COMPARED) == {*bundled_checkpoints(), "sift", "orb"}


def test_a_checkpoint_has_the_result_of_register(pair: Pair, comparison: Comparison) -> None:
    expected = tiepoint.register(*pair, checkpoint="small")
    result = comparison.methods[0].registration
    assert result is not None and expected.success
    assert result.summary() == expected.summary()
    np.testing.assert_array_equal(result.inliers, expected.inliers)


def test_methods_that_find_the_true_transform_agree(comparison: Comparison) -> None:
    assert comparison.consensus == ("small", "sift", "orb")
    assert comparison.spread_px is not None and comparison.spread_px < 3
    for one in comparison.methods[:3]:
        assert one.registration is not None and one.success
        np.testing.assert_allclose(one.registration.matrix, TRUTH, rtol=0.05, atol=1.0)


def test_a_method_that_fails_is_a_row_with_its_reason(comparison: Comparison) -> None:
    failed = comparison.methods[3]
    assert failed.name == "missing" and not failed.success
    assert "neither a bundled name" in failed.reason
    assert failed.registration is None and failed.in_consensus is None
    assert np.isnan(comparison.distances_px[3]).all()


def test_the_odd_one_out_is_found(pair: Pair) -> None:
    methods = {"sift": 0.0, "also": 0.0, "off": 6.0}
    result = compare(
        *pair, list(methods), settings=UNTIMED, source=lambda name: moved(name, methods[name])
    )
    assert result.consensus == ("sift", "also")
    off = result.methods[2]
    assert off.success and off.in_consensus is False
    assert off.from_others_px == pytest.approx(6, abs=0.01)
    assert views.conclusion(result).endswith("odd: off")


def test_unrelated_images_are_refused_by_every_method(
    photographs: list[NDArray[np.uint8]],
) -> None:
    result = compare(photographs[0], photographs[2], ["small", "orb"], settings=UNTIMED)
    assert [one.success for one in result.methods] == [False, False]
    assert all(one.reason and one.error is None for one in result.methods)
    assert result.consensus == () and result.spread_px is None
    assert "0 of 2 methods" in views.conclusion(result)
    assert [line.split(":")[0] for line in views.reasons(result)] == ["small", "orb"]


def test_opencvs_features_are_in_px_of_the_image(pair: Pair) -> None:
    image = read(pair[0])
    whole, half = Making(None)("sift").detect(image, 5000), Making(300)("sift").detect(image, 100)
    assert whole.size_hw == half.size_hw == pair[0].shape[:2]
    assert half.px_per_input_px == pytest.approx(max(pair[0].shape) / 300)
    nearest = np.linalg.norm(whole.xy[:, None] - half.xy[None], axis=2).min(axis=0)
    assert np.median(nearest) < 1


def test_times_are_medians_in_turns_after_an_untimed_run(pair: Pair) -> None:
    seconds = itertools.count()
    methods = {"sift": 0.0, "also": 0.0}
    result = compare(
        *pair, list(methods), settings=CompareSettings(repeats=3),
        source=lambda name: moved(name, 0.0), clock=lambda: float(next(seconds)),
    )  # fmt: skip
    assert next(seconds) == 5 * 2 * 4  # 5 readings of each of 2 methods in 4 runs
    for one in result.methods:
        assert one.times is not None
        assert (one.times.detect, one.times.match, one.times.fit) == (1000, 1000, 2000)


def test_nonsense_is_refused(pair: Pair, tmp_path: Path) -> None:
    for methods in ([], ["sift", "sift"]):
        with pytest.raises(ConfigError, match="no name twice"):
            compare(*pair, methods)
    for values in ({"model": "essential"}, {"method": "learned"}):
        with pytest.raises(ConfigError):
            compare(*pair, ["sift"], config=RegistrationConfig(**values))
    with pytest.raises(ImageError):
        compare(tmp_path / "none.png", pair[1], ["sift"])
    for values in ({"agree_px": 0}, {"repeats": -1}, {"max_side": 0}):
        with pytest.raises(ConfigError):
            CompareSettings(**values)
    with pytest.raises(CheckpointError):
        Making(None)("nothing of this name")


def test_a_model_that_maps_points_to_lines_has_no_agreement(pair: Pair) -> None:
    config = RegistrationConfig(model="fundamental")
    result = compare(*pair, ["sift"], config=config, settings=UNTIMED)
    assert np.isnan(result.distances_px).all()
    assert "agreement is not measured" in views.conclusion(result)


def test_the_json_has_plain_finite_values(comparison: Comparison) -> None:
    content = json.loads(json.dumps(views.comparison_json(comparison), allow_nan=False))
    assert content["consensus"] == ["small", "sift", "orb"]
    assert [one["verdict"] for one in content["methods"]] == [*["registered"] * 3, "failed"]
    assert content["methods"][0]["settings"]["weights_sha256"]
    assert content["distances_px"][3] == [None] * 4
    assert math.isclose(content["spread_px"], comparison.spread_px or 0)


def test_the_table_has_a_row_for_each_method(comparison: Comparison) -> None:
    table = views.comparison_table(comparison)
    assert table.row_count == 4
    by_heading = {column.header: list(column.cells) for column in table.columns}
    assert by_heading["method"] == ["small", "sift", "orb", "missing"]
    assert by_heading["consensus"] == ["yes", "yes", "yes", "-"]
    assert "detect ms" not in by_heading  # nothing was timed


def test_the_picture_has_a_row_for_each_method(comparison: Comparison) -> None:
    picture = views.comparison_picture(comparison)
    height, width = comparison.image_a.size_hw
    row = round(views.ROW_SIDE_PX * height / width)
    assert picture.shape[0] >= 3 * (row + views.BAR_PX) + 2 * views.BAR_PX
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    first = picture[views.BAR_PX : views.BAR_PX + row]
    assert (np.ptp(first.astype(int), axis=2) > 100).mean() > 0.01  # coloured lines
