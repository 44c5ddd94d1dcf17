"""`tiepoint scenes`: sheets, a report, and a light start."""

from __future__ import annotations

import json
import subprocess
import sys

import cv2
import numpy as np
from typer.testing import CliRunner

from tiepoint.cli import app
from tiepoint.training.scenes.settings import DataConfig

runner = CliRunner()


def test_it_writes_a_sheet_per_kind_and_a_report(tmp_path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for number in range(8):
        cv2.imwrite(str(photos / f"{number}.png"), rng.integers(0, 256, (150, 200), np.uint8))
    out = tmp_path / "out"
    arguments = ["scenes", "-o", str(out), "--photos", str(photos), "--count", "2"]
    done = runner.invoke(app, [*arguments, "--size", "64x80", "--seed", "4"])
    assert done.exit_code == 0, done.output
    report = json.loads((out / "report.json").read_text())
    for kind in [*(kind for kind, _ in DataConfig().mix), "photo"]:
        sheet = cv2.imread(str(out / f"{kind}.png"))
        assert sheet.shape == (64 * 3, 80 * 3 * 4, 3)
        assert report[kind]["pairs"] == 2
        assert kind in done.output
    assert report["photographs"]["empty"] == [0, 0, 0]  # noise fills every cell
    assert report["generated"]["images"] == 8
    first = (out / "boxes.png").read_bytes()
    runner.invoke(app, [*arguments, "--size", "64x80", "--seed", "4"])
    assert (out / "boxes.png").read_bytes() == first


def test_a_wrong_size_or_folder_is_a_users_mistake(tmp_path) -> None:
    for size in ("64", "64x", "ax64", "60x64"):
        done = runner.invoke(app, ["scenes", "-o", str(tmp_path / "out"), "--size", size])
        assert done.exit_code == 2, size
    file = tmp_path / "file"
    file.write_text("")
    done = runner.invoke(app, ["scenes", "-o", str(file), "--count", "1", "--size", "64x64"])
    assert done.exit_code == 2


def test_help_loads_nothing_heavy() -> None:
    heavy = "{'cv2', 'numpy', 'torch', 'PIL'}"
    code = f"import sys, tiepoint.cli.scenes; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
