"""What a report is made of: sections of facts, tables, charts, pictures and notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

MOST_VALUE = 1e100
"""Largest value of a chart, so that no difference overflows."""

Tone = Literal["good", "bad", "neutral"]


class Message(str):
    """A text in English whatever the language of the report, such as the reason of a failure."""

    __slots__ = ()


@dataclass(frozen=True)
class Verdict:
    """The outcome in a word or two; its tone is colour only, so the text must be enough."""

    text: str
    tone: Tone = "neutral"


Cell: TypeAlias = "str | Verdict"


@dataclass(frozen=True)
class Facts:
    """Names and values, such as settings."""

    title: str
    rows: Sequence[tuple[str, str]]
    folded: bool = False
    """Whether the rows are shown on a click only."""


@dataclass(frozen=True)
class Table:
    """A table whose first column names its rows.

    Attributes:
        title: Caption.
        headings: A heading for each column.
        rows: Cells; as many as headings.
        note: Text below, or "".
        left_out: Number of further rows that are not shown.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    left_out: int = 0


@dataclass(frozen=True, eq=False)
class Chart:
    """Curves over one axis.

    Attributes:
        title: Caption.
        x_name: Text below the axis.
        curves: Name -> N 2 (x, y), finite, sorted by x.
        y_range: Lowest and highest y; None takes those of the curves, with 0.
    """

    title: str
    x_name: str
    curves: Mapping[str, NDArray[np.float64]]
    y_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not self.curves:
            raise ValueError(f"no curve for {self.title!r}")
        points = np.concatenate(list(self.curves.values()))  # N 2
        if not (np.abs(points) < MOST_VALUE).all():
            raise ValueError(f"{self.title}: values that are not finite, or beyond {MOST_VALUE:g}")


@dataclass(frozen=True)
class Picture:
    """An image file inside the page.

    Attributes:
        jpeg: Bytes of a JPEG file.
        size_wh: Width and height, px.
        alt: What it shows, for readers that cannot see it.
        caption: Text below.
    """

    jpeg: bytes
    size_wh: tuple[int, int]
    alt: str
    caption: str


@dataclass(frozen=True)
class Note:
    """A paragraph."""

    text: str


Piece = Facts | Table | Chart | Picture | Note


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading."""

    title: str
    pieces: Sequence[Piece]
    verdict: Verdict | None = None
    summary: str = ""
    """A line below the heading, and in the contents of the page."""
    parts: Sequence[Section] = ()
    """Sections inside it, one level only."""
