"""`tiepoint scenes`: contact sheets, a report, and a light start."""

from __future__ import annotations

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from tiepoint.cli import app
from tiepoint.training.scenes.settings import DataConfig

runner = CliRunner()


def scenes(*arguments: object) -> Result:
    return runner.invoke(app, ["scenes", *map(str, arguments)])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One run with photographs: its folder, its arguments and its result."""
    photos = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(8):
        cv2.imwrite(str(photos / f"{number}.png"), rng.integers(0, 256, (150, 200), np.uint8))
    out = tmp_path_factory.mktemp("run") / "out"
    arguments = ["--photos", photos, "--count", 2, "--size", "64x80", "--seed", 4]
    return out, arguments, scenes("-o", out, *arguments)


def test_it_writes_a_sheet_per_kind_and_a_report(finished) -> None:
    out, _, done = finished
    assert done.exit_code == 0, done.output
    report = json.loads((out / "report.json").read_text())
    for kind in [*(kind for kind, _ in DataConfig().mix), "photo"]:
        sheet = cv2.imread(str(out / f"{kind}.png"))
        assert sheet.shape == (64 * 3, 80 * 3 * 4, 3)
        assert report[kind]["pairs"] == 2
    assert report["photographs"]["empty"] == [0, 0, 0]  # noise fills every cell
    assert report["generated"]["images"] == 8
    assert report["seed"] == 4 and report["size_hw"] == [64, 80]


def test_it_prints_a_column_per_kind_and_a_line_per_statistic(finished) -> None:
    out, _, done = finished
    header, *lines = done.output.splitlines()
    kinds = header.replace("10 / 50 / 90 %", "").split()
    assert kinds == [*(kind for kind, _ in DataConfig().mix), "photo", "photographs", "generated"]
    titles = [line[:18].strip() for line in lines]
    assert titles[:3] == ["slope", "kurtosis", "empty cells"]
    common = next(line for line in lines if line.startswith("common view"))
    assert common.split()[-4] == "-" or " - " in common  # photographs alone have none
    assert "of a flat distribution" in done.output
    assert done.output.rstrip().endswith(f"contact sheets and report.json are in {out}")


def test_the_printed_figures_are_those_of_the_report(finished) -> None:
    out, _, done = finished
    report = json.loads((out / "report.json").read_text())
    slopes = next(line for line in done.output.splitlines() if line.startswith("slope"))
    expected = " ".join(f"{value:.3g}" for value in report["leaves"]["slope"])
    assert expected in slopes


def test_another_run_makes_the_same_sheets(finished, tmp_path) -> None:
    out, arguments, _ = finished
    assert scenes("-o", tmp_path, *arguments).exit_code == 0
    for name in ("boxes.png", "photo.png", "report.json"):
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes()


@pytest.mark.parametrize("size", ["64", "64x", "ax64", "60x64", "64x64x64", "-64x64", "32x32"])
def test_a_wrong_size_is_a_users_mistake(tmp_path, size: str) -> None:
    done = scenes("-o", tmp_path / "out", "--size", size)
    assert done.exit_code == 2
    assert "expected" in done.output
    assert not (tmp_path / "out").exists()


def test_a_file_in_place_of_the_folder_is_a_users_mistake(tmp_path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert scenes("-o", file, "--count", 1, "--size", "64x64").exit_code == 2
    assert file.read_text() == ""


@pytest.mark.parametrize(("option", "value"), [("--seed", -1), ("--count", 0), ("--count", "x")])
def test_numbers_out_of_range_are_refused(tmp_path, option: str, value: object) -> None:
    assert scenes("-o", tmp_path / "out", option, value).exit_code == 2


def test_the_output_folder_must_be_named() -> None:
    done = scenes()
    assert done.exit_code == 2 and "--out" in done.output


def test_help_names_every_option_and_the_size() -> None:
    done = scenes("--help")
    assert done.exit_code == 0
    for option in ("--out", "--photos", "--seed", "--count", "--size"):
        assert option in done.output
    assert "160x160" in done.output


def test_help_loads_nothing_heavy() -> None:
    heavy = "{'cv2', 'numpy', 'torch', 'PIL'}"
    code = f"import sys, tiepoint.cli.scenes; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
