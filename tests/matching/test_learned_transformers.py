"""Folders of the learned matcher go to transformers and back, with equal results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers

from support.checkpoints import random_checkpoint
from support.learned_matchers import SIZE_HW, random_tensors, related_features
from tiepoint.features import Features
from tiepoint.matching.learned.architecture import MatcherConfig
from tiepoint.matching.learned.folder import load_matcher, save_matcher
from tiepoint.matching.learned.matcher import LearnedMatcher

HEIGHT, WIDTH = SIZE_HW


def theirs(model, a: Features, b: Features) -> tuple[np.ndarray, np.ndarray]:
    """Matches 2 N and scores 2 N of transformers for features, as its forward passes them."""
    count = max(len(a), len(b))
    xy = torch.zeros(1, 2, count, 2)
    descriptors = torch.zeros(1, 2, count, a.descriptors.shape[1])
    mask = torch.zeros(1, 2, count, dtype=torch.int)
    for i, features in enumerate((a, b)):
        own = len(features)
        xy[0, i, :own] = torch.tensor(features.xy)
        descriptors[0, i, :own] = torch.tensor(features.descriptors)
        mask[0, i, :own] = 1
    with torch.no_grad():
        matches, scores, *_ = model._match_image_pair(xy, descriptors, HEIGHT, WIDTH, mask=mask)
    return matches.reshape(2, -1).numpy(), scores.reshape(2, -1).numpy()


def check_equal(matcher: LearnedMatcher, model, a: Features, b: Features) -> int:
    """Compare pairs and scores; returns the number of matches."""
    matches, scores = theirs(model, a, b)
    own = matcher(a, b)
    expected = {(i, int(j)): scores[0, i] for i, j in enumerate(matches[0]) if j >= 0}
    pairs = [(int(i), int(j)) for i, j in own.pairs]
    assert set(pairs) == set(expected)
    np.testing.assert_allclose(own.scores, [expected[pair] for pair in pairs], atol=1e-5)
    return len(pairs)


@pytest.mark.parametrize("engine", ["openvino", "torch"])
@pytest.mark.parametrize("tied", [True, False])
def test_transformers_loads_a_folder_of_ours_and_scores_alike(
    tmp_path: Path, engine: str, tied: bool
) -> None:
    config = MatcherConfig(descriptor_length=16, width=24, heads=2, layers=3)
    tensors, detector = random_tensors(config, tied=tied), random_checkpoint()
    save_matcher(tmp_path, config, tensors, detector)
    model, info = transformers.LightGlueForKeypointMatching.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    stored = model.keypoint_detector.state_dict()
    assert all(np.array_equal(stored[name], detector.tensors[name]) for name in detector.tensors)
    matcher = LearnedMatcher(tmp_path, engine=engine)
    for seed in range(2):
        assert check_equal(matcher, model.eval(), *related_features(40, 16, seed)) > 5
    model.depth_confidence = model.width_confidence = -1  # its switch, with the same effect
    assert check_equal(matcher, model, *related_features(40, 16)) > 5


@pytest.mark.parametrize(("length", "width", "heads", "layers"), [(16, 24, 2, 2), (32, 32, 4, 1)])
def test_a_folder_of_transformers_is_loaded_and_scores_alike(
    tmp_path: Path, length: int, width: int, heads: int, layers: int
) -> None:
    torch.manual_seed(0)
    detector = transformers.SuperPointConfig(
        encoder_hidden_sizes=[8, 8, 16, 16], decoder_hidden_size=24, descriptor_decoder_dim=length
    )
    config = transformers.LightGlueConfig(
        keypoint_detector_config=detector.to_dict(), descriptor_dim=width,
        num_attention_heads=heads, num_hidden_layers=layers, filter_threshold=0.0001,
        depth_confidence=-1.0, width_confidence=-1.0,
    )  # fmt: skip
    model = transformers.LightGlueForKeypointMatching(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # its own start is too small to prefer anything
            parameter.add_(torch.randn_like(parameter) / 4)
    model.save_pretrained(tmp_path)
    loaded = load_matcher(tmp_path)
    assert loaded.config == MatcherConfig(length, width, heads, layers)
    assert loaded.detector_sha256 is None and loaded.threshold == 0.0001
    for engine in ("openvino", "torch"):
        matcher = LearnedMatcher(loaded, engine=engine)
        assert check_equal(matcher, model, *related_features(40, length)) > 5


def test_transformers_finds_and_matches_two_images_with_a_folder_of_ours(tmp_path: Path) -> None:
    config = MatcherConfig(descriptor_length=16, width=24, heads=2, layers=2)
    save_matcher(tmp_path, config, random_tensors(config), random_checkpoint())
    model = transformers.AutoModelForKeypointMatching.from_pretrained(tmp_path)
    pixels = torch.from_numpy(np.random.default_rng(0).random((2, 2, 3, 64, 80), np.float32))
    with torch.no_grad():
        output = model(pixels)
    assert output.keypoints.shape[2] > 5 and output.matches.shape == output.mask.shape
    processor = transformers.LightGlueImageProcessorPil()
    sizes = [((64, 80), (64, 80))] * 2
    pairs = processor.post_process_keypoint_matching(output, sizes, threshold=0.0)
    assert all(len(pair["keypoints0"]) == len(pair["matching_scores"]) > 0 for pair in pairs)
    again = tmp_path / "again"
    model.save_pretrained(again)
    loaded = load_matcher(again)
    assert loaded.config == config and loaded.detector_sha256 == random_checkpoint().sha256
