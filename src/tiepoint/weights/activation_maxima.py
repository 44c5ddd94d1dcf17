"""Activation maxima: the largest input of each quantised layer, stored next to the weights.

`precision="int8"` quantises weights and activations to 256 steps. The range of the weights is
known; that of the activations is measured once on images. Inputs of these layers follow a ReLU,
so each layer needs its maximum only.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiepoint.architecture import NetworkConfig
from tiepoint.errors import ConfigError
from tiepoint.files.paths import exists
from tiepoint.files.reading import read_json
from tiepoint.weights.folder import QUANTIZATION_FILE, write_file

logger = logging.getLogger(__name__)

ActivationMaxima = Mapping[str, float]
"""Name of a layer -> its largest input that int8 represents; larger inputs are clipped to it."""

VERSION = 1
MAX_MAXIMUM = 1e30
"""float32 must hold the maximum and its multiples."""
MIN_MAXIMUM = 1e-6
"""Maximum of a layer whose inputs were all 0; a quantisation range must not be empty."""

LEAST_CHANNELS = 32
"""Fewest input channels of a quantised layer; for fewer, quantising costs the time it saves."""


def quantised_layers(network: NetworkConfig) -> list[str]:
    """Names of the layers that int8 quantises.

    These are all but the keypoint logits, which decide where keypoints are, and layers with fewer
    than `LEAST_CHANNELS` inputs. `benchmarks/precision.py` prints how many keypoints remain.
    """
    layers, last = network.layers(), network.keypoint_layers()[-1]
    return [x.name for x in layers if x != last and x.in_channels >= LEAST_CHANNELS]


def mean_activation_maxima(
    maxima: Iterable[ActivationMaxima], layers: Sequence[str]
) -> dict[str, float]:
    """Average the activation maxima, one mapping per image, of the given layers.

    The mean is used because one glaring image would coarsen the steps of all others.

    Raises:
        ConfigError: No images.
    """
    per_image = list(maxima)
    if not per_image:
        raise ConfigError("no images to measure activation maxima on; give at least one")
    return {name: float(np.mean([one[name] for one in per_image])) for name in layers}


def save_activation_maxima(folder: Path, maxima: ActivationMaxima, weights_sha256: str) -> Path:
    """Store activation maxima next to the weights that they were measured with; returns the file.

    Raises:
        OutputError: The folder cannot be written.
    """
    values = {
        "version": VERSION,
        "weights_sha256": weights_sha256,
        "highest_inputs": {n: float(f"{max(m, MIN_MAXIMUM):.6g}") for n, m in maxima.items()},
    }
    return write_file(folder, QUANTIZATION_FILE, values)


def load_activation_maxima(
    folder: Path, weights_sha256: str, layers: Iterable[str]
) -> ActivationMaxima | None:
    """Load a checkpoint's activation maxima; None unless valid for all layers and these weights.

    A damaged file counts as missing and is logged, because only int8 needs it.
    """
    path = folder / QUANTIZATION_FILE
    if not exists(path):
        return None
    try:
        values = read_json(path)
        if values["version"] != VERSION or values["weights_sha256"] != weights_sha256:
            return None
        maxima = {name: float(values["highest_inputs"][name]) for name in layers}
        if all(0 < maximum <= MAX_MAXIMUM for maximum in maxima.values()):
            return maxima
        reason = f"a maximum outside 0..{MAX_MAXIMUM:g}"
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        reason = f"{type(error).__name__}: {error}"
    logger.warning("%s ignored (%s); run tiepoint quantize again", path, reason)
    return None


def weight_maxima(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """O 1 1 1: the largest absolute weight of each output channel, never 0."""
    maxima: NDArray[np.float32] = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
    return np.maximum(maxima, np.float32(1e-12))
