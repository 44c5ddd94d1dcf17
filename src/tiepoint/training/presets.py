"""Named training recipes: network widths, image sizes, stages and budget. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from typing import Any, Literal

from tiepoint.architecture import CELL_PX, NetworkConfig
from tiepoint.checks import check_choice, check_positive, check_whole, check_within
from tiepoint.errors import ConfigError
from tiepoint.training.scenes.settings import DataConfig

MAX_SIDE_PX, MAX_COUNT = 8192, 1_000_000
"""Limits of a recipe, which may come from another's manifest."""

PresetName = Literal["large", "small", "cpu", "smoke"]

PYRAMID = (1.0, 0.6)
"""Scales of the checkpoints that training makes. The second costs a third more work, and brings
together images that differ in zoom (docs/training-log.md)."""


@dataclass(frozen=True)
class Stage:
    """A part of a run with its own losses and image size.

    Attributes:
        share: Fraction of the run's budget; the fractions of a run sum to 1.
        size_hw: (height, width) of the training images, px, multiples of 8.
        pairs: Number of pairs per step.
        descriptor_weight: Weight of the descriptor loss; the detector loss has weight 1. With 0
            the descriptor head is not run.
        temperature: Temperature of the descriptor loss, in cosines; lower is more selective.
        repeat_weight: Weight of the repeatability loss; 0 leaves it out.
        point_cost: Minimum reward of a keypoint in the repeatability loss, 0..1; keypoints that
            earn less are suppressed.
        teacher_weight: Weight of the teacher losses, in a run with a teacher.
        phase_weight: Weight of the difference between two cell phases of a view, in the heat map
            and in the descriptors; 0 trains one phase.
    """

    name: str
    share: float
    size_hw: tuple[int, int]
    pairs: int
    descriptor_weight: float = 1.0
    temperature: float = 0.07
    repeat_weight: float = 0.0
    point_cost: float = 0.04
    teacher_weight: float = 1.0
    phase_weight: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError(f"share is {self.share!r}, expected a fraction of the budget in 0..1")
        if len(self.size_hw) != 2 or any(s < CELL_PX or s % CELL_PX for s in self.size_hw):
            raise ConfigError(f"size_hw is {self.size_hw}, expected two multiples of {CELL_PX} px")
        for side in self.size_hw:
            check_whole("size_hw", side, minimum=CELL_PX, maximum=MAX_SIDE_PX, unit="px")
        check_whole("pairs", self.pairs, minimum=1, maximum=MAX_COUNT, unit="pairs per step")
        check_positive("temperature", self.temperature, finite=True)
        for name in (
            "descriptor_weight", "repeat_weight", "point_cost", "teacher_weight", "phase_weight",
        ):  # fmt: skip
            check_within(name, getattr(self, name), 0, 1e6, "a weight")

    @property
    def phases(self) -> int:
        """Number of cell phases that are trained."""
        return 1 if self.phase_weight == 0 else 2


@dataclass(frozen=True)
class Preset:
    """A training recipe. Together with data and seed it determines a run.

    Attributes:
        minutes: Budget in minutes; None where `steps` or `stage_steps` is the budget.
        steps: Budget in steps, or None.
        stage_steps: Budget in steps per stage, or None. It repeats a run whose budget was minutes.
        learning_rate: Peak learning rate, reached after `warm_up_steps`. A cosine then lowers it to
            `final_rate` times the peak at the end of the budget.
        final_rate: Final learning rate relative to the peak, 0..1.
        warm_up_steps: Steps of linear warm-up.
        weight_decay: AdamW's weight decay of the convolution weights.
        average: Decay per step of the exponential moving average of the weights.
        clip: Maximum norm of the gradient.
        points: Number of points per pair in the descriptor loss, satellites not counted.
        batch_norm: Whether convolutions have a batch norm; False fine-tunes a folded checkpoint.
        frozen_blocks: Number of encoder blocks, from the first, that are not trained, 0..4.
        benchmark_every: Steps between held-out benchmarks, of `benchmark_pairs` pairs each.
        bf16: Whether convolutions run in bfloat16.
    """

    name: str
    network: NetworkConfig
    stages: tuple[Stage, ...]
    minutes: float | None = None
    steps: int | None = None
    stage_steps: tuple[int, ...] | None = None
    learning_rate: float = 1e-3
    final_rate: float = 0.01
    warm_up_steps: int = 100
    weight_decay: float = 1e-4
    average: float = 0.999
    clip: float = 1.0
    points: int = 96
    batch_norm: bool = True
    frozen_blocks: int = 0
    benchmark_every: int = 1000
    benchmark_pairs: int = 24
    bf16: bool = True

    def __post_init__(self) -> None:
        total = sum(stage.share for stage in self.stages)
        if not self.stages or not math.isclose(total, 1):
            raise ConfigError(
                f"preset {self.name!r}: the shares of its stages sum to {total}, expected 1"
            )
        budgets = [self.minutes, self.steps, self.stage_steps]
        if sum(budget is not None for budget in budgets) != 1:
            raise ConfigError(
                f"preset {self.name!r}: minutes, steps and stage_steps are {budgets}, expected one "
                "of them and None for the others"
            )
        if self.stage_steps is not None and len(self.stage_steps) != len(self.stages):
            raise ConfigError(
                f"stage_steps has {len(self.stage_steps)} numbers, expected one for each of "
                f"{len(self.stages)} stages"
            )
        self._check_numbers()
        for budget in self.stage_steps or (self.minutes or self.steps or 0,):
            check_positive("the budget in minutes or steps", budget, finite=True)

    def _check_numbers(self) -> None:
        for name in ("learning_rate", "clip"):
            check_positive(name, getattr(self, name), finite=True)
        for name in ("final_rate", "average", "weight_decay"):
            check_within(name, getattr(self, name), 0, 1, "a share")
        for name, minimum in (
            ("warm_up_steps", 0), ("points", 1), ("benchmark_every", 1), ("benchmark_pairs", 0),
        ):  # fmt: skip
            number = getattr(self, name)
            check_whole(name, number, minimum=minimum, maximum=MAX_COUNT, unit="a count")
        check_within("frozen_blocks", self.frozen_blocks, 0, 4, "a number of encoder blocks")

    def done(self, step: int, seconds: float) -> float:
        """Fraction of the budget spent after `step` steps and `seconds` of training, 0..1."""
        if self.minutes is not None:
            return min(1.0, seconds / (60 * self.minutes))
        if self.steps is not None:
            return min(1.0, step / self.steps)
        assert self.stage_steps is not None
        done = 0.0
        for stage, steps in zip(self.stages, self.stage_steps, strict=True):
            if step < steps:
                return done + stage.share * step / steps
            done, step = done + stage.share, step - steps
        return 1.0

    def stage_at(self, done: float) -> int:
        """Index of the stage at a fraction of the budget, 0..1."""
        ends = list(accumulate(stage.share for stage in self.stages))
        return min(sum(done >= end - 1e-9 for end in ends), len(self.stages) - 1)

    def rate_at(self, done: float, step: int) -> float:
        """Learning rate at a fraction of the budget, 0..1, and a step."""
        warm = min(1.0, (step + 1) / max(1, self.warm_up_steps))
        cosine = (1 + math.cos(math.pi * min(1.0, done))) / 2
        return self.learning_rate * warm * (self.final_rate + (1 - self.final_rate) * cosine)

    def with_budget(self, minutes: float | None, steps: int | None) -> Preset:
        """Replace the budget, or keep it if both are None; two budgets raise ConfigError."""
        if minutes is not None and steps is not None:
            raise ConfigError("both minutes and steps are given, expected one of them as budget")
        if minutes is None and steps is None:
            return self
        return replace(self, minutes=minutes, steps=steps, stage_steps=None)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Preset:
        """Rebuild a preset from `dataclasses.asdict`, also after it was stored as JSON.

        Raises:
            ConfigError: A recipe of another version of tiepoint.
        """
        values = with_tuples(values)
        stages = values["stages"]
        unknown = {name for stage in stages for name in stage} - {f.name for f in fields(Stage)}
        if unknown:
            raise ConfigError(
                f"the recipe's stages have {', '.join(sorted(unknown))}, which this version of "
                "tiepoint does not know; check out the commit that the manifest names"
            )
        network = NetworkConfig(**values["network"])
        return cls(**{**values, "network": network, "stages": tuple(Stage(**s) for s in stages)})


def with_tuples(value: Any) -> Any:
    """Replace lists by tuples, in dicts and tuples too, because JSON has no tuples."""
    if isinstance(value, Mapping):
        return {name: with_tuples(item) for name, item in value.items()}
    return tuple(map(with_tuples, value)) if isinstance(value, list | tuple) else value


PHASE_WEIGHT = 1.0
"""Weight of the difference between two cell phases, which detection averages."""

DESCRIPTOR_WEIGHT, REPEAT_WEIGHT = 0.5, 5.0
"""Weights relative to the detector loss. With a descriptor weight of 1.0, repeatability within 1 px
dropped from .26 to .21 when descriptor training started, and recovered only to .25."""


def _stages(
    small_hw: tuple[int, int], large_hw: tuple[int, int], small_pairs: int, large_pairs: int
) -> tuple[Stage, ...]:
    """Detector first: staged training beats joint training from the start (RDD, 2025)."""
    joint = Stage(
        "joint",
        0.58,
        small_hw,
        small_pairs,
        DESCRIPTOR_WEIGHT,
        temperature=0.05,
        phase_weight=PHASE_WEIGHT,
    )
    finish = Stage(
        "finish", 0.3, large_hw, large_pairs, DESCRIPTOR_WEIGHT, temperature=0.04,
        repeat_weight=REPEAT_WEIGHT, phase_weight=PHASE_WEIGHT,
    )  # fmt: skip
    return Stage("detector", 0.12, small_hw, small_pairs, descriptor_weight=0.0), joint, finish


LARGE_WIDTHS = NetworkConfig((64, 64, 128, 192), 256, descriptor_decoder_dim=128)
"""Twice the operations of `cpu`."""

CPU_WIDTHS = NetworkConfig((32, 64, 96, 160), 192, descriptor_decoder_dim=128)
"""Half the operations of the paper's network; wide at low resolution, where width is cheap."""

SMALL_WIDTHS = NetworkConfig((8, 16, 48, 64), 128, descriptor_decoder_dim=64)
"""A seventh of `cpu`'s operations, and a fifth of its time on a CPU (`benchmarks/widths.py`)."""

_CPU = Preset(
    "cpu", CPU_WIDTHS, _stages((160, 160), (160, 160), 6, 6), minutes=150, learning_rate=8e-3,
    warm_up_steps=300, points=72, benchmark_every=5000,
)  # fmt: skip

PRESETS: Mapping[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "large", LARGE_WIDTHS, _stages((160, 160), (160, 160), 40, 40), minutes=30,
            learning_rate=8e-3, warm_up_steps=300, points=96,
        ),
        replace(_CPU, name="small", network=SMALL_WIDTHS),
        _CPU,
        Preset(
            "smoke",
            NetworkConfig((8, 8, 16, 16), 32, descriptor_decoder_dim=32),
            (
                Stage("detector", 0.4, (64, 64), 2, descriptor_weight=0.0),
                Stage("joint", 0.3, (64, 64), 2),
                Stage("finish", 0.3, (96, 96), 2, repeat_weight=0.5),
            ),
            steps=20, warm_up_steps=5, points=32, benchmark_pairs=2,
        ),
    )
}  # fmt: skip
"""`large` for a GPU; `small` and `cpu` for two cores and an evening; `smoke` is a quick test."""


def find_preset(name: PresetName) -> Preset:
    """The preset of a name; ConfigError if there is none."""
    check_choice("preset", name, PRESETS)
    return PRESETS[name]


CONTINUATION_RATE = 0.5
"""Peak learning rate of a run that starts from another run, relative to the first run's."""

CONTINUATION_FROZEN = 1
"""Encoder blocks that such a run freezes. The first block has a receptive field of 5 px. Freezing
the second too lowers a step from 310 to 177 ms but learns little (docs/training-log.md)."""


def continuation_preset(preset: Preset) -> Preset:
    """Adjust a recipe to a run that starts from another run's network.

    Stages without descriptors are left out, because descriptors would drift in them. The first
    block is frozen, and the repeatability loss is on in all stages. The learning rate is lower,
    because the rise after a restart undoes part of what was learnt.
    """
    kept = [stage for stage in preset.stages if stage.descriptor_weight > 0] or preset.stages
    total = sum(stage.share for stage in kept)
    repeat_weight = max(stage.repeat_weight for stage in kept)
    stages = tuple(
        replace(stage, share=stage.share / total, repeat_weight=repeat_weight) for stage in kept
    )
    rate = CONTINUATION_RATE * preset.learning_rate
    return replace(preset, stages=stages, learning_rate=rate, frozen_blocks=CONTINUATION_FROZEN)


ADAPT = Preset(
    "adapt",
    CPU_WIDTHS,  # replaced by the checkpoint's own widths
    (
        Stage(
            "adapt", 1.0, (160, 160), 6, DESCRIPTOR_WEIGHT, temperature=0.04,
            repeat_weight=REPEAT_WEIGHT,
        ),
    ),
    minutes=20, learning_rate=2e-4, batch_norm=False,
)  # fmt: skip
"""Fine-tuning on images without labels. No batch norm: a checkpoint's norms are folded in."""

ADAPT_PHOTO_SHARE = 0.7
"""Fraction of pairs from photographs. The others are drawn scenes, whose exact corners keep the
detector from drifting."""


def adaptation_preset(network: NetworkConfig, phases: int) -> Preset:
    """The recipe of a fine-tuning run of a checkpoint that is used with `phases` cell phases."""
    weight = 0.0 if phases == 1 else PHASE_WEIGHT
    stages = tuple(replace(stage, phase_weight=weight) for stage in ADAPT.stages)
    return replace(ADAPT, network=network, stages=stages)


def adaptation_data(photos: Sequence[str], part: Literal["training", "all"]) -> DataConfig:
    """Data of a fine-tuning run: photographs from folders, mixed with drawn scenes."""
    return DataConfig(photos=tuple(photos), photo_share=ADAPT_PHOTO_SHARE, part=part)
