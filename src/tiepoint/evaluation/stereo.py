"""Pairs of images with known depth: how exactly matches lie where no plane explains them.

A row of the truth says by how many px each pixel of A moves along the rows to B. What is covered
in B has no truth and does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.table import Table

from tiepoint.errors import FormatError
from tiepoint.evaluation.methods import Method
from tiepoint.evaluation.pairs import (
    PAIRS_FILE,
    Failure,
    Grey,
    grey_uint8,
    group_names,
    size_hw_of,
    with_own_names,
)
from tiepoint.evaluation.partial import Partial
from tiepoint.evaluation.report import Mean, cell, document, mean_of
from tiepoint.evaluation.run import Record, measured_pairs
from tiepoint.evaluation.settings import Settings
from tiepoint.features import Features
from tiepoint.geometry import resize_xy
from tiepoint.images import read
from tiepoint.matching.match import match

DISPARITY_STEPS = 256.0
"""A disparity file holds 256 times the disparity in px; 0 is unknown."""

FIELDS = 4
WITHIN_PX = (1.0, 2.0, 3.0, 5.0)


@dataclass(frozen=True, eq=False)
class StereoPair:
    """Two image files, and the file with the disparities of A; x_B = x_A + sign * disparity.

    Attributes:
        names: Of the images, relative to the set's folder, with `/`.
    """

    group: str
    name: str
    path_a: Path
    path_b: Path
    path_disparity: Path
    sign: float
    names: tuple[str, str]


@dataclass(frozen=True)
class StereoMeasured:
    """One method on one pair.

    Attributes:
        keypoints_a, keypoints_b: Points matched.
        matches: Of points whose disparity is known.
        within: Share of them within each of `WITHIN_PX` of the true place.
    """

    keypoints_a: int
    keypoints_b: int
    matches: int
    within: tuple[float, ...]


@dataclass(frozen=True)
class StereoRow:
    """One method over all pairs: means, with intervals over pairs where they say something."""

    method: str
    pairs: int
    keypoints: float
    matches: Mean
    within: dict[float, Mean]


@dataclass(frozen=True)
class StereoEvaluation:
    """Records by pair, then by method; and what could not be read."""

    settings: Settings
    methods: tuple[Method, ...]
    records: tuple[Record[StereoMeasured], ...]
    failures: tuple[Failure, ...]


def read_stereo_folders(folders: Sequence[Path]) -> tuple[list[StereoPair], list[Failure]]:
    """The pairs of folders whose `pairs.txt` holds lines `imgA imgB disparity sign`."""
    pairs: list[StereoPair] = []
    failures: list[Failure] = []
    for folder, group in zip(folders, group_names(folders), strict=True):
        path = folder / PAIRS_FILE
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            failures.append(Failure(group, "", f"{path}: cannot be read ({error})"))
            continue
        for number, line in enumerate(lines, start=1):
            fields = line.split()
            if not fields or fields[0].startswith("#"):
                continue
            name = " ".join(fields[:2])
            if len(fields) != FIELDS or fields[3] not in ("1", "-1", "+1"):
                said = f"{path}, line {number}: expected imgA imgB disparity and 1 or -1"
                failures.append(Failure(group, name, said))
                continue
            a, b, disparity = (folder / field for field in fields[:3])
            names = (fields[0], fields[1])
            pairs.append(StereoPair(group, name, a, b, disparity, float(fields[3]), names))
    return with_own_names(pairs), failures


def evaluate_stereo(
    pairs: Sequence[StereoPair],
    methods: Sequence[Method],
    settings: Settings,
    *,
    failures: Sequence[Failure] = (),
    workers: int = 1,
    partial: Partial | None = None,
    on_pair: Callable[[], None] = lambda: None,
) -> StereoEvaluation:
    """Run every method on every pair; arguments as for `run.evaluate`."""
    records, lost = measured_pairs(
        pairs, methods, lambda pair: _measure_pair(pair, methods, settings), StereoMeasured,
        failures=failures, workers=workers, partial=partial, on_pair=on_pair,
    )  # fmt: skip
    return StereoEvaluation(settings, tuple(methods), records, lost)


def measure_stereo(
    a: Features, b: Features, disparity_px: NDArray[np.float32], sign: float
) -> StereoMeasured:
    """Compare matches with the truth.

    Args:
        a, b: Features in px of the images that the disparities belong to.
        disparity_px: H W, 0 where it is unknown.
    """
    pairs = match(a, b, rotation="none").pairs  # M 2
    xy_a, xy_b = a.xy[pairs[:, 0]].astype(np.float64), b.xy[pairs[:, 1]].astype(np.float64)
    height, width = disparity_px.shape
    columns = np.clip(np.rint(xy_a[:, 0]).astype(int), 0, width - 1)
    rows = np.clip(np.rint(xy_a[:, 1]).astype(int), 0, height - 1)
    moved = disparity_px[rows, columns]  # M
    known = moved > 0
    there = xy_a + np.stack([sign * moved, np.zeros(len(moved))], axis=1)  # M 2
    off = np.hypot(*(there - xy_b)[known].T)  # of those known
    within = tuple(float((off <= px).mean()) if len(off) else 0.0 for px in WITHIN_PX)
    return StereoMeasured(len(a), len(b), int(known.sum()), within)


def _measure_pair(
    pair: StereoPair, methods: Sequence[Method], settings: Settings
) -> list[StereoMeasured]:
    images = [read(path).pixels for path in (pair.path_a, pair.path_b)]
    disparity = cv2.imread(str(pair.path_disparity), cv2.IMREAD_UNCHANGED)
    if disparity is None or disparity.dtype != np.uint16:
        raise FormatError(f"{pair.path_disparity}: expected a PNG of 16 bits")
    if disparity.shape != size_hw_of(images[0]):
        raise FormatError(
            f"{pair.path_disparity}: {disparity.shape[1]}x{disparity.shape[0]} px, image A has "
            f"{images[0].shape[1]}x{images[0].shape[0]}"
        )
    moved = disparity.astype(np.float32) / np.float32(DISPARITY_STEPS)
    small = [grey_uint8(pixels, settings.frame.long_side) for pixels in images]
    found = []
    for method in methods:
        a, b = (
            _at_full_size(method, grey, name, pixels, settings.k)
            for grey, name, pixels in zip(small, pair.names, images, strict=True)
        )
        found.append(measure_stereo(a, b, moved, pair.sign))
    return found


def _at_full_size(method: Method, grey: Grey, name: str, pixels: NDArray[Any], k: int) -> Features:
    """The best k points at evaluation size, in px of the whole image."""
    best = method.features(grey, name, k).top(k)
    xy = resize_xy(best.xy, size_hw_of(grey), size_hw_of(pixels))
    return Features(xy, best.scores, best.descriptors, size_hw_of(pixels), best.meta)


def stereo_rows(evaluation: StereoEvaluation) -> list[StereoRow]:
    """A row per method over all pairs."""
    found = []
    for method in evaluation.methods:
        chosen = [one.measured for one in evaluation.records if one.method == method.name]
        counts = [(one.keypoints_a + one.keypoints_b) / 2 for one in chosen]
        found.append(
            StereoRow(
                method.name,
                len(chosen),
                float(np.mean(counts)),
                mean_of(np.array([one.matches for one in chosen], np.float64)),
                {
                    px: mean_of(np.array([one.within[index] for one in chosen]))
                    for index, px in enumerate(WITHIN_PX)
                },
            )
        )
    return found


def stereo_table(evaluation: StereoEvaluation) -> Table:
    """The rows for a terminal; below each mean its 95 % interval."""
    settings = evaluation.settings
    shown = Table(
        title="Share of matches within so many px of the true place, by disparity",
        caption=f"k = {settings.k}, {settings.frame}; px of the whole images. Only matches of "
        "points whose disparity is known.",
        box=box.SIMPLE_HEAD,
    )
    shown.add_column("method", no_wrap=True)
    for name in ["pairs", "points", "matches", *(f"{px:g} px" for px in WITHIN_PX)]:
        shown.add_column(name, justify="right", no_wrap=True)
    for row in stereo_rows(evaluation):
        shares = [cell(share, 2) for share in row.within.values()]
        shown.add_row(
            row.method, str(row.pairs), f"{row.keypoints:.0f}", cell(row.matches, 0), *shares
        )
    return shown


def stereo_json(evaluation: StereoEvaluation, **more: Any) -> str:
    """Everything, as `report.as_json` for homographies."""
    pairs = [
        {"group": one.group, "pair": one.pair, "method": one.method, **asdict(one.measured)}
        for one in evaluation.records
    ]
    found = [asdict(row) for row in stereo_rows(evaluation)]
    settings = {"k": evaluation.settings.k, "frame": asdict(evaluation.settings.frame)}
    return document(settings, evaluation.methods, found, pairs, evaluation.failures, more)
