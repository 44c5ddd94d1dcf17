"""Keypoints of one image, and of several scales of one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Generic, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiepoint.config import DetectionConfig
from tiepoint.geometry import Placement
from tiepoint.network.dense_maps import Array

Masks = Sequence[NDArray[np.bool_] | None] | None
"""For each image of a batch `H W` bool in px of the input, without padding: where keypoints may
lie; None = everywhere."""


class Keypoints(NamedTuple, Generic[Array]):
    """Keypoints of one image in px of the network's input, best score first.

    Attributes:
        xy: N 2 float32.
        scores: N float32.
        descriptors: N D float32 of unit length, or None.
        covariance: N 2 2 float32 (x, y) of the positions, px^2, or None.
    """

    xy: Array
    scores: Array
    descriptors: Array | None
    covariance: Array | None = None


def in_image(
    keypoints: Keypoints[NDArray[np.float32]], placement: Placement
) -> Keypoints[NDArray[np.float32]]:
    """The same in px of the original image."""
    around = keypoints.covariance
    return keypoints._replace(
        xy=placement.to_image(keypoints.xy),
        covariance=None if around is None else placement.covariance_to_image(around),
    )


def worth_finding(
    config: DetectionConfig, found: Sequence[Keypoints[NDArray[np.float32]]]
) -> DetectionConfig:
    """For the next scales of the same images: a threshold below which no point would stay.

    Args:
        found: Of one scale, of each image.
    """
    most = config.max_keypoints
    if most is None or any(len(keypoints.scores) < most for keypoints in found):
        return config
    last = min(keypoints.scores[-1] for keypoints in found)
    # A threshold must be exceeded, and an equal score may come first.
    return replace(
        config, threshold=max(config.threshold, float(np.nextafter(last, np.float32(0))))
    )


def merged(
    levels: Sequence[Keypoints[NDArray[np.float32]]], most: int | None
) -> Keypoints[NDArray[np.float32]]:
    """Keypoints of several scales of one image in one list, best first; ties by y, then x.

    Args:
        levels: At least one, all in px of the same image.
        most: Keep the best so many; None keeps all.
    """
    if len(levels) == 1:
        return levels[0]
    xy = np.concatenate([level.xy for level in levels])  # N 2
    scores = np.concatenate([level.scores for level in levels])  # N
    order = np.lexsort((xy[:, 0], xy[:, 1], -scores))[:most]
    descriptors = _joined([level.descriptors for level in levels], order)
    covariance = _joined([level.covariance for level in levels], order)
    return Keypoints(xy[order], scores[order], descriptors, covariance)


def _joined(
    parts: Sequence[NDArray[np.float32] | None], order: NDArray[np.intp]
) -> NDArray[np.float32] | None:
    """What every level has, in order; None where one has it not."""
    held = [part for part in parts if part is not None]
    return np.concatenate(held)[order] if len(held) == len(parts) else None
