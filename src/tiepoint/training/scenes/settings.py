"""What decides the training data: sizes, mix, geometry, photometry. Light: the CLI reads it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tiepoint.architecture import CELL_PX
from tiepoint.errors import ConfigError
from tiepoint.images.photographs import PARTS, Part

KINDS = ("leaves", "shapes", "glyphs", "repeats", "boxes", "photo")
"""Kinds of scenes; `photo` needs photographs, the others are drawn."""

RASTER_PER_PX = 2.0
"""Sheets are drawn with so many px per px of a view at scale 1, then warped and averaged."""


@dataclass(frozen=True)
class Geometry:
    """How two views of a pair may differ.

    Attributes:
        scale: Relative scale, log-uniform between these. A detector looks at several sizes of an
            image, so the network itself need not bridge more.
        common_scale: Where most of them lie.
        common_share: The share that lies there, 0..1.
        roll_deg: Standard deviation of the relative turn in the image plane, cut at three.
        tilt_deg: Largest angle between the two viewing directions.
        min_overlap: Smallest common view: the larger of its shares in both images.
        own_tilt_deg: Largest tilt of view A itself against a flat sheet.
        own_roll_deg: Standard deviation of view A's turn; drawn scenes also get any angle.
    """

    scale: tuple[float, float] = (0.5, 2.0)
    common_scale: tuple[float, float] = (0.7, 1.43)
    common_share: float = 0.6
    roll_deg: float = 60.0
    tilt_deg: float = 58.0
    min_overlap: float = 0.4
    own_tilt_deg: float = 25.0
    own_roll_deg: float = 12.0

    def __post_init__(self) -> None:
        low, high = self.scale
        inner_low, inner_high = self.common_scale
        if not 0 < low <= inner_low < inner_high <= high:
            raise ConfigError(
                f"scale is {self.scale} with common_scale {self.common_scale}, expected "
                "0 < scale[0] <= common_scale[0] < common_scale[1] <= scale[1]"
            )
        for name in ("common_share", "min_overlap"):
            _require(name, getattr(self, name), 0, 1)
        for name in ("tilt_deg", "own_tilt_deg"):
            _require(name, getattr(self, name), 0, 70)
        for name in ("roll_deg", "own_roll_deg"):
            _require(name, getattr(self, name), 0, 180)


@dataclass(frozen=True)
class Photometry:
    """What may happen to the light and the camera of a view; greys are in 0..1.

    Attributes:
        gamma: Log-uniform in 1/gamma..gamma.
        contrast: Log-uniform between these, around the image's mean.
        bias: Largest shift of the grey value.
        shading: Largest relative change of the light across the view.
        shadow, motion, rescale, patches, pepper, jpeg: How often each happens, 0..1.
        vignette: Largest loss of light in the corners.
        blur_px: Largest standard deviation of the blur, px.
        motion_px: Longest motion blur, px.
        noise: Largest standard deviation of the Gaussian noise.
        jpeg_quality: Lowest quality of the 8x8 quantisation; the highest is 95.
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
            _require(name, getattr(self, name), 0, 1)
        for name in ("bias", "shading", "vignette", "noise"):
            _require(name, getattr(self, name), 0, 0.9)
        _require("gamma", self.gamma, 1, 10)
        _require("contrast[0]", self.contrast[0], 0.01, 1)
        _require("contrast[1]", self.contrast[1], 1, 10)
        _require("blur_px", self.blur_px, 0, 20)
        _require("motion_px", self.motion_px, 0, 30)
        _require("jpeg_quality", self.jpeg_quality, 1, 95)


@dataclass(frozen=True)
class DataConfig:
    """Everything that decides the pairs apart from a seed and an index.

    Attributes:
        size_hw: (height, width) of the views in px, whole cells of 8.
        mix: (kind, share) of the drawn kinds; shares are brought to a sum of 1.
        photos: Folders with photographs; empty for generated scenes alone.
        part: Which photographs of these folders; see `tiepoint.images.photographs.part_of`.
        photo_share: Share of pairs that show a photograph, when there are photographs.
        geometry, photometry: Ranges of the differences between views.
        bank: Scenes kept drawn; a batch must not be larger, lest two pairs share a scene.
        reuse: Pairs made from each scene before it is drawn anew.
        min_contrast: Corners whose rings of 2 and 4 px range over less are ignored, grey 0..1.
        cover_px: A corner is visible if nothing covers it nearer than this.
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
            not isinstance(side, int) or side < 64 or side % CELL_PX for side in self.size_hw
        ):
            raise ConfigError(
                f"size_hw is {self.size_hw}, expected (height, width) of at least 64 px each, "
                f"multiples of {CELL_PX}"
            )
        self._check_mix()
        if self.part not in PARTS:
            raise ConfigError(f"part is {self.part!r}, expected one of {', '.join(PARTS)}")
        _require("photo_share", self.photo_share, 0, 1)
        _require("min_contrast", self.min_contrast, 0, 1)
        _require("cover_px", self.cover_px, 0, 4)
        for name in ("bank", "reuse"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} is {value!r}, expected a whole number >= 1")

    def _check_mix(self) -> None:
        drawn = [kind for kind in KINDS if kind != "photo"]
        for kind, share in self.mix:
            if kind not in drawn:
                raise ConfigError(
                    f"mix names {kind!r}, expected kinds among {', '.join(drawn)}; photographs "
                    "join by photos and photo_share"
                )
            if not (math.isfinite(share) and share >= 0):
                raise ConfigError(f"mix gives {kind} the share {share}, expected one of at least 0")
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


def _require(name: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise ConfigError(f"{name} is {value}, expected a number in {low}..{high}")
