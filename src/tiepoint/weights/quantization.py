"""Eight bits: how large the numbers between the layers get, and a file that says so.

`precision="int8"` rounds weights and what flows between layers to 256 steps. Weights tell their own
range; what flows is measured once on images and lies beside the weights. Inputs of these layers are
0 or more (behind a ReLU), so a layer needs one number: the highest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiepoint.architecture import NetworkConfig
from tiepoint.errors import ConfigError
from tiepoint.files import write_bytes
from tiepoint.weights.hub import QUANTIZATION_FILE

Ranges = Mapping[str, float]
"""Name of a layer -> the highest input that it still tells apart; higher ones count as it."""

VERSION = 1
LEAST = 1e-6

LEAST_CHANNELS = 32
"""Inputs of a layer, below which rounding to 8 bits costs as much time as it saves."""


def rounded_layers(network: NetworkConfig) -> list[str]:
    """The layers that 8 bits suffice for: not the one that decides where keypoints are, nor those
    of few inputs, which they make no quicker: the first, whose inputs are the pixels, and much of a
    small network. `benchmarks/precision.py` prints how many keypoints stay."""
    last = network.keypoint_layers()[-1]
    return [
        layer.name
        for layer in network.layers()
        if layer != last and layer.in_channels >= LEAST_CHANNELS
    ]


def mean_highest(highest: Iterable[Ranges], layers: Sequence[str]) -> dict[str, float]:
    """Ranges of some layers from the highest inputs on several images.

    The mean over images, not the highest of all: one glaring image would take steps from all
    others.

    Raises:
        ConfigError: No images.
    """
    seen = list(highest)
    if not seen:
        raise ConfigError("no images to measure ranges on; give at least one")
    return {name: float(np.mean([one[name] for one in seen])) for name in layers}


def save_ranges(folder: Path, ranges: Ranges, weights_sha256: str) -> Path:
    """Lay ranges beside the weights that they were measured with; returns their file.

    Raises:
        FormatError: The folder cannot be written to.
    """
    path = folder / QUANTIZATION_FILE
    values = {
        "version": VERSION,
        "weights_sha256": weights_sha256,
        # A layer that nothing reaches still needs a range above 0.
        "highest_inputs": {n: float(f"{max(high, LEAST):.6g}") for n, high in ranges.items()},
    }
    write_bytes(path, (json.dumps(values, indent=2) + "\n").encode())
    return path


def load_ranges(folder: Path, weights_sha256: str, layers: Iterable[str]) -> Ranges | None:
    """The ranges beside a checkpoint's weights; None where there are no whole ones for these.

    A damaged file is none: other precisions do without it, and int8 says what to do.

    Args:
        layers: Names of those that must have a range.
    """
    path = folder / QUANTIZATION_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["version"] != VERSION or values["weights_sha256"] != weights_sha256:
            return None
        ranges = {name: float(values["highest_inputs"][name]) for name in layers}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    whole = all(np.isfinite(high) and high > 0 for high in ranges.values())
    return ranges if whole else None


def weight_ranges(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """O 1 1 1: the largest size of each output channel's weights, never 0."""
    highest: NDArray[np.float32] = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
    return np.maximum(highest, np.float32(1e-12))
