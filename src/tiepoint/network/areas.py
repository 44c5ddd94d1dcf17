"""Area averages of windows: what a window of a downscaled image is made from.

The same averages as OpenCV's INTER_AREA on the whole image, up to float32 round-off.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


class AxisWeights(NamedTuple):
    """Where the new pixels of one axis come from.

    Attributes:
        start: First old pixel that counts.
        weights: K S float32, share of S old pixels from `start` on in each of K new pixels.
    """

    start: int
    weights: Float32

    @property
    def stop(self) -> int:
        """End of the old pixels that count."""
        return self.start + len(self.weights.T)


def axis_weights(old: int, new: int, first: int, count: int) -> AxisWeights:
    """Weights of `count` new pixels from `first` on, of an axis that shrinks from `old` to `new`.

    A new pixel covers `old / new` old ones, in parts at both ends.
    """
    factor = old / new
    edges = np.minimum(np.arange(first, first + count + 1) * factor, old)  # K+1
    start, stop = math.floor(edges[0] + 1e-9), math.ceil(edges[-1] - 1e-9)
    pixels = np.arange(start, stop)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)  # K S
    shares = np.clip(covered, 0, None)
    shares[shares < 1e-6] = 0  # round-off of the edges
    return AxisWeights(start, (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32))


def area_average(values: Float32, rows: AxisWeights, columns: AxisWeights) -> Float32:
    """Old pixels, from both starts on, -> new pixels."""
    return np.asarray(rows.weights @ values @ columns.weights.T, np.float32)
