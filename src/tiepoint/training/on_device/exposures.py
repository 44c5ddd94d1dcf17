"""Packed exposures on a device."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tiepoint.network.torch_device import uploaded
from tiepoint.training.scenes.packed_exposures import EXPOSURE, PATCH, PackedExposures

BYTES = 4  # of a float32


class Exposures(NamedTuple):
    """One exposure for each image of a batch.

    Attributes:
        numbers: B K float32, the bytes of `packed_exposures.EXPOSURE`.
        motion_side: Side of the kernel of the longest motion blur, px; 1 without any.
    """

    numbers: Tensor
    motion_side: int

    def field(self, name: str) -> Tensor:
        """A field of all exposures, B and its own shape."""
        return _part(self.numbers, EXPOSURE, name)

    def plane(self, name: str) -> Tensor:
        """A single number of all exposures, B 1 1."""
        return self.field(name)[:, None, None]

    def patches(self, name: str) -> Tensor:
        """A field of the patches of all exposures, B 3 and its own shape."""
        return _part(self.field("patches"), PATCH, name)


def exposures_on(packed: PackedExposures, device: torch.device) -> Exposures:
    """Upload exposures; the host does not wait."""
    longest = float(packed["motion_px"].max(initial=0))
    side = 2 * math.ceil(longest / 2) + 3 if longest > 0 else 1
    numbers = np.ascontiguousarray(packed).view(np.float32).reshape(len(packed), -1)  # B K
    return Exposures(uploaded(torch.from_numpy(numbers), device), side)


def _part(numbers: Tensor, kind: np.dtype[np.void], name: str) -> Tensor:
    """A field of rows that are the last dimension of `numbers`."""
    assert kind.fields is not None
    field, start = kind.fields[name][:2]
    values = numbers[..., start // BYTES : (start + field.itemsize) // BYTES]
    inner = (-1,) if field.base == PATCH else ()  # the numbers of one patch
    return values.reshape(*numbers.shape[:-1], *field.shape, *inner)
