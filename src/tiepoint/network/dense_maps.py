"""The network's dense output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

Array = TypeVar("Array")
"""A NumPy array, or a torch tensor where torch is the engine."""


@dataclass(frozen=True, eq=False)
class DenseMaps(Generic[Array]):
    """The network's output for a batch; h = H / 8, w = W / 8.

    Where images of a batch differ in size, all outside an image's own field is undefined.

    Attributes:
        heatmap: B H W float32, how probable a keypoint is at each pixel.
        descriptors: B D h w float32, not yet of unit length; None if they were not asked for.
        pixels: B 1 H W float32, what the network saw; None leaves positions to the heat map.
    """

    heatmap: Array
    descriptors: Array | None
    pixels: Array | None = None
