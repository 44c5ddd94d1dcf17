"""The results: small frozen objects of arrays, one per image or pair of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Features:
    """Keypoints of one image, best score first; ties by y, then x.

    Attributes:
        xy: N 2 float32, px of the original upright image; pixel centres are whole numbers.
        scores: N float32, probabilities in 0..1.
        descriptors: N D float32 of unit length, or None if they were not asked for.
        size_hw: (height, width) of the original upright image, px.
        meta: Where the features come from: checkpoint, SHA-256, rules, settings, engine,
            precision, tiepoint version, source, EXIF orientation.
        covariance: N 2 2 float32 (x, y) of the positions, px^2 of the original image: how wide
            the network's answer is around each, scaled to what positions scatter by
            (`tiepoint calibrate`). None for checkpoints without that scale.
    """

    xy: NDArray[np.float32]
    scores: NDArray[np.float32]
    descriptors: NDArray[np.float32] | None
    size_hw: tuple[int, int]
    meta: Mapping[str, Any] = field(default_factory=dict)
    covariance: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        count = len(self.xy)
        if self.xy.shape != (count, 2) or self.scores.shape != (count,):
            raise ConfigError(
                f"features: xy has shape {self.xy.shape} and scores {self.scores.shape}, "
                "expected (N, 2) and (N,)"
            )
        described = self.descriptors
        if described is not None and (described.ndim != 2 or len(described) != count):
            raise ConfigError(
                f"features: descriptors have shape {described.shape}, expected ({count}, D)"
            )
        if self.covariance is not None and self.covariance.shape != (count, 2, 2):
            raise ConfigError(
                f"features: covariance has shape {self.covariance.shape}, expected ({count}, 2, 2)"
            )

    def __len__(self) -> int:
        return len(self.xy)

    def __repr__(self) -> str:
        height, width = self.size_hw
        length = "none" if self.descriptors is None else f"{self.descriptors.shape[1]}-D"
        return f"Features({len(self)} keypoints, descriptors {length}, image {width}x{height} px)"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "meta": dict(self.meta)}

    def take(self, index: NDArray[Any] | slice) -> Features:
        """The features at `index` (an index array, a boolean mask or a slice), meta kept."""
        return replace(
            self,
            xy=self.xy[index],
            scores=self.scores[index],
            descriptors=None if self.descriptors is None else self.descriptors[index],
            covariance=None if self.covariance is None else self.covariance[index],
        )

    def top(self, count: int) -> Features:
        """The best `count` keypoints."""
        return self.take(slice(0, max(0, count)))


@dataclass(frozen=True, eq=False)
class Matches:
    """Which keypoint of image A is which of image B, best score first.

    Attributes:
        pairs: M 2 int64, index in A and index in B.
        scores: M float32; the cosine of the two descriptors, or with "dual-softmax" a probability.
        meta: Where the matches come from: settings, keypoints of each image, sources, version.
    """

    pairs: NDArray[np.int64]
    scores: NDArray[np.float32]
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.pairs)
        if self.pairs.shape != (count, 2) or self.scores.shape != (count,):
            raise ConfigError(
                f"matches: pairs have shape {self.pairs.shape} and scores {self.scores.shape}, "
                "expected (M, 2) and (M,)"
            )

    def __len__(self) -> int:
        return len(self.pairs)

    def __repr__(self) -> str:
        return f"Matches({len(self)} pairs)"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "meta": dict(self.meta)}

    def take(self, index: NDArray[Any] | slice) -> Matches:
        """The matches at `index` (an index array, a boolean mask or a slice), meta kept."""
        return replace(self, pairs=self.pairs[index], scores=self.scores[index])

    def top(self, count: int) -> Matches:
        """The best `count` matches."""
        return self.take(slice(0, max(0, count)))


def covariances_of(
    a: Features, b: Features, pairs: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """M 2 2 of each image's matched keypoints, px^2; None unless both images have them.

    Args:
        pairs: M 2, index in A and index in B.
    """
    if a.covariance is None or b.covariance is None:
        return None
    return a.covariance[pairs[:, 0]], b.covariance[pairs[:, 1]]


SOURCE_KEYS = ("source", "exif_orientation", "engine", "device", "tiepoint_version", "revision")
"""Entries of `meta` that may differ between files made with the same settings."""


def different_settings(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """The entries of `meta` in which two detections differ, source and engine apart."""
    names = sorted({*a, *b} - set(SOURCE_KEYS))
    different = []
    for name in names:
        left, right = a.get(name), b.get(name)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            keys = sorted({*left, *right})
            different += [f"{name}.{key}" for key in keys if left.get(key) != right.get(key)]
        elif left != right:
            different.append(name)
    return different
