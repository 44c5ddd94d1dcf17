"""Descriptor matching: nearest neighbours, filtered by mutual consistency, ratio and similarity.

Sources: ratio test: Lowe (IJCV 2004), section 7.1; dual soft-max: LoFTR (CVPR 2021), section 3.3.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import NDArray

from tiepoint._version import __version__
from tiepoint.config import DeviceName, MatchingConfig, MatchingOptions, resolve
from tiepoint.errors import ConfigError, MissingExtraError, is_installed
from tiepoint.features import Features, Matches
from tiepoint.matching import neighbours
from tiepoint.matching.neighbours import Nearest
from tiepoint.matching.rotation import (
    PROBE_KEYPOINTS,
    ROTATION_STEPS,
    best_rotation,
    rotate_descriptors,
)
from tiepoint.matching.views import kept, view_of
from tiepoint.weights.checkpoint import bundled_checkpoints
from tiepoint.weights.rotation import crc32, load_rotation

if TYPE_CHECKING:
    from tiepoint.detector import Detector

Float32 = NDArray[np.float32]

SAME_WEIGHTS = ("weights_sha256", "rules")
"""Entries of provenance that must agree, because other weights give other descriptors."""

logger = logging.getLogger(__name__)


def match(
    a: Any,
    b: Any,
    *,
    device: DeviceName = "cpu",
    rotation_matrix: Float32 | None = None,
    detector: Detector | None = None,
    checkpoint: str | Path = "default",
    mask_a: Any = None,
    mask_b: Any = None,
    config: MatchingConfig | None = None,
    **overrides: Unpack[MatchingOptions],
) -> Matches:
    """Match two images: nearest neighbours, by default mutual ones.

    Exact and repeatable: of equals the lower index wins, which is the keypoint of higher score.
    At most about 60 MB are needed beside the descriptors, whatever the counts.

    The ratio test compares Euclidean distances of unit descriptors, sqrt(2 - 2 cosine): the nearest
    must be closer than `ratio` times the second nearest, and with `mutual` from B to A as well. It
    passes if the other image has only one keypoint.

    Args:
        a, b: Each the Features of an image, with descriptors (N_A D and N_B D) of the same weights;
            or the image: a path, URL, bytes, PIL image, array or tensor.
        device: "cpu", or "cuda", "cuda:N" with torch (extra `torch`); of the search for neighbours.
        rotation_matrix: D D, for `rotation="auto"`; None takes the one of the checkpoint that made
            the features.
        detector: Detector for images; None takes `Detector(checkpoint)`, kept for the next call.
            `pairs` index the features that it gives for each image.
        mask_a, mask_b: Where keypoints are allowed in each image, an array or a file; as `mask` of
            a `Detector`'s call.
        config: Settings; None takes the defaults.
        overrides: Single settings of `MatchingConfig`, which replace those of `config`.

    Returns:
        Matches, best score first; ties by the index in A. Empty if either image has no keypoints.

    Raises:
        ImageError: An image or a mask cannot be read.
        ConfigError: Neither an image nor features; a mask for features; features without
            descriptors, of different lengths D, of different weights or rules, or with descriptors
            that are not finite; a setting out of range; or features whose checkpoint had a rotation
            matrix that is not found.
        CheckpointError: The rotation matrix of the checkpoint is damaged.
        EngineError: torch does not find the device.
        MissingExtraError: A GPU was requested, and torch is not installed.
    """
    settings = resolve(config or MatchingConfig(), overrides)
    check_device(device)

    def make_detector() -> Detector:
        return detector or _kept_detector(str(checkpoint))

    features_a = view_of(a, mask_a, make_detector, "match").features
    features_b = view_of(b, mask_b, make_detector, "match").features
    return _match(features_a, features_b, settings, rotation_matrix, device)


def _match(
    features_a: Features,
    features_b: Features,
    settings: MatchingConfig,
    rotation_matrix: Float32 | None,
    device: DeviceName,
) -> Matches:
    a, b = descriptors_of(features_a, "A"), descriptors_of(features_b, "B")
    _check_same_weights(features_a, features_b)
    if settings.rotation == "auto" and rotation_matrix is None:
        rotation_matrix = rotation_matrix_of(features_a)
    elif settings.rotation == "none":
        rotation_matrix = None
    meta = record(settings, features_a, features_b, rotation_matrix)
    if len(a) == 0 or len(b) == 0:
        return Matches(np.empty((0, 2), np.int64), np.empty(0, np.float32), meta)
    steps = 0
    if rotation_matrix is not None:
        best_a, best_b = a[_probes(features_a)], b[_probes(features_b)]
        steps = best_rotation(best_a, best_b, rotation_matrix)
        a = rotate_descriptors(a, rotation_matrix, steps)
    pairs, scores = _filtered(settings, a, b, device)
    order = np.argsort(-scores, kind="stable")  # M
    return Matches(pairs[order], scores[order], meta, steps * 360 // ROTATION_STEPS)


@kept
def _kept_detector(checkpoint: str) -> Detector:
    from tiepoint.detector import Detector  # with an engine, which features do not need

    return Detector(checkpoint)


def rotation_matrix_of(features: Features) -> Float32 | None:
    """The rotation matrix of the checkpoint that made features; None if it has none.

    It is looked up in the checkpoint that the provenance names, then among the bundled ones.

    Raises:
        ConfigError: The checkpoint had one when the features were made, and it is not found.
        CheckpointError: A damaged file.
    """
    made = features.provenance
    if made is None or features.descriptors is None:
        return None
    for name in (made.checkpoint, *bundled_checkpoints()):
        matrix = load_rotation(name, made.weights_sha256, features.descriptors.shape[1])
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


def record(
    config: MatchingConfig, a: Features, b: Features, rotation_matrix: Float32 | None
) -> dict[str, Any]:
    """The `meta` of matches that these features give under these settings."""
    meta: dict[str, Any] = {
        "settings": asdict(config),
        "keypoints": [len(a), len(b)],
        "sources": [a.meta.get("source"), b.meta.get("source")],
        "tiepoint_version": __version__,
    }
    for key in ("checkpoint", *SAME_WEIGHTS):
        left, right = getattr(a.provenance, key, None), getattr(b.provenance, key, None)
        if left is not None and left == right:
            meta[key] = left
    if rotation_matrix is not None:
        meta["rotation_crc32"] = crc32(rotation_matrix)
    return meta


def descriptors_of(features: Features, name: str) -> Float32:
    """The descriptors of features; refuses keypoints without, and values that are not finite."""
    if features.descriptors is None:
        if len(features) == 0:  # OpenCV's detectors give none for an image without keypoints
            return np.empty((0, 0), np.float32)
        raise ConfigError(
            f"features {name} have no descriptors, which matching compares: "
            "detect with descriptors=True"
        )
    if not np.isfinite(features.descriptors).all():
        raise ConfigError(
            f"features {name} have descriptors with NaN or infinite values, expected unit "
            "vectors: detect again"
        )
    return features.descriptors


def check_device(device: str) -> None:
    """Raise unless `match` knows the device and has what it needs for it.

    Raises:
        ConfigError: Another device.
        MissingExtraError: torch is not installed.
    """
    if device != "cpu" and device.split(":", maxsplit=1)[0] != "cuda":
        raise ConfigError(
            f"device is {device!r}, expected cpu, cuda or cuda:N (Apple's GPUs lack the float64 "
            "that exact matching needs)"
        )
    if device != "cpu" and not is_installed("torch"):
        raise MissingExtraError(f"matching on device {device!r}", "torch")


def _check_same_weights(a: Features, b: Features) -> None:
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


def _probes(features: Features) -> NDArray[np.int64]:
    """Indices of the best keypoints, in whatever order they are; they decide on the rotation."""
    x, y = features.xy.T
    return np.lexsort((x, y, -features.scores))[:PROBE_KEYPOINTS]


def _filtered(
    config: MatchingConfig, a: Float32, b: Float32, device: str
) -> tuple[NDArray[np.int64], Float32]:
    """Pairs M 2 of nearest neighbours that pass all tests, and their scores M, by index in A."""
    nearest_a, nearest_b = _nearest(config, a, b, device)
    kept = np.flatnonzero(_accepted(config, nearest_a, nearest_b))  # M, indices in A
    pairs = np.stack([kept, nearest_a.index[kept]], axis=1)  # M 2
    scores = nearest_a.score[kept]  # M
    if config.scores == "dual-softmax":
        similar = neighbours.cosines(a, b, pairs).astype(np.float32) >= _as_float32(
            config.min_similarity
        )
        pairs, scores = pairs[similar], np.exp(scores[similar])
        passing = scores >= (config.min_probability or 0)
    else:
        passing = scores >= _as_float32(config.min_similarity)
    return pairs[passing], scores[passing].astype(np.float32)


def _nearest(
    config: MatchingConfig, a: Float32, b: Float32, device: str
) -> tuple[Nearest, Nearest]:
    engine: Any = neighbours
    left: Any = a
    right: Any = b
    if device != "cpu":
        from tiepoint.matching import neighbours_torch as engine

        left, right = engine.to_device(a, device), engine.to_device(b, device)
    if config.scores == "dual-softmax":
        nearest = engine.by_probability(left, right, config.temperature)
    else:
        nearest = engine.by_cosine(left, right, second=config.ratio is not None)
    both: tuple[Nearest, Nearest] = nearest
    return both


def _accepted(config: MatchingConfig, nearest_a: Nearest, nearest_b: Nearest) -> NDArray[np.bool_]:
    """N_A: whether a keypoint of A keeps its nearest neighbour."""
    accepted = np.ones(len(nearest_a.index), bool)
    if config.mutual:
        accepted &= nearest_b.index[nearest_a.index] == np.arange(len(nearest_a.index))
    if config.ratio is not None:
        accepted &= _passes_ratio(nearest_a, config.ratio)
        if config.mutual:
            accepted &= _passes_ratio(nearest_b, config.ratio)[nearest_a.index]
    return accepted


def _passes_ratio(nearest: Nearest, ratio: float) -> NDArray[np.bool_]:
    """N: Lowe's test, on squared distances over two."""
    assert nearest.second is not None
    first = np.maximum(1 - nearest.score.astype(np.float64), 0)  # rounding gives cosines above 1
    second = np.maximum(1 - nearest.second.astype(np.float64), 0)
    passed: NDArray[np.bool_] = first < ratio**2 * second
    return passed


def _as_float32(threshold: float | None) -> np.float32:
    """A threshold in the type of the cosines: a cosine of 0.9 in float32 is not below 0.9."""
    return np.float32(-np.inf if threshold is None else threshold)
