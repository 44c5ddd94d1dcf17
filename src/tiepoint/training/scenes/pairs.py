"""Pairs of views with exact correspondences and corners, drawn from a seed and an index."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import ConfigError
from tiepoint.training.scenes import composition
from tiepoint.training.scenes.labels import APART_PX, discs, view_labels
from tiepoint.training.scenes.photometry import Exposed, expose
from tiepoint.training.scenes.render import Rendering, flow, render
from tiepoint.training.scenes.settings import DataConfig, Geometry, Photometry
from tiepoint.training.scenes.texture_labels import Points, seen_from, structure_points

__all__ = [
    "DataConfig",
    "Geometry",
    "Photometry",
    "TrainingPair",
    "TrainingView",
    "training_pair",
]

LOOKS = 4
LEAST_SEEN = 0.75
"""Of the smallest overlap, that must be left where bodies stand in the way."""


@dataclass(frozen=True, eq=False)
class TrainingView:
    """One image of a pair.

    Attributes:
        image: `H W` uint8.
        corners_xy: N 2 float32 px: exact corners that are seen and of sufficient contrast, and
            points of the texture that the other view has too.
        ignore: `H W` bool, px about which a detector's loss must say nothing.
    """

    image: NDArray[np.uint8]
    corners_xy: NDArray[np.float32]
    ignore: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class TrainingPair:
    """Two views of one scene.

    Attributes:
        a, b: The views, of one size.
        a_to_b: `H W 2` float32 px (x, y): where each px centre of A lies in B; NaN where B does
            not show it.
        b_to_a: Likewise.
        kind: One of `settings.KINDS`.
    """

    a: TrainingView
    b: TrainingView
    a_to_b: NDArray[np.float32]
    b_to_a: NDArray[np.float32]
    kind: str


def training_pair(config: DataConfig, seed: int, index: int) -> TrainingPair:
    """The pair of this index; the same whoever draws it, and in whatever order.

    Args:
        seed: At least 0.
        index: At least 0.

    Raises:
        ConfigError: A negative seed or index.
        FormatError, ImageError: Photographs that are not there or cannot be read.
    """
    if seed < 0 or index < 0:
        raise ConfigError(f"seed is {seed} and index {index}, expected whole numbers >= 0")
    scene = composition.scene(config, seed, index)
    rng = np.random.default_rng([seed, index, 1])
    drawn, flows = _seen(scene, config, rng)
    exposed = [expose(one.image, rng, config.photometry) for one in drawn]
    a_to_b, b_to_a = flows
    _hide(a_to_b, exposed[0].covered, exposed[1].covered)
    _hide(b_to_a, exposed[1].covered, exposed[0].covered)
    points = [structure_points(one.clean, one.covered) for one in exposed]
    views = [
        _view(one, shown, config, points[number], flows[number], points[1 - number])
        for number, (one, shown) in enumerate(zip(exposed, drawn, strict=True))
    ]
    return TrainingPair(views[0], views[1], a_to_b, b_to_a, scene.kind)


def _seen(
    scene: composition.Scene, config: DataConfig, rng: np.random.Generator
) -> tuple[list[Rendering], list[NDArray[np.float32]]]:
    """Both views and the flows between them; again when bodies hide too much of what is common."""
    for _ in range(LOOKS):
        look = composition.look(scene, config, rng)
        a, b = (
            render(look.layers, to, order, scene.backdrop, config.size_hw, config.cover_px)
            for to, order in zip(look.to_views, look.orders, strict=True)
        )
        flows = [flow(a, b, *look.to_views), flow(b, a, *look.to_views[::-1])]
        common = max(float(np.isfinite(there[..., 0]).mean()) for there in flows)
        if common >= LEAST_SEEN * config.geometry.min_overlap:
            break
    return [a, b], flows


def _view(
    exposed: Exposed,
    drawn: Rendering,
    config: DataConfig,
    points_xy: Points,
    there: NDArray[np.float32],
    points_there: Points,
) -> TrainingView:
    """Labels of a view: drawn corners, then points of its texture that the other view has too."""
    corners, ignore = view_labels(
        exposed.clean, drawn.corners_xy, drawn.positive, exposed.covered, config.min_contrast
    )
    seen = seen_from(points_xy, there, points_there)
    ignore |= discs(points_xy[~seen.visible], ignore.shape)
    found = points_xy[seen.again]
    if len(corners) and len(found):  # a corner's own blob is no second point
        gaps = np.hypot(*(found[:, None] - corners[None]).transpose(2, 0, 1)).min(axis=1)
        found = found[gaps > APART_PX]
    return TrainingView(exposed.image, np.concatenate([corners, found.astype(np.float32)]), ignore)


def _hide(
    there: NDArray[np.float32], here_covered: NDArray[np.bool_], there_covered: NDArray[np.bool_]
) -> None:
    """Take out of a flow what something before either lens covers."""
    there[here_covered] = np.nan
    if not there_covered.any():
        return
    known = np.isfinite(there[..., 0])
    height, width = there_covered.shape
    last = (width - 1, height - 1)  # a view reaches half a px beyond its last centres
    at = np.clip(np.rint(there[known]), 0, last).astype(np.int64)  # N 2
    gone = there_covered[at[:, 1], at[:, 0]]
    rows, columns = np.nonzero(known)
    there[rows[gone], columns[gone]] = np.nan
