"""A progress bar on stderr, where that is a terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tiepoint.cli.output import is_quiet

Result = TypeVar("Result")


def with_progress(
    unit: str, count: int | None, work: Callable[[Callable[[], None]], Result]
) -> Result:
    """Run `work` under a progress bar; it gets a function to call after each of `count`.

    Args:
        unit: Label of the bar.
        count: Number of calls; None if it is unknown.
        work: Gets the function.
    """
    from rich.console import Console
    from rich.progress import Progress

    errors = Console(stderr=True)
    hidden = is_quiet() or not errors.is_terminal
    with Progress(console=errors, disable=hidden, transient=True) as progress:
        task = progress.add_task(unit, total=count)
        return work(lambda: progress.advance(task))
