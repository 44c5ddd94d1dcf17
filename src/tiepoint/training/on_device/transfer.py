"""Arrays of the host on a device, many by one copy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ALIGNMENT = 16  # bytes


def together_on(arrays: Mapping[str, NDArray[Any]], place: torch.device) -> dict[str, Tensor]:
    """Upload arrays by one copy; the host may change them at once. It does not wait for CUDA."""
    ends = np.cumsum([-(-array.nbytes // ALIGNMENT) * ALIGNMENT for array in arrays.values()])
    size = int(ends[-1]) if len(ends) else 0
    host = torch.empty(size, dtype=torch.uint8, pin_memory=place.type == "cuda")
    bytes_of_host, starts = host.numpy(), [0, *ends[:-1].tolist()]
    for start, array in zip(starts, arrays.values(), strict=True):
        part = bytes_of_host[start : start + array.nbytes]
        part.view(array.dtype).reshape(array.shape)[...] = array
    # Pinned memory is kept until the copy is there; MPS copies from other memory.
    device = host.to(place, non_blocking=place.type != "mps")
    return {
        name: device[start : start + array.nbytes]
        .view(torch.from_numpy(np.empty(0, array.dtype)).dtype)
        .view(array.shape)
        for start, (name, array) in zip(starts, arrays.items(), strict=True)
    }
