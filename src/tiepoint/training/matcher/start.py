"""First weights of a matcher: it starts at nearest neighbours.

With torch's own weights, the first 300 steps of a run only lead there (docs/training-log.md).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tiepoint.matching.learned.architecture import MatcherConfig
from tiepoint.matching.learned.network_torch import MatcherNetwork
from tiepoint.training.matcher.bank import Scenes

COSINE_SCALE = 20.0
"""First factor from the cosine of two descriptors to the logit of their match."""

HIGHEST_FREQUENCY = 32.0
"""Highest frequency of the positions, radians per half of the longer side; the lowest is 1. The
waves are then between a tenth of an image and three images long."""

GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))

SAMPLED_VIEWS, SAMPLED_KEYPOINTS = 256, 200
"""Views, and best keypoints of each, from which the principal axes of descriptors come."""


def first_weights(
    config: MatcherConfig, seed: int, descriptors: NDArray[np.float32]
) -> dict[str, Tensor]:
    """A state dict whose matches are about the mutual nearest neighbours, at every depth.

    The states are descriptors along their principal axes; layers add nothing to them yet, because
    the last map of each MLP is 0; a head multiplies cosines by `COSINE_SCALE`.

    Args:
        seed: Seed of the weights inside the layers.
        descriptors: K D, a sample of the detector's descriptors.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = MatcherNetwork(config)
    weights = network.state_dict()
    C, first = config.width, config.input_projection()
    gain = 1.0 if first is None else math.sqrt(C)  # of the states; channels have a variance of 1
    if first is not None:
        mean, axes = principal_axes(descriptors, min(C, config.descriptor_length))
        projection = np.zeros((C, config.descriptor_length))
        projection[: len(axes)] = gain * axes
        weights[f"{first.name}.weight"].copy_(torch.from_numpy(projection))
        weights[f"{first.name}.bias"].copy_(torch.from_numpy(-projection @ mean))
    positions = weights[f"{config.positions().name}.weight"]  # C/2/heads 2
    positions.copy_(torch.from_numpy(frequencies(len(positions))))
    for layer in config.matcher_layers():
        zero = [layer.self_block.contract, layer.cross_block.contract, layer.matchability]
        for linear in zero:
            weights[f"{linear.name}.weight"].zero_()
        for linear in (*zero, layer.projection):
            weights[f"{linear.name}.bias"].zero_()
        scale = math.sqrt(COSINE_SCALE * math.sqrt(C)) / gain  # heads divide by sqrt(C)
        weights[f"{layer.projection.name}.weight"].copy_(scale * torch.eye(C))
    return weights


def principal_axes(
    descriptors: NDArray[np.float32], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean (D) and first principal axes (count D, orthonormal) of K D descriptors.

    Without the mean, cosines are spread more widely. Fewer than two descriptors have the axes of
    the channels.
    """
    values = descriptors.astype(np.float64)
    if len(values) < 2:
        return np.zeros(values.shape[1]), np.eye(values.shape[1])[:count]
    mean = values.mean(axis=0)
    _, axes = np.linalg.eigh(np.cov(values, rowvar=False))
    return mean, axes.T[::-1][:count]


def frequencies(count: int) -> NDArray[np.float64]:
    """Count 2: waves from `HIGHEST_FREQUENCY` down to 1 in all directions."""
    radii = np.geomspace(1, HIGHEST_FREQUENCY, count)
    angles = GOLDEN_ANGLE * np.arange(count)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def sampled_descriptors(scenes: Scenes) -> NDArray[np.float32]:
    """K D descriptors from views that are spread over the bank."""
    step = max(1, len(scenes) // SAMPLED_VIEWS)
    sampled = [
        scenes.view(scene, 0).descriptors[:SAMPLED_KEYPOINTS].astype(np.float32)
        for scene in range(0, len(scenes), step)
    ]
    return np.concatenate(sampled)
