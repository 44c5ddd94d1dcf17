"""How long each method takes, side by side in one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from tiepoint.errors import ConfigError, TiepointError
from tiepoint.evaluation.methods import Method
from tiepoint.evaluation.pairs import Failure, Grey, grey_uint8
from tiepoint.evaluation.report import document
from tiepoint.evaluation.run import check_methods
from tiepoint.images import read

WARM_UP = 2
"""Runs of each method that do not count: engines compile, caches fill."""


@dataclass(frozen=True)
class SpeedRow:
    """One method's time per image, array to features; quantiles over images and repetitions.

    Attributes:
        keypoints: Mean per image.
        median_ms, low_ms, high_ms: 50, 10 and 90 %.
        times: Median of this method over that of the first.
    """

    method: str
    images: int
    keypoints: float
    median_ms: float
    low_ms: float
    high_ms: float
    times: float


def load_images(paths: Sequence[Path], long_side: int) -> tuple[list[Grey], list[Failure]]:
    """Grey images brought down to a longer side of so many px; what cannot be read is a failure."""
    found: list[Grey] = []
    failures: list[Failure] = []
    for path in paths:
        try:
            found.append(grey_uint8(read(path).pixels, long_side))
        except TiepointError as error:
            failures.append(Failure("speed", str(path), str(error)))
    return found, failures


def measure_speed(
    images: Sequence[Grey],
    methods: Sequence[Method],
    k: int,
    repeats: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
    on_image: Callable[[], None] = lambda: None,
) -> list[SpeedRow]:
    """Time every method on every image, taking turns, so that all see the same machine.

    Args:
        images: At least one.
        k: Points asked for; a method may find fewer.
        repeats: Rounds over all images.
        clock: Seconds.

    Raises:
        ConfigError: No images, no methods, two of one name, or no repetition.
    """
    if not images or not methods or repeats < 1:
        raise ConfigError(
            f"{len(images)} images, {len(methods)} methods and {repeats} repeats, expected at "
            "least one of each"
        )
    check_methods(methods)
    timed = {method.name: method.exactly or method.detect for method in methods}
    for detect in timed.values():
        for _ in range(WARM_UP):
            detect(images[0], k)
    spent: dict[str, list[float]] = {method.name: [] for method in methods}
    counts: dict[str, list[int]] = {method.name: [] for method in methods}
    for _ in range(repeats):
        for one in images:
            for name, detect in timed.items():
                begun = clock()
                found = detect(one, k)
                spent[name].append(1000 * (clock() - begun))
                counts[name].append(len(found))
            on_image()
    first = float(np.median(spent[methods[0].name]))
    rows = []
    for name, values in spent.items():
        low, median, high = np.percentile(values, [10, 50, 90])
        mean = float(np.mean(counts[name]))
        rows.append(
            SpeedRow(
                name, len(images), mean, float(median), float(low), float(high), median / first
            )
        )
    return rows


def speed_table(rows: Sequence[SpeedRow], k: int, long_side: int) -> Table:
    """The rows for a terminal."""
    shown = Table(
        title="Time per image, array to features",
        caption=f"Methods take turns on {rows[0].images} images of at most {long_side} px, "
        f"k = {k}; quantiles over images and repetitions. For a machine that does nothing else.",
        box=box.SIMPLE_HEAD,
    )
    shown.add_column("method", no_wrap=True)
    for name in ("points", "median ms", "10 %", "90 %", "times the first"):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        numbers = (row.median_ms, row.low_ms, row.high_ms)
        shown.add_row(
            row.method,
            f"{row.keypoints:.0f}",
            *(f"{value:.1f}" for value in numbers),
            f"{row.times:.2f}",
        )
    return shown


def speed_json(
    rows: Sequence[SpeedRow],
    methods: Sequence[Method],
    failures: Sequence[Failure],
    settings: dict[str, Any],
    **more: Any,
) -> str:
    """Everything, as `report.as_json` for homographies."""
    return document(settings, methods, [asdict(row) for row in rows], [], failures, more)
