"""`tiepoint stitch` from its arguments to its file and exit code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from tiepoint.cli import app


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, photographs: list[NDArray[np.uint8]]) -> Path:
    """Two overlapping parts of one photograph, and another photograph."""
    folder, photo = tmp_path_factory.mktemp("stitch"), photographs[2]
    Image.fromarray(photo[:, :380]).save(folder / "left.png")
    Image.fromarray(photo[:, 200:]).save(folder / "right.png")
    Image.fromarray(photographs[1]).save(folder / "other.png")
    return folder


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["stitch", "-c", "small", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_two_parts_are_one_picture(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "pano.png"
    code, output, errors = run(folder / "left.png", folder / "right.png", "-o", out)
    assert (code, errors) == (0, "") and output.startswith("2 of 2 images, ")
    width, height = Image.open(out).size
    assert abs(width - 600) <= 2 and abs(height - 400) <= 2


def test_an_image_that_does_not_belong_is_named(folder: Path, tmp_path: Path) -> None:
    names = [str(folder / f"{name}.png") for name in ("left", "other", "right")]
    code, output, errors = run(*names, "-o", tmp_path / "pano.jpg", "--json")
    assert code == 1 and f"left out: {names[1]}: no overlap with the others" in errors
    summary = json.loads(output)
    assert summary["members"] == [names[0], names[2]]
    assert list(summary["left_out"]) == [names[1]]
    assert [pair["success"] for pair in summary["pairs"]] == [False, True, False]
    assert summary["kind"] == "homography" and summary["residual_px"] < 0.5


def test_what_cannot_be_stitched_writes_nothing(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "pano.png"
    code, _, errors = run(folder / "left.png", folder / "other.png", "-o", out)
    assert code == 4 and "no two of the 2 images align" in errors
    code, _, errors = run(folder / "left.png", tmp_path / "none.png", "-o", out)
    assert code == 3 and "none.png" in errors
    code, _, errors = run(folder / "left.png", "-o", out)
    assert code == 2 and "two or more" in errors
    code, _, errors = run(folder / "left.png", folder / "right.png", "-o", tmp_path / "pano.gif")
    assert code == 2 and ".png" in errors
    code, _, errors = run(folder / "left.png", folder / "right.png", "-o", "-", "--json")
    assert code == 2 and "stdout" in errors
    assert not out.exists()
