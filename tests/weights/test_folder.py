"""Checkpoint folders: written whole or not at all, and settings that come back from config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.checkpoints import random_checkpoint
from tiepoint.architecture import NetworkConfig
from tiepoint.config import DetectionConfig
from tiepoint.errors import CheckpointError, FormatError, OutputError
from tiepoint.weights import folder as folder_module
from tiepoint.weights.checkpoint import BUNDLED, bundled_checkpoints
from tiepoint.weights.folder import (
    CONFIG_FILE,
    MANIFEST_FILE,
    PREPROCESSOR_FILE,
    WEIGHTS_FILE,
    Rules,
    config_values,
    detection_config,
    network_config,
    preprocessor_values,
    read_json,
    rules_of,
    write_file,
    write_files,
)

NETWORK = NetworkConfig((4, 6, 10, 12), 20, 65, 9)
PATH = Path("config.json")


def test_a_new_folder_has_all_files_and_no_others(tmp_path: Path) -> None:
    folder = tmp_path / "above" / "새 폴더"
    write_files(folder, {WEIGHTS_FILE: b"weights", CONFIG_FILE: {"a": 1}})
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG_FILE, WEIGHTS_FILE]
    assert (folder / WEIGHTS_FILE).read_bytes() == b"weights"
    assert (folder / CONFIG_FILE).read_bytes() == b'{\n  "a": 1\n}\n'
    assert list(folder.parent.iterdir()) == [folder]


def test_a_name_may_be_as_long_as_the_file_system_has_them(tmp_path: Path) -> None:
    for name in ("x" * 255, "가" * 85):
        write_files(tmp_path / name, {CONFIG_FILE: {}})
        assert [path.name for path in (tmp_path / name).iterdir()] == [CONFIG_FILE]


def test_another_run_on_the_same_folder_leaves_nothing_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it was killed or still runs: its half of a folder is not that of this run."""

    def killed(*_: object, **__: object) -> None:
        raise SystemExit

    with monkeypatch.context() as first:
        first.setattr(folder_module.shutil, "rmtree", lambda *_, **__: None)
        first.setattr(Path, "rename", killed)
        with pytest.raises(SystemExit):
            write_files(tmp_path / "new", {WEIGHTS_FILE: b"half"})
    assert any(tmp_path.rglob(WEIGHTS_FILE))
    write_files(tmp_path / "new", {CONFIG_FILE: {}})
    assert [path.name for path in (tmp_path / "new").iterdir()] == [CONFIG_FILE]


def test_no_files_make_an_empty_folder(tmp_path: Path) -> None:
    write_files(tmp_path / "new", {})
    assert list((tmp_path / "new").iterdir()) == []


def test_keys_keep_their_order_unless_they_are_sorted(tmp_path: Path) -> None:
    values = {"b": {"d": 1, "c": 2}, "a": 3}
    kept = write_file(tmp_path, "kept.json", values).read_text()
    sorted_ = write_file(tmp_path, "sorted.json", values, sort_keys=True).read_text()
    assert kept == json.dumps(values, indent=2) + "\n"
    assert sorted_ == json.dumps(values, indent=2, sort_keys=True) + "\n" != kept


def test_a_failure_leaves_no_new_folder(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"config\.json: a setting cannot be written as JSON"):
        write_files(tmp_path / "new", {WEIGHTS_FILE: b"", CONFIG_FILE: {"path": Path()}})
    assert list(tmp_path.iterdir()) == []


def test_config_json_is_written_last(tmp_path: Path) -> None:
    """A reader that sees the new config.json sees the new weights, too."""
    with pytest.raises(FormatError):
        write_files(tmp_path, {CONFIG_FILE: {}, WEIGHTS_FILE: b"", PREPROCESSOR_FILE: {"a": {1}}})
    assert (tmp_path / WEIGHTS_FILE).exists()
    assert not (tmp_path / CONFIG_FILE).exists()


def test_new_weights_remove_the_manifest_of_the_old_ones(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    write_files(tmp_path, {WEIGHTS_FILE: b"old", MANIFEST_FILE: {"sha256": "1"}})
    write_files(tmp_path, {CONFIG_FILE: {}})
    assert (tmp_path / MANIFEST_FILE).exists()
    write_files(tmp_path, {WEIGHTS_FILE: b"new"})
    assert not (tmp_path / MANIFEST_FILE).exists()
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_place_that_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="cannot be written"):
            write_files(folder, {CONFIG_FILE: {}})
    with pytest.raises(OutputError, match="cannot be written"):
        write_file(tmp_path / "missing", CONFIG_FILE, {})


@pytest.mark.parametrize(
    "detection",
    [
        DetectionConfig(),
        DetectionConfig(0.1, 500, 3, border=2, covariance_scale=1.5, scales=(1.0, 0.5)),
        DetectionConfig(0.0, None, 0, border=0),
        DetectionConfig(noise_floor=0.001),
    ],
)
def test_settings_come_back_from_config_json(tmp_path: Path, detection: DetectionConfig) -> None:
    values = config_values(NETWORK, detection, rules="exact")
    path = write_file(tmp_path, CONFIG_FILE, values)
    config = read_json(path)
    assert network_config(config, path) == NETWORK
    assert detection_config(config, path) == detection
    assert rules_of(config, path) == "exact"


def test_a_config_without_a_noise_floor_has_none() -> None:
    assert detection_config({}, PATH).noise_floor == 0
    unmeasured = config_values(NETWORK, DetectionConfig(), rules="exact")
    assert "noise_floor" not in unmeasured["tiepoint"]
    assert detection_config(unmeasured, PATH).noise_floor == 0


@pytest.mark.parametrize("wrong", [-0.1, 2, "low", None])
def test_a_noise_floor_that_is_no_probability_is_refused(wrong: object) -> None:
    config = {"tiepoint": {"version": 1, "rules": "exact", "noise_floor": wrong}}
    with pytest.raises(CheckpointError, match=r"config\.json: noise_floor is"):
        detection_config(config, PATH)


def test_transformers_rules_leave_no_key_of_tiepoint() -> None:
    assert "tiepoint" not in config_values(NETWORK, DetectionConfig(), rules="transformers")
    assert "tiepoint" not in preprocessor_values("transformers")
    assert preprocessor_values("exact") == {
        **preprocessor_values("transformers"),
        "tiepoint": {"version": 1, "rules": "exact"},
    }


@pytest.mark.parametrize("rules", ["exact", "transformers"])
def test_transformers_reads_both_files_as_their_defaults(rules: Rules) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.SuperPointConfig(**config_values(NETWORK, DetectionConfig(), rules=rules))
    assert list(config.encoder_hidden_sizes) == [4, 6, 10, 12]
    assert config.keypoint_threshold == transformers.SuperPointConfig().keypoint_threshold
    assert config.max_keypoints == transformers.SuperPointConfig().max_keypoints == -1
    assert config.nms_radius == transformers.SuperPointConfig().nms_radius
    assert preprocessor_values(rules)["size"] == {"height": 480, "width": 640}


def test_an_empty_config_is_the_papers_network_under_transformers_rules() -> None:
    assert network_config({}, PATH) == NetworkConfig()
    assert detection_config({}, PATH) == DetectionConfig()
    assert rules_of({}, PATH) == "transformers"


@pytest.mark.parametrize(
    ("tiepoint", "message"),
    [
        ({"version": 2, "rules": "exact"}, "rules of version 2, expected version 1; upgrade"),
        ({"version": 1, "rules": "other"}, '"rules": "exact"'),
        ({}, '"rules": "exact"'),
        ("exact", '"rules": "exact"'),
    ],
)
def test_unknown_rules_are_refused(tiepoint: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=f"config.json: .*{message}"):
        rules_of({"tiepoint": tiepoint}, PATH)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "superglue"}, "model_type is 'superglue', expected 'superpoint'"),
        ({"encoder_hidden_sizes": [1, 2]}, "expected 4"),
        ({"encoder_hidden_sizes": 64}, "not iterable"),
        ({"keypoint_decoder_dim": 64}, "expected 65"),
    ],
)
def test_widths_that_make_no_network_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=f"config.json: .*{message}"):
        network_config(config, PATH)


@pytest.mark.parametrize("name", bundled_checkpoints())
def test_bundled_config_files_are_what_the_writer_makes(name: str) -> None:
    folder = BUNDLED / name
    config = read_json(folder / CONFIG_FILE)
    network = network_config(config, folder)
    made = config_values(network, detection_config(config, folder), rules="exact")
    assert json.loads(json.dumps(made)) == config
    assert preprocessor_values("exact") == read_json(folder / PREPROCESSOR_FILE)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json: missing; a checkpoint folder holds"):
        read_json(tmp_path / CONFIG_FILE)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_json(tmp_path)
    (tmp_path / CONFIG_FILE).write_text("[1]")
    with pytest.raises(CheckpointError, match="holds a list, expected a JSON object"):
        read_json(tmp_path / CONFIG_FILE)
    (tmp_path / CONFIG_FILE).write_text("{")
    with pytest.raises(CheckpointError, match="not readable as JSON"):
        read_json(tmp_path / CONFIG_FILE)


def test_a_random_checkpoints_settings_survive_both_ways() -> None:
    checkpoint = random_checkpoint(1)
    values = config_values(checkpoint.network, checkpoint.detection, rules="exact")
    assert network_config(values, PATH) == checkpoint.network
    assert detection_config(values, PATH) == checkpoint.detection
