"""The command `tiepoint`. Heavy libraries are imported by the commands that need them."""

from __future__ import annotations

import _thread
import io
import signal
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from tiepoint._version import __version__
from tiepoint.cli import exit_codes
from tiepoint.errors import OpenCvError, TiepointError

COMMANDS = (
    "detect", "match", "register", "register-large", "warp", "stitch", "track", "compare", "serve",
    "colmap", "evaluate", "report", "train", "train-matcher", "adapt", "fit-rotation", "calibrate",
    "quantize", "scenes", "convert", "export", "samples", "info", "view",
)  # fmt: skip
"""Each is a module of this package that holds a typer app of its own; see `module_of`."""

_MODULES = {"report": "html_report"}  # cli.report has the messages of all commands


RETRY_S = 0.02
"""Delay before a signal whose exception Python dropped is raised again."""


def module_of(command: str) -> Any:
    """The module of a command: its name with _ for -, with one exception."""
    name = _MODULES.get(command, command.replace("-", "_"))
    return import_module(f"tiepoint.cli.{name}")


class Commands(TyperGroup):
    """The commands, imported on first use. A `TiepointError` is printed in one line."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names: dict[str, Any] = dict.fromkeys(COMMANDS)  # for "Did you mean"; never called
        self.commands = names

    def list_commands(self, ctx: Any) -> list[str]:
        """The names in the order of `--help`."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name."""
        if cmd_name not in COMMANDS:
            return None
        return typer.main.get_command(module_of(cmd_name).app)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; a `TiepointError` means wrong usage."""
        try:
            return _with_opencv(lambda: super(Commands, self).invoke(ctx))
        except TiepointError as error:
            typer.echo(f"tiepoint: {error}", err=True)
            raise typer.Exit(exit_codes.USAGE) from error
        except KeyboardInterrupt as error:
            typer.echo("tiepoint: interrupted", err=True)
            raise typer.Exit(exit_codes.INTERRUPTED) from error


def _with_opencv(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except ImportError as error:
        if error.name != "cv2":
            raise
        raise OpenCvError(str(error)) from error


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help needs no rich, which takes as long as all the rest
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"tiepoint {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Detect local keypoints in images, match them, and register images."""


def main() -> None:
    """The entry point of `tiepoint` and `python -m tiepoint`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # for names that the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, _terminate)
    sys.unraisablehook = _retry
    app()


def _retry(lost: Any) -> None:
    """Raise a signal again whose exception Python dropped, because a callback was running."""
    number = {KeyboardInterrupt: signal.SIGINT, SystemExit: signal.SIGTERM}.get(lost.exc_type)
    if number is None:
        sys.__unraisablehook__(lost)
    else:  # later, because it would be dropped again here
        threading.Timer(RETRY_S, _raise, [number]).start()


def _raise(number: signal.Signals) -> None:
    main_thread = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main_thread is not None:
        signal.pthread_kill(main_thread, number)  # interrupts a wait
    else:
        _thread.interrupt_main(number)


def _terminate(*_: object) -> NoReturn:
    sys.exit(exit_codes.TERMINATED)  # unlike the signal's own way, this removes half-written files
