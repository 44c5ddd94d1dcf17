"""Folders of the guide's model for pairs: written, read again, their detector, and refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the guide's classes need the extra torch")

from safetensors.numpy import load_file, save_file  # noqa: E402

from support.guide_matchers import (  # noqa: E402
    CONFIG,
    detector_of,
    make_config,
    make_matcher,
    make_pair_processor,
    mild_tensors,
)
from support.guide_models import BOTH, EXACT_RULES, make_model, make_processor  # noqa: E402
from support.learned_matchers import random_tensors, related_features  # noqa: E402
from tiepoint import (  # noqa: E402
    AutoImageProcessor,
    AutoModelForKeypointMatching,
    LightGlueConfig,
    LightGlueForKeypointMatching,
    LightGlueImageProcessor,
    SuperPointForKeypointDetection,
    SuperPointImageProcessor,
)
from tiepoint.errors import CheckpointError, ConfigError  # noqa: E402
from tiepoint.matching.learned.architecture import MatcherConfig  # noqa: E402
from tiepoint.matching.learned.folder import load_matcher, save_matcher  # noqa: E402
from tiepoint.matching.learned.matcher import LearnedMatcher  # noqa: E402
from tiepoint.weights.checkpoint import load_checkpoint  # noqa: E402

WEIGHTS, SETTINGS = "model.safetensors", "config.json"


def change_config(folder: Path, **values: Any) -> None:
    path = folder / SETTINGS
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def pixels() -> torch.Tensor:
    return torch.rand(1, 2, 3, 60, 80, generator=torch.Generator().manual_seed(0))


def assert_same_results(one: Any, other: Any) -> None:
    with torch.no_grad():
        first, second = one(pixels()), other(pixels())
    assert first.mask.any()
    assert all(torch.equal(first[name], second[name]) for name in first)


@BOTH
def test_what_is_saved_loads_with_equal_settings_and_results(rules: str, tmp_path: Path) -> None:
    model, processor = make_matcher(rules), make_pair_processor(rules)
    model.save_pretrained(tmp_path)
    assert processor.save_pretrained(tmp_path) == [str(tmp_path / "preprocessor_config.json")]
    loaded = AutoModelForKeypointMatching.from_pretrained(tmp_path)
    assert isinstance(loaded, LightGlueForKeypointMatching) and not loaded.training
    assert_same_results(loaded, model)
    assert loaded.config == LightGlueConfig.from_pretrained(tmp_path)
    assert loaded.config.rules == rules and loaded.config.filter_threshold == 0.01
    assert loaded.config.detector.max_keypoints == -1
    again = AutoImageProcessor.from_pretrained(tmp_path)
    assert isinstance(again, LightGlueImageProcessor)
    assert again.to_dict() == processor.to_dict() and again.rules == rules
    assert LightGlueImageProcessor.from_pretrained(tmp_path).to_dict() == processor.to_dict()
    assert_same_results(copy.deepcopy(loaded), model)


def test_the_learned_matcher_loads_what_the_model_writes(tmp_path: Path) -> None:
    save_matcher(tmp_path, CONFIG, mild_tensors(CONFIG), detector_of(EXACT_RULES))
    model = LightGlueForKeypointMatching.from_pretrained(tmp_path)
    assert model.config.tiepoint == {"version": 1, "detector_sha256": "0" * 64}
    model.save_pretrained(tmp_path / "again")
    a, b = related_features(40, CONFIG.descriptor_length)
    first, second = LearnedMatcher(tmp_path)(a, b), LearnedMatcher(tmp_path / "again")(a, b)
    assert len(first.pairs) > 5 and np.array_equal(first.pairs, second.pairs)
    assert load_matcher(tmp_path / "again").detector_sha256 == "0" * 64


def test_a_folder_of_half_size_loads_in_float32(tmp_path: Path) -> None:
    make_matcher().save_pretrained(tmp_path, dtype="float16")
    assert load_file(tmp_path / WEIGHTS)["positional_encoder.projector.weight"].dtype == np.float16
    assert LightGlueForKeypointMatching.from_pretrained(tmp_path).dtype == torch.float32
    half = LightGlueForKeypointMatching.from_pretrained(tmp_path, dtype="float16")
    assert {parameter.dtype for parameter in half.parameters()} == {torch.float16}


def bundled_matcher(folder: Path, *, detector_tensors: bool = False) -> MatcherConfig:
    """A matcher for the bundled detector `small`."""
    detector = load_checkpoint("small")
    config = MatcherConfig(detector.network.descriptor_decoder_dim, 16, 2, 1)
    save_matcher(
        folder, config, random_tensors(config), detector, detector_tensors=detector_tensors
    )
    return config


def test_a_matcher_without_a_detector_finds_the_bundled_one_it_names(tmp_path: Path) -> None:
    bundled_matcher(tmp_path / "bare")
    assert not any(
        n.startswith("keypoint_detector") for n in load_file(tmp_path / "bare" / WEIGHTS)
    )
    bare = AutoModelForKeypointMatching.from_pretrained(tmp_path / "bare")
    expected = load_checkpoint("small").tensors
    stored = bare.keypoint_detector.state_dict()
    assert all(np.array_equal(stored[name], expected[name]) for name in expected)
    bundled_matcher(tmp_path / "whole", detector_tensors=True)
    whole = AutoModelForKeypointMatching.from_pretrained(tmp_path / "whole")
    assert_same_results(bare, whole)
    assert bare.config.rules == AutoImageProcessor.from_pretrained(tmp_path / "bare").rules
    bare.save_pretrained(tmp_path / "saved")  # complete from now on
    assert load_matcher(tmp_path / "saved").detector_tensors.keys() == expected.keys()


def test_a_matcher_of_an_unknown_detector_needs_its_checkpoint(tmp_path: Path) -> None:
    bundled_matcher(tmp_path)
    mark = {"version": 1, "detector_sha256": "f" * 64}
    change_config(tmp_path, tiepoint=mark)
    with pytest.raises(CheckpointError, match=r"names \(f+\).*detector=FOLDER"):
        AutoModelForKeypointMatching.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="expected f+ by matcher"):
        AutoModelForKeypointMatching.from_pretrained(tmp_path, detector="small")
    change_config(tmp_path, tiepoint=None)
    with pytest.raises(CheckpointError, match=r"names \(none\).*detector=FOLDER"):
        AutoModelForKeypointMatching.from_pretrained(tmp_path)
    model = AutoModelForKeypointMatching.from_pretrained(tmp_path, detector="small")
    assert model.keypoint_detector.network_config == load_checkpoint("small").network
    make_model(EXACT_RULES).save_pretrained(tmp_path / "other")
    with pytest.raises(CheckpointError, match="has NetworkConfig"):
        AutoModelForKeypointMatching.from_pretrained(tmp_path, detector=tmp_path / "other")


def test_a_given_detector_replaces_the_one_in_the_file(tmp_path: Path) -> None:
    make_matcher().save_pretrained(tmp_path / "matcher")
    other = SuperPointForKeypointDetection(make_config(EXACT_RULES).detector)
    other.save_pretrained(tmp_path / "detector")
    model = LightGlueForKeypointMatching.from_pretrained(
        tmp_path / "matcher", detector=tmp_path / "detector"
    )
    for name, tensor in model.keypoint_detector.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])


def test_a_folder_without_a_processor_file_has_the_rules_of_its_detector(tmp_path: Path) -> None:
    for rules in ("exact", "transformers"):
        make_matcher(rules).save_pretrained(tmp_path / rules)
        processor = AutoImageProcessor.from_pretrained(tmp_path / rules)
        assert isinstance(processor, LightGlueImageProcessor) and processor.rules == rules
        assert processor.do_grayscale
        sized = AutoImageProcessor.from_pretrained(tmp_path / rules, size=(50, 60), use_fast=True)
        assert sized.size == {"height": 50, "width": 60}


def test_detectors_and_matchers_are_not_taken_for_one_another(tmp_path: Path) -> None:
    make_model(EXACT_RULES).save_pretrained(tmp_path / "detector")
    make_processor(EXACT_RULES).save_pretrained(tmp_path / "detector")
    make_matcher().save_pretrained(tmp_path / "matcher")
    make_pair_processor().save_pretrained(tmp_path / "matcher")
    assert isinstance(
        AutoImageProcessor.from_pretrained(tmp_path / "detector"), SuperPointImageProcessor
    )
    with pytest.raises(ConfigError, match="'superpoint', expected 'lightglue'"):
        AutoModelForKeypointMatching.from_pretrained(tmp_path / "detector")
    with pytest.raises(ConfigError, match="'lightglue', expected 'superpoint'"):
        SuperPointForKeypointDetection.from_pretrained(tmp_path / "matcher")
    with pytest.raises(CheckpointError, match="expected 'LightGlueImageProcessor'"):
        LightGlueImageProcessor.from_pretrained(tmp_path / "detector")
    with pytest.raises(CheckpointError, match="expected 'SuperPointImageProcessor'"):
        SuperPointImageProcessor.from_pretrained(tmp_path / "matcher")
    with pytest.raises(ConfigError, match="'superpoint', expected 'lightglue'"):
        AutoModelForKeypointMatching.from_pretrained(tmp_path, subfolder="detector")


def test_a_config_in_code_has_the_sizes_of_transformers_and_the_exact_rules() -> None:
    config = LightGlueConfig()
    assert config.matcher() == MatcherConfig(256, 256, 4, 9) and config.rules == "exact"
    assert (config.hidden_size, config.intermediate_size) == (256, 512)
    assert config.depth_confidence == config.width_confidence == 1.0
    of_file = LightGlueConfig.from_dict({"model_type": "lightglue"})
    assert of_file.rules == "transformers" and of_file.depth_confidence == 0.95
    assert LightGlueConfig.from_dict({**config.to_dict(), "hidden_size": 7}) == config
    assert LightGlueConfig(depth_confidence=-1, width_confidence=0).depth_confidence == 1.0
    assert LightGlueConfig(keypoint_detector_config={"max_keypoints": 5}).rules == "transformers"


@BOTH
def test_settings_become_json_and_come_back(rules: str, tmp_path: Path) -> None:
    config = make_config(rules, width_confidence=0.9, tiepoint=None)
    config.colour = "blue"
    config.to_json_file(tmp_path / "any.json")
    read = LightGlueConfig.from_json_file(tmp_path / "any.json")
    assert read == config and read.colour == "blue" and read.detector == config.detector
    assert "keypoint_detector_config" in repr(config)
    assert copy.deepcopy(config) == config != LightGlueConfig()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"attention_bias": False}, "attention_bias"),
        ({"num_key_value_heads": 1}, "num_key_value_heads"),
        ({"num_attention_heads": 5, "num_key_value_heads": 5}, "multiple of"),
        ({"num_hidden_layers": 0}, "layers"),
        ({"descriptor_dim": 1e9}, "width"),
        ({"filter_threshold": 2}, "filter_threshold"),
        ({"filter_threshold": float("nan")}, "filter_threshold|finite"),
        ({"depth_confidence": "high"}, "depth_confidence"),
        ({"width_confidence": float("nan")}, "width_confidence|finite"),
        ({"keypoint_detector_config": {"model_type": "disk"}}, "'disk', expected 'superpoint'"),
        ({"keypoint_detector_config": [1]}, "keypoint_detector_config"),
        ({"keypoint_detector_config": {"descriptor_decoder_dim": -3}}, "widths"),
        ({"tiepoint": {"version": 9, "detector_sha256": "0" * 64}}, "version"),
        ({"tiepoint": {"rules": "exact"}}, "detector_sha256"),
        ({"model_type": "superglue"}, "'superglue'"),
    ],
)
def test_settings_out_of_range_are_refused_in_code_and_in_files(
    settings: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=reason):
        LightGlueConfig.from_dict({**make_config(EXACT_RULES).to_dict(), **settings})
    make_matcher().save_pretrained(tmp_path)
    change_config(tmp_path, **settings)
    with pytest.raises((ConfigError, CheckpointError), match=reason):
        LightGlueForKeypointMatching.from_pretrained(tmp_path)


def test_unknown_settings_and_sizes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    make_matcher().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="unknown setting max_points"):
        LightGlueForKeypointMatching.from_pretrained(tmp_path, max_points=5)
    with pytest.raises(ConfigError, match="does not fit the weights"):
        LightGlueForKeypointMatching.from_pretrained(tmp_path, num_hidden_layers=2)
    loaded = LightGlueForKeypointMatching.from_pretrained(tmp_path, filter_threshold=0.5)
    assert loaded.config.filter_threshold == 0.5


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    make_matcher().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    for name in ("keypoint_detector.encoder.conv_blocks.0.conv_a.bias", "input_projection.bias"):
        save_file({**tensors, name: tensors[name] * np.nan}, tmp_path / WEIGHTS)
        with pytest.raises(CheckpointError, match="NaN"):
            LightGlueForKeypointMatching.from_pretrained(tmp_path)
        lacking = {other: array for other, array in tensors.items() if other != name}
        save_file(lacking, tmp_path / WEIGHTS)
        with pytest.raises(CheckpointError, match="missing"):
            LightGlueForKeypointMatching.from_pretrained(tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="safetensors"):
        LightGlueForKeypointMatching.from_pretrained(tmp_path)


def test_a_new_model_has_random_weights_of_the_range_in_its_config() -> None:
    model = LightGlueForKeypointMatching(make_config(EXACT_RULES, initializer_range=1e-10))
    for name, weights in model.named_parameters():
        if name.startswith("keypoint_detector") or "layer_norm" in name:
            continue
        assert abs(float(weights.detach().mean())) < 1e-9, name
    assert AutoModelForKeypointMatching.from_config(model.config).num_parameters() == (
        model.num_parameters()
    )
    assert dict(model.named_parameters()).keys() == model.state_dict().keys()


def test_what_is_pushed_to_the_hub_loads_by_its_id(hub: Any) -> None:
    hub.write_token = "hf_writer"
    model = make_matcher()
    model.push_to_hub("someone/matcher", token="hf_writer")
    make_pair_processor().push_to_hub("someone/matcher", token="hf_writer")
    assert_same_results(AutoModelForKeypointMatching.from_pretrained("someone/matcher"), model)
    assert AutoImageProcessor.from_pretrained("someone/matcher").type_name == (
        "LightGlueImageProcessor"
    )


def test_a_matcher_in_the_folder_of_its_detector_is_found(tmp_path: Path) -> None:
    make_model(EXACT_RULES).save_pretrained(tmp_path)
    make_processor(EXACT_RULES).save_pretrained(tmp_path)
    own = make_matcher()
    own.save_pretrained(tmp_path / "matcher")
    make_pair_processor().save_pretrained(tmp_path / "matcher")
    inner = LightGlueConfig.from_pretrained(tmp_path, filter_threshold=0.3)
    assert inner.filter_threshold == 0.3 and inner.matcher() == own.config.matcher()
    for options in ({}, {"subfolder": "matcher"}):
        loaded = AutoModelForKeypointMatching.from_pretrained(tmp_path, **options)
        assert all(
            torch.equal(value, own.state_dict()[name])
            for name, value in loaded.state_dict().items()
        )
    processor = AutoImageProcessor.from_pretrained(tmp_path, subfolder="matcher")
    assert isinstance(processor, LightGlueImageProcessor)
    with pytest.raises(CheckpointError, match="no-folder"):
        AutoModelForKeypointMatching.from_pretrained("base", subfolder="no-folder")
