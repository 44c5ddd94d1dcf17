"""Descriptors that can be compared, and the matrix that rotates them."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import ConfigError
from tiepoint.features import Features
from tiepoint.weights.checkpoint import bundled_checkpoints
from tiepoint.weights.rotation import load_rotation

Float32 = NDArray[np.float32]

SAME_WEIGHTS = ("weights_sha256", "rules")
"""Entries of provenance that must agree, because other weights give other descriptors."""

logger = logging.getLogger(__name__)


def descriptors_of(features: Features, name: str) -> Float32:
    """The descriptors of features; refuses keypoints without, and values that are not finite.

    So are other types than float32 and float64: sums of their products overflow or are rounded.
    """
    if features.descriptors is None:
        if len(features) == 0:  # OpenCV's detectors give none for an image without keypoints
            return np.empty((0, 0), np.float32)
        raise ConfigError(
            f"features {name} have no descriptors, which matching compares: "
            "detect with descriptors=True"
        )
    if features.descriptors.dtype not in (np.float32, np.float64):
        raise ConfigError(
            f"features {name} have descriptors of type {features.descriptors.dtype}, expected "
            "float32 of unit length: convert and normalise them"
        )
    if not np.isfinite(features.descriptors).all():
        raise ConfigError(
            f"features {name} have descriptors with NaN or infinite values, expected unit "
            "vectors: detect again"
        )
    return features.descriptors


def check_same_weights(a: Features, b: Features) -> None:
    """Refuse features of different weights or rules.

    Raises:
        ConfigError: Their descriptors cannot be compared.
    """
    for key in SAME_WEIGHTS:
        left, right = getattr(a.provenance, key, None), getattr(b.provenance, key, None)
        if left is not None and right is not None and left != right:
            raise ConfigError(
                f"features A have {key} {left} and features B {right}: descriptors of different "
                "weights or rules cannot be compared; detect both images with one checkpoint"
            )
    if a.descriptors is None or b.descriptors is None:
        return  # no keypoints
    length_a, length_b = a.descriptors.shape[1], b.descriptors.shape[1]
    if length_a != length_b:
        raise ConfigError(
            f"features A have descriptors of length {length_a} and features B of {length_b}, "
            "expected one length: detect both images with one checkpoint"
        )


def check_rotation_matrix(matrix: Float32, features: Features) -> None:
    """Raise ConfigError unless a matrix rotates the descriptors of these features."""
    if features.descriptors is None:
        return  # no keypoints
    length = features.descriptors.shape[1]
    shape, kind = np.shape(matrix), getattr(matrix, "dtype", np.dtype(object)).kind
    if shape != (length, length) or kind != "f" or not np.isfinite(matrix).all():
        raise ConfigError(
            f"rotation_matrix is a {type(matrix).__name__} of shape {shape}, expected an array of "
            f"({length}, {length}) finite floats: give the one of the checkpoint, or None"
        )


def rotation_matrix_of(features: Features) -> Float32 | None:
    """The rotation matrix of the checkpoint that made features; None if it has none.

    It is looked up in the checkpoint that the provenance names, of a Hub id first in the commit
    that made the features, then among the bundled ones.

    Raises:
        ConfigError: The checkpoint had one when the features were made, and it is not found.
        CheckpointError: A damaged file.
    """
    made = features.provenance
    if made is None or features.descriptors is None:
        return None
    length = features.descriptors.shape[1]
    places = [(name, None) for name in (made.checkpoint, *bundled_checkpoints())]
    for name, revision in ((made.checkpoint, made.revision), *places):
        matrix = load_rotation(name, made.weights_sha256, length, revision)
        if matrix is not None:
            if name != made.checkpoint:
                logger.info("rotation matrix of %s taken from %s", made.checkpoint, name)
            return matrix
    if made.rotation_crc32 is None:
        return None
    raise ConfigError(
        f"features were made by checkpoint {made.checkpoint!r} with a rotation matrix, which is "
        "not found; restore the checkpoint, pass rotation_matrix, or match with rotation='none'"
    )
