"""Recipes with a name: widths, sizes, stages and budget. Light: the command line reads it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import accumulate
from typing import Any

from tiepoint.architecture import CELL_PX, NetworkConfig
from tiepoint.errors import ConfigError

PYRAMID = (1.0, 0.6)
"""Scales of the checkpoints that training makes. The second costs a third more work, and brings
together images that differ in zoom (docs/training-log.md)."""


@dataclass(frozen=True)
class Stage:
    """A part of a run with losses and images of its own.

    Attributes:
        name: For logs.
        share: Of the run's budget; the shares of a run sum to 1.
        size_hw: (height, width) of the training images, px, multiples of 8.
        pairs: Pairs per step.
        descriptor_weight: Of the descriptor loss beside the detector's; 0 leaves that head out.
        temperature: Of the descriptor loss, in cosines.
        repeat_weight: Of the repeatability loss; 0 leaves it out.
        point_cost: A point that earns less by being found again loses, 0..1.
        teacher_weight: Of what a larger network answers, in a run that has one.
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

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError(f"share is {self.share!r}, expected a part of the budget in 0..1")
        if len(self.size_hw) != 2 or any(s < CELL_PX or s % CELL_PX for s in self.size_hw):
            raise ConfigError(f"size_hw is {self.size_hw}, expected two multiples of {CELL_PX} px")
        if self.pairs < 1:
            raise ConfigError(f"pairs is {self.pairs!r}, expected at least 1 per step")
        if not self.temperature > 0:
            raise ConfigError(f"temperature is {self.temperature!r}, expected more than 0")


@dataclass(frozen=True)
class Preset:
    """Everything that decides a run but its data, its seed and its budget.

    Attributes:
        name: For logs and manifests.
        network: Widths.
        stages: In order.
        minutes: Budget unless another is given; None where `steps` is the budget.
        steps: Likewise.
        stage_steps: Likewise, steps of each stage: how a run is repeated that had another budget.
        learning_rate: Highest, reached after `warm_up_steps`; falls as a cosine from there to
            `final_rate` of it at the end of the budget.
        weight_decay: AdamW's, on the convolutions' weights.
        average: The averaged network keeps this much of itself per step.
        clip: Largest norm of the gradient.
        points: Wanted of each pair by the descriptor loss; satellites come on top.
        batch_norm: False for fine-tuning a folded checkpoint.
        frozen_blocks: So many encoder blocks, from the first one, are not trained.
        benchmark_every: Steps between held-out benchmarks.
        benchmark_pairs: Pairs in each.
        bf16: Convolutions in bfloat16.
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
        if not self.stages or not math.isclose(sum(stage.share for stage in self.stages), 1):
            raise ConfigError(
                f"preset {self.name!r}: the stages' shares sum to "
                f"{sum(stage.share for stage in self.stages)}, expected 1"
            )
        given = [self.minutes, self.steps, self.stage_steps]
        if sum(budget is not None for budget in given) != 1:
            raise ConfigError(
                f"preset {self.name!r}: minutes, steps and stage_steps are {given}, expected one "
                "of them and None for the others"
            )
        if self.stage_steps is not None and len(self.stage_steps) != len(self.stages):
            raise ConfigError(
                f"stage_steps has {len(self.stage_steps)} numbers, expected one for each of "
                f"{len(self.stages)} stages"
            )
        if not 0 <= self.frozen_blocks <= len(self.network.encoder_hidden_sizes):
            raise ConfigError(f"frozen_blocks is {self.frozen_blocks!r}, expected 0..4")
        for budget in self.stage_steps or (self.minutes or self.steps or 0,):
            if not budget > 0 or not math.isfinite(budget):
                raise ConfigError(
                    f"the budget is {budget!r}, expected more than 0 minutes or steps"
                )

    def done(self, step: int, seconds: float) -> float:
        """Share of the budget spent after so many steps and seconds, 0..1."""
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
        """The stage's number when so much of the budget, 0..1, is spent."""
        ends = list(accumulate(stage.share for stage in self.stages))
        return min(sum(done >= end - 1e-9 for end in ends), len(self.stages) - 1)

    def rate_at(self, done: float, step: int) -> float:
        """The learning rate when so much of the budget is spent, after so many steps."""
        warm = min(1.0, (step + 1) / max(1, self.warm_up_steps))
        cosine = (1 + math.cos(math.pi * min(1.0, done))) / 2
        return self.learning_rate * warm * (self.final_rate + (1 - self.final_rate) * cosine)

    def to_json(self) -> dict[str, Any]:
        """Plain values, as `from_json` takes them back."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Preset:
        """What `to_json` gave, also after it went through a file.

        Raises:
            ConfigError: A recipe of another version of tiepoint.
        """
        network = dict(values["network"])
        network["encoder_hidden_sizes"] = tuple(network["encoder_hidden_sizes"])
        stages = [{**stage, "size_hw": tuple(stage["size_hw"])} for stage in values["stages"]]
        unknown = {name for stage in stages for name in stage} - {f.name for f in fields(Stage)}
        if unknown:
            raise ConfigError(
                f"the recipe's stages have {', '.join(sorted(unknown))}, which this version of "
                "tiepoint does not know: check out the commit that the manifest names"
            )
        of_stages = values.get("stage_steps")
        return cls(
            **{
                **values,
                "stage_steps": None if of_stages is None else tuple(of_stages),
                "network": NetworkConfig(**network),
                "stages": tuple(Stage(**stage) for stage in stages),
            }
        )


DESCRIPTOR_WEIGHT, REPEAT_WEIGHT = 0.5, 5.0
"""Beside the detector's 1. With the descriptors' at 1.0 the share of points found again within
1 px fell from .26 to .21 when they joined, and came back no higher than .25."""


def _stages(
    small: tuple[int, int], large: tuple[int, int], pairs: int, pairs_of_large: int
) -> tuple[Stage, ...]:
    """Detector first: staged training beats joint training from the start (RDD, 2025)."""
    joint = Stage("joint", 0.58, small, pairs, descriptor_weight=DESCRIPTOR_WEIGHT,
                  temperature=0.05)  # fmt: skip
    finish = replace(
        joint,
        name="finish",
        share=0.3,
        size_hw=large,
        pairs=pairs_of_large,
        temperature=0.04,
        repeat_weight=REPEAT_WEIGHT,
    )
    return Stage("detector", 0.12, small, pairs, descriptor_weight=0.0), joint, finish


GOING_ON_RATE = 0.5
"""Learning rate of a run that starts from another's network, in parts of the first run's."""

GOING_ON_FROZEN = 1
"""Encoder blocks that such a run leaves as they are. The first looks at 5 px. With the second left
alone too a step takes 177 ms in place of 310, but little is learnt (docs/training-log.md)."""


def going_on(preset: Preset) -> Preset:
    """The recipe for a run that starts from another run's network.

    It leaves out the stages without descriptors, which would drift there, and the first block,
    asks for points that are found again all along, and keeps to a lower rate: the rise after a
    restart undoes part of what was learnt.
    """
    kept = [stage for stage in preset.stages if stage.descriptor_weight > 0] or preset.stages
    total = sum(stage.share for stage in kept)
    again = max(stage.repeat_weight for stage in kept)
    stages = tuple(replace(stage, share=stage.share / total, repeat_weight=again) for stage in kept)
    rate = GOING_ON_RATE * preset.learning_rate
    return replace(preset, stages=stages, learning_rate=rate, frozen_blocks=GOING_ON_FROZEN)


CPU_WIDTHS = NetworkConfig((32, 64, 96, 160), 192, descriptor_decoder_dim=128)
"""Half the paper's operations; wide where the image is small, which costs little time."""

SMALL_WIDTHS = NetworkConfig((8, 16, 48, 64), 128, descriptor_decoder_dim=64)
"""A seventh of `cpu`'s operations, and a fifth of its time on a CPU (`benchmarks/widths.py`)."""

PRESETS: Mapping[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "full",
            NetworkConfig(),
            _stages((240, 320), (320, 448), 64, 34),
            minutes=30,
            warm_up_steps=300,
            points=128,
        ),
        Preset(
            "small",
            SMALL_WIDTHS,
            _stages((160, 160), (160, 160), 6, 6),
            minutes=150,
            learning_rate=8e-3,
            warm_up_steps=300,
            points=72,
            benchmark_every=5000,
        ),
        Preset(
            "cpu",
            CPU_WIDTHS,
            _stages((160, 160), (160, 160), 6, 6),
            minutes=150,
            learning_rate=8e-3,
            warm_up_steps=300,
            points=72,
            benchmark_every=5000,
        ),
        Preset(
            "smoke",
            NetworkConfig((8, 8, 16, 16), 32, descriptor_decoder_dim=32),
            (
                Stage("detector", 0.4, (64, 64), 2, descriptor_weight=0.0),
                Stage("joint", 0.3, (64, 64), 2),
                Stage("finish", 0.3, (96, 96), 2, repeat_weight=0.5),
            ),
            steps=20,
            warm_up_steps=5,
            points=32,
            benchmark_pairs=2,
        ),
    )
}
"""`full` for a GPU; `small` and `cpu` for two cores and an evening; `smoke` shows that it runs."""


ADAPT = Preset(
    "adapt",
    CPU_WIDTHS,  # replaced by the checkpoint's own widths
    (
        Stage(
            "adapt",
            1.0,
            (160, 160),
            6,
            descriptor_weight=DESCRIPTOR_WEIGHT,
            temperature=0.04,
            repeat_weight=REPEAT_WEIGHT,
        ),
    ),
    minutes=20,
    learning_rate=2e-4,
    batch_norm=False,
)
"""Fine-tuning on images without labels; no norm, since a checkpoint's norms are folded in."""
