"""`tiepoint evaluate` from its arguments to its exit code."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from tiepoint.cli import app, evaluate
from tiepoint.evaluation.settings import GENERATED_COUNT, GENERATED_SEED, Settings

runner = CliRunner()


@pytest.fixture
def wall(tmp_path: Path, photographs: list[NDArray[np.uint8]]) -> Path:
    """Two pairs with a known shift, both readable."""
    folder = tmp_path / "wall"
    folder.mkdir()
    image = cv2.resize(photographs[0], (256, 256), interpolation=cv2.INTER_AREA)
    Image.fromarray(image[:200, :200]).save(folder / "1.png")
    Image.fromarray(image[20:220, 10:210]).save(folder / "2.png")
    (folder / "pairs.txt").write_text(
        "1.png 2.png 1 0 -10 0 1 -20 0 0 1\n2.png 1.png 1 0 10 0 1 20 0 0 1\n"
    )
    return folder


def run(*arguments: object) -> tuple[int, str, str]:
    result = runner.invoke(app, ["evaluate", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_pairs_that_are_all_read_give_a_table_and_exit_0(wall: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    code, table, errors = run("homography", wall, "--k", 200, "--json", out)
    assert (code, errors) == (0, "")
    content = json.loads(out.read_text())
    names = [row["method"] for row in content["rows"]]
    assert names == [names[0], "sift", "orb"]
    assert all(name in table for name in names)
    assert all(row["within"]["3"]["mean"] == 1 for row in content["rows"])
    assert len(content["pairs"]) == 6
    assert content["settings"]["k"] == 200
    assert len(content["methods"][names[0]]["sha256"]) == 64


def test_one_unreadable_pair_is_reported_skipped_and_exits_1(wall: Path) -> None:
    with (wall / "pairs.txt").open("a") as file:
        file.write("1.png gone.png 1 0 0 0 1 0 0 0 1\n1.png 2.png 1 0\n")
    code, table, errors = run("homography", wall, "--methods", "orb", "--k", 100)
    assert code == 1
    assert "orb" in table
    assert "gone.png" in errors
    assert "line 4" in errors
    assert "2 could not be read" in errors


def test_nothing_readable_exits_3_without_a_table(tmp_path: Path) -> None:
    code, table, errors = run("homography", tmp_path / "none", "--methods", "orb")
    assert (code, table) == (3, "")
    assert "no such folder" in errors
    code, table, errors = run("generated", "--photos", tmp_path, "--methods", "orb")
    assert (code, table) == (3, "")
    assert "none of its 0 images" in errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--methods", "surf"], "no method 'surf'"),
        (["--methods", ""], "at least one"),
        (["--methods", "orb,orb"], "no name twice"),
        (["--checkpoint", "nowhere/at/all"], "nowhere"),
        (["--k", "0"], "--k"),
    ],
)
def test_wrong_usage_exits_2_and_says_why(wall: Path, options: list[str], message: str) -> None:
    code, _, errors = run("homography", wall, *options)
    assert code == 2
    assert message in errors


def test_generated_pairs_are_scored_by_level(wall: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    arguments = ["generated", "--photos", wall, "--part", "all", "--methods", "orb", "--limit", 6]
    assert run(*arguments, "--k", 100, "--json", out)[0] == 0
    content = json.loads(out.read_text())
    assert [row["group"] for row in content["rows"]] == ["all", "easy", "medium", "hard"]
    assert content["seed"] == GENERATED_SEED
    assert content["photos"] == ["1.png", "2.png"]
    assert run(*arguments, "--part", "test")[0] == 2


def test_limit_takes_the_first_pairs_and_a_checkpoint_may_be_left_out(
    wall: Path, tmp_path: Path
) -> None:
    out = tmp_path / "report.json"
    run("homography", wall, "--methods", "sift-opencv", "--limit", 1, "--json", out)
    content = json.loads(out.read_text())
    assert [(pair["pair"], pair["method"]) for pair in content["pairs"]] == [
        ("1.png 2.png", "sift-opencv")
    ]


def test_defaults_are_those_of_the_settings() -> None:
    for command in (evaluate.homography, evaluate.generated):
        parameters = inspect.signature(command).parameters
        for name in ("k", "long_side", "seeds"):
            assert parameters[name].default == getattr(Settings(), name)
    assert GENERATED_COUNT == 1000


def test_help_imports_neither_opencv_nor_an_engine() -> None:
    code = (
        "import sys; from tiepoint.cli import app\n"
        "try: app(['evaluate', 'homography', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(any(name in sys.modules for name in ('cv2', 'numpy', 'openvino', 'torch')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
