from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_network import SMALL, trained_like

import tiepoint
from tiepoint.config import DetectionConfig
from tiepoint.training.export import commit, export_checkpoint, machine
from tiepoint.weights.checkpoint import load_checkpoint


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    state = trained_like().state_dict()
    return export_checkpoint(tmp_path / "new" / "folder", state, SMALL, {"note": "a note"})


def test_an_exported_checkpoint_loads_with_its_widths_and_rules(exported: Path) -> None:
    checkpoint = load_checkpoint(exported)
    assert checkpoint.network == SMALL
    assert checkpoint.rules == "exact"
    assert checkpoint.note == "a note"
    assert checkpoint.detection == DetectionConfig()


def test_a_detector_computes_what_the_trained_network_computes(tmp_path: Path) -> None:
    network = trained_like()
    folder = export_checkpoint(tmp_path, network.state_dict(), SMALL, {}, half=False)
    detector = tiepoint.Detector(folder, threshold=0.0, precision="f32", device="cpu")
    whole = replace(detector.checkpoint.detection, subpixel=False)
    detector.checkpoint = replace(detector.checkpoint, detection=whole)
    image = np.random.default_rng(0).integers(0, 256, (64, 80), dtype=np.uint8)
    found = detector(image)
    with torch.no_grad():
        logits, _ = network.dense(torch.from_numpy(image)[None, None].float() / 255)
    heat = torch.softmax(logits, 1)[0, :-1].reshape(8, 8, 8, 10).permute(2, 0, 3, 1)
    heat = heat.reshape(64, 80).numpy()
    at = found.xy.astype(int)
    assert len(found) > 5
    np.testing.assert_allclose(found.scores, heat[at[:, 1], at[:, 0]], rtol=1e-3)


def test_half_weights_are_computed_in_float32(exported: Path, tmp_path: Path) -> None:
    config = json.loads((exported / "config.json").read_text())
    assert config["dtype"] == "float32"
    whole = export_checkpoint(tmp_path / "f32", trained_like().state_dict(), SMALL, {}, half=False)
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (exported, whole)]
    assert sizes[0] < 0.6 * sizes[1]
    ours, theirs = load_checkpoint(exported).tensors, load_checkpoint(whole).tensors
    for name, tensor in ours.items():
        np.testing.assert_allclose(tensor, theirs[name], rtol=1e-3, atol=1e-6)


def test_the_files_are_transformers_layout(exported: Path) -> None:
    assert {path.name for path in exported.iterdir()} == {
        "config.json",
        "manifest.json",
        "model.safetensors",
        "preprocessor_config.json",
    }
    config = json.loads((exported / "config.json").read_text())
    processor = json.loads((exported / "preprocessor_config.json").read_text())
    assert config["model_type"] == "superpoint"
    assert config["architectures"] == ["SuperPointForKeypointDetection"]
    assert processor["image_processor_type"] == "SuperPointImageProcessor"
    assert processor["tiepoint"] == {"version": 1, "rules": "exact"}
    assert config["tiepoint"] == {"version": 1, "rules": "exact", "scales": [1]}


def test_the_detection_settings_are_kept(tmp_path: Path) -> None:
    chosen = DetectionConfig(
        threshold=0.02, max_keypoints=500, nms_radius=3, border=2, scales=(1, 0.7)
    )
    export_checkpoint(tmp_path, trained_like().state_dict(), SMALL, {}, detection=chosen)
    assert load_checkpoint(tmp_path).detection == chosen


def test_the_manifest_has_the_weights_checksum(exported: Path) -> None:
    manifest = json.loads((exported / "manifest.json").read_text())
    weights = (exported / "model.safetensors").read_bytes()
    assert manifest["sha256"] == hashlib.sha256(weights).hexdigest()


def test_an_export_replaces_the_one_before(exported: Path) -> None:
    export_checkpoint(exported, trained_like(seed=5).state_dict(), SMALL, {"note": "newer"})
    assert load_checkpoint(exported).note == "newer"


def test_the_machine_and_the_commit_are_named() -> None:
    assert machine()["torch"] == torch.__version__
    found = commit()
    assert found is None or len(found.removesuffix("-dirty")) == 40
