"""The matcher's network by torch: on a CPU, an NVIDIA or an Apple GPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from tiepoint.errors import EngineError
from tiepoint.matching.learned.architecture import MatcherConfig
from tiepoint.matching.learned.inputs import MatcherInput, MatcherOutput
from tiepoint.matching.learned.network_torch import MatcherNetwork, Points
from tiepoint.matching.learned.together import Together
from tiepoint.network.torch_device import Download, uploaded
from tiepoint.weights.checkpoint import Tensors

MOST_PAIRS = 32
"""Pairs in a batch. More are no faster, because a thousand keypoints occupy a GPU by then."""

Pair = tuple[MatcherInput, MatcherInput]
PairOutput = tuple[MatcherOutput, MatcherOutput]


class TorchMatcher:
    """A `MatcherEngine` in float32 on one device. On a GPU, pairs of several threads are a batch.

    Args:
        layers: Number of layers to run, 1 to `config.layers`.
        device: Any that torch knows.
        batched: Whether concurrent calls become one; None: on a GPU.

    Raises:
        EngineError: torch does not find the device.
    """

    def __init__(
        self,
        config: MatcherConfig,
        tensors: Tensors,
        *,
        layers: int,
        device: str = "cpu",
        batched: bool | None = None,
    ) -> None:
        self._layers = layers
        try:
            network = MatcherNetwork.of(config, tensors).to(device)
        except (RuntimeError, AssertionError) as error:
            raise EngineError(
                f"device {device!r} cannot be used for matching ({error}); use device='cpu'"
            ) from error
        self._network = network.eval().requires_grad_(False)
        self._place = torch.device(device)
        is_batched = self._place.type != "cpu" if batched is None else batched
        self._together = Together(self.run_many, MOST_PAIRS) if is_batched else None

    def run(self, a: MatcherInput, b: MatcherInput) -> PairOutput:
        """See `MatcherEngine.run`."""
        return self.run_many([(a, b)])[0] if self._together is None else self._together((a, b))

    @torch.inference_mode()
    def run_many(self, pairs: Sequence[Pair]) -> list[PairOutput]:
        """Run the network on a batch of pairs. Their counts of keypoints may differ."""
        sides = [self._points([pair[side] for pair in pairs]) for side in (0, 1)]
        head = self._network.last_head(*sides, layers=self._layers)
        parts = [
            torch.cat([projected, matchability[..., None]], dim=2)  # B N C+1
            for projected, matchability in (
                (head.projected_a, head.matchability_a),
                (head.projected_b, head.matchability_b),
            )
        ]
        values = Download(torch.cat([part.flatten() for part in parts])).wait().numpy()
        first = parts[0].numel()
        both = (values[:first].reshape(parts[0].shape), values[first:].reshape(parts[1].shape))
        return [
            (_output(both[0][index], len(a.xy)), _output(both[1][index], len(b.xy)))
            for index, (a, b) in enumerate(pairs)
        ]

    def _points(self, sides: Sequence[MatcherInput]) -> Points:
        """One image of each pair, padded to the largest count; one upload."""
        counts = [len(side.xy) for side in sides]
        together = np.zeros(
            (len(sides), max(counts), 3 + sides[0].descriptors.shape[1]), np.float32
        )
        for one, side, count in zip(together, sides, counts, strict=True):
            one[:count, :2], one[:count, 2], one[:count, 3:] = side.xy, 1, side.descriptors
        values = uploaded(torch.from_numpy(together), self._place)  # B N 3+D
        valid = values[..., 2] > 0 if len(set(counts)) > 1 else None
        return Points(values[..., :2], values[..., 3:], valid)


def _output(values: NDArray[np.float32], count: int) -> MatcherOutput:
    """The first `count` keypoints of N C+1, copied: a pair must not keep its whole batch."""
    return MatcherOutput(values[:count, :-1].copy(), values[:count, -1].copy())
