"""Settings that decide the training data. Imports nothing heavy, because the CLI reads it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tiepoint.architecture import CELL_PX
from tiepoint.checks import check_choice, check_positive, check_whole, check_within
from tiepoint.errors import ConfigError
from tiepoint.images.photographs import PARTS, Part

KINDS = ("leaves", "shapes", "glyphs", "repeats", "boxes", "photo")
"""Kinds of scenes; `photo` needs photographs, the others are drawn."""

RASTER_PER_PX = 2.0
"""Resolution of sheets: px of the sheet per px of a view at scale 1, which averages them."""


@dataclass(frozen=True)
class Geometry:
    """Limits of the difference between the two views of a pair.

    Attributes:
        scale: Range of the relative scale. A detector runs at several sizes of an image, so the
            network itself need not bridge a wider range.
        common_scale: Range of most relative scales; log-uniform inside and outside it.
        common_share: Share of relative scales inside `common_scale`, 0..1.
        roll_deg: Standard deviation of the relative in-plane rotation, clipped at three of them.
        tilt_deg: Largest angle between the two viewing directions.
        min_overlap: Smallest common view: the larger of its shares in both images, 0..1.
        own_tilt_deg: Largest tilt of view A relative to a flat sheet.
        own_roll_deg: Standard deviation of the in-plane rotation of view A. Drawn scenes have
            no upright, so part of them are rotated by any angle.
        shift_share: Share of the pairs of flat scenes whose views differ by a shift alone, 0..1.
            Near-identical repeats then differ by their surroundings only, and both views see the
            same content in other places of the network's cells.
    """

    scale: tuple[float, float] = (0.5, 2.0)
    common_scale: tuple[float, float] = (0.7, 1.43)
    common_share: float = 0.6
    roll_deg: float = 60.0
    tilt_deg: float = 58.0
    min_overlap: float = 0.4
    own_tilt_deg: float = 25.0
    own_roll_deg: float = 12.0
    shift_share: float = 0.0

    def __post_init__(self) -> None:
        low, high = self.scale
        inner_low, inner_high = self.common_scale
        if not 0 < low <= inner_low < inner_high <= high:
            raise ConfigError(
                f"scale is {self.scale} with common_scale {self.common_scale}, expected "
                "0 < scale[0] <= common_scale[0] < common_scale[1] <= scale[1]"
            )
        for names, high, unit in (
            (("common_share", "min_overlap", "shift_share"), 1, "a share"),
            (("tilt_deg", "own_tilt_deg"), 70, "degrees"),
            (("roll_deg", "own_roll_deg"), 180, "degrees"),
        ):
            for name in names:
                check_within(name, getattr(self, name), 0, high, unit)


@dataclass(frozen=True)
class GroupGeometry:
    """Limits of the difference between any two views of a scene with several.

    Attributes:
        scale: Largest relative scale; the smallest is its inverse.
        tilt_deg: Largest angle between two viewing directions.
        roll_deg: Largest relative in-plane rotation.
        shift: Largest shift between two views, relative to their size, 0..1.
        min_overlap: Smallest common view: the larger of its shares in both images, 0..1.
    """

    scale: float = 2.5
    tilt_deg: float = 60.0
    roll_deg: float = 25.0
    shift: float = 0.9
    min_overlap: float = 0.1

    def __post_init__(self) -> None:
        check_positive("scale", self.scale, finite=True)
        if self.scale < 1:
            raise ConfigError(f"scale is {self.scale}, expected 1 or more")
        check_within("tilt_deg", self.tilt_deg, 0, 120, "degrees")
        check_within("roll_deg", self.roll_deg, 0, 360, "degrees")
        for name in ("shift", "min_overlap"):
            check_within(name, getattr(self, name), 0, 1, "a share")


@dataclass(frozen=True)
class Photometry:
    """Limits of the light and camera of a view; grey values are in 0..1.

    Attributes:
        gamma: Largest exponent of the tone curve; log-uniform in 1/gamma..gamma.
        contrast: Range of the factor around the mean of the image; log-uniform.
        bias: Largest shift of the grey value.
        shading: Largest relative change of the light across the view.
        shadow, motion, rescale, patches, pepper, jpeg: Probability of each effect, 0..1.
        vignette: Largest relative loss of light in the corners.
        blur_px: Largest standard deviation of the blur, px.
        motion_px: Longest motion blur, px.
        noise: Largest standard deviation of the Gaussian noise.
        jpeg_quality: Lowest JPEG quality; the highest is 95.
    """

    gamma: float = 2.0
    contrast: tuple[float, float] = (0.3, 1.8)
    bias: float = 0.15
    shading: float = 0.5
    shadow: float = 0.2
    vignette: float = 0.5
    blur_px: float = 1.8
    motion: float = 0.12
    motion_px: float = 7.0
    rescale: float = 0.12
    patches: float = 0.2
    noise: float = 0.05
    pepper: float = 0.05
    jpeg: float = 0.5
    jpeg_quality: int = 15

    def __post_init__(self) -> None:
        for name in ("shadow", "motion", "rescale", "patches", "pepper", "jpeg"):
            check_within(name, getattr(self, name), 0, 1, "a probability")
        for name in ("bias", "shading", "vignette", "noise"):
            check_within(name, getattr(self, name), 0, 0.9, "a number")
        check_within("gamma", self.gamma, 1, 10, "a number")
        check_within("contrast[0]", self.contrast[0], 0.01, 1, "a number")
        check_within("contrast[1]", self.contrast[1], 1, 10, "a number")
        check_within("blur_px", self.blur_px, 0, 20, "px")
        check_within("motion_px", self.motion_px, 0, 30, "px")
        check_within("jpeg_quality", self.jpeg_quality, 1, 95, "a JPEG quality")


@dataclass(frozen=True)
class DataConfig:
    """Everything that decides the training pairs, apart from a seed and an index.

    Attributes:
        size_hw: (height, width) of the views in px, multiples of 8.
        mix: (kind, share) of the drawn kinds; shares are normalised to a sum of 1.
        photos: Folders of photographs; empty for drawn scenes only.
        part: Part of these photographs; see `tiepoint.images.photographs.part_of`.
        photo_share: Share of pairs that show a photograph, if there are photographs, 0..1.
        geometry: Limits of the difference between views.
        photometry: Limits of the light and camera of a view.
        bank: Number of scenes that are kept; at least the batch size, because two pairs of a
            batch must not share a scene.
        reuse: Number of pairs made from each scene before it is replaced.
        min_contrast: Least grey range on rings of 2 and 4 px around a corner, 0..1. Corners
            below it are ignored.
        cover_px: Least distance from a visible corner to anything that covers its shape.
    """

    size_hw: tuple[int, int] = (160, 160)
    mix: tuple[tuple[str, float], ...] = (
        ("leaves", 0.46),
        ("shapes", 0.08),
        ("glyphs", 0.11),
        ("repeats", 0.10),
        ("boxes", 0.25),
    )
    photos: tuple[str, ...] = ()
    part: Part = "training"
    photo_share: float = 0.4
    geometry: Geometry = field(default_factory=Geometry)
    photometry: Photometry = field(default_factory=Photometry)
    bank: int = 128
    reuse: int = 20
    min_contrast: float = 0.06
    cover_px: float = 1.5

    def __post_init__(self) -> None:
        if len(self.size_hw) != 2 or any(
            not isinstance(side, int) or not 64 <= side <= 8192 or side % CELL_PX
            for side in self.size_hw
        ):
            raise ConfigError(
                f"size_hw is {self.size_hw}, expected (height, width) of 64 to 8192 px each, "
                f"multiples of {CELL_PX}"
            )
        self._check_mix()
        check_choice("part", self.part, PARTS)
        check_within("photo_share", self.photo_share, 0, 1, "a share")
        check_within("min_contrast", self.min_contrast, 0, 1, "a grey range")
        check_within("cover_px", self.cover_px, 0, 4, "px")
        check_whole("bank", self.bank, minimum=1, maximum=1_000_000, unit="scenes")
        check_whole("reuse", self.reuse, minimum=1, maximum=1_000_000, unit="pairs")

    def _check_mix(self) -> None:
        drawn = [kind for kind in KINDS if kind != "photo"]  # photographs come from `photos`
        for kind, share in self.mix:
            check_choice("mix", kind, drawn)
            if not (math.isfinite(share) and share >= 0):
                raise ConfigError(f"mix gives {kind} the share {share}, expected a number >= 0")
        only_photos = bool(self.photos) and self.photo_share == 1
        if sum(share for _, share in self.mix) <= 0 and not only_photos:
            raise ConfigError("mix is empty, expected at least one kind with a share above 0")

    def shares(self) -> dict[str, float]:
        """Kind -> share of the pairs, photographs included; sums to 1."""
        photo = self.photo_share if self.photos else 0.0
        total = sum(share for _, share in self.mix) or 1.0
        shares = dict.fromkeys(KINDS, 0.0)
        for kind, share in self.mix:
            shares[kind] += (1 - photo) * share / total
        shares["photo"] = photo
        return {kind: share for kind, share in shares.items() if share > 0}


TRAINING_DATA = DataConfig(geometry=Geometry(shift_share=0.15))
"""Data of new runs. Manifests of older ones have no shifted pairs, which is the class's default."""
