"""A matcher's folder: written and read again, shared with transformers, and refused if damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from support.checkpoints import random_checkpoint
from support.learned_matchers import (
    matcher_input,
    random_features,
    random_tensors,
    related_features,
    slow_matcher,
    slow_matches,
)
from tiepoint.errors import CheckpointError, ConfigError
from tiepoint.matching.learned.architecture import MatcherConfig
from tiepoint.matching.learned.folder import load_matcher, save_matcher
from tiepoint.matching.learned.matcher import LearnedMatcher

CONFIG = MatcherConfig(descriptor_length=16, width=24, heads=2, layers=2)
WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_matcher(
        tmp_path / "matcher", CONFIG, random_tensors(CONFIG), random_checkpoint(), threshold=0.02
    )
    return tmp_path / "matcher"


def change_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_folder_holds_what_was_saved(folder: Path) -> None:
    matcher = load_matcher(folder)
    assert (matcher.config, matcher.threshold) == (CONFIG, 0.02)
    assert matcher.detector_sha256 == random_checkpoint().sha256
    expected = random_tensors(CONFIG)
    assert set(matcher.tensors) == set(expected)
    assert all(np.array_equal(matcher.tensors[name], expected[name]) for name in expected)
    names = ["config.json", WEIGHTS, "preprocessor_config.json"]
    assert sorted(path.name for path in folder.iterdir()) == names


def test_the_weights_of_the_detector_are_optional(tmp_path: Path, folder: Path) -> None:
    tensors = random_tensors(CONFIG)
    save_matcher(tmp_path / "bare", CONFIG, tensors, random_checkpoint(), detector_tensors=False)
    assert len(load_file(folder / WEIGHTS)) == len(load_file(tmp_path / "bare" / WEIGHTS)) + 24
    bare = load_matcher(tmp_path / "bare").tensors
    assert all(np.array_equal(bare[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_a_matcher_of_a_folder_matches_features(folder: Path, engine: str) -> None:
    if engine == "torch":
        pytest.importorskip("torch")
    a, b = related_features(40, 16)
    result = LearnedMatcher(folder, engine=engine)(a, b)
    expected = slow_matcher(CONFIG, random_tensors(CONFIG), matcher_input(a), matcher_input(b), 2)
    matches = slow_matches(expected.log_assignment, 0.02)
    assert len(matches) > 3
    assert result.pairs.tolist() == [[i, j] for i, j, _ in matches]
    np.testing.assert_allclose(result.scores, [score for *_, score in matches], atol=1e-5)
    more = LearnedMatcher(folder, engine=engine)(a, b, threshold=0.0)
    assert len(more.pairs) > len(result.pairs)
    fewer = LearnedMatcher(folder, engine=engine, layers=1)(a, b)
    assert fewer.pairs.tolist() != result.pairs.tolist()


@pytest.mark.parametrize(("count_a", "count_b"), [(0, 9), (9, 0), (0, 0)])
def test_an_image_without_keypoints_has_no_matches(
    folder: Path, count_a: int, count_b: int
) -> None:
    result = LearnedMatcher(folder)(random_features(count_a, 16), random_features(count_b, 16))
    assert result.pairs.shape == (0, 2) and result.scores.shape == (0,)
    assert (len(result.matchability_a), len(result.matchability_b)) == (count_a, count_b)


def test_features_of_other_weights_are_refused_by_name(folder: Path) -> None:
    matcher = LearnedMatcher(folder)
    a, other = random_features(9, 16), random_features(9, 16, weights_sha256="1" * 64)
    with pytest.raises(ConfigError, match=f"features B .*{'1' * 64}.*expected {'0' * 64}"):
        matcher(a, other)
    with pytest.raises(ConfigError, match="features A"):
        matcher(other, a)
    with pytest.raises(ConfigError, match="features A"):
        matcher(random_features(0, 16, weights_sha256="1" * 64), a)


def test_features_of_another_length_or_not_finite_are_refused(folder: Path) -> None:
    matcher, a = LearnedMatcher(folder), random_features(9, 16)
    with pytest.raises(ConfigError, match="length 17, expected 16"):
        matcher(a, random_features(9, 17))
    assert a.descriptors is not None
    for field in ("xy", "descriptors"):
        values = getattr(a, field).copy()
        values[3, 1] = np.nan
        with pytest.raises(ConfigError, match="NaN"):
            matcher(type(a)(**{**vars(a), field: values}), a)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"layers": 0}, "layers"), ({"layers": 3}, "layers"), ({"engine": "onnx"}, "engine"),
        ({"device": "cuda"}, "device"), ({"precision": "f16"}, "precision"),
        ({"engine": "torch", "precision": "bf16"}, "precision"),
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(folder: Path, options: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        LearnedMatcher(folder, **options)
    with pytest.raises(ConfigError, match="threshold"):
        LearnedMatcher(folder)(random_features(2, 16), random_features(2, 16), threshold=1.5)


def test_a_detector_of_another_length_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="length 17, expected 16"):
        save_matcher(tmp_path / "new", CONFIG, random_tensors(CONFIG), random_checkpoint(length=17))
    assert not (tmp_path / "new").exists()


def test_tensors_that_do_not_fit_are_not_saved(tmp_path: Path) -> None:
    tensors = random_tensors(CONFIG)
    tensors["input_projection.bias"][0] = np.inf
    with pytest.raises(CheckpointError, match=r"input_projection\.bias"):
        save_matcher(tmp_path / "new", CONFIG, tensors, random_checkpoint())
    assert not (tmp_path / "new").exists()


# Hostile folders

Tensors = dict[str, np.ndarray]
PROJECTION = "match_assignment_layers.1.final_projection.weight"


def without(tensors: Tensors) -> None:
    del tensors[PROJECTION]


def extra(tensors: Tensors) -> None:
    tensors["transformer_layers.2.self_attention.q_proj.weight"] = np.zeros((24, 24), np.float32)


def turned(tensors: Tensors) -> None:
    tensors["input_projection.weight"] = tensors["input_projection.weight"].T.copy()


def not_a_number(tensors: Tensors) -> None:
    tensors[PROJECTION][3, 4] = np.nan


def whole_numbers(tensors: Tensors) -> None:
    tensors[PROJECTION] = np.zeros((24, 24), np.int32)


def half_a_detector(tensors: Tensors) -> None:
    del tensors["keypoint_detector.encoder.conv_blocks.0.conv_a.weight"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without, "missing: match_assignment_layers.1.final"),
        (extra, "unexpected: transformer_layers.2"),
        (turned, r"input_projection.weight has shape \(16, 24\), expected \(24, 16\)"),
        (not_a_number, "NaN"),
        (whole_numbers, "I32"),
        (half_a_detector, "SuperPoint network; missing: encoder.conv_blocks.0.conv_a"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    folder: Path, change: Callable[[Tensors], None], words: str
) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(CheckpointError, match=words) as error:
        load_matcher(folder)
    assert len(str(error.value)) < 1500


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model_type": "superpoint"}, "model_type"),
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"attention_bias": False}, "attention_bias"),
        ({"num_key_value_heads": 1}, "num_key_value_heads"),
        ({"num_attention_heads": 5, "num_key_value_heads": 5}, "width is 24 with 5 heads"),
        ({"num_hidden_layers": 10**12}, "layers"),
        ({"num_hidden_layers": 1}, "unexpected"),
        ({"descriptor_dim": "x" * 10**5}, "width"),
        ({"descriptor_dim": [24]}, "width"),
        ({"keypoint_detector_config": None}, "keypoint_detector_config"),
        ({"keypoint_detector_config": [1] * 10**5}, "keypoint_detector_config"),
        ({"keypoint_detector_config": {"model_type": "disk"}}, "model_type"),
        ({"filter_threshold": 2}, "filter_threshold"),
        ({"filter_threshold": "x"}, "filter_threshold"),
        ({"tiepoint": 5}, "tiepoint"),
        ({"tiepoint": {"version": 1}}, "detector_sha256"),
        ({"tiepoint": {"version": 1, "detector_sha256": "0" * 63}}, "64 hexadecimal"),
        ({"tiepoint": {"version": 2, "detector_sha256": "0" * 64}}, "upgrade"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(
    folder: Path, values: dict[str, Any], words: str
) -> None:
    change_config(folder, **values)
    with pytest.raises(CheckpointError, match=words) as error:
        load_matcher(folder)
    assert len(str(error.value)) < 1500


@pytest.mark.parametrize("content", [b"", b"x" * 99, (2**62).to_bytes(8, "little") + b"{}"])
@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_a_damaged_or_missing_file_is_refused(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        load_matcher(folder)
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name}: missing"):
        load_matcher(folder)


def test_weights_other_than_those_of_the_manifest_are_refused(folder: Path) -> None:
    (folder / "manifest.json").write_text(json.dumps({"sha256": "2" * 64, "note": "trained"}))
    with pytest.raises(CheckpointError, match="expected 2222"):
        load_matcher(folder)
    change = {"sha256": None, "note": "trained"}
    (folder / "manifest.json").write_text(json.dumps(change))
    assert load_matcher(folder).note == "trained"
