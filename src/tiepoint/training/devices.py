"""Tensors on a device without waiting for it.

A GPU works through a queue, and the host that fills it must not wait for a result: until the next
step is in the queue, the GPU would be idle. Waits are reads of values (`bool`, `item`), results
whose length depends on values (boolean indices, `nonzero`), and blocking copies.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


def reads_at_once(device: torch.device) -> bool:
    """Whether values on a device can be read without waiting: those in the memory of the host."""
    return device.type == "cpu"


@lru_cache(maxsize=256)
def constant(
    values: tuple[Any, ...], device: torch.device, dtype: torch.dtype = torch.float32
) -> Tensor:
    """A tensor of numbers, as tuples, that is copied to a device once. Do not write into it."""
    return torch.tensor(values, dtype=dtype, device=device)


def step_seed(seed: int, step: int) -> int:
    """Seed of the generator of a step: 64 bits, as torch takes them."""
    return ((seed << 32) + step) % 2**64


def first_chosen(values: Tensor, chosen: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The first chosen values of each row, P K -> P count, and which of these there are."""
    number = chosen.cumsum(dim=1)  # P K, from 1
    place = number.where(chosen & (number <= count), 0)
    taken = values.new_zeros(len(values), count + 1).scatter_(1, place, values)[:, 1:]
    return taken, torch.arange(count, device=values.device) < number[:, -1:]
