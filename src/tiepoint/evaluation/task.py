"""The shape of an evaluation task: how to read, measure, average and show pairs of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from tiepoint.evaluation.methods import Method


class Pair(Protocol):
    """A pair of images of any task: its set, a row of the table, and a name unique in it."""

    @property
    def group(self) -> str: ...
    @property
    def name(self) -> str: ...


@dataclass(frozen=True)
class Figures:
    """One method's figures on one pair; each task adds its own.

    Attributes:
        keypoints_a, keypoints_b: Keypoints matched, at most k.
        matches: Number of mutual nearest neighbours.
    """

    keypoints_a: int
    keypoints_b: int
    matches: int


class ErrorAxis(NamedTuple):
    """The axis of a plot of pairs over their error: a property of the figures, up to a limit."""

    name: str
    up_to: float
    unit: str


PairT = TypeVar("PairT", bound=Pair)
SettingsT = TypeVar("SettingsT")
FiguresT = TypeVar("FiguresT", bound=Figures)
MeansT = TypeVar("MeansT")


@dataclass(frozen=True)
class Failure:
    """A pair, or a whole folder, that could not be read."""

    group: str
    name: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Task(Generic[PairT, SettingsT, FiguresT, MeansT]):
    """One kind of ground truth, and the figures measured with it.

    Attributes:
        kind: Name of the task in reports.
        line: The `field_count` fields of a line of `pairs.txt` in words, for messages.
        parse_line: (folder, group, fields) -> a pair; raises `FormatError`.
        read_other: (folder, group) -> pairs and failures of a folder in `other_layout`, without
            `pairs.txt`; None if the task has no other layout.
        measure: (pair, methods, settings) -> figures of each method; called from several threads,
            raises `TiepointError` where the pair cannot be read.
        figures: Type of the figures, a dataclass of plain values.
        derived: Names of the figures' properties that reports list too.
        error_axis: Axis of the plot of shares of pairs; None for a task without one.
        average: (figures of several pairs, settings) -> means over these pairs, a dataclass.
        cells: Means -> column heading -> text of the cell.
        title, caption: Texts above and below the table.
        constants: Settings -> further values that decide the figures, for the report.
        by_group: Whether each set has rows of its own besides those over all pairs.
    """

    kind: str
    line: str
    field_count: int
    parse_line: Callable[[Path, str, Sequence[str]], PairT]
    read_other: Callable[[Path, str], tuple[list[PairT], list[Failure]]] | None = None
    other_layout: str = ""
    measure: Callable[[PairT, Sequence[Method], SettingsT], list[FiguresT]]
    figures: type[FiguresT]
    derived: tuple[str, ...] = ()
    error_axis: ErrorAxis | None = None
    average: Callable[[Sequence[FiguresT], SettingsT], MeansT]
    cells: Callable[[MeansT], Mapping[str, str]]
    title: str
    caption: Callable[[SettingsT], str]
    constants: Callable[[SettingsT], Mapping[str, Any]] = lambda settings: {}
    by_group: bool = True


@dataclass(frozen=True)
class Record(Generic[FiguresT]):
    """One method's figures on one pair."""

    group: str
    pair: str
    method: str
    figures: FiguresT


@dataclass(frozen=True)
class Evaluation(Generic[SettingsT, FiguresT, MeansT]):
    """Everything that a run has measured; records by pair, then by method, in the order given."""

    task: Task[Any, SettingsT, FiguresT, MeansT]
    settings: SettingsT
    methods: tuple[Method, ...]
    records: tuple[Record[FiguresT], ...]
    failures: tuple[Failure, ...]

    def figures_of(self, method: str) -> list[FiguresT]:
        """A method's figures on every pair, in order."""
        return [record.figures for record in self.records if record.method == method]
