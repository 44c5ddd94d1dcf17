"""8 bits: ranges that are measured, kept beside the weights, and applied."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from support import twins
from support.checkpoints import random_checkpoint
from tiepoint import Detector
from tiepoint.cli import app
from tiepoint.errors import ConfigError
from tiepoint.geometry import Placement
from tiepoint.network import engines, openvino_engine
from tiepoint.network.engines import EngineChoice, build_engine
from tiepoint.network.openvino_graph import measure_activation_maxima
from tiepoint.weights.activation_maxima import (
    load_activation_maxima,
    mean_activation_maxima,
    quantised_layers,
    save_activation_maxima,
)
from tiepoint.weights.checkpoint import load_checkpoint, locate


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The bundled checkpoint, without ranges yet."""
    folder = Path(shutil.copytree(locate("default"), tmp_path / "checkpoint"))
    (folder / "quantization.json").unlink(missing_ok=True)
    return folder


def test_the_highest_inputs_are_those_of_the_slow_twin() -> None:
    checkpoint = random_checkpoint(3, (4, 6, 8, 8), hidden=10, length=7)
    image = np.random.default_rng(1).random((16, 24), dtype=np.float32)
    [found] = measure_activation_maxima(checkpoint, [image])
    first = twins.convolve(
        image[None],
        checkpoint.tensors["encoder.conv_blocks.0.conv_a.weight"],
        checkpoint.tensors["encoder.conv_blocks.0.conv_a.bias"],
    )
    assert found["encoder.conv_blocks.0.conv_a"] == image.max()
    assert found["encoder.conv_blocks.0.conv_b"] == pytest.approx(first.max(), rel=1e-5)
    both = ("keypoint_decoder.conv_score_a", "descriptor_decoder.conv_descriptor_a")
    assert found[both[0]] == found[both[1]]  # both heads read the encoder
    assert set(found) == {layer.name for layer in checkpoint.network.layers()}


def lacks_vnni() -> bool:
    """An x86 processor whose products of bytes are summed in 16 bits, which may saturate."""
    information = Path("/proc/cpuinfo")
    text = information.read_text() if information.exists() else ""
    return "avx2" in text and "vnni" not in text


@pytest.mark.skipif(lacks_vnni(), reason="8 bits are exact on processors with VNNI only")
def test_rounding_equals_rounding_by_hand() -> None:
    """One layer in 8 bits: inputs in 255 steps up to the range, weights in 127 either way."""
    checkpoint = random_checkpoint(3, (4, 6, 8, 8), hidden=10, length=7)
    name = "encoder.conv_blocks.0.conv_b"
    checkpoint = replace(checkpoint, activation_maxima={name: 0.9})
    image = np.random.default_rng(1).random((1, 1, 16, 24), dtype=np.float32)
    place = [Placement((16, 24), (16, 24))]
    found = build_engine(checkpoint, EngineChoice("openvino", "cpu", "int8")).run(
        image, place, descriptors=True
    )

    high = np.abs(checkpoint.tensors[f"{name}.weight"]).max(axis=(1, 2, 3), keepdims=True)
    rounded = dict(checkpoint.tensors)
    rounded[f"{name}.weight"] = np.round(rounded[f"{name}.weight"] / high * 127) * high / 127

    def inputs(values: np.ndarray) -> np.ndarray:
        return np.round(np.clip(values, 0, 0.9) / 0.9 * 255) * 0.9 / 255

    convolve = twins.convolve
    calls: list[int] = []

    def by_hand(values: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
        calls.append(1)
        return convolve(inputs(values) if len(calls) == 2 else values, weight, bias)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(twins, "convolve", by_hand)
        logits, _ = twins.network(image[0, 0], rounded)
    plain = build_engine(checkpoint, EngineChoice("openvino", "cpu", "f32")).run(
        image, place, descriptors=True
    )
    expected = np.log(twins.heatmap(logits))
    away, unrounded = (np.abs(np.log(m.heatmap[0]) - expected) for m in (found, plain))
    # A value halfway between two steps may fall either way.
    assert np.quantile(away, 0.95) < 0.02 * np.abs(logits).max()
    assert unrounded.mean() > 2 * away.mean()


def test_ranges_are_the_means_over_images_of_the_layers_asked_for() -> None:
    assert mean_activation_maxima([{"a": 1.0, "b": 9.0}, {"a": 3.0, "b": 9.0}], ["a"]) == {"a": 2.0}
    with pytest.raises(ConfigError, match="no images"):
        mean_activation_maxima([], ["a"])


def test_quantize_makes_int8_possible_and_near_to_f32(
    copied: Path, photographs: list[NDArray[np.uint8]]
) -> None:
    with pytest.raises(ConfigError, match="run tiepoint quantize"):
        Detector(copied, precision="int8")(photographs[0])
    result = CliRunner().invoke(app, ["quantize", str(copied), "--count", "8"])
    assert result.exit_code == 0, result.output
    kept = []
    for photograph in photographs:
        wide, narrow = (
            Detector(copied, precision=precision, max_side=320)(photograph)
            for precision in ("f32", "int8")
        )
        assert narrow.provenance.precision == "int8"
        apart = np.hypot(*(wide.xy[:, None] - narrow.xy[None]).transpose(2, 0, 1))
        kept.append((apart.min(axis=1) < 0.5).mean())
        near = apart.min(axis=1) < 0.5
        cosines = (wide.descriptors * narrow.descriptors[apart.argmin(axis=1)]).sum(axis=1)
        assert cosines[near].mean() > 0.995
    assert np.mean(kept) > 0.9


@pytest.mark.parametrize("has_bf16", [True, False])
def test_what_is_not_rounded_to_8_bits_takes_bf16_where_the_processor_has_it(
    has_bf16: bool, photographs: list[NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then pixels come in two bytes, as for bf16 alone; either way the keypoints are f32's."""
    here = ["FP32", "INT8", *(["BF16"] if has_bf16 else [])]
    monkeypatch.setattr("tiepoint.network.openvino_engine.capabilities", lambda: here)
    seen: list[ov.Model] = []
    build = openvino_engine.build_model
    monkeypatch.setattr(
        openvino_engine, "build_model", lambda *a, **k: seen.append(build(*a, **k)) or seen[-1]
    )
    narrow = Detector(precision="int8", max_side=320)
    found = narrow(photographs[0])
    monkeypatch.undo()
    types = [model.inputs[0].get_element_type().to_string() for model in seen]
    assert types == ["u8" if has_bf16 else "f32"]
    expected = Detector(precision="f32", max_side=320)(photographs[0])
    apart = np.hypot(*(expected.xy[:, None] - found.xy[None]).transpose(2, 0, 1))
    assert (apart.min(axis=1) < 0.5).mean() > 0.9


def test_ranges_belong_to_their_weights_and_damaged_ones_are_none(tmp_path: Path) -> None:
    save_activation_maxima(tmp_path, {"a": 1.5, "b": 2.0}, "abc")
    assert load_activation_maxima(tmp_path, "abc", ["a", "b"]) == {"a": 1.5, "b": 2.0}
    assert load_activation_maxima(tmp_path, "other weights", ["a"]) is None
    assert load_activation_maxima(tmp_path / "nowhere", "abc", ["a"]) is None
    assert load_activation_maxima(tmp_path, "abc", ["a", "c"]) is None
    for wrong in ("{", "[]", '{"version": 1}'):
        (tmp_path / "quantization.json").write_text(wrong)
        assert load_activation_maxima(tmp_path, "abc", ["a"]) is None
    save_activation_maxima(tmp_path, {"a": 0.0}, "abc")
    assert load_activation_maxima(tmp_path, "abc", ["a"]) == {"a": 1e-6}


def test_a_damaged_file_stops_nothing_but_int8_and_is_mended_by_quantize(
    copied: Path, photographs: list[NDArray[np.uint8]]
) -> None:
    (copied / "quantization.json").write_text("{")
    assert len(Detector(copied)(photographs[0])) > 0
    with pytest.raises(ConfigError, match="run tiepoint quantize on its folder"):
        Detector(copied, precision="int8")(photographs[0])
    assert CliRunner().invoke(app, ["quantize", str(copied), "--count", "2"]).exit_code == 0
    assert len(Detector(copied, precision="int8")(photographs[0])) > 0


def test_the_first_layer_and_the_one_that_decides_stay_wide() -> None:
    network = load_checkpoint().network
    rounded = quantised_layers(network)
    assert len(rounded) == len(network.layers()) - 2
    assert "encoder.conv_blocks.0.conv_a" not in rounded
    assert "keypoint_decoder.conv_score_b" not in rounded


def test_int8_is_not_for_torch() -> None:
    with pytest.raises(ConfigError, match="int8"):
        engines.resolve_engine("torch", "cpu", "int8")


def test_a_checkpoint_with_ranges_says_so_in_its_file(copied: Path) -> None:
    CliRunner().invoke(app, ["quantize", str(copied), "--count", "2"])
    values = json.loads((copied / "quantization.json").read_text())
    loaded = load_checkpoint(copied)
    assert values["weights_sha256"] == loaded.sha256
    assert loaded.activation_maxima == values["highest_inputs"]


def test_a_network_too_narrow_for_8_bits_is_refused(tmp_path: Path) -> None:
    narrow = random_checkpoint(3, (4, 6, 8, 8), hidden=10, length=7)
    assert quantised_layers(narrow.network) == []
    with pytest.raises(ConfigError, match="too narrow"):
        build_engine(replace(narrow, activation_maxima={}), EngineChoice("openvino", "cpu", "int8"))
