"""Activation maxima: averaged over images, stored for one set of weights, ignored if damaged."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from support.checkpoints import random_checkpoint
from tiepoint.architecture import NetworkConfig
from tiepoint.errors import ConfigError, OutputError
from tiepoint.weights.activation_maxima import (
    LEAST_CHANNELS,
    load_activation_maxima,
    mean_activation_maxima,
    quantised_layers,
    save_activation_maxima,
    weight_maxima,
)
from tiepoint.weights.folder import QUANTIZATION_FILE


def test_the_mean_over_images_is_taken_per_layer() -> None:
    images = [{"a": 1.0, "b": 9.0, "c": 0.0}, {"a": 3.0, "b": 9.0, "c": 5.0}]
    assert mean_activation_maxima(images, ["a", "c"]) == {"a": 2.0, "c": 2.5}
    assert mean_activation_maxima(iter(images[:1]), ["b"]) == {"b": 9.0}
    assert mean_activation_maxima(images, []) == {}


def test_no_images_are_refused() -> None:
    with pytest.raises(ConfigError, match="no images to measure activation maxima on"):
        mean_activation_maxima([], ["a"])


def test_saved_maxima_are_loaded_to_six_digits(tmp_path: Path) -> None:
    path = save_activation_maxima(tmp_path, {"a": 1.23456789, "b": 2.0}, "abc")
    assert path == tmp_path / QUANTIZATION_FILE
    assert load_activation_maxima(tmp_path, "abc", ["a", "b"]) == {"a": 1.23457, "b": 2.0}
    assert load_activation_maxima(tmp_path, "abc", ["b"]) == {"b": 2.0}
    assert load_activation_maxima(tmp_path, "abc", []) == {}


def test_a_layer_without_any_activation_has_a_range(tmp_path: Path) -> None:
    save_activation_maxima(tmp_path, {"a": 0.0}, "abc")
    assert load_activation_maxima(tmp_path, "abc", ["a"]) == {"a": 1e-6}


def test_a_missing_file_and_other_weights_give_none_silently(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert load_activation_maxima(tmp_path, "abc", ["a"]) is None
    save_activation_maxima(tmp_path, {"a": 1.0}, "abc")
    assert load_activation_maxima(tmp_path, "other weights", ["a"]) is None
    assert caplog.records == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"version": 1}',
        json.dumps({"version": 1, "weights_sha256": "abc", "highest_inputs": {"b": 1.0}}),
        json.dumps({"version": 1, "weights_sha256": "abc", "highest_inputs": {"a": "high"}}),
        json.dumps({"version": 1, "weights_sha256": "abc", "highest_inputs": {"a": 0}}),
        json.dumps({"version": 1, "weights_sha256": "abc", "highest_inputs": {"a": 1e999}}),
    ],
)
def test_a_damaged_file_is_ignored_with_a_warning(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / QUANTIZATION_FILE).write_text(text)
    with caplog.at_level(logging.WARNING):
        assert load_activation_maxima(tmp_path, "abc", ["a"]) is None
    assert "quantization.json ignored" in caplog.text
    assert "run tiepoint quantize again" in caplog.text


def test_a_missing_folder_cannot_be_written_to(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        save_activation_maxima(tmp_path / "gone", {"a": 1.0}, "abc")


def test_the_first_layer_and_the_keypoint_logits_are_not_quantised() -> None:
    network = NetworkConfig()
    names = [layer.name for layer in network.layers()]
    left_out = {"encoder.conv_blocks.0.conv_a", "keypoint_decoder.conv_score_b"}
    assert quantised_layers(network) == [name for name in names if name not in left_out]


def test_layers_with_few_inputs_are_not_quantised() -> None:
    least = LEAST_CHANNELS
    network = NetworkConfig((least - 1, least, least, least), least - 1, 65, 16)
    assert quantised_layers(network) == [
        "encoder.conv_blocks.1.conv_b",
        "encoder.conv_blocks.2.conv_a",
        "encoder.conv_blocks.2.conv_b",
        "encoder.conv_blocks.3.conv_a",
        "encoder.conv_blocks.3.conv_b",
        "keypoint_decoder.conv_score_a",
        "descriptor_decoder.conv_descriptor_a",
    ]
    assert quantised_layers(random_checkpoint().network) == []


def test_weight_maxima_are_per_output_channel_and_never_zero() -> None:
    weight = np.random.default_rng(0).normal(size=(5, 3, 3, 3)).astype(np.float32)
    weight[2] = 0
    maxima = weight_maxima(weight)
    assert maxima.shape == (5, 1, 1, 1)
    assert maxima.dtype == np.float32
    for channel, maximum in enumerate(maxima.ravel()):
        values = [abs(value) for value in weight[channel].ravel()]
        assert maximum == (max(values) if channel != 2 else np.float32(1e-12))
