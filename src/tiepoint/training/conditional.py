"""A training step that a device undoes if its gradient is not finite, without asking the host.

On a CPU the host reads whether the gradient is finite, and skips the update. On a GPU this read
would empty the queue in each step, so the update is in the queue whatever the gradient is, and its
operators change nothing where it is not finite.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from tiepoint.training import devices
from tiepoint.training.schedule import Schedule


def new_optimiser(
    network: nn.Module, preset: Schedule, device: torch.device
) -> torch.optim.Optimizer:
    """AdamW; norms and biases have no weight decay. Only the fused one has conditional steps."""
    trained = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": preset.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    fused = None if devices.reads_at_once(device) else True
    return torch.optim.AdamW(groups, lr=preset.learning_rate, fused=fused)


def restore_optimiser(optimiser: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load a state dict that a run on a device of another kind may have saved."""
    groups = [
        {**group, "fused": own["fused"]}
        for group, own in zip(state["param_groups"], optimiser.param_groups, strict=True)
    ]
    optimiser.load_state_dict({**state, "param_groups": groups})


class Update:
    """The update of a network's weights and of their average, and the way back.

    Call `begin`, compute the gradient, and call `end`.

    Args:
        average: The network's moving average, which has the same tensors.
    """

    def __init__(
        self, network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer
    ) -> None:
        self._optimiser = optimiser
        buffers = list(network.buffers())
        types = {buffer.dtype for buffer in buffers}
        self._buffers = [[one for one in buffers if one.dtype == each] for each in types]
        self._before: list[list[Tensor]] = []
        self._average, self._network = (
            [
                value
                for value in chain(each.parameters(), each.buffers())
                if value.is_floating_point()
            ]
            for each in (average, network)
        )  # each tensor once, whereas a state dict repeats shared ones

    def begin(self) -> None:
        """Remember the norms' statistics, which computing the loss changes."""
        self._before = [_clones(buffers) for buffers in self._buffers]

    @torch.no_grad()
    def end(self, finite: Tensor, change: float) -> None:
        """Do the optimiser's step and move the average, or restore the norms' statistics.

        Args:
            finite: Scalar bool, whether loss and gradient are finite. If not, everything stays as
                it was before `begin`.
            change: Weight of the network in the average, 0..1.
        """
        if not devices.reads_at_once(finite.device):
            self._end_on_device(finite, change)
        elif finite:
            self._optimiser.step()
            torch._foreach_lerp_(self._average, self._network, change)
        else:
            for buffers, before in zip(self._buffers, self._before, strict=True):
                torch._foreach_copy_(buffers, before)

    def _end_on_device(self, finite: Tensor, change: float) -> None:
        for buffers, before in zip(self._buffers, self._before, strict=True):
            old, new = (torch.cat([each.flatten() for each in one]) for one in (before, buffers))
            kept = torch.split(torch.where(finite, new, old), [one.numel() for one in buffers])
            torch._foreach_copy_(
                buffers, [part.view_as(one) for part, one in zip(kept, buffers, strict=True)]
            )
        # torch's own name for "do nothing", by which its gradient scaler skips steps.
        self._optimiser.found_inf = (~finite).float()  # type: ignore[attr-defined]
        self._optimiser.step()
        apart = torch._foreach_sub(self._network, self._average)
        torch._foreach_mul_(apart, change * finite)
        torch._foreach_add_(self._average, apart)


def _clones(tensors: Sequence[Tensor]) -> list[Tensor]:
    copies = [torch.empty_like(one) for one in tensors]
    torch._foreach_copy_(copies, list(tensors))
    return copies
