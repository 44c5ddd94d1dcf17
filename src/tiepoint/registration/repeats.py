"""Repeated structure: rival models that fit nearly as well, one period of the structure away.

A facade of equal windows matches itself window by window at several shifts. The rivals show in
the keypoints' next-best matches; the pictures decide among them, or the answer is open.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.config import Model
from tiepoint.geometry import Float, Matrix, apply_homography
from tiepoint.registration import appearance, planar
from tiepoint.registration.fit import Fit

SIMILARITY_GAP = 0.06
"""Largest difference of the cosine from a keypoint's best match, of a match that counts too."""

LEAST_SIMILARITY = 0.5
"""Minimum cosine of a match that counts."""

LEAST_RIVAL = 0.15
"""Least share of a rival's matches in those of the model. Photographs without repeated structure
reach .08, repeated windows .27 and more (measured)."""

LEAST_RIVAL_UNSEEN = 0.3
"""The same where the pictures are unknown and cannot decide: then the model is refused."""

LEAST_MATCHES = 8
"""Least number of next-best matches of a rival."""

MAX_RIVALS = 16

_ROWS = 100  # keypoints of A compared at a time

DECISIVE_RATIO, DECISIVE_GAP = 0.7, 0.15
"""A model beats another if it leaves less than this share of the other's residual energy, or less
by this much of the contrast."""

FAINT_GAP = 0.05
"""The same for a model that explains at least twice as much as the other."""

_LEAST_ENERGY = 0.01  # of the contrast: what noise and a few tenths of a pixel leave

_BIN_PX = 4.0
_REACH_BINS = 512  # displacements that are counted: up to 1024 px of the network's input
_NEAR_PX = 16.0  # of the model itself: not a rival
_SEARCH_PX = 8.0  # around a rival's displacement


@dataclass(frozen=True, eq=False)
class Rival:
    """Another model of the same two images.

    Attributes:
        matrix: 3x3, x_B ~ H x_A.
        shift_xy: Where it maps the points of A relative to the first model, px of B.
        strength: Its next-best matches over those of the first model.
    """

    matrix: Matrix
    shift_xy: NDArray[np.float64]
    strength: float


def decide(fit: Fit) -> tuple[Rival | None, str | None]:
    """Compare a fitted model with its rivals.

    Returns:
        The rival that fits the pictures better than the model and all others, or None; and the
        objection if no model is clearly the best.
    """
    if fit.descriptors is None:
        return None, None
    xy_a, xy_b = (f.xy.astype(np.float64) for f in (fit.features_a, fit.features_b))
    model, matrix = fit.settings.model, fit.estimate.matrix
    similar = similar_pairs(*fit.descriptors)
    rivals = find_rivals(model, matrix, xy_a, xy_b, similar, fit.input_px)
    rivals = [rival for rival in rivals if _differ(fit, rival.matrix, matrix)]
    if fit.pictures is None:
        strong = [rival for rival in rivals if rival.strength >= LEAST_RIVAL_UNSEEN]
        return None, ambiguous(fit, strong[0]) if strong else None
    best: Rival | None = None
    for rival in rivals:
        if _beats(fit, rival.matrix, matrix if best is None else best.matrix):
            best = rival
    winner = matrix if best is None else best.matrix
    for other in [rival.matrix for rival in rivals] + [matrix]:
        if _differ(fit, other, winner) and _beats(fit, winner, other) is False:
            rival = best or next(rival for rival in rivals if rival.matrix is other)
            return None, ambiguous(fit, rival)
    return best, None


def ambiguous(fit: Fit, rival: Rival) -> str:
    """The objection that a rival fits as well."""
    x, y = rival.shift_xy
    sideways = f"{abs(x):.0f} px to the {'right' if x > 0 else 'left'}"
    upright = f"{abs(y):.0f} px {'down' if y > 0 else 'up'}"
    parts = [text for text, size in ((sideways, abs(x)), (upright, abs(y))) if size >= 1]
    return (
        f"ambiguous: image {fit.names[0]} also fits {' and '.join(parts)} in image "
        f"{fit.names[1]}, because the structure repeats"
    )


def _beats(fit: Fit, matrix: Matrix, other: Matrix) -> bool | None:
    """Whether a model fits the pictures clearly better; None where they cannot be compared."""
    assert fit.pictures is not None
    energies = appearance.residual_energies(*fit.pictures, [matrix, other])
    if energies is None:
        return None
    mine, others = energies + _LEAST_ENERGY
    if mine < DECISIVE_RATIO * others or others - mine > DECISIVE_GAP:
        return True
    half = 1 - others < 0.5 * (1 - mine)  # in faint pictures noise is most of the energy
    return bool(half and others - mine > FAINT_GAP)


def _differ(fit: Fit, matrix: Matrix, other: Matrix) -> bool:
    """Whether two models map the matched points to different places."""
    xy = fit.inliers_xy[0]
    apart = apply_homography(matrix, xy) - apply_homography(other, xy)  # I 2
    distance = np.nan_to_num(np.hypot(apart[:, 0], apart[:, 1]), nan=np.inf)
    return bool(np.median(distance) > _NEAR_PX / 2 * fit.input_px)


def similar_pairs(
    a: NDArray[np.float32], b: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """C indices into a and C into b: each vector with all that are about as similar as the best.

    Args:
        a, b: N_A D and N_B D, descriptors.
    """
    rows, columns = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for start in range(0, len(a) if len(b) else 0, _ROWS):
        cosines = a[start : start + _ROWS] @ b.T  # ROWS N_B
        best = np.maximum(cosines.max(axis=1, keepdims=True), LEAST_SIMILARITY)  # ROWS 1
        similar = np.flatnonzero(cosines >= best - SIMILARITY_GAP)
        rows.append(similar // len(b) + start)
        columns.append(similar % len(b))
    return np.concatenate(rows), np.concatenate(columns)


def find_rivals(
    model: Model,
    matrix: Matrix,
    xy_a: Float,
    xy_b: Float,
    similar: tuple[NDArray[np.int64], NDArray[np.int64]],
    input_px: float,
) -> list[Rival]:
    """Models a shift away from `matrix` that many similar keypoints agree on, strongest first.

    Args:
        matrix: 3x3, x_B ~ H x_A.
        xy_a, xy_b: N_A 2 and N_B 2, all keypoints, px.
        similar: See `similar_pairs`.
        input_px: px of B per px of the network's input.
    """
    rows, columns = similar  # C
    shifts = (xy_b[columns] - apply_homography(matrix, xy_a)[rows]) / input_px  # C 2
    finite = np.isfinite(shifts).all(axis=1)
    rows, columns, shifts = rows[finite], columns[finite], shifts[finite]
    own = float((np.abs(shifts) <= 1.5 * _BIN_PX).all(axis=1).sum())
    if own == 0:
        return []
    rivals: list[Rival] = []
    for peak, count in _peaks(shifts):
        strength = count / own
        if strength < LEAST_RIVAL or len(rivals) == MAX_RIVALS:
            break
        if any(np.hypot(*(rival.shift_xy / input_px - peak)) < _NEAR_PX for rival in rivals):
            continue
        near = np.hypot(*(shifts - peak).T) <= _SEARCH_PX  # C
        shift = np.median(shifts[near], axis=0) * input_px  # 2
        moved = np.array([[1, 0, shift[0]], [0, 1, shift[1]], [0, 0, 1]]) @ matrix
        a, b = xy_a[rows[near]], xy_b[columns[near]]
        refined, _ = planar.refine(model, moved, a, b, _SEARCH_PX / 2 * input_px)
        rivals.append(Rival(refined, shift, strength))
    return rivals


def _peaks(shifts: NDArray[np.float64]) -> list[tuple[NDArray[np.float64], float]]:
    """Displacements that many matches share, and their numbers of matches; strongest first."""
    half = _REACH_BINS // 2
    bins = np.floor(shifts / _BIN_PX + 0.5).astype(int) + half  # C 2
    bins = bins[((bins >= 0) & (bins < _REACH_BINS)).all(axis=1)]
    if len(bins) == 0:
        return []
    low = np.maximum(bins.min(axis=0) - 1, 0)  # 2; the window reaches one bin farther
    width, height = np.minimum(bins.max(axis=0) + 2, _REACH_BINS) - low
    x, y = (bins - low).T
    counts = np.bincount(y * width + x, minlength=height * width).astype(np.float32)
    counts = counts.reshape(height, width)
    counts = cv2.boxFilter(counts, -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT)
    highest = cv2.dilate(counts, np.ones((5, 5), np.uint8))
    peaks = np.flatnonzero((counts >= highest) & (counts >= LEAST_MATCHES))
    y, x = peaks // width, peaks % width
    strengths = counts[y, x]
    places = (np.stack([x, y], axis=1) + low - half) * _BIN_PX  # P 2
    order = np.argsort(-strengths, kind="stable")
    far = np.hypot(*places.T) > _NEAR_PX
    return [(places[i], float(strengths[i])) for i in order if far[i]]
