"""Keypoints of one image, at one scale or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Generic, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiepoint.config import DetectionConfig
from tiepoint.geometry import Placement
from tiepoint.network.dense_maps import Array

Float32 = NDArray[np.float32]

Masks = Sequence[NDArray[np.bool_] | None] | None
"""One mask per image of a batch: `H W` bool in px of the input, without padding, True where
keypoints are allowed. None = everywhere."""


class Keypoints(NamedTuple, Generic[Array]):
    """Keypoints of one image, best score first; ties by y, then x.

    Attributes:
        xy: N 2 float32, px of the network's input, or after `in_image` of the original image.
        scores: N float32, probabilities.
        descriptors: N D float32 of unit length, or None.
        covariance: N 2 2 float32 (x, y) of the positions, px^2, or None.
        scales_px: N float32, px of the original image per px of the input; None in px of the input.
    """

    xy: Array
    scores: Array
    descriptors: Array | None
    covariance: Array | None = None
    scales_px: Array | None = None


def in_image(keypoints: Keypoints[Float32], placement: Placement) -> Keypoints[Float32]:
    """Keypoints in px of the input -> in px of the original image."""
    covariance = keypoints.covariance
    return keypoints._replace(
        xy=placement.to_image(keypoints.xy),
        covariance=None if covariance is None else placement.covariance_to_image(covariance),
        scales_px=np.full(len(keypoints.scores), placement.px_per_input_px, np.float32),
    )


def tighten_threshold(
    config: DetectionConfig, keypoints: Sequence[Keypoints[Float32]]
) -> DetectionConfig:
    """Raise the threshold for the remaining scales to the lowest score that can reach the top k.

    Args:
        keypoints: At one scale, of each image of the batch.
    """
    k = config.max_keypoints
    if k is None or any(len(one.scores) < k for one in keypoints):
        return config
    lowest = min(one.scores[-1] for one in keypoints)
    # A threshold must be exceeded, and an equal score may come first.
    return replace(
        config, threshold=max(config.threshold, float(np.nextafter(lowest, np.float32(0))))
    )


def merge_scales(scales: Sequence[Keypoints[Float32]], k: int | None) -> Keypoints[Float32]:
    """Merge the keypoints of several scales of one image: the best k; None keeps all.

    Args:
        scales: At least one, all in px of the same image.
    """
    if len(scales) == 1:
        return scales[0]
    xy = np.concatenate([one.xy for one in scales])  # N 2
    scores = np.concatenate([one.scores for one in scales])  # N
    order = np.lexsort((xy[:, 0], xy[:, 1], -scores))[:k]
    descriptors = _concatenate([one.descriptors for one in scales], order)
    covariance = _concatenate([one.covariance for one in scales], order)
    scales_px = _concatenate([one.scales_px for one in scales], order)
    return Keypoints(xy[order], scores[order], descriptors, covariance, scales_px)


def _concatenate(parts: Sequence[Float32 | None], order: NDArray[np.intp]) -> Float32 | None:
    """Concatenate a field over all scales and reorder it; None if any scale has none."""
    present = [part for part in parts if part is not None]
    return np.concatenate(present)[order] if len(present) == len(parts) else None
