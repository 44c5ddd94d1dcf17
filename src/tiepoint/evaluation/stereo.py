"""Evaluation by disparities: how exact matches are where no plane explains them.

A disparity is the shift in px of a pixel of A along its row in B. Pixels that are occluded in B
have none and are not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import FormatError, ImageError
from tiepoint.evaluation.methods import Method, Pairing, nearest_neighbours
from tiepoint.evaluation.metrics import Mean, mean_of
from tiepoint.evaluation.pair_lists import PairFiles, files_of_line
from tiepoint.evaluation.settings import StereoSettings
from tiepoint.evaluation.sizes import LoadedImages, grey_uint8, size_hw_of
from tiepoint.evaluation.summary import mean_cell
from tiepoint.evaluation.task import Figures, Task
from tiepoint.features import Features
from tiepoint.geometry import SizeHW, resize_xy
from tiepoint.images import read

DISPARITY_STEPS = 256.0
"""Levels of a disparity file per px; level 0 is unknown."""

WITHIN_PX = (1.0, 2.0, 3.0, 5.0)


@dataclass(frozen=True, eq=False)
class StereoPair(PairFiles):
    """Two image files, and the file with the disparities of A; x_B = x_A + sign * disparity."""

    path_disparity: Path
    sign: float


@dataclass(frozen=True)
class StereoFigures(Figures):
    """One method's figures on one pair; only matches with a known disparity are counted."""

    within: tuple[float, ...]
    """Share of these matches within each of `WITHIN_PX` of the true position."""


@dataclass(frozen=True)
class StereoMeans:
    """One method's means over pairs; `within` by distance in px."""

    matches: Mean
    within: dict[float, Mean]


def parse_line(folder: Path, group: str, fields: Sequence[str]) -> StereoPair:
    """A line `imgA imgB disparity sign` of `pairs.txt`; FormatError for a sign that is not +-1."""
    if fields[3] not in ("1", "-1", "+1"):
        raise FormatError(f"sign is {fields[3]!r}, expected 1 or -1")
    files = files_of_line(folder, group, fields)
    return StereoPair(*files, folder / fields[2], float(fields[3]))


def measure(
    a: Features,
    b: Features,
    disparity_px: NDArray[np.float32],
    sign: float,
    pairing: Pairing = nearest_neighbours,
) -> StereoFigures:
    """Compare matches with the ground truth.

    Args:
        a, b: Features in px of the images that the disparities belong to.
        disparity_px: H W, 0 where it is unknown.
    """
    pairs = pairing(a, b, "none").pairs  # M 2
    xy_a, xy_b = a.xy[pairs[:, 0]].astype(np.float64), b.xy[pairs[:, 1]].astype(np.float64)
    height, width = disparity_px.shape
    columns, rows = np.clip(np.rint(xy_a).astype(int), 0, (width - 1, height - 1)).T  # M, M
    shift_px = disparity_px[rows, columns]  # M
    known = shift_px > 0
    true_xy_b = xy_a + np.stack([sign * shift_px, np.zeros(len(shift_px))], axis=1)  # M 2
    off_px = np.hypot(*(true_xy_b - xy_b)[known].T)  # one per known disparity
    within = tuple(float((off_px <= px).mean()) if len(off_px) else 0.0 for px in WITHIN_PX)
    return StereoFigures(len(a), len(b), int(known.sum()), within)


def _measure_pair(
    pair: StereoPair, methods: Sequence[Method], settings: StereoSettings
) -> list[StereoFigures]:
    pixels_a, pixels_b = pair.read()
    disparity_px = read_disparity(pair.path_disparity, pixels_a)
    greys = (grey_uint8(pixels, settings.frame.long_side) for pixels in (pixels_a, pixels_b))
    loaded = LoadedImages(*greys, names=pair.names)
    figures = []
    for method in methods:
        a, b = (one.top(settings.k) for one in method.features_of_pair(loaded, settings.k))
        a, b = _in_px_of(a, size_hw_of(pixels_a)), _in_px_of(b, size_hw_of(pixels_b))
        figures.append(measure(a, b, disparity_px, pair.sign, method.pairing))
    return figures


def _in_px_of(features: Features, size_hw: SizeHW) -> Features:
    xy = resize_xy(features.xy, features.size_hw, size_hw)
    return Features(xy, features.scores, features.descriptors, size_hw)


def read_disparity(path: Path, image_a: NDArray[Any]) -> NDArray[np.float32]:
    """The disparities of A, `H W` px, 0 where they are unknown.

    Raises:
        FormatError: Not a PNG of 16 bits of the size of A.
    """
    try:
        disparity = read(path).pixels
    except ImageError as error:
        raise FormatError(f"{error}; expected a PNG of 16 bits") from error
    if disparity.dtype != np.uint16:
        raise FormatError(f"{path}: expected a PNG of 16 bits")
    if disparity.shape != size_hw_of(image_a):
        size, a_size = (f"{one.shape[1]}x{one.shape[0]}" for one in (disparity, image_a))
        raise FormatError(f"{path}: {size} px, image A has {a_size}")
    return np.asarray(disparity.astype(np.float32) / np.float32(DISPARITY_STEPS), np.float32)


def _average(figures: Sequence[StereoFigures], settings: StereoSettings) -> StereoMeans:
    within = {
        px: mean_of([one.within[index] for one in figures]) for index, px in enumerate(WITHIN_PX)
    }
    return StereoMeans(mean_of([one.matches for one in figures]), within)


def _cells(means: StereoMeans) -> dict[str, str]:
    shares = {f"{px:g} px": mean_cell(share, 2) for px, share in means.within.items()}
    return {"matches": mean_cell(means.matches, 0), **shares}


STEREO = Task(
    kind="stereo",
    line="imgA imgB disparity sign",
    field_count=4,
    parse_line=parse_line,
    measure=_measure_pair,
    figures=StereoFigures,
    average=_average,
    cells=_cells,
    title="Share of matches within N px of the true position, by disparity",
    caption=lambda settings: (
        f"k = {settings.k}, {settings.frame}; px of the whole images. Only "
        "matches of points whose disparity is known."
    ),
    by_group=False,
)
"""Pairs with known depth: `imgA imgB disparity sign`, x_B = x_A + sign * disparity."""
