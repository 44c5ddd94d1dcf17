"""A progress bar on stderr, where that is a terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from tiepoint.cli.output import is_quiet

if TYPE_CHECKING:
    from rich.progress import TaskID

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


class Steps:
    """A progress bar for work in steps, one after the other; a context manager."""

    def __enter__(self) -> Steps:
        from rich.console import Console
        from rich.progress import Progress

        errors = Console(stderr=True)
        hidden = is_quiet() or not errors.is_terminal
        self._progress = Progress(console=errors, disable=hidden, transient=True)
        self._progress.start()
        self._tasks: dict[str, TaskID] = {}
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, step: str, done: int, total: int) -> None:
        """The state of a step: the number of parts done, and of all."""
        if step not in self._tasks:
            self._tasks[step] = self._progress.add_task(step, total=total)
        self._progress.update(self._tasks[step], completed=done, total=total)
