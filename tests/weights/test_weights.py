"""Checkpoints: found by name or folder, verified, and refused with what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from support.checkpoints import random_checkpoint
from tiepoint import Detector, match
from tiepoint.architecture import NetworkConfig
from tiepoint.errors import CheckpointError
from tiepoint.weights.checkpoint import BUNDLED, DEFAULT, bundled_checkpoints, load_checkpoint
from tiepoint.weights.folder import CONFIG_FILE, MANIFEST_FILE, WEIGHTS_FILE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's own copy of the bundled checkpoint."""
    copy = tmp_path / "체크포인트 mine"
    shutil.copytree(BUNDLED / DEFAULT, copy)
    (copy / MANIFEST_FILE).unlink()
    return copy


def edit(folder: Path, **changes: object) -> None:
    path = folder / CONFIG_FILE
    config = json.loads(path.read_text())
    config.update(changes)
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))


def test_the_default_is_bundled_and_verified() -> None:
    checkpoint = load_checkpoint()
    assert checkpoint.name == bundled_checkpoints()[0]
    assert len(checkpoint.tensors) == 24 and len(checkpoint.sha256) == 64
    assert all(array.dtype == np.float32 for array in checkpoint.tensors.values())


def test_every_bundled_checkpoint_has_a_card_and_a_manifest_of_its_own_weights() -> None:
    for name in bundled_checkpoints():
        folder, checkpoint = BUNDLED / name, load_checkpoint(name)
        manifest = json.loads((folder / MANIFEST_FILE).read_text())
        card = (folder / "README.md").read_text(encoding="utf-8")
        assert manifest["name"] == name and manifest["licence"] == "Apache-2.0"
        assert {"preset", "data", "seed", "stage_steps", "commit", "hours"} <= manifest.keys()
        assert checkpoint.sha256 in card
        assert f"{manifest['images']:,}" in card and manifest["commit"][:7] in card
        assert "Apache-2.0" in card and "10,977,554" in card


def test_the_small_one_costs_a_seventh_and_still_tells_places_apart(photographs) -> None:
    base, small = (load_checkpoint(name).network for name in ("base", "small"))
    assert 6 * small.multiply_adds((480, 640)) < base.multiply_adds((480, 640))
    detector = Detector("small", max_keypoints=500)
    a, b = detector([photographs[0], photographs[0][11:, 17:]])
    assert a.descriptors is not None and a.descriptors.shape[1] == 64
    matches = match(a, b)
    apart = np.hypot(*(a.xy[matches.pairs[:, 0]] - b.xy[matches.pairs[:, 1]] - [17, 11]).T)
    assert len(apart) > 200 and (apart < 1.5).mean() > 0.7


def test_a_folder_of_the_users_own_loads_like_a_bundled_one(folder: Path) -> None:
    own, bundled = load_checkpoint(folder), load_checkpoint("default")
    assert own.sha256 == bundled.sha256 and own.network == bundled.network
    assert own.detection == bundled.detection and own.note == ""


def test_any_widths_load(folder: Path) -> None:
    other = random_checkpoint(3, (4, 6, 10, 12), hidden=20, length=9)
    save_file(dict(other.tensors), folder / WEIGHTS_FILE)
    edit(folder, encoder_hidden_sizes=[4, 6, 10, 12], decoder_hidden_size=20,
         descriptor_decoder_dim=9)  # fmt: skip
    assert load_checkpoint(folder).network == NetworkConfig((4, 6, 10, 12), 20, 65, 9)


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64"])
def test_tensors_of_other_precisions_are_widened_to_float32(folder: Path, kind: str) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch

    original = load_checkpoint(folder).tensors
    narrow = {n: torch.from_numpy(a.copy()).to(getattr(torch, kind)) for n, a in original.items()}
    save_torch(narrow, folder / WEIGHTS_FILE)
    for name, array in load_checkpoint(folder).tensors.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, narrow[name].float().numpy())


def test_without_our_key_a_checkpoint_samples_as_transformers_does(folder: Path) -> None:
    edit(folder, tiepoint=...)
    checkpoint = load_checkpoint(folder)
    assert (checkpoint.rules, checkpoint.sampling) == ("transformers", "superpoint")
    assert load_checkpoint().sampling == "exact"


def test_no_limit_in_a_config_is_no_limit_here(folder: Path) -> None:
    assert load_checkpoint(folder).detection.max_keypoints is None
    edit(folder, max_keypoints=500)
    assert load_checkpoint(folder).detection.max_keypoints == 500


def test_missing_and_unexpected_tensors_are_both_listed(folder: Path) -> None:
    tensors = dict(load_checkpoint(folder).tensors)
    tensors["convPa.weight"] = tensors.pop("keypoint_decoder.conv_score_a.weight")
    save_file(tensors, folder / WEIGHTS_FILE)
    with pytest.raises(CheckpointError, match="missing: keypoint_decoder.*unexpected: convPa"):
        load_checkpoint(folder)


def test_a_shape_that_the_config_does_not_say_is_refused(folder: Path) -> None:
    edit(folder, descriptor_decoder_dim=64)
    with pytest.raises(CheckpointError, match="conv_descriptor_b.*shape"):
        load_checkpoint(folder)


def test_a_nan_among_the_weights_is_refused(folder: Path) -> None:
    tensors = {n: a.copy() for n, a in load_checkpoint(folder).tensors.items()}
    tensors["keypoint_decoder.conv_score_a.bias"][0] = np.nan
    save_file(tensors, folder / WEIGHTS_FILE)
    with pytest.raises(CheckpointError, match="conv_score_a.bias holds NaN"):
        load_checkpoint(folder)


@pytest.mark.parametrize("kept_bytes", [0, 7, 500, 100_000])
def test_a_truncated_weights_file_is_refused(folder: Path, kept_bytes: int) -> None:
    path = folder / WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:kept_bytes])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        load_checkpoint(folder)


def test_a_bundled_file_that_was_altered_is_refused(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(BUNDLED / DEFAULT, copy)
    save_file(dict(random_checkpoint().tensors), copy / WEIGHTS_FILE)
    with pytest.raises(CheckpointError, match="SHA-256"):
        load_checkpoint(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"model_type": "superglue"}, "superglue"), ({"encoder_hidden_sizes": [1, 2]}, "expected 4"),
     ({"keypoint_threshold": 3}, "threshold"), ({"nms_radius": "four"}, "nms_radius"),
     ({"tiepoint": {"version": 2, "rules": "exact"}}, "upgrade"), ({"tiepoint": 1}, "rules"),
     ({"decoder_hidden_size": -4}, "whole numbers"), ({"encoder_hidden_sizes": 7}, "not")],
)  # fmt: skip
def test_a_config_that_makes_no_sense_is_refused(folder: Path, changes: dict, message: str) -> None:
    edit(folder, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(folder)


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00\xff"])
def test_a_config_that_is_no_json_object_is_refused(folder: Path, text: str) -> None:
    (folder / CONFIG_FILE).write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_checkpoint(folder)


def test_a_name_that_is_nothing_says_what_there_is() -> None:
    with pytest.raises(CheckpointError, match="base"):
        load_checkpoint("no-such-thing")


def test_a_folder_without_weights_says_what_it_lacks(folder: Path) -> None:
    (folder / WEIGHTS_FILE).unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors: missing"):
        load_checkpoint(folder)
