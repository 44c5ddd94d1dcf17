"""Descriptor matching: nearest neighbours, filtered by mutual consistency, ratio and similarity.

Sources: ratio test: Lowe (IJCV 2004), section 7.1; dual soft-max: LoFTR (CVPR 2021), section 3.3.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from tiepoint._version import __version__
from tiepoint.config import DeviceName, MatchingConfig, MatchingOptions, resolve
from tiepoint.errors import ConfigError, MissingExtraError, is_installed
from tiepoint.features import Features, Matches
from tiepoint.geometry import Float, apply_homography
from tiepoint.matching import neighbours
from tiepoint.matching.neighbours import Nearest
from tiepoint.matching.rotation import (
    PROBE_KEYPOINTS,
    ROTATION_STEPS,
    best_rotation,
    rotate_descriptors,
)
from tiepoint.weights.rotation import load_rotation

SAME_WEIGHTS = ("sha256", "rules")
"""Entries of `meta` that must agree: descriptors of other weights live in another space."""

NEAR_SIMILARITY = 0.4
"""Least cosine where a model of the images has narrowed the choice down to a few keypoints."""


def match(
    features_a: Features,
    features_b: Features,
    *,
    device: DeviceName = "cpu",
    config: MatchingConfig | None = None,
    **overrides: Unpack[MatchingOptions],
) -> Matches:
    """Match two images: each keypoint's most similar one, by default where both choose each other.

    Exact, and the same every time: among equals the lower index, that is the better score of the
    keypoint, wins. No more than about 60 MB is needed beside the descriptors, whatever the counts.

    The ratio test compares Euclidean distances of unit descriptors, sqrt(2 - 2 cosine): the nearest
    must be closer than `ratio` times the second nearest, and with `mutual` this must hold from B to
    A as well. Where the other image has one keypoint only there is no second, and the test passes.

    Args:
        features_a, features_b: Features with descriptors (N_A D and N_B D) of the same weights.
        device: "cpu", or "cuda", "cuda:N" with torch (extra `torch`).
        config: Settings; None takes the defaults.
        overrides: Single settings of `MatchingConfig`, which replace those of `config`.

    Returns:
        Matches, best score first; ties by the index in A. Empty when either image has no keypoints.
        `meta["turned_deg"]` says how A was turned, counterclockwise.

    Raises:
        ConfigError: Features without descriptors, of different lengths D, of different weights
            or rules, or with descriptors that are not finite; or a setting out of range.
        CheckpointError: The rotation matrix of the checkpoint is damaged.
        EngineError: torch does not find the device.
        MissingExtraError: A GPU was asked for, and torch is not installed.
    """
    settings = resolve(config or MatchingConfig(), overrides)
    check_device(device)
    a, b = _descriptors(features_a, "A"), _descriptors(features_b, "B")
    _same_kind(features_a, features_b, a.shape[1], b.shape[1])
    meta = provenance(settings, features_a, features_b)
    meta["turned_deg"] = 0
    if len(a) == 0 or len(b) == 0:
        return Matches(np.empty((0, 2), np.int64), np.empty(0, np.float32), meta)
    rotation = _rotation(settings, features_a)
    if rotation is not None:
        steps = best_rotation(a[_best(features_a)], b[_best(features_b)], rotation)
        a = rotate_descriptors(a, rotation, steps)
        meta["turned_deg"] = steps * 360 // ROTATION_STEPS
    of_a, of_b = _nearest(settings, a, b, device)
    kept = np.flatnonzero(_accepted(settings, of_a, of_b))  # M, indices in A
    pairs = np.stack([kept, of_a.index[kept]], axis=1)  # M 2
    found = of_a.score[kept]  # M
    if settings.scores == "dual-softmax":
        enough = _cosines(a, b, pairs) >= _least(settings.min_similarity)
        pairs, found = pairs[enough], np.exp(found[enough])
        enough = found >= (settings.min_probability or 0)
    else:
        enough = found >= _least(settings.min_similarity)
    pairs, found = pairs[enough], found[enough].astype(np.float32)
    order = np.argsort(-found, kind="stable")  # M
    return Matches(pairs[order], found[order], meta)


def match_near(
    features_a: Features,
    features_b: Features,
    matrix: Float,
    within_px: float,
    *,
    turned_deg: int = 0,
    min_similarity: float = NEAR_SIMILARITY,
) -> Matches:
    """Match again where a model of the two images says: guided matching.

    Of the keypoints of B that lie near where the model carries one of A, the most alike, and the
    same the other way round. A neighbour elsewhere in the image that is more alike by chance no
    longer takes its place.

    Args:
        features_a, features_b: With descriptors, of one kind.
        matrix: 3x3, x_B ~ H x_A.
        within_px: How near, px of B.
        turned_deg: How A is turned to B, counterclockwise, as `Matches.meta` says it.
        min_similarity: Least cosine.

    Returns:
        Matches, best score first; ties by the index in A.
    """
    a, b = _descriptors(features_a, "A"), _descriptors(features_b, "B")
    if turned_deg:
        rotation = _rotation(MatchingConfig(), features_a)
        if rotation is not None:
            a = rotate_descriptors(a, rotation, turned_deg * ROTATION_STEPS // 360)
    there = apply_homography(matrix, features_a.xy)  # N_A 2
    best_of_a, score_of_a = np.zeros(len(a), np.int64), np.full(len(a), -np.inf)
    best_of_b, score_of_b = np.zeros(len(b), np.int64), np.full(len(b), -np.inf)
    for one, other in _blocks(len(a), len(b)):
        apart = there[one, None] - features_b.xy[None, other]  # BLOCK BLOCK 2
        near = np.hypot(apart[..., 0], apart[..., 1]) <= within_px  # NaN is not near
        cosines = a[one].astype(np.float64) @ b[other].astype(np.float64).T  # BLOCK BLOCK
        alike = np.where(near, cosines, -np.inf)
        _keep_better(best_of_a[one], score_of_a[one], alike, other.start)
        _keep_better(best_of_b[other], score_of_b[other], alike.T, one.start)
    index = np.arange(len(a))
    kept = (score_of_a >= min_similarity) & (
        best_of_b[best_of_a] == index if len(b) else np.zeros(len(a), bool)
    )
    pairs = np.stack([index[kept], best_of_a[kept]], axis=1)  # M 2
    found = score_of_a[kept].astype(np.float32)  # M
    order = np.argsort(-found, kind="stable")  # M
    config = MatchingConfig(min_similarity=min_similarity)
    meta = {
        **provenance(config, features_a, features_b),
        "turned_deg": turned_deg,
        "guided_px": within_px,
    }
    return Matches(pairs[order], found[order], meta)


def _blocks(rows: int, columns: int) -> Iterator[tuple[slice, slice]]:
    """Pieces of a table that fit into memory, row by row."""
    for top in range(0, rows, neighbours.BLOCK):
        for left in range(0, columns, neighbours.BLOCK):
            yield slice(top, top + neighbours.BLOCK), slice(left, left + neighbours.BLOCK)


def _keep_better(
    best: NDArray[np.int64], score: NDArray[np.float64], alike: NDArray[np.float64], start: int
) -> None:
    """Take over what is better in a block than before; of equals the first stays."""
    nearest = alike.argmax(axis=1)  # BLOCK
    highest = alike[np.arange(len(alike)), nearest]  # BLOCK
    better = highest > score
    best[better], score[better] = start + nearest[better], highest[better]


def _rotation(config: MatchingConfig, features: Features) -> NDArray[np.float32] | None:
    """The matrix that rotates these descriptors; None if unwanted or not fitted."""
    checkpoint, sha256 = features.meta.get("checkpoint"), features.meta.get("sha256")
    known = isinstance(checkpoint, str) and isinstance(sha256, str)
    if config.rotation == "none" or not known or features.descriptors is None:
        return None
    return load_rotation(str(checkpoint), str(sha256), features.descriptors.shape[1])


def _best(features: Features) -> NDArray[np.int64]:
    """Indices of the best keypoints, whatever their order: those that decide about the turn."""
    x, y = features.xy.T
    return np.lexsort((x, y, -features.scores))[:PROBE_KEYPOINTS]


def _nearest(
    config: MatchingConfig, a: NDArray[np.float32], b: NDArray[np.float32], device: str
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


def _accepted(config: MatchingConfig, of_a: Nearest, of_b: Nearest) -> NDArray[np.bool_]:
    """N_A: whether a keypoint of A keeps its choice."""
    accepted = np.ones(len(of_a.index), bool)
    if config.mutual:
        accepted &= of_b.index[of_a.index] == np.arange(len(of_a.index))
    if config.ratio is not None:
        accepted &= _stands_out(of_a, config.ratio)
        if config.mutual:
            accepted &= _stands_out(of_b, config.ratio)[of_a.index]
    return accepted


def _stands_out(nearest: Nearest, ratio: float) -> NDArray[np.bool_]:
    """N: Lowe's test, on squared distances over two."""
    assert nearest.second is not None
    first = np.maximum(1 - nearest.score.astype(np.float64), 0)  # rounding gives cosines above 1
    second = np.maximum(1 - nearest.second.astype(np.float64), 0)
    passed: NDArray[np.bool_] = first < ratio**2 * second
    return passed


def _cosines(
    a: NDArray[np.float32], b: NDArray[np.float32], pairs: NDArray[np.int64]
) -> NDArray[np.float32]:
    """M: of the two descriptors of each pair."""
    cosines = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), neighbours.BLOCK):
        part = slice(start, start + neighbours.BLOCK)
        left, right = a[pairs[part, 0]].astype(np.float64), b[pairs[part, 1]].astype(np.float64)
        cosines[part] = (left * right).sum(axis=1)
    return cosines


def _least(threshold: float | None) -> np.float32:
    """A limit in the type of what it limits: a cosine of 0.9 in float32 is not below 0.9."""
    return np.float32(-np.inf if threshold is None else threshold)


def provenance(config: MatchingConfig, a: Features, b: Features) -> dict[str, Any]:
    """`meta` of the matches that these features give under these settings."""
    meta: dict[str, Any] = {
        "settings": asdict(config),
        "keypoints": [len(a), len(b)],
        "sources": [a.meta.get("source"), b.meta.get("source")],
        "tiepoint_version": __version__,
    }
    for key in ("checkpoint", *SAME_WEIGHTS):
        if key in a.meta and a.meta[key] == b.meta.get(key):
            meta[key] = a.meta[key]
    rotation = _rotation(config, a)
    if rotation is not None:
        meta["rotation_crc32"] = f"{zlib.crc32(rotation.tobytes()):08x}"
    return meta


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


def _descriptors(features: Features, name: str) -> NDArray[np.float32]:
    if features.descriptors is None:
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


def _same_kind(a: Features, b: Features, length_a: int, length_b: int) -> None:
    for key in SAME_WEIGHTS:
        left, right = a.meta.get(key), b.meta.get(key)
        if left is not None and right is not None and left != right:
            raise ConfigError(
                f"features A have {key} {left} and features B {right}: descriptors of different "
                "weights or rules cannot be compared; detect both images with one checkpoint"
            )
    if length_a != length_b:
        raise ConfigError(
            f"features A have descriptors of length {length_a} and features B of {length_b}, "
            "expected one length: detect both images with one checkpoint"
        )
