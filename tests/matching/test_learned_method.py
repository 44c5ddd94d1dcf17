"""`match(method="learned")`: one choice, honest options, and images that are turned first."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import tiepoint
from support.learned_matchers import Recorder, random_features, related_features, saved
from support.rotations import D, eighth, rotated_pair
from tiepoint.errors import CheckpointError, ConfigError
from tiepoint.features import Features
from tiepoint.matching.descriptors import rotation_matrix_of
from tiepoint.matching.learned.inputs import normalised
from tiepoint.matching.learned.matcher import LearnedMatcher
from tiepoint.matching.match import match
from tiepoint.matching.rotation import rotate_descriptors, rotate_xy, rotated
from tiepoint.weights.checkpoint import BUNDLED, load_checkpoint

LENGTH = 16


@pytest.fixture(scope="module")
def matcher(tmp_path_factory: pytest.TempPathFactory) -> LearnedMatcher:
    return LearnedMatcher(saved(tmp_path_factory.mktemp("matcher")))


@pytest.fixture
def recorder(matcher: LearnedMatcher, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder(matcher._running())
    monkeypatch.setattr(matcher, "_running", lambda: recorder)
    return recorder


def probabilities(a: Features, b: Features) -> NDArray[np.float64]:
    """N_A N_B, the assignment of `nearest_tensors`."""
    assert a.descriptors is not None and b.descriptors is not None
    powers = np.exp(a.descriptors.astype(np.float64) @ b.descriptors.T / 0.05)
    chance = 1 / (1 + np.exp(-10))
    shares = powers / powers.sum(axis=1, keepdims=True) * powers / powers.sum(axis=0)
    return shares * chance**2


def test_a_matcher_that_compares_descriptors_gives_nearest_neighbours(
    matcher: LearnedMatcher,
) -> None:
    a, b = related_features(60, LENGTH)
    learned = match(a, b, method="learned", matcher=matcher, min_probability=0)
    nearest = match(a, b)
    assert len(nearest) == 40
    assert set(map(tuple, nearest.pairs[nearest.scores > 0.9])) <= set(map(tuple, learned.pairs))
    assert (np.diff(learned.scores) <= 0).all()
    expected = probabilities(a, b)[tuple(learned.pairs.T)]
    np.testing.assert_allclose(learned.scores, expected, rtol=1e-3)


def test_the_minimum_probability_is_the_matchers_own_or_the_given_one(tmp_path: Path) -> None:
    a, b = related_features(60, LENGTH)
    every = match(a, b, method="learned", matcher=saved(tmp_path / "0", threshold=0))
    limit = float(np.median(every.scores))
    own = match(a, b, method="learned", matcher=saved(tmp_path / "1", threshold=limit))
    given = match(a, b, method="learned", matcher=tmp_path / "0", min_probability=limit)
    assert 0 < len(own) < len(every)
    assert np.array_equal(own.pairs, given.pairs)
    assert own.scores.min() > limit
    assert own.meta["settings"]["min_probability"] == limit


def test_matches_record_the_matcher_and_only_the_settings_that_it_has(
    matcher: LearnedMatcher,
) -> None:
    a, b = related_features(30, LENGTH)
    meta = match(a, b, method="learned", matcher=matcher, layers=2).meta
    assert meta["matcher_sha256"] == matcher.checkpoint.sha256
    assert meta["settings"] == {
        "method": "learned", "min_probability": 0.1, "rotation": "auto", "layers": 2,
    }  # fmt: skip
    assert "matcher_sha256" not in match(a, b).meta


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mutual": False}, "mutual needs method='nearest'"),
        ({"ratio": 0.8}, "ratio needs method='nearest'.*give min_probability"),
        ({"min_similarity": 0.5}, "min_similarity needs method='nearest'"),
        ({"scores": "dual-softmax"}, "scores needs method='nearest'"),
        ({"temperature": 0.1}, "temperature needs method='nearest'"),
        ({"min_probability": 1.5}, "min_probability is 1.5"),
        ({"layers": 0}, "layers is 0, expected a whole number >= 1"),
        ({"method": "best"}, "method is 'best', expected one of nearest, learned"),
        ({"method": "nearest", "layers": 1}, "layers needs method='learned'"),
        ({"method": "nearest"}, "matcher is given for method='nearest'"),
    ],
)
def test_an_option_of_the_other_method_is_refused_by_name(
    options: dict[str, object], message: str, matcher: LearnedMatcher
) -> None:
    a, b = related_features(10, LENGTH)
    with pytest.raises(ConfigError, match=message):
        match(a, b, matcher=matcher, **{"method": "learned", **options})  # type: ignore[arg-type]


def test_what_contradicts_a_given_matcher_is_refused(matcher: LearnedMatcher) -> None:
    a, b = related_features(10, LENGTH)
    with pytest.raises(ConfigError, match="layers is 1, and the given LearnedMatcher runs 2"):
        match(a, b, method="learned", matcher=matcher, layers=1)
    if tiepoint.errors.is_installed("torch"):
        with pytest.raises(ConfigError, match="device is 'cuda', and the given LearnedMatcher"):
            match(a, b, method="learned", matcher=matcher, device="cuda")
    with pytest.raises(ConfigError, match="layers is 3"):
        match(a, b, method="learned", matcher=matcher.checkpoint.name, layers=3)


@pytest.mark.parametrize("threads", [0, -1, "two", 1.5])
def test_a_number_of_threads_that_makes_no_sense_is_refused(
    threads: object, matcher: LearnedMatcher
) -> None:
    with pytest.raises(ConfigError, match="threads is"):
        LearnedMatcher(matcher.checkpoint, threads=threads)  # type: ignore[arg-type]


def test_a_wrong_matcher_is_refused_before_an_image_is_read(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no config.json and model.safetensors"):
        match("missing.png", "missing.png", method="learned", matcher=tmp_path)


@pytest.mark.parametrize(("count_a", "count_b"), [(0, 0), (0, 5), (5, 0), (1, 5), (5, 1), (1, 1)])
def test_hardly_any_keypoints_give_hardly_any_matches(
    count_a: int, count_b: int, matcher: LearnedMatcher
) -> None:
    a, b = random_features(count_a, LENGTH, 1), random_features(count_b, LENGTH, 2)
    matches = match(a, b, method="learned", matcher=matcher, min_probability=0)
    assert len(matches) <= min(count_a, count_b)
    assert len(matches) > 0 or min(count_a, count_b) == 0
    assert matches.meta["settings"]["method"] == "learned"


def test_features_of_other_weights_are_refused(matcher: LearnedMatcher) -> None:
    a, _ = related_features(10, LENGTH)
    other = random_features(10, LENGTH, weights_sha256="1" * 64)
    with pytest.raises(ConfigError, match="cannot be compared"):
        match(a, other, method="learned", matcher=matcher)
    with pytest.raises(ConfigError, match="expected 0+ by matcher"):
        match(other, other, method="learned", matcher=matcher)


def test_distances_for_opencv_are_those_of_probabilities(matcher: LearnedMatcher) -> None:
    a, b = related_features(20, LENGTH)
    matches = match(a, b, method="learned", matcher=matcher)
    distances = [one.distance for one in matches.to_opencv()]
    np.testing.assert_allclose(distances, 1 - matches.scores, atol=1e-6)


def test_upright_images_reach_the_network_bit_for_bit(
    matcher: LearnedMatcher, recorder: Recorder
) -> None:
    a, b = related_features(60, LENGTH)
    auto = match(a, b, method="learned", matcher=matcher, rotation_matrix=eighth())
    assert auto.turned_deg == 0
    for side, features in zip(recorder.inputs, (a, b), strict=True):
        np.testing.assert_array_equal(side.xy, normalised(features.xy, features.size_hw))
        np.testing.assert_array_equal(side.descriptors, features.descriptors)
    none = match(a, b, method="learned", matcher=matcher, rotation="none")
    np.testing.assert_array_equal(auto.pairs, none.pairs)
    np.testing.assert_array_equal(auto.scores, none.scores)


@pytest.mark.parametrize("steps", [-3, -1, 2, 4])
def test_a_rotated_image_reaches_the_network_turned_back(
    steps: int, matcher: LearnedMatcher, recorder: Recorder
) -> None:
    described_a, described_b = rotated_pair(steps)
    assert D == LENGTH
    sides = []
    for number, described in enumerate((described_a, described_b)):
        one = random_features(len(described), LENGTH, number)
        sides.append(Features(one.xy, one.scores, described, (50, 80), provenance=one.provenance))
    a, b = sides
    found = match(a, b, method="learned", matcher=matcher, rotation_matrix=eighth())
    assert found.turned_deg == 45 * steps
    assert len(found) > 80
    plain = match(a, b, method="learned", matcher=matcher, rotation="none")
    assert len(plain) < 0.8 * len(found)
    expected = rotate_descriptors(described_a, eighth(), steps)
    match(a, b, method="learned", matcher=matcher, rotation_matrix=eighth())
    np.testing.assert_array_equal(recorder.inputs[0].descriptors, expected)
    np.testing.assert_array_equal(recorder.inputs[1].descriptors, described_b)
    moved = recorder.inputs[0].xy.astype(np.float64)
    before = normalised(a.xy, a.size_hw).astype(np.float64)
    # Distances stay, in the scale of the image before.
    np.testing.assert_allclose(
        np.linalg.norm(moved[1:] - moved[0], axis=1),
        np.linalg.norm(before[1:] - before[0], axis=1),
        rtol=1e-4,
    )


def test_a_point_on_the_right_is_at_the_top_after_a_quarter_turn() -> None:
    right, half = np.array([[1.0, 0.0]]), 0.5**0.5
    np.testing.assert_array_equal(rotate_xy(right, 2), [[0, -1]])
    np.testing.assert_array_equal(rotate_xy(right, -2), [[0, 1]])
    np.testing.assert_array_equal(rotate_xy(right, 4), [[-1, 0]])
    np.testing.assert_allclose(rotate_xy(right, 1), [[half, -half]])
    np.testing.assert_allclose(rotate_xy(right, -3), [[-half, half]])


def test_features_that_are_not_turned_are_the_same_object() -> None:
    a = random_features(5, D)
    assert rotated(a, eighth(), 0) is a
    back = rotated(rotated(a, eighth(), 3), eighth(), -3)
    np.testing.assert_allclose(back.xy, a.xy, atol=1e-4)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder with a matcher in it."""
    folder = tmp_path_factory.mktemp("checkpoints") / "small"
    shutil.copytree(BUNDLED / "small", folder)
    saved(folder / "matcher", load_checkpoint(folder))
    return folder


@pytest.mark.parametrize("degrees", [90, 135, -90])
def test_after_the_turn_a_photograph_and_its_rotated_copy_lie_on_each_other(
    degrees: int, small: Path, photographs: list[NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The angle of positions has the direction of the one that descriptors are turned by."""
    side = 320
    image = cv2.resize(photographs[0], (side, side), interpolation=cv2.INTER_AREA)
    centre = ((side - 1) / 2, (side - 1) / 2)
    turn = cv2.getRotationMatrix2D(centre, degrees, 1.0)
    copy = cv2.warpAffine(image, turn, (side, side))
    detector = tiepoint.Detector(small, max_keypoints=300, scales=(1.0,))
    a, b = detector(image), detector(copy)
    matcher = LearnedMatcher(small / "matcher")
    recorder = Recorder(matcher._running())
    monkeypatch.setattr(matcher, "_running", lambda: recorder)
    matches = match(a, b, method="learned", matcher=matcher)
    assert matches.turned_deg == degrees
    i, j = matches.pairs.T
    assert len(matches) > 80
    off = recorder.inputs[0].xy[i] - recorder.inputs[1].xy[j]
    assert (np.hypot(*off.T) < 3 / (side / 2)).mean() > 0.8
    plain = normalised(a.xy, a.size_hw)[i] - recorder.inputs[1].xy[j]
    assert (np.hypot(*plain.T) < 3 / (side / 2)).mean() < 0.1
    matrix = rotation_matrix_of(a)
    assert matrix is not None
    expected = rotate_descriptors(a.descriptors, matrix, degrees // 45)
    np.testing.assert_array_equal(recorder.inputs[0].descriptors, expected)


def test_images_are_detected_and_matched_by_the_matcher_beside_the_checkpoint(
    small: Path, photographs: list[NDArray[np.uint8]]
) -> None:
    image = cv2.resize(photographs[0], (160, 160), interpolation=cv2.INTER_AREA)
    matches = match(image, np.roll(image, 8, axis=1), method="learned", checkpoint=small)
    assert len(matches) > 20
    assert matches.meta["matcher_sha256"] == LearnedMatcher(small / "matcher").checkpoint.sha256
