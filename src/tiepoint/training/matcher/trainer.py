"""A run of the matcher: `trainer.Loop` with the matcher's network, batches and losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from tiepoint.matching.learned.folder import MatcherCheckpoint
from tiepoint.matching.learned.network_torch import MatcherNetwork
from tiepoint.training.detector.objective import Objective
from tiepoint.training.matcher.batch import MatcherBatch, Pairs, collate
from tiepoint.training.matcher.losses import matcher_objective
from tiepoint.training.matcher.settings import MatcherPreset, MatcherStage
from tiepoint.training.monitor import HopelessError
from tiepoint.training.trainer import Loop

HOPELESS_AFTER, HOPELESS_RECALL = 3000, 0.02
"""Number of steps after which a run must have learnt something, and the least recall by then. A run
of the default recipe has a recall above .5 by then."""


def as_tensors(matcher: MatcherCheckpoint) -> dict[str, torch.Tensor]:
    """The weights of a matcher as the state dict that a run starts from."""
    return {name: torch.from_numpy(array.copy()) for name, array in matcher.tensors.items()}


class MatcherTrainer(Loop[MatcherPreset, "Pairs | Callable[[], MatcherBatch]", MatcherBatch]):
    """A run of the matcher, on pairs of the host or on calls that make a batch on the device."""

    network: MatcherNetwork
    average: MatcherNetwork

    def new_network(self) -> MatcherNetwork:
        """See `Loop.new_network`."""
        return MatcherNetwork(self.config.preset.network)

    def collate(self, items: Pairs | Callable[[], MatcherBatch]) -> MatcherBatch:
        """See `Loop.collate`."""
        return items() if callable(items) else collate(items, self.device)

    def images_in(self, batch: MatcherBatch) -> int:
        """See `Loop.images_in`."""
        return 2 * batch.pairs

    def objective(
        self, batch: MatcherBatch, stage: MatcherStage, generator: torch.Generator
    ) -> Objective:
        """See `Loop.objective`."""
        with self._precision():
            heads = self._forward(batch.a, batch.b)
        return matcher_objective(heads, batch.labels, self.preset.unmatchable_weight)

    def check(self, means: Mapping[str, float], stage: MatcherStage) -> None:
        """See `Loop.check`."""
        if "recall" in means:
            latest = means["recall"]
            self.recent["recall"] = 0.8 * self.recent.get("recall", latest) + 0.2 * latest
        recall = self.recent.get("recall", 1.0)
        if self.progress.step >= HOPELESS_AFTER and recall < HOPELESS_RECALL:
            raise HopelessError(
                f"recall is {recall:.1%} after {self.progress.step} steps, expected at least "
                f"{HOPELESS_RECALL:.0%}; check the checkpoint's features and the learning rate"
            )
