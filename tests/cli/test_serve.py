"""`tiepoint serve`: arguments, and what is missing without its extra."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from tiepoint.cli import app
from tiepoint.errors import ConfigError
from tiepoint.service.settings import LimitConfig

MISSING = """
import sys
for name in ("fastapi", "starlette", "uvicorn", "h11", "python_multipart", "prometheus_client"):
    sys.modules[name] = None
from tiepoint.cli import app
app(sys.argv[1:])
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", MISSING, *arguments],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_without_the_extra_it_is_named_and_the_help_is_shown() -> None:
    done = run("serve")
    assert done.returncode == 2 and "tiepoint[serve]" in done.stderr
    done = run("serve", "--help")
    assert done.returncode == 0 and "--max-pixels" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-bytes", "0"], "--max-bytes is 0, expected a whole number >= 1"),
        (["--queue", "-1"], "--queue is -1, expected a whole number >= 0"),
        (["--root", "/no/such/folder"], "expected a folder"),
        (["--api-key-file", "/no/such/file"], "cannot be read (No such file or directory)"),
        (["--host", "256.0.0.1", "--port", "0"], "needs an API key"),
    ],
)
def test_wrong_arguments_are_refused_before_the_weights_are_loaded(
    arguments: list[str], message: str
) -> None:
    pytest.importorskip("fastapi")
    result = CliRunner().invoke(app, ["serve", "--checkpoint", "no-such-one", *arguments])
    assert result.exit_code == 2 and message in result.output


def test_a_port_in_use_and_an_unknown_checkpoint_are_refused() -> None:
    pytest.importorskip("fastapi")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(app, ["serve", "--port", port])
        assert result.exit_code == 2 and f"--port {port}: cannot listen" in result.output
    result = CliRunner().invoke(app, ["serve", "--port", "0", "--checkpoint", "no-such-one"])
    assert result.exit_code == 2 and "no-such-one" in result.output


@pytest.mark.parametrize("name", ["max_bytes", "max_keypoints", "queue", "stop_seconds"])
def test_limits_are_whole_numbers(name: str) -> None:
    for wrong in (-1, 1.5, True, None, "1"):
        with pytest.raises(ConfigError, match=f"^{name} is "):
            LimitConfig(**{name: wrong})
