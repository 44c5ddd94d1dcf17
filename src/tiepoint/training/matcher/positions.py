"""Exact positions of a view's keypoints in the other views of its scene, occlusion included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiepoint.geometry import apply_homography, inside
from tiepoint.training.scenes.basics import Mask, Matrix, size_hw_of
from tiepoint.training.scenes.render import NOBODY, Owners

COVERED = -1
"""Owner of px that an object right in front of the lens covers."""

EDGE_PX, CORNER_PX = 2.5, 1.5
"""Within the first distance from a plane's edge, its visibility is uncertain. Within the second, a
keypoint on an edge belongs to the plane in front."""


@dataclass(frozen=True, eq=False)
class OwnedView:
    """The geometry of one view.

    Attributes:
        owner: `H W` int16: 1 + number of the plane that fills the px, `NOBODY` where several do,
            or `COVERED`.
        to_view: 3x3 for each of P planes: px of its sheet -> px of the view.
        rank: 1 + P: position of each owner's body in the drawing order, 0 for what is not drawn.
    """

    owner: Owners
    to_view: Sequence[Matrix]
    rank: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Elsewhere:
    """N keypoints of one view in another.

    Attributes:
        xy: N 2 float32, px; NaN where the other view does not show the point, or nobody knows.
        doubtful: N bool: on an edge, or its point is at one in the other view. Such a keypoint may
            have a match at `xy`, but never counts as unmatchable.
    """

    xy: NDArray[np.float32]
    doubtful: Mask


def owned_view(
    owner: Owners,
    covered: Mask,
    to_view: Sequence[Matrix],
    order: Sequence[int],
    bodies: Sequence[int],
) -> OwnedView:
    """The geometry of a view.

    Args:
        owner: `H W`, as rendered.
        covered: `H W`, px that an object in front of the lens covers.
        order: Numbers of the planes as they were drawn, far ones first.
        bodies: The body of each plane.
    """
    of = np.array([-1, *bodies])  # 1 + P
    rank = np.zeros(len(of), np.int64)
    for position, number in enumerate(order):
        rank[of == bodies[number]] = position + 1
    return OwnedView(np.where(covered, np.int16(COVERED), owner), to_view, rank)


def elsewhere(xy: NDArray[np.float32], view: OwnedView, other: OwnedView) -> Elsewhere:
    """Positions in another view of the keypoints of a view.

    Args:
        xy: N 2 px.
    """
    nearby = _owners(view.owner, xy, CORNER_PX)  # N K; the first is the px itself
    centre = nearby[:, 0]
    ranks = np.where(nearby > 0, view.rank[np.maximum(nearby, 0)], -1)  # N K
    front = np.take_along_axis(nearby, ranks.argmax(axis=1)[:, None], 1)[:, 0]
    on_edge = centre == NOBODY
    owner = np.where(on_edge & (front > 0), front, centre)  # N
    result = np.full((len(xy), 2), np.nan)
    # Next to a patch a keypoint may be of the patch or of the scene.
    doubtful: NDArray[np.bool_] = np.array(
        on_edge | ((centre == COVERED) & (nearby != COVERED).any(axis=1))
    )
    for number in np.unique(owner[owner > 0]):
        own = np.flatnonzero(owner == number)
        on_sheet = apply_homography(np.linalg.inv(view.to_view[number - 1]), xy[own])
        there = apply_homography(other.to_view[number - 1], on_sheet)  # M 2
        known: NDArray[np.bool_] = np.isfinite(there[:, 0])
        known[known] = inside(there[known], size_hw_of(other.owner))
        own, there = own[known], there[known]
        around = _owners(other.owner, there, EDGE_PX)  # M K
        near = (around == number).any(axis=1)
        result[own[near]] = there[near]
        doubtful[own[near & (around[:, 0] != number)]] = True
    return Elsewhere(result.astype(np.float32), doubtful)


def _owners(owner: Owners, xy: NDArray[np.floating], radius: float) -> NDArray[np.int64]:
    """N K: the owner of the px at N points, then those of the px around it within a radius."""
    reach = int(radius)
    offsets = [
        (x, y)
        for y in range(-reach, reach + 1)
        for x in range(-reach, reach + 1)
        if x * x + y * y <= radius * radius
    ]
    shifts = np.array(sorted(offsets, key=lambda one: one != (0, 0)))  # K 2
    places = np.rint(xy).astype(np.int64)[:, None] + shifts  # N K 2
    height, width = owner.shape
    x, y = np.clip(places[..., 0], 0, width - 1), np.clip(places[..., 1], 0, height - 1)
    owners: NDArray[np.int64] = owner[y, x].astype(np.int64)
    return owners
