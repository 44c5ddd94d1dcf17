"""A matcher of one detector starts a matcher of another one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("openvino")

import torch

from support.checkpoints import random_checkpoint
from support.learned_matchers import random_features, random_tensors
from tiepoint.errors import TrainingError
from tiepoint.matching.learned.architecture import MatcherConfig
from tiepoint.matching.learned.folder import MatcherCheckpoint
from tiepoint.matching.learned.matcher import LearnedMatcher
from tiepoint.training.matcher import transfer
from tiepoint.training.matcher.settings import MatcherData
from tiepoint.training.matcher.transfer import common_descriptors, descriptor_map, transferred

DATA = MatcherData(small_hw=(96, 128), large_hw=(96, 128), max_keypoints=200)
CONFIG = MatcherConfig(descriptor_length=16, width=32, heads=1, layers=2)
OLD = random_checkpoint()


def matcher(config: MatcherConfig = CONFIG) -> MatcherCheckpoint:
    tensors = random_tensors(config)
    return MatcherCheckpoint("old", "0" * 64, config, 0.1, OLD.sha256, tensors)


def rotation(seed: int, size: int) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(size, size))
    return np.linalg.qr(values)[0].astype(np.float32)


def test_a_linear_map_between_descriptors_is_found() -> None:
    rng = np.random.default_rng(1)
    new = rng.normal(size=(3000, 6)).astype(np.float32)
    matrix, offset = rng.normal(size=(6, 9)), rng.normal(size=9)
    found = descriptor_map((new @ matrix + offset).astype(np.float32), new)
    np.testing.assert_allclose(found.matrix, matrix, atol=0.02)
    np.testing.assert_allclose(found.offset, offset, atol=0.02)
    assert found.explained > 0.999
    unrelated = descriptor_map(rng.normal(size=(3000, 9)).astype(np.float32), new)
    assert unrelated.explained < 0.05


def test_too_few_common_keypoints_are_refused() -> None:
    few = np.zeros((20, 16), np.float32)
    with pytest.raises(TrainingError, match="20 keypoints in common, expected at least 64"):
        descriptor_map(few, few)


def test_descriptors_of_the_same_keypoints_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "SCENES", 2)
    a, b = common_descriptors(OLD, OLD, DATA, seed=3)
    assert len(a) > 50
    np.testing.assert_array_equal(a, b)


def test_a_detector_whose_descriptors_are_turned_keeps_its_matches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turn = rotation(2, 16)
    a, b = random_features(60, 16, seed=4), random_features(80, 16, seed=5)
    old = np.concatenate([random_features(400, 16, seed=s).descriptors for s in (6, 7)])
    monkeypatch.setattr(transfer, "common_descriptors", lambda *_: (old, old @ turn))
    tensors, explained = transferred(matcher(), OLD, OLD, DATA, 0)
    assert explained > 0.99
    assert set(tensors) == set(matcher().tensors)
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    other = LearnedMatcher(replace(matcher(), tensors=arrays, detector_sha256=None))
    of_old = LearnedMatcher(replace(matcher(), detector_sha256=None))
    turned = [replace(one, descriptors=one.descriptors @ turn) for one in (a, b)]
    expected, actual = of_old(a, b, threshold=0.0), other(*turned, threshold=0.0)
    same = set(map(tuple, expected.pairs)) & set(map(tuple, actual.pairs))
    assert len(expected.pairs) > 5
    assert len(same) > 0.9 * len(expected.pairs)
    mixed = of_old(*turned, threshold=0.0)
    assert len(set(map(tuple, expected.pairs)) & set(map(tuple, mixed.pairs))) < len(same)


def test_descriptors_of_another_length_get_a_map_of_that_length(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    longer = random_checkpoint(1, length=24)
    rng = np.random.default_rng(8)
    new = rng.normal(size=(500, 24)).astype(np.float32)
    monkeypatch.setattr(transfer, "common_descriptors", lambda *_: (new[:, :16], new))
    tensors, _ = transferred(matcher(), OLD, longer, DATA, 0)
    shapes = replace(CONFIG, descriptor_length=24).tensor_shapes()
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == shapes
    first = CONFIG.input_projection()
    assert first is not None
    untouched = [name for name in tensors if not name.startswith(first.name)]
    assert all(
        torch.equal(tensors[name], torch.from_numpy(matcher().tensors[name])) for name in untouched
    )


def test_a_matcher_without_a_map_of_descriptors_is_refused() -> None:
    config = MatcherConfig(descriptor_length=16, width=16, heads=1, layers=2)
    with pytest.raises(TrainingError, match="its width 16 is the length of descriptors"):
        transferred(matcher(config), OLD, OLD, DATA, 0)
