"""Time per image of each method, all of them in one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from tiepoint.errors import ConfigError, TiepointError
from tiepoint.evaluation.methods import Method
from tiepoint.evaluation.run import check_methods
from tiepoint.evaluation.sizes import Grey, grey_uint8
from tiepoint.evaluation.summary import Line, table_of
from tiepoint.evaluation.task import Failure
from tiepoint.images import read

WARM_UP = 2
"""Untimed runs of each method, because engines compile and caches fill."""


@dataclass(frozen=True)
class SpeedRow:
    """One method's time per image, array to features; quantiles over images and repetitions.

    Attributes:
        keypoints: Mean per image.
        low_ms, high_ms: 10 and 90 % quantiles.
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
    """Grey images, downscaled to a longer side of `long_side` px, and those that failed."""
    loaded: list[Grey] = []
    failures: list[Failure] = []
    for path in paths:
        try:
            loaded.append(grey_uint8(read(path).pixels, long_side))
        except TiepointError as error:
            failures.append(Failure("speed", str(path), str(error)))
    return loaded, failures


def measure_speed(
    images: Sequence[Grey],
    methods: Sequence[Method],
    k: int,
    repeats: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
    on_image: Callable[[], None] = lambda: None,
) -> list[SpeedRow]:
    """Time every method on every image in turn, so that all see the same machine.

    Args:
        k: Keypoints requested; a method may find fewer.
        repeats: Rounds over all images.
        clock: Current time in seconds.

    Raises:
        ConfigError: No images, no methods, two of one name, or no repetition.
    """
    if not images or not methods or repeats < 1:
        raise ConfigError(
            f"{len(images)} images, {len(methods)} methods and {repeats} repeats, expected at "
            "least one of each"
        )
    check_methods(methods)
    timed = {method.name: method.detect_exactly_k or method.detect for method in methods}
    for detect in timed.values():
        for _ in range(WARM_UP):
            detect(images[0], k)
    runs: dict[str, list[tuple[float, int]]] = {name: [] for name in timed}  # ms, keypoints
    for _ in range(repeats):
        for image in images:
            for name, detect in timed.items():
                start = clock()
                features = detect(image, k)
                runs[name].append((1000 * (clock() - start), len(features)))
            on_image()
    first_ms = float(np.median([ms for ms, _ in runs[methods[0].name]]))
    rows = []
    for name, values in runs.items():
        times_ms, counts = np.array(values).T
        mean = float(counts.mean())
        low, median, high = map(float, np.percentile(times_ms, [10, 50, 90]))
        rows.append(SpeedRow(name, len(images), mean, median, low, high, median / first_ms))
    return rows


def speed_table(rows: Sequence[SpeedRow], k: int, long_side: int) -> Table:
    """The rows for a terminal."""
    lines = []
    for row in rows:
        cells = {"points": f"{row.keypoints:.0f}", "median ms": f"{row.median_ms:.1f}"}
        cells |= {"10 %": f"{row.low_ms:.1f}", "90 %": f"{row.high_ms:.1f}"}
        lines.append(Line([row.method], {**cells, "times the first": f"{row.times:.2f}"}))
    caption = (
        f"Methods take turns on {rows[0].images} images of at most {long_side} px, k = {k}; "
        "quantiles over images and repetitions. For a machine that does nothing else."
    )
    return table_of("Time per image, array to features", caption, ["method"], lines)
