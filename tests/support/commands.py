"""The commands of `tiepoint`, with their options."""

from __future__ import annotations

from importlib import import_module

import typer


def commands(name: str) -> dict[str, typer.main.TyperCommand]:
    """A command by its name, or the commands of a group."""
    module = import_module(f"tiepoint.cli.{name.replace('-', '_')}")
    command = typer.main.get_command(module.app)
    grouped = getattr(command, "commands", {})
    return {f"{name} {other}": one for other, one in grouped.items()} or {name: command}
