"""Pairs of views with exact correspondences and corners, drawn from a seed and an index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiepoint.checks import check_whole
from tiepoint.training.scenes import composition
from tiepoint.training.scenes.basics import Grey, Mask, Points, Rng, nearest_distance
from tiepoint.training.scenes.labels import APART_PX, discs, view_labels
from tiepoint.training.scenes.photometry import Exposed, draw_exposure, expose
from tiepoint.training.scenes.render import Rendering, flow, render
from tiepoint.training.scenes.settings import DataConfig
from tiepoint.training.scenes.texture_labels import repeated_in, texture_points

TRIES = 4
VISIBLE_SHARE = 0.75
"""Least common view that remains behind occluding bodies, in parts of `Geometry.min_overlap`."""


@dataclass(frozen=True, eq=False)
class TrainingView:
    """One image of a pair."""

    image: Grey
    corners_xy: NDArray[np.float32]
    """N 2 px: exact corners that are visible and of sufficient contrast, and texture points that
    the other view has too."""
    ignore: Mask  # `H W`, px that a detector's loss must ignore


@dataclass(frozen=True, eq=False)
class TrainingPair:
    """Two views of one scene, of one size."""

    a: TrainingView
    b: TrainingView
    a_to_b: NDArray[np.float32]
    """`H W 2` px (x, y): position of each px centre of A in B; NaN where B does not show it."""
    b_to_a: NDArray[np.float32]  # the same from B to A
    kind: str  # one of `settings.KINDS`


def training_pair(config: DataConfig, seed: int, index: int) -> TrainingPair:
    """The pair of this index: always the same, in any process and in any order.

    Raises:
        ConfigError: A negative seed or index.
        FormatError: No such folder of photographs, or none of the part in it.
        ImageError: Most photographs cannot be read.
    """
    check_whole("seed", seed, minimum=0, unit="of the pairs")
    check_whole("index", index, minimum=0, unit="of the pair")
    scene = composition.scene(config, seed, index)
    rng = np.random.default_rng([seed, index, 1])
    rendered, flows = rendered_pair(scene, config, rng)
    exposures = [draw_exposure(rng, config.size_hw, config.photometry) for _ in rendered]
    exposed = [expose(view.image, each) for view, each in zip(rendered, exposures, strict=True)]
    return labelled_pair(rendered, exposed, flows, config, scene.kind)


def labelled_pair(
    rendered: Sequence[Rendering],
    exposed: Sequence[Exposed],
    flows: Sequence[NDArray[np.float32]],
    config: DataConfig,
    kind: str,
) -> TrainingPair:
    """Label views A and B.

    Args:
        rendered, exposed: A and B, before and after photometry.
        flows: `H W 2` px from A to B and from B to A, without objects in front of the lens.
        kind: One of `settings.KINDS`.
    """
    a, b = exposed
    a_to_b, b_to_a = (each.copy() for each in flows)
    hide_covered(a_to_b, a.covered, b.covered)
    hide_covered(b_to_a, b.covered, a.covered)
    points_a, points_b = (texture_points(view.clean, view.covered) for view in exposed)
    label_a = _label(a, rendered[0], config, points_a, a_to_b, points_b)
    label_b = _label(b, rendered[1], config, points_b, b_to_a, points_a)
    return TrainingPair(label_a, label_b, a_to_b, b_to_a, kind)


def rendered_pair(
    scene: composition.Scene, config: DataConfig, rng: Rng
) -> tuple[list[Rendering], list[NDArray[np.float32]]]:
    """Both views, and the flows from A to B and back.

    If bodies hide too much of the common view, other cameras are drawn.
    """
    for _ in range(TRIES):
        pair = composition.view_pair(scene, config, rng)
        a, b = (
            render(pair.planes, to_view, order, scene.backdrop, config.size_hw, config.cover_px)
            for to_view, order in zip(pair.to_views, pair.orders, strict=True)
        )
        flows = [flow(a, b, *pair.to_views), flow(b, a, *pair.to_views[::-1])]
        common = max(float(np.isfinite(forth[..., 0]).mean()) for forth in flows)
        if common >= VISIBLE_SHARE * config.geometry.min_overlap:
            break
    return [a, b], flows


def _label(
    exposed: Exposed,
    rendering: Rendering,
    config: DataConfig,
    points: Points,
    to_other: NDArray[np.float32],
    other_points: Points,
) -> TrainingView:
    """Label a view: drawn corners, then texture points that the other view has too."""
    xy, positive, least = rendering.corners_xy, rendering.positive, config.min_contrast
    corners, ignore = view_labels(exposed.clean, xy, positive, exposed.covered, least)
    visible, repeated = repeated_in(points, to_other, other_points)
    ignore |= discs(points[~visible], config.size_hw)
    extra = points[repeated]
    if len(corners):  # the blob of a drawn corner is the same point
        extra = extra[nearest_distance(extra, corners) > APART_PX]
    return TrainingView(exposed.image, np.concatenate([corners, extra.astype(np.float32)]), ignore)


def hide_covered(forth: NDArray[np.float32], covered: Mask, other_covered: Mask) -> None:
    """Remove px from a flow that an object in front of either lens covers."""
    forth[covered] = np.nan
    if not other_covered.any():
        return
    known = np.isfinite(forth[..., 0])
    height, width = other_covered.shape
    last = (width - 1, height - 1)  # a view ends half a px beyond its last centres
    columns, rows = np.clip(np.rint(forth[known]), 0, last).astype(np.int64).T
    known[known] = other_covered[rows, columns]
    forth[known] = np.nan
