"""Recipes and data of the learned matcher's training. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Self

from tiepoint.architecture import CELL_PX
from tiepoint.checks import check_choice, check_positive, check_whole, check_within
from tiepoint.errors import ConfigError
from tiepoint.images.photographs import PARTS, Part
from tiepoint.matching.learned.architecture import MatcherConfig
from tiepoint.training.scenes.settings import DataConfig, GroupGeometry, Photometry
from tiepoint.training.schedule import MAX_COUNT, AnyStage, Schedule, check_stages, with_tuples

VIEWS = 4
"""Views per scene, any two of which are a pair: drawing scenes costs most."""

BANK_SHARE = 0.25
"""Fraction of a budget in minutes that goes to drawing scenes and detecting in them."""

FLAT_MIX = (("leaves", 0.5), ("shapes", 0.1), ("glyphs", 0.15), ("repeats", 0.25))
"""Drawn kinds of flat scenes and their shares."""


@dataclass(frozen=True)
class MatcherData:
    """Everything that decides the features, apart from the checkpoint, a seed and an index.

    Attributes:
        small_hw, large_hw: Range of the views' (height, width), px; each scene has one size.
        portrait_share: Share of scenes whose height and width are swapped, 0..1.
        two_camera_share: Share of scenes with depth, parallax and occlusion, 0..1.
        photos: Folders of photographs; empty for drawn scenes only.
        part: Part of these photographs; see `tiepoint.images.photographs.part_of`.
        photo_share: Share of flat scenes, and of surfaces of the others, that are photographs.
        geometry: Limits of the difference between views.
        photometry: Limits of the light and camera of a view.
        nms_radii: Each scene has one of these NMS radii, px; empty takes the checkpoint's own and
            one that is 2 px larger.
        max_keypoints: Maximum number of keypoints per view, best first.
        threshold: Score that a keypoint must exceed; the checkpoint's noise floor applies too.
    """

    small_hw: tuple[int, int] = (240, 320)
    large_hw: tuple[int, int] = (480, 640)
    portrait_share: float = 0.2
    two_camera_share: float = 0.5
    photos: tuple[str, ...] = ()
    part: Part = "training"
    photo_share: float = 0.5
    geometry: GroupGeometry = field(default_factory=GroupGeometry)
    photometry: Photometry = field(default_factory=Photometry)
    nms_radii: tuple[int, ...] = ()
    max_keypoints: int = 1000
    threshold: float = 0.0005

    def __post_init__(self) -> None:
        for name in ("small_hw", "large_hw"):
            size = getattr(self, name)
            if len(size) != 2 or any(type(s) is not int or s % CELL_PX for s in size):
                raise ConfigError(f"{name} is {size}, expected two multiples of {CELL_PX} px")
            for side in size:
                check_whole(name, side, minimum=64, maximum=4096, unit="px")
        if any(s > t for s, t in zip(self.small_hw, self.large_hw, strict=True)):
            raise ConfigError(f"small_hw {self.small_hw} is larger than large_hw {self.large_hw}")
        for name in ("portrait_share", "two_camera_share", "photo_share"):
            check_within(name, getattr(self, name), 0, 1, "a share")
        check_choice("part", self.part, PARTS)
        check_within("threshold", self.threshold, 0, 1, "a probability")
        check_whole("max_keypoints", self.max_keypoints, minimum=16, maximum=8192, unit="keypoints")
        for radius in self.nms_radii:
            check_whole("nms_radii", radius, minimum=0, maximum=64, unit="px")

    def of_scenes(self, size_hw: tuple[int, int]) -> DataConfig:
        """Settings of the scene generator for views of one size."""
        return DataConfig(
            size_hw=size_hw, mix=FLAT_MIX, photos=self.photos, part=self.part,
            photo_share=self.photo_share, photometry=self.photometry, bank=1, reuse=1,
        )  # fmt: skip

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild from `dataclasses.asdict`, also after it was stored as JSON."""
        values = with_tuples(values)
        geometry, light = GroupGeometry(**values["geometry"]), Photometry(**values["photometry"])
        return cls(**{**values, "geometry": geometry, "photometry": light})


@dataclass(frozen=True)
class MatcherStage:
    """A part of a run.

    Attributes:
        share: Fraction of the run's budget; the fractions of a run sum to 1.
        counts: Numbers of keypoints per image; each step has one of them, all equally likely.
        step_keypoints: Number of keypoints per step and side. The fewer per image, the more pairs.
    """

    name: str = "match"
    share: float = 1.0
    counts: tuple[int, ...] = (128, 192, 256, 384, 512, 768, 1000)
    step_keypoints: int = 4096

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError(f"share is {self.share!r}, expected a fraction of the budget in 0..1")
        if not self.counts:
            raise ConfigError("counts is empty, expected at least one number of keypoints")
        for count in self.counts:
            check_whole("counts", count, minimum=8, maximum=8192, unit="keypoints")
        check_whole(
            "step_keypoints", self.step_keypoints, minimum=max(self.counts), maximum=MAX_COUNT,
            unit="keypoints per step; at least the largest of counts",
        )  # fmt: skip


@dataclass(frozen=True)
class MatcherPreset(Schedule):
    """A recipe of the matcher. Together with data, checkpoint and seed it determines a run.

    Attributes:
        scenes: Number of scenes in the bank; with a budget in minutes the maximum number.
        held_out: Number of scenes that are not trained on, from which held-out pairs come.
        unrelated: Share of pairs whose images show different scenes, 0..1.
        dropped: Largest share of the keypoints that are left out, 0..1; uniform below it.
        spurious: Largest share of keypoints at random positions, 0..1; uniform below it.
        jitter_px: Standard deviation of the noise of the positions.
        unmatchable_weight: Weight of the loss of keypoints without a match, 0..1; the loss of
            matches has the rest.
    """

    name: str
    network: MatcherConfig
    stages: tuple[MatcherStage, ...] = (MatcherStage(),)
    scenes: int = field(default=4000, kw_only=True)
    held_out: int = field(default=48, kw_only=True)
    unrelated: float = field(default=0.1, kw_only=True)
    dropped: float = field(default=0.4, kw_only=True)
    spurious: float = field(default=0.15, kw_only=True)
    jitter_px: float = field(default=0.3, kw_only=True)
    unmatchable_weight: float = field(default=0.5, kw_only=True)

    def __post_init__(self) -> None:
        self.check_schedule()
        check_whole("scenes", self.scenes, minimum=2, maximum=MAX_COUNT, unit="scenes")
        check_whole("held_out", self.held_out, minimum=2, maximum=10_000, unit="scenes")
        for name in ("unrelated", "spurious", "unmatchable_weight"):
            check_within(name, getattr(self, name), 0, 1, "a share")
        check_within("dropped", self.dropped, 0, 0.9, "a share")
        check_within("jitter_px", self.jitter_px, 0, 10, "px")

    @property
    def parts(self) -> Sequence[AnyStage]:
        """The stages."""
        return self.stages

    def same_recipe(self, other: MatcherPreset) -> bool:
        """Whether two recipes differ in nothing but the budget."""
        return self == replace(
            other, minutes=self.minutes, steps=self.steps, stage_steps=self.stage_steps
        )

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """See `Schedule.from_json`."""
        values = with_tuples(values)
        stages = values["stages"]
        check_stages(stages, [f.name for f in fields(MatcherStage)])
        network = MatcherConfig(**values["network"])
        return cls(
            **{**values, "network": network, "stages": tuple(MatcherStage(**s) for s in stages)}
        )


MatcherPresetName = Literal["cpu", "gpu", "smoke"]

FEW = MatcherStage("few", 0.7, counts=(128, 192, 256, 384))
MANY = MatcherStage("many", 0.3, counts=(256, 512, 768, 1000))
"""A pair of 1,000 keypoints costs ten times as much as one of 256, and teaches hardly more."""

MATCHER_PRESETS: Mapping[str, MatcherPreset] = {
    preset.name: preset
    for preset in (
        MatcherPreset(
            "cpu", MatcherConfig(), (FEW, MANY), minutes=120, learning_rate=8e-4,
            warm_up_steps=300, benchmark_every=1500,
        ),
        MatcherPreset(
            "gpu", MatcherConfig(), (MatcherStage(step_keypoints=16_384),), minutes=40,
            learning_rate=7e-4, warm_up_steps=300, benchmark_every=3000, scenes=12_000,
        ),
        MatcherPreset(
            "smoke", MatcherConfig(width=32, heads=1, layers=2),
            (MatcherStage(counts=(64, 96), step_keypoints=384),), steps=20,
            learning_rate=2e-3, warm_up_steps=5, benchmark_every=1000, scenes=4, held_out=2,
        ),
    )
}  # fmt: skip
"""`cpu` for two cores and an evening; `gpu` for a GPU with many cores; `smoke` is a quick test."""

SMOKE_DATA = MatcherData(small_hw=(96, 128), large_hw=(96, 128), max_keypoints=160)
"""Data of the preset `smoke`."""


def find_matcher_preset(
    name: MatcherPresetName, descriptor_length: int, width: int | None, layers: int | None
) -> MatcherPreset:
    """The preset of a name for descriptors of some length, with a width and a depth if given.

    Raises:
        ConfigError: An unknown name, or sizes that make no network.
    """
    check_choice("preset", name, MATCHER_PRESETS)
    preset = MATCHER_PRESETS[name]
    network = replace(preset.network, descriptor_length=descriptor_length)
    if width is not None:
        network = replace(network, width=width)
    if layers is not None:
        network = replace(network, layers=layers)
    return replace(preset, network=network)


def check_seed(seed: int) -> None:
    """Raise ConfigError for a negative seed, or one beyond 63 bits."""
    check_whole("seed", seed, minimum=0, maximum=2**63 - 1, unit="a seed")


def check_minutes(minutes: float | None) -> None:
    """Raise ConfigError for a budget that is not above 0."""
    if minutes is not None:
        check_positive("minutes", minutes, finite=True)
