"""The dense output of the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

Array = TypeVar("Array")
"""A NumPy array, or a torch tensor where torch is the engine."""


@dataclass(frozen=True, eq=False)
class DenseMaps(Generic[Array]):
    """The network's output for a batch; h = H / 8, w = W / 8.

    If images of a batch differ in size, values outside an image's own area are undefined.

    Attributes:
        heatmap: B H W float32, probability of a keypoint at each pixel.
        descriptors: B D h w float32, not yet of unit length; None if not requested.
    """

    heatmap: Array
    descriptors: Array | None
