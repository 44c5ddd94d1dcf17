"""What an engine is: inputs -> dense maps, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from tiepoint.geometry import Placement
from tiepoint.network.dense_maps import DenseMaps

Workload = Literal["single", "stream"]
"""The least time for one image, or the most images per second."""


class Engine(Protocol):
    """A network that is ready to run; it decides nothing. Any object of this form will do.

    Attributes:
        batch_size: Preferred number of images per call.
        in_flight: Preferred number of concurrent calls, from as many threads.
    """

    batch_size: int
    in_flight: int

    def run(
        self,
        inputs: NDArray[np.float32],
        placements: Sequence[Placement],
        *,
        descriptors: bool,
        phases: int = 1,
    ) -> DenseMaps[Any]:
        """Compute dense maps.

        Args:
            inputs: B 1 H W float32 in 0..1, H and W multiples of 8.
            placements: Each image's area in `inputs`. What is outside must not change its maps.
            descriptors: False leaves the descriptors out.
            phases: Number of cell phases, see `architecture.PHASES`.

        Returns:
            NumPy arrays; or torch tensors on a GPU, where the keypoints are extracted then.
        """
