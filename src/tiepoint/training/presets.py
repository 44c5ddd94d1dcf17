"""Named training recipes: network widths, image sizes, stages and budget. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Self

from tiepoint.architecture import CELL_PX, NetworkConfig
from tiepoint.checks import check_choice, check_positive, check_whole, check_within
from tiepoint.errors import ConfigError
from tiepoint.training.scenes.settings import TRAINING_DATA, DataConfig
from tiepoint.training.schedule import MAX_COUNT, AnyStage, Schedule, check_stages, with_tuples

MAX_SIDE_PX = 8192
"""Limit of the sizes of a recipe, which may come from another's manifest."""

PresetName = Literal["gpu", "small", "cpu", "smoke"]

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
class Preset(Schedule):
    """A recipe of the detector. Together with data and seed it determines a run.

    Attributes:
        points: Number of points per pair in the descriptor loss, satellites not counted.
        batch_norm: Whether convolutions have a batch norm; False fine-tunes a folded checkpoint.
        frozen_blocks: Number of encoder blocks, from the first, that are not trained, 0..4.
        benchmark_pairs: Number of pairs of a held-out benchmark.
    """

    name: str
    network: NetworkConfig
    stages: tuple[Stage, ...]
    points: int = field(default=96, kw_only=True)
    batch_norm: bool = field(default=True, kw_only=True)
    frozen_blocks: int = field(default=0, kw_only=True)
    benchmark_pairs: int = field(default=24, kw_only=True)

    def __post_init__(self) -> None:
        self.check_schedule()
        for name, minimum in (("points", 1), ("benchmark_pairs", 0)):
            number = getattr(self, name)
            check_whole(name, number, minimum=minimum, maximum=MAX_COUNT, unit="a count")
        check_within("frozen_blocks", self.frozen_blocks, 0, 4, "a number of encoder blocks")

    @property
    def parts(self) -> Sequence[AnyStage]:
        """The stages."""
        return self.stages

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """See `Schedule.from_json`."""
        values = with_tuples(values)
        stages = values["stages"]
        check_stages(stages, [f.name for f in fields(Stage)])
        network = NetworkConfig(**values["network"])
        return cls(**{**values, "network": network, "stages": tuple(Stage(**s) for s in stages)})


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
"""Those of the bundled `large`: twice the operations of `cpu`."""

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
            "gpu", LARGE_WIDTHS, _stages((160, 160), (160, 160), 40, 40), minutes=30,
            learning_rate=8e-3, warm_up_steps=300, points=96, benchmark_every=10_000,
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
"""`gpu` for a GPU; `small` and `cpu` for two cores and an evening; `smoke` is a quick test."""


def find_preset(name: PresetName) -> Preset:
    """The preset of a name; ConfigError if there is none."""
    check_choice("preset", name, PRESETS)
    return PRESETS[name]


GPU_BANK, GPU_REUSE = 256, 80
"""For `gpu`. A GPU takes pairs faster than workers draw scenes, each of which takes 100 times as
long as the cameras of a pair. So more pairs show each scene, and they are further apart."""


def training_data(preset: Preset) -> DataConfig:
    """Scenes of a new run of a preset."""
    if preset.name != "gpu":
        return TRAINING_DATA
    return replace(TRAINING_DATA, bank=GPU_BANK, reuse=GPU_REUSE)


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
