"""The matcher's network by torch: on a CPU, an NVIDIA or an Apple GPU."""

from __future__ import annotations

import numpy as np
import torch

from tiepoint.errors import EngineError
from tiepoint.matching.learned.architecture import MatcherConfig
from tiepoint.matching.learned.inputs import MatcherInput, MatcherOutput
from tiepoint.matching.learned.network_torch import MatcherNetwork, Points
from tiepoint.weights.checkpoint import Tensors


class TorchMatcher:
    """A `MatcherEngine` in float32 on one device.

    Args:
        layers: Number of layers to run, 1 to `config.layers`.
        device: Any that torch knows.

    Raises:
        EngineError: torch does not find the device.
    """

    def __init__(
        self, config: MatcherConfig, tensors: Tensors, *, layers: int, device: str = "cpu"
    ) -> None:
        self._layers = layers
        try:
            network = MatcherNetwork.of(config, tensors).to(device)
        except (RuntimeError, AssertionError) as error:
            raise EngineError(
                f"device {device!r} cannot be used for matching ({error}); use device='cpu'"
            ) from error
        self._network = network.eval().requires_grad_(False)
        self._device = device

    @torch.inference_mode()
    def run(self, a: MatcherInput, b: MatcherInput) -> tuple[MatcherOutput, MatcherOutput]:
        """See `MatcherEngine.run`."""
        head = self._network.last_head(self._points(a), self._points(b), layers=self._layers)
        return (
            MatcherOutput(head.projected_a[0].cpu().numpy(), head.matchability_a[0].cpu().numpy()),
            MatcherOutput(head.projected_b[0].cpu().numpy(), head.matchability_b[0].cpu().numpy()),
        )

    def _points(self, side: MatcherInput) -> Points:
        xy, descriptors = (
            torch.tensor(np.ascontiguousarray(one), dtype=torch.float32, device=self._device)[None]
            for one in side
        )
        return Points(xy, descriptors)
