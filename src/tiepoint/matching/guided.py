"""Guided matching: match again near the positions that a model of two images predicts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiepoint.config import MatchingConfig
from tiepoint.features import Features, Matches
from tiepoint.geometry import Float, apply_homography
from tiepoint.matching import neighbours
from tiepoint.matching.descriptors import descriptors_of, rotation_matrix_of
from tiepoint.matching.match import record
from tiepoint.matching.near import within
from tiepoint.matching.neighbours import among
from tiepoint.matching.rotation import ROTATION_STEPS, rotate_descriptors

Float32 = NDArray[np.float32]

GUIDED_MIN_SIMILARITY = 0.4
"""Minimum cosine, low because the model has reduced the choice to a few keypoints."""

FEW = 4
"""Near pairs per keypoint, up to which all are kept until the last is known."""


def match_guided(
    features_a: Features,
    features_b: Features,
    matrix: Float,
    within_px: float,
    *,
    turned_deg: int = 0,
    min_similarity: float = GUIDED_MIN_SIMILARITY,
) -> Matches:
    """Mutual nearest neighbours among the keypoints near where a model maps them.

    A keypoint elsewhere in the image, more similar by chance, no longer displaces the right one.

    Args:
        features_a, features_b: With descriptors of the same weights.
        matrix: 3x3, x_B ~ H x_A.
        within_px: Maximum distance in B, px.
        turned_deg: Rotation of A to B, as `Matches.turned_deg` has it.
        min_similarity: Minimum cosine.

    Returns:
        Matches, best score first; ties by the index in A.
    """
    rotation_matrix = rotation_matrix_of(features_a)
    a, b = _aligned(features_a, features_b, turned_deg, rotation_matrix)
    mapped = apply_homography(matrix, features_a.xy)  # N_A 2

    pairs, cosines = _near_pairs(a, b, mapped, features_b.xy, within_px)
    nearest_a, nearest_b = among((len(a), len(b)), pairs, cosines)
    index = np.arange(len(a))
    kept = (nearest_a.score >= min_similarity) & (
        nearest_b.index[nearest_a.index] == index if len(b) else np.zeros(len(a), bool)
    )
    pairs = np.stack([index[kept], nearest_a.index[kept]], axis=1)  # M 2
    scores = nearest_a.score[kept].astype(np.float32)  # M
    order = np.argsort(-scores, kind="stable")  # M
    config = MatchingConfig(min_similarity=min_similarity)
    meta = {
        **record(config, features_a, features_b, rotation_matrix),
        "guided_px": within_px,
    }
    return Matches(pairs[order], scores[order], meta, turned_deg)


def _near_pairs(
    a: Float32,
    b: Float32,
    mapped: Float,
    xy_b: Float32,
    within_px: float,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Pairs P 2 of near keypoints and their cosines: all that may be nearest neighbours."""
    found, scores = [np.empty((0, 2), np.int64)], [np.empty(0)]
    for pairs in within(mapped, xy_b, within_px):
        cosines = neighbours.cosines(a, b, pairs)
        many = len(pairs) > FEW * (len(a) + len(b))
        kept = neighbours.best_of_either(pairs, cosines) if many else slice(None)
        found.append(pairs[kept])
        scores.append(cosines[kept])
    return np.concatenate(found), np.concatenate(scores)


def aligned_descriptors(
    features_a: Features, features_b: Features, turned_deg: int
) -> tuple[Float32, Float32]:
    """N_A D and N_B D, with those of A rotated as `Matches.turned_deg` states."""
    rotation_matrix = rotation_matrix_of(features_a) if turned_deg else None
    return _aligned(features_a, features_b, turned_deg, rotation_matrix)


def _aligned(
    features_a: Features,
    features_b: Features,
    turned_deg: int,
    rotation_matrix: Float32 | None,
) -> tuple[Float32, Float32]:
    a, b = descriptors_of(features_a, "A"), descriptors_of(features_b, "B")
    if turned_deg and rotation_matrix is not None:
        a = rotate_descriptors(a, rotation_matrix, turned_deg * ROTATION_STEPS // 360)
    return a, b
