"""What the network says, before anyone decides what a keypoint is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = TypeVar("Array")
"""A NumPy array, or a torch tensor where torch is the engine."""

Masks = Sequence[NDArray[np.bool_] | None] | None
"""For each image of a batch `H W` bool in px of the input, without padding: where keypoints may
lie; None = everywhere."""


@dataclass(frozen=True, eq=False)
class DenseMaps(Generic[Array]):
    """The network's output for a batch; h = H / 8, w = W / 8.

    Where images of a batch differ in size, cells outside an image's own field are undefined.

    Attributes:
        logits: B 65 h w float32; channel 8 row + column of the cell, channel 64 "no keypoint".
        descriptors: B D h w float32, not yet of unit length; None if they were not asked for.
    """

    logits: Array
    descriptors: Array | None


class Keypoints(NamedTuple, Generic[Array]):
    """Keypoints of one image in px of the network's input, best score first.

    Attributes:
        xy: N 2 float32.
        scores: N float32.
        descriptors: N D float32 of unit length, or None.
    """

    xy: Array
    scores: Array
    descriptors: Array | None
