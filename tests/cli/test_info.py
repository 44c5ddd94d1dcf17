"""`tiepoint info` and `--version`: installed engines, devices and checkpoints."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import tiepoint
from tiepoint import Detector
from tiepoint.cli import app
from tiepoint.weights.checkpoint import BUNDLED, DEFAULT, bundled_checkpoints, load_checkpoint
from tiepoint.weights.folder import WEIGHTS_FILE


def run(*arguments: str) -> Any:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return result


def facts() -> Any:
    return json.loads(run("info", "--json").stdout)


def test_version_is_the_package_s() -> None:
    assert run("--version").stdout == f"tiepoint {tiepoint.__version__}\n"


def test_info_names_engines_devices_and_the_default() -> None:
    report = facts()
    assert report["tiepoint"] == tiepoint.__version__
    assert report["engines"]["openvino"] == metadata.version("openvino")
    detector = Detector()
    chosen = {name: getattr(detector, name) for name in ("engine", "device", "precision")}
    assert report["default"] == chosen
    assert report["default"]["device"] in report["devices"]
    assert "cpu" in report["devices"]


def test_info_names_the_opencv_package() -> None:
    (name,) = facts()["opencv"]
    assert name.startswith("opencv-") and f"OpenCV       {name} " in run("info").stdout


def test_info_tells_how_to_repair_two_opencv_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version
    installed = {"opencv-python": "4.13.0", "opencv-python-headless": "5.0.0"}

    def version(name: str) -> str:
        if not name.startswith("opencv-"):
            return real(name)
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(metadata, "version", version)
    assert facts()["opencv"] == {"opencv-python-headless": "5.0.0", "opencv-python": "4.13.0"}
    text = run("info").stdout
    assert "pip uninstall -y opencv-python-headless opencv-python\n" in text
    assert "pip install --no-deps opencv-python\n" in text
    for name in ("opencv-python", "opencv-python-headless"):
        del installed[name]
    installed["opencv-contrib-python"] = "4.13.0"
    assert "OpenCV       opencv-contrib-python 4.13.0\n" in run("info").stdout


def test_info_describes_each_bundled_checkpoint_as_it_is_loaded() -> None:
    said = {entry["name"]: entry for entry in facts()["checkpoints"]}
    assert list(said) == bundled_checkpoints()
    for name, entry in said.items():
        checkpoint = load_checkpoint(name)
        file = BUNDLED / name / WEIGHTS_FILE
        assert entry["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert entry["encoder_hidden_sizes"] == list(checkpoint.network.encoder_hidden_sizes)
        assert entry["descriptor_decoder_dim"] == checkpoint.network.descriptor_decoder_dim
        assert entry["multiply_adds"] == checkpoint.network.multiply_adds(
            (480, 640), checkpoint.detection.phases
        )
        assert entry["phases"] == checkpoint.detection.phases
        assert entry["scales"] == list(checkpoint.detection.scales)
        assert entry["nms_radius"] == checkpoint.detection.nms_radius
        assert entry["noise_floor"] == checkpoint.detection.noise_floor > 0
        assert entry["parameters"] == sum(t.size for t in checkpoint.tensors.values())
    assert [name for name, entry in said.items() if entry["default"]] == [DEFAULT]


def test_the_text_says_what_each_checkpoint_is() -> None:
    for name in bundled_checkpoints():
        note = load_checkpoint(name).note
        assert note and note in run("info").stdout
        floor = load_checkpoint(name).detection.noise_floor
        assert f"noise floor {floor:g}" in run("info").stdout


def test_the_text_holds_the_same_facts() -> None:
    text, report = run("info").stdout, facts()
    for checkpoint in report["checkpoints"]:
        assert checkpoint["sha256"] in text
        assert f"{checkpoint['parameters']:,}" in text
    assert re.search(rf"^tiepoint +{re.escape(tiepoint.__version__)}$", text, re.MULTILINE)
    assert f"openvino {report['engines']['openvino']}" in text


def test_an_engine_that_is_not_installed_is_reported_so(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = metadata.version

    def without_torch(name: str) -> str:
        if name == "torch":
            raise metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(metadata, "version", without_torch)
    assert facts()["engines"]["torch"] is None
    assert "torch not installed" in run("info").stdout


def test_a_damaged_checkpoint_is_named_and_the_rest_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundled = tmp_path / "checkpoints"
    shutil.copytree(BUNDLED, bundled)
    broken = bundled / DEFAULT / WEIGHTS_FILE
    broken.write_bytes(broken.read_bytes()[:-1])
    monkeypatch.setattr("tiepoint.weights.checkpoint.BUNDLED", bundled)
    result = run("info")
    assert "SHA-256 is" in result.stdout
    assert "engines" in result.stdout


def test_info_imports_no_torch() -> None:
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom tiepoint.cli import app\n"
        "assert CliRunner().invoke(app, ['info']).exit_code == 0\n"
        "print(*sys.modules)"
    )
    source = str(Path(__file__).resolve().parents[2] / "src")
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": source},
        check=True,
        capture_output=True,
        text=True,
    )
    assert "torch" not in done.stdout.split()


def test_json_is_one_line() -> None:
    assert len(run("info", "--json").stdout.splitlines()) == 1
