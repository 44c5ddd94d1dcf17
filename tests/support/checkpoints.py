"""Checkpoints of random weights."""

from __future__ import annotations

import numpy as np

from tiepoint.architecture import NetworkConfig
from tiepoint.config import DetectionConfig
from tiepoint.weights.checkpoint import Checkpoint


def random_checkpoint(
    seed: int = 0,
    widths: tuple[int, int, int, int] = (8, 8, 16, 16),
    hidden: int = 24,
    length: int = 16,
) -> Checkpoint:
    """A network of any widths whose random weights do find points."""
    config = NetworkConfig(widths, hidden, 65, length)
    random = np.random.default_rng(seed)
    tensors = {}
    for layer in config.layers():
        side = layer.kernel_px
        fan_in = layer.in_channels * side * side
        shape = (layer.out_channels, layer.in_channels, side, side)
        gain = 12 if layer.name.endswith("score_b") else 1.4
        weight = random.normal(0, gain / np.sqrt(fan_in), shape)
        tensors[f"{layer.name}.weight"] = weight.astype(np.float32)
        bias = random.normal(0, 0.05, layer.out_channels)
        tensors[f"{layer.name}.bias"] = bias.astype(np.float32)
    detection = DetectionConfig(threshold=0.02)
    return Checkpoint(f"random-{seed}", "0" * 64, config, detection, "exact", tensors)
