"""The schedule of a training run: budget, stages, learning rate. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Protocol, Self

from tiepoint.checks import check_positive, check_whole, check_within
from tiepoint.errors import ConfigError

MAX_COUNT = 1_000_000
"""Limit of the counts of a recipe, which may come from another's manifest."""


class AnyStage(Protocol):
    """A part of a run."""

    @property
    def name(self) -> str:
        """Name in the log and in the manifest."""

    @property
    def share(self) -> float:
        """Fraction of the run's budget; the fractions of a run sum to 1."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What the recipes of all networks have in common.

    Attributes:
        minutes: Budget in minutes; None where `steps` or `stage_steps` is the budget.
        steps: Budget in steps, or None.
        stage_steps: Budget in steps per stage, or None. It repeats a run whose budget was minutes.
        learning_rate: Peak learning rate, reached after `warm_up_steps`. A cosine then lowers it to
            `final_rate` times the peak at the end of the budget.
        final_rate: Final learning rate relative to the peak, 0..1.
        warm_up_steps: Steps of linear warm-up.
        weight_decay: AdamW's weight decay of the weights.
        average: Decay per step of the exponential moving average of the weights.
        clip: Maximum norm of the gradient.
        benchmark_every: Steps between benchmarks on held-out pairs.
        bf16: Whether the network runs in bfloat16 where that saves time.
    """

    name: str
    minutes: float | None = None
    steps: int | None = None
    stage_steps: tuple[int, ...] | None = None
    learning_rate: float = 1e-3
    final_rate: float = 0.01
    warm_up_steps: int = 100
    weight_decay: float = 1e-4
    average: float = 0.999
    clip: float = 1.0
    benchmark_every: int = 1000
    bf16: bool = True

    @property
    def parts(self) -> Sequence[AnyStage]:
        """The stages, in their order."""
        raise NotImplementedError

    def check_schedule(self) -> None:
        """Raise ConfigError for a budget, stages or numbers out of range."""
        total = sum(stage.share for stage in self.parts)
        if not self.parts or not math.isclose(total, 1):
            raise ConfigError(
                f"preset {self.name!r}: the shares of its stages sum to {total}, expected 1"
            )
        budgets = [self.minutes, self.steps, self.stage_steps]
        if sum(budget is not None for budget in budgets) != 1:
            raise ConfigError(
                f"preset {self.name!r}: minutes, steps and stage_steps are {budgets}, expected one "
                "of them and None for the others"
            )
        if self.stage_steps is not None and len(self.stage_steps) != len(self.parts):
            raise ConfigError(
                f"stage_steps has {len(self.stage_steps)} numbers, expected one for each of "
                f"{len(self.parts)} stages"
            )
        for name in ("learning_rate", "clip"):
            check_positive(name, getattr(self, name), finite=True)
        for name in ("final_rate", "average", "weight_decay"):
            check_within(name, getattr(self, name), 0, 1, "a share")
        for name, minimum in (("warm_up_steps", 0), ("benchmark_every", 1)):
            number = getattr(self, name)
            check_whole(name, number, minimum=minimum, maximum=MAX_COUNT, unit="a count")
        for budget in self.stage_steps or (self.minutes or self.steps or 0,):
            check_positive("the budget in minutes or steps", budget, finite=True)

    def done(self, step: int, seconds: float) -> float:
        """Fraction of the budget spent after `step` steps and `seconds` of training, 0..1."""
        if self.minutes is not None:
            return min(1.0, seconds / (60 * self.minutes))
        if self.steps is not None:
            return min(1.0, step / self.steps)
        assert self.stage_steps is not None
        done = 0.0
        for stage, steps in zip(self.parts, self.stage_steps, strict=True):
            if step < steps:
                return done + stage.share * step / steps
            done, step = done + stage.share, step - steps
        return 1.0

    def stage_at(self, done: float) -> int:
        """Index of the stage at a fraction of the budget, 0..1."""
        ends = list(accumulate(stage.share for stage in self.parts))
        return min(sum(done >= end - 1e-9 for end in ends), len(self.parts) - 1)

    def rate_at(self, done: float, step: int) -> float:
        """Learning rate at a fraction of the budget, 0..1, and a step."""
        warm = min(1.0, (step + 1) / max(1, self.warm_up_steps))
        cosine = (1 + math.cos(math.pi * min(1.0, done))) / 2
        return self.learning_rate * warm * (self.final_rate + (1 - self.final_rate) * cosine)

    def with_budget(self, minutes: float | None, steps: int | None) -> Self:
        """Replace the budget, or keep it if both are None; two budgets raise ConfigError."""
        if minutes is not None and steps is not None:
            raise ConfigError("both minutes and steps are given, expected one of them as budget")
        if minutes is None and steps is None:
            return self
        return replace(self, minutes=minutes, steps=steps, stage_steps=None)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild a recipe from `dataclasses.asdict`, also after it was stored as JSON.

        Raises:
            ConfigError: A recipe of another version of tiepoint.
        """
        raise NotImplementedError


def with_tuples(value: Any) -> Any:
    """Replace lists by tuples, in dicts and tuples too, because JSON has no tuples."""
    if isinstance(value, Mapping):
        return {name: with_tuples(item) for name, item in value.items()}
    return tuple(map(with_tuples, value)) if isinstance(value, list | tuple) else value


def check_stages(values: Sequence[Mapping[str, Any]], known: Sequence[str]) -> None:
    """Raise ConfigError for stages with fields that this version does not have."""
    unknown = {name for stage in values for name in stage} - set(known)
    if unknown:
        raise ConfigError(
            f"the recipe's stages have {', '.join(sorted(unknown))}, which this version of "
            "tiepoint does not know; check out the commit that the manifest names"
        )
