"""Means for the log, and the signs that a run is hopeless."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor

from tiepoint.errors import TrainingError
from tiepoint.training.presets import Stage
from tiepoint.training.state import Progress

LOG_EVERY = 20
"""Number of steps whose means make one record of the log."""

HOPELESS_STREAK = 50
"""Number of steps in a row without a finite gradient after which the weights are beyond repair."""

HOPELESS_AFTER = 1000
"""Number of steps after which a run must have learnt something."""

HOPELESS_ACCURACY = 0.05
"""Minimum match accuracy by then. Every successful run was far above it: the small network had .12
and was still learning. Chance gives .001."""

HOPELESS_BLIND = 0.98
"""Maximum cross-entropy relative to that of the best constant prediction."""


class HopelessError(TrainingError):
    """The run does not learn, or cannot continue."""


@dataclass
class Window:
    """Sums and figures of the steps since the last record."""

    seconds: float = 0.0
    waited: float = 0.0
    images: int = 0
    steps: int = 0
    figures: dict[str, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)
    """Name -> scalar and `finite` of each step that has it."""

    def add_step(self, seconds: float, waited: float, images: int) -> None:
        """Count a step: its duration, its waiting for data and its number of images."""
        self.seconds += seconds
        self.waited += waited
        self.images += images
        self.steps += 1

    def add(self, figures: Mapping[str, Tensor], finite: Tensor) -> None:
        """Add the scalars of a step, without reading them.

        Args:
            finite: Scalar bool; False for a skipped step, which does not count.
        """
        for name, value in figures.items():
            self.figures.setdefault(name, []).append((value.detach(), finite))

    def means(self) -> dict[str, float]:
        """Mean of each figure over the steps that have it; read from the device at once."""
        if not self.figures:
            return {}
        entries = [entry for each in self.figures.values() for entry in each]
        table = [torch.stack([one.float() for one in part]) for part in zip(*entries, strict=True)]
        numbers = iter(torch.stack(table).T.tolist())
        means = {}
        for name, each in self.figures.items():
            counted = [value for value, finite in islice(numbers, len(each)) if finite]
            if counted:
                means[name] = sum(counted) / len(counted)
        return means


def check_streak(progress: Progress) -> None:
    """Raise HopelessError after too many skipped steps in a row."""
    if progress.streak >= HOPELESS_STREAK:
        raise HopelessError(
            f"{HOPELESS_STREAK} steps in a row had no finite gradient; resume from an older state "
            "with a lower learning rate, or check the images"
        )


def check_learning(
    recent: dict[str, float], means: Mapping[str, float], progress: Progress, stage: Stage
) -> None:
    """Update the running means, and raise HopelessError when a late run has learnt nothing.

    Args:
        recent: Running means of earlier records, by name; updated.
        means: Means of the latest record, of `stage`.
    """
    for name in ("accuracy", "cross_entropy", "blind"):
        if name in means:
            recent[name] = 0.8 * recent.get(name, means[name]) + 0.2 * means[name]
    if progress.step >= HOPELESS_AFTER:
        cross_entropy = recent.get("cross_entropy", 0.0)
        if cross_entropy > HOPELESS_BLIND * recent.get("blind", float("inf")):
            raise HopelessError(
                f"the detector has learnt nothing in {progress.step} steps: cross-entropy is "
                f"{cross_entropy:.3f}, and the best constant prediction has "
                f"{recent['blind']:.3f}; check the scenes and the learning rate"
            )
    accuracy = recent.get("accuracy", 1.0)
    late = stage.descriptor_weight > 0 and progress.stage_step >= HOPELESS_AFTER
    if late and accuracy < HOPELESS_ACCURACY:
        raise HopelessError(
            f"match accuracy is {accuracy:.1%} after {progress.stage_step} steps of stage "
            f"{stage.name}, expected at least {HOPELESS_ACCURACY:.0%}; check the pairs and the "
            "learning rate"
        )
