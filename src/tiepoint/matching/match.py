"""Matching of two images: nearest neighbours that pass all tests, or a learned matcher.

Sources: ratio test: Lowe (IJCV 2004), section 7.1; dual soft-max: LoFTR (CVPR 2021), section 3.3.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import NDArray

from tiepoint._version import __version__
from tiepoint.config import DeviceName, MatchingConfig, MatchingOptions, resolve
from tiepoint.config.matching import ONLY_NEAREST
from tiepoint.errors import ConfigError, MissingExtraError, is_installed
from tiepoint.features import Features, Matches
from tiepoint.matching import neighbours
from tiepoint.matching.descriptors import (
    SAME_WEIGHTS,
    check_rotation_matrix,
    check_same_weights,
    descriptors_of,
    rotation_matrix_of,
)
from tiepoint.matching.learned.choice import MatcherSource, checked_matcher, matcher_for
from tiepoint.matching.learned.matcher import LearnedMatcher
from tiepoint.matching.neighbours import Nearest
from tiepoint.matching.products import on_one_core
from tiepoint.matching.rotation import ROTATION_STEPS, rotated, rotation_between
from tiepoint.matching.views import kept, view_of
from tiepoint.weights.rotation import crc32

if TYPE_CHECKING:
    from tiepoint.detector import Detector

Float32 = NDArray[np.float32]


def match(
    a: Any,
    b: Any,
    *,
    device: DeviceName = "cpu",
    matcher: MatcherSource = None,
    rotation_matrix: Float32 | None = None,
    detector: Detector | None = None,
    checkpoint: str | Path = "default",
    mask_a: Any = None,
    mask_b: Any = None,
    config: MatchingConfig | None = None,
    **overrides: Unpack[MatchingOptions],
) -> Matches:
    """Match two images: mutual nearest neighbours, or by a learned matcher.

    Repeatable, and nearest neighbours are exact: of equals the lower index wins, which is the
    keypoint of higher score. Memory does not grow with the number of pairs.

    Args:
        a, b: Each the Features of an image, with descriptors (N_A D and N_B D) of the same weights;
            or the image: a path, URL, bytes, PIL image, array or tensor.
        device: "cpu", or "cuda", "cuda:N" with torch (extra `torch`); of the matching.
        matcher: For `method="learned"`: a folder, a bundled name, or a LearnedMatcher, whose device
            and layers count. None takes the one trained for the weights that made the features.
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
        ConfigError: Neither an image nor features; a mask for features; a setting out of range;
            features that cannot be compared; no rotation matrix or learned matcher where one is
            expected, or a matrix of another shape.
        CheckpointError: The rotation matrix or the matcher is damaged.
        EngineError: torch does not find the device.
        MissingExtraError: A GPU was requested, and torch is not installed.
    """
    settings = resolve(config or MatchingConfig(), overrides)
    check_device(device)
    matcher = checked_matcher(settings.method, matcher, layers=settings.layers, device=device)

    def make_detector() -> Detector:
        return detector or _kept_detector(str(checkpoint))

    features_a = view_of(a, mask_a, make_detector, "match").features
    features_b = view_of(b, mask_b, make_detector, "match").features
    with on_one_core(len(features_a), len(features_b)):
        return _match(features_a, features_b, settings, matcher, rotation_matrix, device)


def _match(
    features_a: Features,
    features_b: Features,
    settings: MatchingConfig,
    matcher: LearnedMatcher | None,
    rotation_matrix: Float32 | None,
    device: DeviceName,
) -> Matches:
    learned = None
    if settings.method == "learned":
        learned = matcher_for(
            features_a, features_b, matcher, layers=settings.layers, device=device
        )
    for features, name in ((features_a, "A"), (features_b, "B")):
        descriptors_of(features, name)
    check_same_weights(features_a, features_b)
    if settings.rotation == "auto" and rotation_matrix is None:
        rotation_matrix = rotation_matrix_of(features_a)
    elif settings.rotation == "none":
        rotation_matrix = None
    elif rotation_matrix is not None:
        check_rotation_matrix(rotation_matrix, features_a)
    meta = record(settings, features_a, features_b, rotation_matrix, learned)
    if len(features_a) == 0 or len(features_b) == 0:
        return Matches(np.empty((0, 2), np.int64), np.empty(0, np.float32), meta)
    steps = 0
    if rotation_matrix is not None:
        steps = rotation_between(features_a, features_b, rotation_matrix)
        features_a = rotated(features_a, rotation_matrix, steps)
    if learned is not None:
        found = learned(features_a, features_b, threshold=settings.min_probability)
        pairs, scores = found.pairs, found.scores
    else:
        pairs, scores = _nearest_pairs(settings, features_a, features_b, device)
    return Matches(pairs, scores, meta, steps * 360 // ROTATION_STEPS)


@kept
def _kept_detector(checkpoint: str) -> Detector:
    from tiepoint.detector import Detector  # with an engine, which features do not need

    return Detector(checkpoint)


def record(
    config: MatchingConfig,
    a: Features,
    b: Features,
    rotation_matrix: Float32 | None,
    matcher: LearnedMatcher | None = None,
) -> dict[str, Any]:
    """The `meta` of matches that these features give under these settings.

    Args:
        matcher: The learned matcher, if one is used.
    """
    settings = asdict(config)
    if matcher is not None:
        least = config.min_probability
        settings = {name: value for name, value in settings.items() if name not in ONLY_NEAREST}
        settings["layers"] = matcher.layers
        settings["min_probability"] = matcher.checkpoint.threshold if least is None else least
    meta: dict[str, Any] = {
        "settings": settings,
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
    if matcher is not None:
        meta["matcher_sha256"] = matcher.checkpoint.sha256
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


def _nearest_pairs(
    config: MatchingConfig, features_a: Features, features_b: Features, device: str
) -> tuple[NDArray[np.int64], Float32]:
    """Pairs M 2 of nearest neighbours that pass all tests, and their scores M, best first."""
    a, b = features_a.descriptors, features_b.descriptors
    assert a is not None and b is not None
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
    pairs, scores = pairs[passing], scores[passing].astype(np.float32)
    order = np.argsort(-scores, kind="stable")  # M
    return pairs[order], scores[order]


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
