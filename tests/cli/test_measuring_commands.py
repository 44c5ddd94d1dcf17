"""`tiepoint fit-rotation` and `tiepoint quantize` as a user runs them: both measure a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from tiepoint.cli import app, exit_codes
from tiepoint.weights.checkpoint import load_checkpoint, locate
from tiepoint.weights.folder import QUANTIZATION_FILE, ROTATION_FILE
from tiepoint.weights.rotation import load_rotation

COMMANDS = {"fit-rotation": ROTATION_FILE, "quantize": QUANTIZATION_FILE}


def run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.output


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the smallest bundled checkpoint without the measured files."""
    folder = tmp_path / "mine"
    shutil.copytree(locate("small"), folder)
    for name in COMMANDS.values():
        (folder / name).unlink()
    return folder


def test_fit_rotation_adds_the_matrix_of_the_weights(folder: Path) -> None:
    code, output = run("fit-rotation", folder, "--count", "1")
    assert code == 0, output
    assert output.strip() == f"wrote {folder / ROTATION_FILE}"
    checkpoint = load_checkpoint(folder)
    length = checkpoint.network.descriptor_decoder_dim
    assert load_rotation(str(folder), checkpoint.sha256, length) is not None


def test_quantize_adds_the_activation_maxima(folder: Path) -> None:
    code, output = run("quantize", folder, "--count", "1")
    assert code == 0, output
    assert output.strip() == f"wrote {folder / QUANTIZATION_FILE}"
    assert (folder / QUANTIZATION_FILE).is_file()


@pytest.mark.parametrize("command", COMMANDS)
def test_unreadable_photographs_are_reported_and_the_rest_is_used(
    command: str, folder: Path, photographs: list[np.ndarray]
) -> None:
    photos = folder.parent / "photos"
    photos.mkdir()
    cv2.imwrite(str(photos / "a.png"), photographs[0])
    (photos / "b.png").write_bytes(b"no image")
    code, output = run(command, folder, "--photos", photos)
    assert code == 0, output
    assert "left out: " in output and "b.png" in output
    assert (folder / COMMANDS[command]).is_file()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_missing_folder_is_a_usage_error(command: str, tmp_path: Path) -> None:
    code, output = run(command, tmp_path / "none")
    assert code == exit_codes.USAGE
    assert "none: no such folder; expected a checkpoint folder" in output


@pytest.mark.parametrize("command", COMMANDS)
def test_a_bundled_name_is_no_folder_so_nothing_bundled_is_changed(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, output = run(command, "small")
    assert code == exit_codes.USAGE
    assert "small: no such folder" in output
