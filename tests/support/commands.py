"""The commands of `tiepoint`, with their options."""

from __future__ import annotations

import typer

from tiepoint.cli import module_of


def commands(name: str) -> dict[str, typer.main.TyperCommand]:
    """A command by its name, or the commands of a group."""
    command = typer.main.get_command(module_of(name).app)
    grouped = getattr(command, "commands", {})
    return {f"{name} {other}": one for other, one in grouped.items()} or {name: command}
