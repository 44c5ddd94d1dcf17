"""How every command of `tiepoint evaluate` shows what it does, and how it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, TypeVar

import typer

from tiepoint.cli import exit_codes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rich.table import Table

    from tiepoint.evaluation.pairs import Failure
    from tiepoint.evaluation.partial import Partial

Result = TypeVar("Result")
TABLE_WIDTH = 132  # columns; a narrower terminal wraps the lines rather than lose figures


def run(count: int, work: Callable[[Callable[[], None]], Result], unit: str = "pairs") -> Result:
    """Do the work under a progress bar; it is given what to call after each of so many."""
    from rich.console import Console
    from rich.progress import Progress

    errors = Console(stderr=True)
    with Progress(console=errors, disable=not errors.is_terminal, transient=True) as progress:
        task = progress.add_task(unit, total=count)
        return work(lambda: progress.advance(task))


def finish(
    tables: Sequence[Table],
    failures: Sequence[Failure],
    json: Path | None,
    text: str | None,
    partial: Partial | None = None,
    pictures: tuple[Callable[[Path], None], Path] | None = None,
) -> None:
    """Print tables, write the report, draw pictures; leave with a status that says how it went."""
    from rich.console import Console

    from tiepoint.evaluation.report import write_text

    for failure in failures:
        typer.echo(f"skipped {failure.group} {failure.name}: {failure.message}", err=True)
    if not tables:
        stop("nothing could be read", exit_codes.NOTHING_READABLE)
    for table in tables:
        Console(width=max(Console().width, TABLE_WIDTH)).print(table)
    if json is not None and text is not None:
        write_text(json, text)
    if partial is not None:
        partial.finish()
    if pictures is not None:
        draw, folder = pictures
        draw(folder)
    if failures:
        stop(f"{len(failures)} could not be read and were skipped", exit_codes.FAILED)


def stop(message: str, code: int) -> NoReturn:
    typer.echo(f"tiepoint: {message}", err=True)
    raise typer.Exit(code)
