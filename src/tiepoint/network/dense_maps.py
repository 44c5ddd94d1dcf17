"""The dense output of the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from tiepoint.architecture import PHASES
from tiepoint.geometry import Placement

Array = TypeVar("Array")
"""A NumPy array, or a torch tensor where torch is the engine."""


def as_numpy(maps: Sequence[Any] | None) -> list[NDArray[np.float32]]:
    """Maps of either engine as arrays in memory."""
    return [one if isinstance(one, np.ndarray) else one.float().cpu().numpy() for one in maps or ()]


@dataclass(frozen=True, eq=False)
class DenseMaps(Generic[Array]):
    """The network's output for a batch; h = H / 8, w = W / 8.

    If images of a batch differ in size, values outside an image's own area are undefined.

    Attributes:
        heatmap: B H W float32, probability of a keypoint at each pixel, the mean of all phases.
        descriptors: B D h w float32 of each phase, not yet of unit length; shifted grids have one
            more row or column, see `architecture.PHASES`. None if not requested.
    """

    heatmap: Array
    descriptors: tuple[Array, ...] | None

    def of_image(self, index: int, placement: Placement) -> tuple[Any, list[Any] | None]:
        """One image's own area: its heat map H W, and D h w of each phase or None."""
        maps: Any = self
        height, width = placement.resized_hw
        heatmap = maps.heatmap[index, :height, :width]
        if maps.descriptors is None:
            return heatmap, None
        grids_hw = [placement.cells_hw(shift) for shift in PHASES[len(maps.descriptors)]]
        each = zip(maps.descriptors, grids_hw, strict=True)
        return heatmap, [dense[index, :, :h, :w] for dense, (h, w) in each]
