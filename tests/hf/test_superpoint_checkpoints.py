"""The guide's config, weights and files: saving, loading, copying."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the guide's classes need the extra torch")

from support.guide_models import (  # noqa: E402
    BOTH,
    EXACT_RULES,
    detect,
    make_model,
    make_processor,
)
from tiepoint import (  # noqa: E402
    AutoImageProcessor,
    Detector,
    SuperPointConfig,
    SuperPointForKeypointDetection,
    SuperPointKeypointDescriptionOutput,
)
from tiepoint.errors import CheckpointError, ConfigError  # noqa: E402
from tiepoint.network.superpoint import SuperPoint  # noqa: E402
from tiepoint.weights.folder import EXACT  # noqa: E402


@pytest.fixture(scope="module")
def model() -> SuperPointForKeypointDetection:
    return make_model(EXACT_RULES)


def test_the_state_dict_has_the_24_names_and_the_papers_size() -> None:
    model = SuperPointForKeypointDetection(SuperPointConfig())
    assert set(model.state_dict()) == set(SuperPoint(SuperPointConfig().network()).state_dict())
    assert len(model.state_dict()) == 24
    assert sum(p.numel() for p in model.parameters()) == 1_300_865
    weight = model.get_parameter("encoder.conv_blocks.0.conv_a.weight").detach()
    assert 0.01 < float(weight.std()) < 0.03 and model.config.rules == "exact"


def test_a_config_keeps_what_it_does_not_know_and_refuses_nonsense() -> None:
    config = SuperPointConfig.from_dict({"nms_radius": 3, "colour": "blue"})
    assert config.colour == "blue" and config.nms_radius == 3 and config.rules == "transformers"
    assert config.to_dict()["colour"] == "blue" and config.to_dict()["model_type"] == "superpoint"
    assert SuperPointConfig.from_dict(config.to_dict()) == config != SuperPointConfig()
    assert "colour='blue'" in repr(config)
    for wrong in (
        {"encoder_hidden_sizes": [8, 8]},
        {"keypoint_decoder_dim": 64},
        {"keypoint_threshold": 2.0},
        {"max_keypoints": 0},
        {"nms_radius": -1},
    ):
        with pytest.raises(ConfigError):
            SuperPointConfig(**wrong)
    with pytest.raises(ConfigError, match="superglue"):
        SuperPointConfig.from_dict({"model_type": "superglue"})
    with pytest.raises(TypeError):
        SuperPointConfig(keypoint_treshold=0.1)


@BOTH
def test_what_is_saved_loads_again(rules: str, tmp_path: Path) -> None:
    model = make_model(rules, max_keypoints=9, nms_radius=3)
    model.config.colour = "blue"
    model.save_pretrained(tmp_path / "new" / "folder")
    loaded = SuperPointForKeypointDetection.from_pretrained(tmp_path / "new" / "folder")
    assert not loaded.training and loaded.config.rules == rules
    assert loaded.config.max_keypoints == 9 and loaded.config.colour == "blue"
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    stored = json.loads((tmp_path / "new" / "folder" / "config.json").read_text())
    assert stored["architectures"] == ["SuperPointForKeypointDetection"]
    assert stored["model_type"] == "superpoint" and stored["dtype"] == "float32"
    assert stored.get("tiepoint") == (
        {"version": 1, "rules": "exact"} if rules == EXACT_RULES else None
    )
    assert SuperPointConfig.from_pretrained(tmp_path / "new" / "folder") == loaded.config


def test_the_file_says_what_wrote_it(tmp_path: Path) -> None:
    from safetensors import safe_open

    make_model(EXACT_RULES).save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", framework="np") as file:
        assert file.metadata() == {"format": "pt"}
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F32"}  # noqa: SIM118


def test_a_half_precision_model_is_saved_in_float32(tmp_path: Path) -> None:
    make_model(EXACT_RULES).to(torch.float16).save_pretrained(tmp_path)
    loaded = SuperPointForKeypointDetection.from_pretrained(tmp_path)
    assert loaded.dtype == torch.float32
    half = make_model(EXACT_RULES).to(torch.float16).state_dict()
    assert all(torch.equal(loaded.state_dict()[name].half(), half[name]) for name in half)


@pytest.mark.parametrize("dtype", ["float16", torch.bfloat16])
def test_a_half_precision_file_is_widened_unless_it_says_nothing(
    tmp_path: Path, dtype: Any
) -> None:
    load = SuperPointForKeypointDetection.from_pretrained
    make_model(EXACT_RULES).save_pretrained(tmp_path, dtype=dtype)
    assert load(tmp_path).dtype == torch.float32
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    del config["dtype"]
    path.write_text(json.dumps(config))
    stored = getattr(torch, str(dtype).removeprefix("torch."))
    assert load(tmp_path).dtype == load(tmp_path, dtype="auto").dtype == stored
    path.write_text(json.dumps({**config, "torch_dtype": "bfloat16"}))
    assert load(tmp_path).dtype == torch.bfloat16
    assert load(tmp_path, dtype=torch.float16).dtype == torch.float16
    assert load(tmp_path, dtype="float32").config.dtype == torch.float32
    with pytest.raises(ConfigError, match="int8"):
        load(tmp_path, dtype="int8")


def test_the_bundled_model_loads_by_default_on_the_device_that_is_asked_for() -> None:
    model = SuperPointForKeypointDetection.from_pretrained()
    assert model.config.rules == "exact" and model.device == torch.device("cpu")
    assert model.config.keypoint_threshold == Detector().checkpoint.detection.threshold
    other = SuperPointForKeypointDetection.from_pretrained(
        "base", device="meta", dtype="float16", max_keypoints=3
    )
    assert other.device.type == "meta" and other.dtype == torch.float16
    assert other.config.max_keypoints == 3


def test_what_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    load = SuperPointForKeypointDetection.from_pretrained
    with pytest.raises(CheckpointError, match="nowhere"):
        load("nowhere")
    with pytest.raises(ConfigError, match="unknown setting max_keypoint;"):
        load(max_keypoint=3)
    make_model(EXACT_RULES).save_pretrained(tmp_path)
    other = make_model(EXACT_RULES, length=24)
    other.config.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="shape"):
        load(tmp_path)


def test_a_model_can_be_copied_and_pickled(model: SuperPointForKeypointDetection) -> None:
    pixels = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        expected = model(pixels).scores
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(twin(pixels).scores, expected)


def test_an_output_holds_only_what_it_was_given() -> None:
    out = SuperPointKeypointDescriptionOutput(scores=torch.zeros(1, 2))
    assert list(out) == ["scores"] and len(out) == 1


def test_transformers_older_words_for_dtype_and_speed_are_understood() -> None:
    model = SuperPointForKeypointDetection.from_pretrained(torch_dtype=torch.float16)
    assert model.dtype == torch.float16
    assert AutoImageProcessor.from_pretrained(use_fast=True).rules == "exact"


@pytest.mark.parametrize(
    "kind", [SuperPointConfig, SuperPointForKeypointDetection, AutoImageProcessor]
)
def test_an_unknown_setting_is_refused_before_anything_is_loaded(kind: Any) -> None:
    with pytest.raises(ConfigError, match="unknown setting colour, speed; there are"):
        kind.from_pretrained("nowhere", speed=3, colour="blue")


def test_settings_replace_those_of_the_checkpoint() -> None:
    stored = SuperPointConfig.from_pretrained()
    config = SuperPointConfig.from_pretrained(nms_radius=stored.nms_radius + 1, dtype="float16")
    assert (config.nms_radius, config.dtype) == (stored.nms_radius + 1, torch.float16)
    assert config.encoder_hidden_sizes == stored.encoder_hidden_sizes
    processor = AutoImageProcessor.from_pretrained(do_resize=False, size=(100, 200))
    assert (processor.do_resize, processor.size) == (False, {"height": 100, "width": 200})


def test_the_noise_floor_is_kept_in_the_file_and_changes_no_result(
    tmp_path: Path, photographs: list[np.ndarray]
) -> None:
    """The guide's only limit of scores is `keypoint_threshold`."""
    plain, marked = (make_model(EXACT_RULES, keypoint_threshold=0.0) for _ in range(2))
    marked.config.tiepoint = {**EXACT, "noise_floor": 0.5}
    marked.save_pretrained(tmp_path)
    loaded = SuperPointForKeypointDetection.from_pretrained(tmp_path)
    assert loaded.config.tiepoint["noise_floor"] == 0.5
    assert Detector(tmp_path).checkpoint.detection.noise_floor == 0.5
    image, processor = photographs[0][:64, :80], make_processor(EXACT_RULES)
    expected, found = (detect(model, processor, image).scores for model in (plain, loaded))
    assert expected.shape[1] > 20 and expected.min() < 0.5
    torch.testing.assert_close(found, expected)


def test_a_revision_of_a_folder_is_refused(tmp_path: Path) -> None:
    make_model(EXACT_RULES).save_pretrained(tmp_path)
    load = SuperPointForKeypointDetection.from_pretrained
    assert load(tmp_path, revision="main", local_files_only=True).config.rules == "exact"
    with pytest.raises(CheckpointError, match="revision 'v1' can be given for a Hub id only"):
        load(tmp_path, revision="v1")


def test_saving_into_a_checkpoint_removes_the_manifest_of_the_old_weights(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"sha256": "0" * 64}))
    make_model(EXACT_RULES).save_pretrained(tmp_path)
    assert SuperPointForKeypointDetection.from_pretrained(tmp_path).config.rules == "exact"
