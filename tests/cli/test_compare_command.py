"""`tiepoint compare` from its arguments to its output and exit code."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from tiepoint.cli import app, exit_codes
from tiepoint.images.reading import read

TRUTH = np.array([[0.95, 0.08, 20], [-0.05, 0.95, 25], [5e-5, 5e-5, 1]])
QUICK = ("--methods", "sift,orb", "--repeats", "1")


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["compare", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def images(tmp_path: Path, photographs: list[NDArray[np.uint8]]) -> tuple[Path, Path]:
    photo = photographs[2]
    a, b = tmp_path / "a.png", tmp_path / "b.png"
    cv2.imwrite(str(a), photo)
    cv2.imwrite(str(b), cv2.warpPerspective(photo, TRUTH, photo.shape[1::-1]))
    return a, b


def test_a_table_and_a_sentence_are_printed_and_the_picture_written(
    images: tuple[Path, Path], tmp_path: Path
) -> None:
    plot = tmp_path / "plot.png"
    code, printed, errors = run(*images, *QUICK, "--plot", plot)
    assert (code, errors) == (exit_codes.DONE, "")
    rows = [
        line.split() for line in printed.splitlines() if line.split()[:1] in (["sift"], ["orb"])
    ]
    assert [row[0] for row in rows] == ["sift", "orb"]
    assert all(row[4] == "registered" and "yes" in row for row in rows)
    assert "1 runs" in printed.replace("\n", " ") or "median of 1" in " ".join(printed.split())
    assert printed.splitlines()[-1].startswith("all 2 registered methods agree")
    assert read(plot).pixels.shape[2] == 3
    code, _, errors = run(*images, *QUICK, "--plot", plot)
    assert code == exit_codes.USAGE and "--overwrite" in errors


def test_json_is_one_object(images: tuple[Path, Path]) -> None:
    code, printed, _ = run(*images, *QUICK, "--json", "--agree-px", "2", "--max-side", "300")
    assert code == exit_codes.DONE
    content = json.loads(printed)
    assert content["kind"] == "comparison" and content["settings"]["max_side"] == 300
    assert content["agree_px"] == pytest.approx(2 * 600 / 300)
    assert [one["times_ms"]["detect"] > 0 for one in content["methods"]] == [True, True]


def test_a_picture_that_cannot_be_written_costs_no_results(
    images: tuple[Path, Path], tmp_path: Path
) -> None:
    plot = tmp_path / "missing" / "plot.png"
    code, printed, errors = run(*images, *QUICK, "--json", "--plot", plot)
    assert code == exit_codes.USAGE and "plot.png: cannot be written" in errors
    assert json.loads(printed)["kind"] == "comparison"


def test_a_method_that_fails_does_not_end_the_run(images: tuple[Path, Path]) -> None:
    code, printed, errors = run(*images, "--methods", "nothing,sift", "--repeats", "0")
    assert code == exit_codes.FAILED and "1 of 2 methods failed" in errors
    assert "nothing: failed: checkpoint 'nothing'" in printed
    assert any(line.split()[:1] == ["sift"] for line in printed.splitlines())


def test_wrong_usage_and_unreadable_images_have_their_codes(
    images: tuple[Path, Path], tmp_path: Path
) -> None:
    assert run(*images, "--methods", "sift,sift")[0] == exit_codes.USAGE
    assert run(*images, "--agree-px", "0")[0] == exit_codes.USAGE
    assert run(*images, "--model", "essential")[0] == exit_codes.USAGE
    assert run(*images, "--plot", tmp_path / "x.jpg")[0] == exit_codes.USAGE
    assert run(tmp_path / "none.png", images[1], *QUICK)[0] == exit_codes.NOTHING_READABLE


def test_quiet_prints_nothing_but_json(images: tuple[Path, Path]) -> None:
    assert run(*images, *QUICK, "-q") == (exit_codes.DONE, "", "")
