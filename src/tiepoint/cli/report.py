"""What the commands print: results on stdout, progress and messages on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Generic, NoReturn, Self, TypeVar

import typer

from tiepoint.cli import exit_codes
from tiepoint.cli.output import is_quiet
from tiepoint.errors import FormatError, OutputError

if TYPE_CHECKING:
    from rich.progress import Progress

    from tiepoint.batch import ImageRecord, PairRecord
    from tiepoint.batch.records import TwoViewRecord

NAME_CELLS = 36
"""Width of a name in a table, in cells of the terminal."""


RecordT = TypeVar("RecordT", "ImageRecord", "PairRecord", "TwoViewRecord")


@dataclass
class Report(Generic[RecordT]):
    """Prints a line per record, a progress bar on a terminal, and a summary at the end.

    Records that are refused for one reason share a line at the end.

    Attributes:
        doing: Label of the progress bar.
        header: Names of the columns.
        layout: Format of the last cells of a line; those before are names.
        row: Returns the cells of a record.
        was_read: Whether the images of a record that was not refused were read.
        as_json: True prints JSON objects instead of a table.
        count: Returns the number of records, or None; called only for a progress bar.
        note: Returns a message for the end, or None.
        has_table: Whether there is a table if there are no JSON objects.
    """

    doing: str
    header: tuple[str, ...]
    layout: str
    row: Callable[[RecordT], tuple[str, ...]]
    was_read: Callable[[RecordT], bool]
    as_json: bool
    count: Callable[[], int | None]
    note: Callable[[], str | None] = lambda: None
    has_table: bool = True

    def __post_init__(self) -> None:
        self._has_lines = self.has_table and not self.as_json and not is_quiet()
        self._statuses: Counter[str] = Counter()
        self._redone: Counter[str] = Counter()
        self._refused: dict[str, str] = {}  # reason -> the first error
        self._alike: Counter[str] = Counter()  # reason -> number of records
        self._readable = False
        self._stopped: int | None = None
        self._start = time.perf_counter()
        self._progress: Progress | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty() and not is_quiet():
            self._progress = _progress(self.doing, self.count())
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
        if kind is None:
            seconds = time.perf_counter() - self._start
            for reason, first in self._refused.items():
                count = self._alike[reason]
                number = "refused" if count == 1 else f"{count} refused alike, the first"
                complain(f"{number}: {first}")
            if is_quiet():
                return
            if note := self.note():
                complain(note)
            complain(f"{self._summary()} in {seconds:.1f} s")

    def follow(self, records: Iterator[RecordT]) -> None:
        """Print records until they end, the disk is full, or Ctrl-C."""
        try:
            for record in records:
                self._add(record)
        except (FormatError, OutputError) as error:
            self._stopped = exit_codes.FAILED
            complain(f"stopped: {error}")
        except KeyboardInterrupt:
            self._stopped = exit_codes.INTERRUPTED
            complain("interrupted; repeat the same command to resume")

    def show_part(self, done: int, total: int) -> None:
        """Show how many parts of the current image are done."""
        if self._progress is None or total == 1:
            return
        if len(self._progress.task_ids) == 1:
            self._progress.add_task("tiles", total=total)
        self._progress.update(self._progress.task_ids[1], completed=done, total=total)

    @property
    def exit_code(self) -> int:
        """0 all done, 1 some failed, 3 nothing readable, 130 interrupted."""
        if self._stopped is not None:
            return self._stopped
        if not self._readable:
            return exit_codes.NOTHING_READABLE
        wrong = self._statuses["failed"] or self._statuses["refused"]
        return exit_codes.FAILED if wrong else exit_codes.DONE

    @property
    def was_stopped(self) -> bool:
        """Whether an error or Ctrl-C ended the records early."""
        return self._stopped is not None

    def _add(self, record: RecordT) -> None:
        if self._has_lines and not self._statuses:
            _print(_line(self.layout, self.header))
        self._statuses[record.status] += 1
        self._readable |= record.status == "refused" or self.was_read(record)
        if record.redone is not None:
            self._redone[record.redone] += 1
        if record.error is not None and record.reason is not None:
            self._refused.setdefault(record.reason, record.error)
            self._alike[record.reason] += 1
        elif record.error is not None:
            complain(f"{record.status}: {record.error}")
        if self.as_json:
            milliseconds = record.milliseconds and round(record.milliseconds, 1)
            _print(json.dumps({**vars(record), "milliseconds": milliseconds}, default=str))
        elif record.error is None and self._has_lines:
            _print(_line(self.layout, self.row(record)))
        if self._progress is not None:
            self._progress.advance(self._progress.task_ids[0])

    def _summary(self) -> str:
        statuses = ("done", "skipped", "failed", "refused")
        counts = [f"{self._statuses[name]} {name}" for name in statuses if self._statuses[name]]
        if self._redone:
            again = [f"{count} again because {why}" for why, count in self._redone.items()]
            counts[0] += f" ({', '.join(again)})"  # that of "done"
        return ", ".join(counts) or "nothing done"


def image_report(
    *,
    as_json: bool,
    count: Callable[[], int | None],
    has_table: bool = True,
    ignored: Counter[str] | None = None,
) -> Report[ImageRecord]:
    """Report on images. `ignored` is what `expand` counts during the run."""
    from tiepoint.batch.ignored import sentence

    def row(record: ImageRecord) -> tuple[str, ...]:
        height, width = record.size_hw or (0, 0)
        size, output = f"{width}x{height}", str(record.output)
        return record.source, size, str(record.keypoints), _duration(record), output

    def was_read(record: ImageRecord) -> bool:
        return record.size_hw is not None

    def note() -> str | None:
        return None if ignored is None else sentence(ignored)

    header, layout = ("image", "size", "keypoints", "ms", "output"), "{:>11} {:>9} {:>7}  {}"
    return Report("detecting", header, layout, row, was_read, as_json, count, note, has_table)


def pair_report(*, as_json: bool, count: Callable[[], int | None]) -> Report[PairRecord]:
    """Report on pairs of images."""

    def row(record: PairRecord) -> tuple[str, ...]:
        return record.image_a, record.image_b, str(record.matches), _duration(record)

    def was_read(record: PairRecord) -> bool:
        return record.status in ("done", "skipped")

    header, layout = ("image a", "image b", "matches", "ms"), "{:>7} {:>7}"
    return Report("matching", header, layout, row, was_read, as_json, count)


def two_view_report(*, as_json: bool, count: Callable[[], int | None]) -> Report[TwoViewRecord]:
    """Report on pairs of images whose geometry is verified."""

    def row(record: TwoViewRecord) -> tuple[str, ...]:
        counts = str(record.matches), str(record.inliers)
        return record.image_a, record.image_b, *counts, _duration(record), str(record.geometry)

    def was_read(record: TwoViewRecord) -> bool:
        return record.status in ("done", "skipped")

    header = ("image a", "image b", "matches", "inliers", "ms", "geometry")
    layout = "{:>7} {:>7} {:>7}  {}"
    return Report("matching", header, layout, row, was_read, as_json, count)


def _duration(record: ImageRecord | PairRecord) -> str:
    if record.milliseconds is None:  # as of features that were stored elsewhere
        return "skipped" if record.status == "skipped" else "-"
    return f"{record.milliseconds:.0f}"


def _line(layout: str, cells: tuple[str, ...]) -> str:
    from rich.cells import cell_len  # Korean letters are two cells wide

    names = len(cells) - layout.count("{")
    padded = [name + " " * (NAME_CELLS - cell_len(name)) for name in cells[:names]]
    return " ".join([*padded, layout.format(*cells[names:])])


def _progress(doing: str, total: int | None) -> Progress:
    from rich import progress
    from rich.console import Console

    bar = progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True, soft_wrap=True),  # paths stay in one piece
        transient=True,
        # Lines that share the terminal with the bar must pass through it; a pipe's must not.
        redirect_stdout=sys.stdout.isatty(),
    )
    bar.add_task(doing, total=total)
    return bar


def _print(line: str) -> None:
    print(line, flush=True)  # a program at the other end of a pipe sees each line at once


def complain(message: str) -> None:
    """Print a message on stderr."""
    print(f"tiepoint: {message}", file=sys.stderr, flush=True)


def stop(message: str, code: int) -> NoReturn:
    """Print a message on stderr and exit with a code of `exit_codes`."""
    complain(message)
    raise typer.Exit(code)
