"""Keypoints and registrations as bytes for the page: JSON, then arrays of float32.

4 bytes     length of the JSON, little-endian, a multiple of 4 less 4
JSON        {"meta": {...}, "arrays": {name: [rows, columns]}}, padded with spaces
float32     the arrays in this order, little-endian, row by row
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiepoint.features import Features
from tiepoint.geometry import Matrix, apply_homography, corners_xy
from tiepoint.matching import neighbours
from tiepoint.registration import epipolar
from tiepoint.registration.models import PLANE_MODELS, inlier_px
from tiepoint.registration.result import Registration
from tiepoint.service.view.edits import Fitted
from tiepoint.service.view.session import PairItem

Array = NDArray[np.floating[Any]]

INLIER, FAR, NO_PLACE, NO_MODEL = range(4)
"""States of a match: it fits; it is too far from the model; the model has no place for it; there is
no model."""

MOST_NEAREST = 5


def packed(meta: Mapping[str, Any], arrays: Mapping[str, Array]) -> bytes:
    """The bytes that the page reads.

    Args:
        meta: Plain values.
        arrays: Name -> N K.
    """
    head = {"meta": meta, "arrays": {name: list(array.shape) for name, array in arrays.items()}}
    text = json.dumps(head, allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    body = [np.ascontiguousarray(array, "<f4").tobytes() for array in arrays.values()]
    return b"".join([len(text).to_bytes(4, "little"), text, *body])


def points_of(features: Features) -> Array:
    """N 7: x, y, score, scale in px, and covariance xx, xy, yy in px^2; NaN if unknown."""
    table = np.full((len(features), 7), np.nan, np.float32)
    table[:, :2], table[:, 2] = features.xy, features.scores
    if features.scales_px is not None:
        table[:, 3] = features.scales_px
    if features.covariance is not None:
        table[:, 4:] = features.covariance.reshape(-1, 4)[:, [0, 1, 3]]
    return table


def meta_of(features: Features) -> dict[str, Any]:
    """What the page states about the keypoints of an image."""
    made = features.provenance
    return {
        "count": len(features),
        "size_hw": list(features.size_hw),
        "checkpoint": None if made is None else made.checkpoint,
        "nms_radius": None if made is None else made.settings.get("nms_radius"),
        "described": features.descriptors is not None,
        "px_per_input_px": features.px_per_input_px,
    }


def packed_pair(fitted: Fitted, pair: PairItem, recorded: Mapping[str, Any] | None) -> bytes:
    """A registration for the page.

    The array `matches` is M 9: x and y in A, x and y in B, score, state, residual x and y in px of
    B, and the index before changes by hand.
    """
    result = fitted.registration
    fundamental = fundamental_of(result, pair.intrinsics)
    residuals = residuals_px(result, fundamental)  # M 2
    table = np.column_stack([
        result.xy_a, result.xy_b, result.matches.scores, states_of(result, residuals),
        residuals, fitted.origin,
    ])  # fmt: skip
    meta = {
        **result.summary(),
        "inlier_px": inlier_px(pair.config),
        "px_per_input_px": [one.px_per_input_px for one in (result.features_a, result.features_b)],
        "is_plane": result.model in PLANE_MODELS,
        "fundamental": None if fundamental is None else fundamental.tolist(),
        "a": meta_of(result.features_a),
        "b": meta_of(result.features_b),
        "differs_px": None if recorded is None else _difference_px(result, recorded),
        "recorded_success": None if recorded is None else bool(recorded.get("success")),
    }
    arrays = {
        "points_a": points_of(result.features_a),
        "points_b": points_of(result.features_b),
        "matches": table.astype(np.float32),
    }
    return packed(meta, arrays)


def fundamental_of(result: Registration, intrinsics: Any = None) -> Matrix | None:
    """F in px of A and B, with x_B^T F x_A = 0; None for a plane model, and without a model.

    Args:
        intrinsics: As given to `register`; needed for an essential matrix.
    """
    if result.matrix is None or result.model in PLANE_MODELS:
        return None
    cameras = epipolar.read_cameras(intrinsics, result.model)
    return result.matrix if cameras is None else epipolar.pixel_matrix(result.matrix, cameras)


def residuals_px(result: Registration, fundamental: Matrix | None = None) -> Array:
    """M 2: from where the model expects each match in B to where it is, px.

    With a fundamental matrix, of `fundamental_of`, the place is the nearest point of the epipolar
    line. NaN without a model, and where the model has no place.
    """
    xy_a, xy_b = result.xy_a.astype(np.float64), result.xy_b.astype(np.float64)
    if result.matrix is not None and result.model in PLANE_MODELS:
        return xy_b - apply_homography(result.matrix, xy_a)
    if fundamental is None:
        return np.full((len(xy_b), 2), np.nan)
    lines = np.column_stack([xy_a, np.ones(len(xy_a))]) @ fundamental.T  # M 3
    signed = (lines[:, :2] * xy_b).sum(axis=1) + lines[:, 2]  # M
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(lines[:, :2] * (signed / (lines[:, :2] ** 2).sum(axis=1))[:, None])


def states_of(result: Registration, residuals: Array) -> NDArray[np.int64]:
    """M: `INLIER`, or why a match is none."""
    rejected = np.where(np.isfinite(residuals).all(axis=1), FAR, NO_PLACE)
    if result.matrix is None:
        rejected = np.full(len(result.matches), NO_MODEL)
    return np.where(result.inliers, INLIER, rejected)


class Nearest(NamedTuple):
    """A keypoint with a similar descriptor: image, row, place in px, and cosine."""

    image: str
    row: int
    x: float
    y: float
    cosine: float


def nearest(features: Features, index: int, others: Mapping[str, Features]) -> list[Nearest]:
    """The keypoints of other images with the most similar descriptors, the best first.

    Images without descriptors, or with those of other weights, are left out.
    """
    if features.descriptors is None or not 0 <= index < len(features):
        return []
    found = []
    for image, other in others.items():
        if other.descriptors is None or len(other) == 0 or not _comparable(features, other):
            continue
        pairs = np.stack([np.full(len(other), index), np.arange(len(other))], axis=1)
        cosines = neighbours.cosines(features.descriptors, other.descriptors, pairs)  # N
        for best in np.argsort(-cosines, kind="stable")[:MOST_NEAREST].tolist():
            x, y = other.xy[best].tolist()
            found.append(Nearest(image, best, x, y, float(cosines[best])))
    return sorted(found, key=lambda one: -one.cosine)[:MOST_NEAREST]


def _comparable(a: Features, b: Features) -> bool:
    assert a.descriptors is not None and b.descriptors is not None
    if a.descriptors.shape[1] != b.descriptors.shape[1]:
        return False
    if a.provenance is None or b.provenance is None:
        return True
    return a.provenance.weights_sha256 == b.provenance.weights_sha256


def _difference_px(result: Registration, recorded: Mapping[str, Any]) -> float | None:
    """Largest distance at A's corners between this model and a recorded one; None if unknown."""
    if result.matrix is None or recorded.get("matrix") is None or result.model not in PLANE_MODELS:
        return None
    corners = corners_xy(result.features_a.size_hw)
    both = (apply_homography(matrix, corners) for matrix in (result.matrix, recorded["matrix"]))
    here, before = both
    distance = float(np.hypot(*(here - before).T).max())
    return distance if math.isfinite(distance) else None
