"""`tiepoint report` from its arguments to its file and exit code."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from support.pages import Page
from tiepoint.cli import app, exit_codes
from tiepoint.weights.checkpoint import locate


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def registration(tmp_path: Path, photographs: list[NDArray[np.uint8]]) -> Path:
    """What `tiepoint register --json --points` prints."""
    photo = photographs[2]
    a, b = tmp_path / "a.png", tmp_path / "b.png"
    cv2.imwrite(str(a), photo)
    cv2.imwrite(str(b), np.roll(photo, 7, axis=1))
    code, printed, _ = run("register", a, b, "--json", "--points", "-c", "small")
    assert code == exit_codes.DONE
    file = tmp_path / "registration.json"
    file.write_text(printed)
    return file


def test_a_registration_becomes_a_page(registration: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    code, printed, errors = run("report", registration, "-o", out, "--title", "Two views")
    assert (code, errors) == (exit_codes.DONE, "") and printed.startswith(f"{out}: ")
    page = Page(out.read_bytes())
    page.check()
    assert len(page.all("img")) == 3 and "Two views" in page.text
    sha256 = json.loads(registration.read_text())["provenance"]["weights_sha256"]
    assert sha256 in page.text
    code, _, errors = run("report", registration, "-o", out)
    assert code == exit_codes.USAGE and "--overwrite" in errors


def test_points_need_json(registration: Path) -> None:
    a, b = registration.with_name("a.png"), registration.with_name("b.png")
    code, _, errors = run("register", a, b, "--points")
    assert code == exit_codes.USAGE and "--json" in errors


def test_a_source_that_cannot_be_read_is_in_the_page_and_in_the_exit_code(tmp_path: Path) -> None:
    out, missing = tmp_path / "report.html", tmp_path / "missing.json"
    code, _, errors = run("report", locate("small"), missing, "-o", out, "--language", "ko")
    assert code == exit_codes.FAILED and "no such file" in errors
    text = Page(out.read_bytes()).text
    assert str(missing) in text and "읽지 못한 입력" in text


def test_nothing_readable_writes_no_page(tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    assert run("report", tmp_path / "no.json", "-o", out)[0] == exit_codes.NOTHING_READABLE
    assert not out.exists()


def test_a_page_can_be_written_to_stdout() -> None:
    code, printed, _ = run("report", locate("small"), "-o", "-")
    assert code == exit_codes.DONE and printed.startswith("<!DOCTYPE html>")


def test_wrong_usage_has_its_code(tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    for arguments in (
        (locate("small"), "-o", tmp_path / "report.pdf"),
        (locate("small"), "-o", tmp_path),
        (locate("small"), "-o", out, "--language", "de"),
        (locate("small"),),
    ):
        assert run("report", *arguments)[0] == exit_codes.USAGE
    assert not out.exists()
