"""What commands over many inputs say: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from tiepoint.cli import exit_codes
from tiepoint.errors import FormatError

if TYPE_CHECKING:
    from rich.progress import Progress

    from tiepoint.batch import PairRecord, Record

_NAME_CELLS = 36
_HEADER = ("image", "size", "keypoints", "ms", "output")


class Report:
    """Prints a line per image as it comes, a progress bar on a terminal, a summary at the end.

    Args:
        as_json: Lines for machines instead of a table.
        count: Tells the number of inputs; called only for a progress bar.

    Attributes:
        exit_code: What the command exits with.
    """

    doing = "detecting"

    def __init__(self, *, as_json: bool, count: Callable[[], int | None]) -> None:
        self._as_json = as_json
        self._count = count
        self._seen: Counter[str] = Counter()
        self._readable = False
        self._stopped: int | None = None
        self._start = time.perf_counter()
        self._progress: Progress | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._progress = _progress(self.doing, self._count())
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
            print(f"tiepoint: {self._summary()} in {seconds:.1f} s", file=sys.stderr)

    def follow(self, records: Iterator[Any]) -> None:
        """Print records until they end, the disk is full, or Ctrl-C."""
        try:
            for record in records:
                self._add(record)
        except FormatError as error:
            self._stopped = exit_codes.FAILED
            complain(f"stopped: {error}")
        except KeyboardInterrupt:
            self._stopped = exit_codes.INTERRUPTED
            complain("interrupted; the same command goes on from here")

    @property
    def exit_code(self) -> int:
        """0 all done, 1 some failed, 3 nothing readable, 130 interrupted."""
        if self._stopped is not None:
            return self._stopped
        if not self._readable:
            return exit_codes.NOTHING_READABLE
        return (
            exit_codes.FAILED if self._seen["failed"] or self._seen["refused"] else exit_codes.DONE
        )

    def _add(self, record: Any) -> None:
        if not self._as_json and not self._seen:
            _print(self._header())
        self._seen[record.status] += 1
        self._readable |= record.status == "refused" or self._was_read(record)
        if record.error is not None:
            complain(f"{record.status}: {record.error}")
        if self._as_json:
            _print(json.dumps(self._as_object(record)))
        elif record.error is None:
            _print(self._row(record))
        if self._progress is not None:
            self._progress.advance(self._progress.task_ids[0])

    def _was_read(self, record: Record) -> bool:
        return record.size_hw is not None

    def _header(self) -> str:
        return _columns(*_HEADER)

    def _row(self, record: Record) -> str:
        return _row(record)

    def _as_object(self, record: Record) -> dict[str, Any]:
        return _as_object(record)

    def _summary(self) -> str:
        statuses = ("done", "skipped", "failed", "refused")
        said = [f"{self._seen[name]} {name}" for name in statuses if self._seen[name]]
        return ", ".join(said) or "nothing done"


class PairReport(Report):
    """The same for pairs of images."""

    doing = "matching"

    def _was_read(self, record: PairRecord) -> bool:  # type: ignore[override]
        return record.status in ("done", "skipped")

    def _header(self) -> str:
        return _pair_columns("image a", "image b", "matches", "ms")

    def _row(self, record: PairRecord) -> str:  # type: ignore[override]
        spent = "skipped" if record.milliseconds is None else f"{record.milliseconds:.0f}"
        return _pair_columns(record.image_a, record.image_b, str(record.matches), spent)

    def _as_object(self, record: PairRecord) -> dict[str, Any]:  # type: ignore[override]
        spent = record.milliseconds and round(record.milliseconds, 1)
        return {**asdict(record), "milliseconds": spent}


def _pair_columns(image_a: str, image_b: str, matches: str, spent: str) -> str:
    from rich.cells import cell_len

    names = [name + " " * (_NAME_CELLS - cell_len(name)) for name in (image_a, image_b)]
    return f"{names[0]} {names[1]} {matches:>7} {spent:>7}"


def _row(record: Record) -> str:
    height, width = record.size_hw or (0, 0)
    spent = "skipped" if record.milliseconds is None else f"{record.milliseconds:.0f}"
    size = f"{width}x{height}"
    return _columns(record.source, size, str(record.keypoints), spent, str(record.output))


def _columns(image: str, size: str, keypoints: str, spent: str, output: str) -> str:
    from rich.cells import cell_len  # Korean letters are two cells wide

    padding = " " * (_NAME_CELLS - cell_len(image))
    return f"{image}{padding} {size:>11} {keypoints:>9} {spent:>7}  {output}"


def _as_object(record: Record) -> dict[str, Any]:
    return {
        "source": record.source,
        "status": record.status,
        "output": None if record.output is None else str(record.output),
        "overlay": None if record.overlay is None else str(record.overlay),
        "keypoints": record.keypoints,
        "size_hw": record.size_hw,
        "milliseconds": record.milliseconds and round(record.milliseconds, 1),
        "error": record.error,
    }


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
        # Lines that share the terminal with the bar must go through it; a pipe's must not.
        redirect_stdout=sys.stdout.isatty(),
    )
    bar.add_task(doing, total=total)
    return bar


def _print(line: str) -> None:
    print(line, flush=True)  # a program at the other end of a pipe sees each line at once


def complain(message: str) -> None:
    """Say it on stderr."""
    print(f"tiepoint: {message}", file=sys.stderr, flush=True)
