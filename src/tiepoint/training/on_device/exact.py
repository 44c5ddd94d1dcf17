"""Float32 arithmetic without gradients, mixed precision or TF32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from tiepoint.network.torch_device import exact_float32


@contextmanager
def exact(place: torch.device) -> Iterator[None]:
    """Compute labels and greys in float32, whatever the network's training uses around it.

    Matrix products keep all bits unless `torch.set_float32_matmul_precision` allows 10.
    """
    mixes = torch.amp.is_autocast_available(place.type)
    off = torch.autocast(place.type, enabled=False) if mixes else nullcontext()
    with torch.no_grad(), off, exact_float32(place):
        yield
