"""`tiepoint view` as a process: its URL, its end, and its errors."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("fastapi", reason="tiepoint view needs the extra serve")
pytest.importorskip("uvicorn", reason="tiepoint view needs the extra serve")

from support.view_server import scene, write_features, write_image
from tiepoint.cli import app, exit_codes

URL = re.compile(r"http://127\.0\.0\.1:(\d+)/\?token=([\w-]{32,})\n")


@pytest.fixture
def features(here: Path) -> Path:
    image = write_image(here / "image.png", scene(1, (40, 56)))
    return write_features(here / "image.npz", image, [[3, 4], [5, 6]], (40, 56))


@pytest.fixture
def running(features: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tiepoint", "view", str(features), "--no-browser"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "BROWSER": "false"},
    )  # fmt: skip
    yield process
    process.kill()
    process.communicate(timeout=30)


def test_the_printed_url_opens_the_page_and_ctrl_c_ends_it(
    running: subprocess.Popen[str],
) -> None:
    assert running.stdout is not None
    line = running.stdout.readline()
    assert URL.fullmatch(line)
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    with opener.open(line.strip(), timeout=60) as answer:
        page = answer.read().decode()
        assert "token" not in answer.url and "view.js" in page
    root = line.split("?")[0]
    with opener.open(f"{root}api/session", timeout=60) as answer:
        assert b'"items": 1' in answer.read()
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(root, timeout=60)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == exit_codes.DONE
    assert "Traceback" not in errors


def test_a_port_in_use_is_an_error_that_names_the_option(features: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(app, ["view", str(features), "--no-browser", "--port", port])
    assert result.exit_code == exit_codes.USAGE
    assert f"--port {port}" in result.stderr


@pytest.mark.parametrize(
    ("argument", "words"),
    [("nothing.npz", "nothing.npz"), ("empty", "empty"), ("broken.store", "broken.store")],
)
def test_nothing_to_show_is_an_error_before_the_page_opens(
    here: Path, argument: str, words: str
) -> None:
    for name in ("empty", "broken.store"):
        (here / name).mkdir()
    (here / "broken.store" / "manifest.json").write_text("{")
    result = CliRunner().invoke(app, ["view", argument, "--no-browser"])
    assert result.exit_code == exit_codes.USAGE
    assert words in result.stderr and "token" not in result.stdout


def test_without_the_extra_the_error_names_it(features: Path) -> None:
    code = f"""
import sys
sys.modules["fastapi"] = None
from tiepoint.cli import main
sys.argv = ["tiepoint", "view", {str(features)!r}, "--no-browser"]
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == exit_codes.USAGE and "tiepoint[serve]" in done.stderr
