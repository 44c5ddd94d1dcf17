"""The two views that come with the package, and the commands that a newcomer types first."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

import tiepoint
from tiepoint.cli import app

PICTURES = runpy.run_path(str(Path(__file__).resolve().parents[2] / "examples" / "pictures.py"))


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments)


def test_the_views_are_those_that_the_script_draws() -> None:
    data = pytest.importorskip("skimage.data", reason="drawn from scikit-image's photograph")
    for seed, (path, view) in enumerate(
        zip(tiepoint.sample_views(), PICTURES["VIEWS"], strict=True), start=1
    ):
        stored = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB).astype(int)
        drawn = PICTURES["draw_view"](data.coffee(), view, seed).astype(int)
        assert stored.shape == drawn.shape
        assert abs(stored - drawn).mean() < 4  # noise, as JPEG keeps it


def test_the_newcomers_commands_align_the_views(here: Path) -> None:
    assert run("samples").output.split() == ["coffee_a.jpg", "coffee_b.jpg"]
    result = run("register", "coffee_a.jpg", "coffee_b.jpg", "-o", "aligned.png", "--json")
    assert result.exit_code == 0, result.output
    found = np.array(json.loads(result.stdout)["matrix"])
    a, b = (PICTURES["homography"](view) for view in PICTURES["VIEWS"])
    x, y = np.meshgrid(np.linspace(150, 450, 7), np.linspace(60, 330, 7))
    points = np.stack([x, y], axis=-1).reshape(-1, 1, 2)
    error_px = np.linalg.norm(
        cv2.perspectiveTransform(points, found)
        - cv2.perspectiveTransform(points, b @ np.linalg.inv(a)),
        axis=-1,
    )
    assert error_px.max() < 0.5
    assert cv2.imread("aligned.png").shape == (400, 480, 3)


def test_samples_never_replace_another_file_unasked(here: Path) -> None:
    Path("coffee_b.jpg").write_bytes(b"mine")
    refused = run("samples")
    assert refused.exit_code == 2 and "coffee_b.jpg is another file" in refused.output
    assert Path("coffee_b.jpg").read_bytes() == b"mine" and not Path("coffee_a.jpg").exists()
    assert run("samples", "-o", "views").exit_code == 0
    assert run("samples", "-o", "views").exit_code == 0  # the same files are no obstacle
    assert run("samples", "--overwrite").exit_code == 0
    assert Path("coffee_b.jpg").read_bytes() == tiepoint.sample_views()[1].read_bytes()
