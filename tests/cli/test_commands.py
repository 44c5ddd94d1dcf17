"""What holds for every command."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest
import typer

from tiepoint.cli import COMMANDS


def commands(name: str) -> dict[str, typer.main.TyperCommand]:
    """A command by its name, or those that it groups."""
    command = typer.main.get_command(import_module(f"tiepoint.cli.{name.replace('-', '_')}").app)
    below = getattr(command, "commands", {})
    return {f"{name} {other}": one for other, one in below.items()} or {name: command}


@pytest.mark.parametrize("name", COMMANDS)
def test_no_option_has_two_meanings(name: str) -> None:
    for title, command in commands(name).items():
        flags = Counter(flag for option in command.params for flag in option.opts)
        twice = [flag for flag, times in flags.items() if times > 1]
        assert not twice, title


@pytest.mark.parametrize("name", ["detect", "match", "evaluate", "adapt"])
def test_model_names_the_checkpoint_as_checkpoint_does(name: str) -> None:
    for title, command in commands(name).items():
        (option,) = (one for one in command.params if one.name == "checkpoint")
        assert {"--checkpoint", "--model", "-c"} <= set(option.opts), title


@pytest.mark.skipif(os.name == "nt", reason="signals differ on Windows")
@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_stop_that_comes_within_a_callback_is_not_lost(number: str, code: int) -> None:
    program = f"""
import signal, time
from tiepoint import cli
class Work:
    def __del__(self):  # what is raised here Python prints and forgets
        signal.raise_signal(signal.{number})
def app():
    try:
        Work()
        time.sleep(30)
    except KeyboardInterrupt:
        raise SystemExit(130)
cli.app = app
cli.main()
"""
    source = str(Path(__file__).resolve().parents[2] / "src")
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": source}, timeout=20,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code and not done.stderr
