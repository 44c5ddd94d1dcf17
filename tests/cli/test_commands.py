"""What holds for every command."""

from __future__ import annotations

from collections import Counter
from importlib import import_module

import pytest
import typer

from tiepoint.cli import COMMANDS


def commands(name: str) -> dict[str, typer.main.TyperCommand]:
    """A command by its name, or those that it groups."""
    command = typer.main.get_command(import_module(f"tiepoint.cli.{name}").app)
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
