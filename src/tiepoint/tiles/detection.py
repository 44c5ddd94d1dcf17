"""Detection in images of any size, tile by tile: the keypoints of the image as a whole.

Each tile is seen with a margin that covers the network's receptive field and non-maximum
suppression, so its own keypoints are those of the whole image, up to round-off. The best k are
taken of all tiles.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Unpack, get_args

from tiepoint.architecture import CELL_PX
from tiepoint.checks import check_choice, check_whole, shown
from tiepoint.config import DetectionConfig, DetectionOptions
from tiepoint.detector import Detector
from tiepoint.errors import ConfigError, TooManyPixelsError
from tiepoint.features import Features, Provenance
from tiepoint.images.arrays import ChannelOrder
from tiepoint.images.mask_windows import open_mask
from tiepoint.images.opening import open_windows
from tiepoint.images.planes import Channels, numbers_of
from tiepoint.images.reading import SourceImage
from tiepoint.images.windows import WindowSource
from tiepoint.tiles.records import TileRecords, made_from
from tiepoint.tiles.run import Progress, TiledRun

OnDamage = Literal["raise", "skip"]

TILE_PX = 1024
"""Side of a tile, px of the input; with its margin it takes about 0.4 GB in the network."""

LEAST_TILE_PX, MOST_TILE_PX = 64, 8192

LARGE_PX = 250_000_000
"""Images above this many px need `max_keypoints` or `mapped`, or memory would grow with them."""


@dataclass(frozen=True)
class TileSettings:
    """How an image is detected in tiles; see `detect_tiled`."""

    tile_px: int = TILE_PX
    on_damage: OnDamage = "raise"
    channels: Channels = None
    state: str | PathLike[str] | None = None
    mapped: bool = False

    def __post_init__(self) -> None:
        check_choice("on_damage", self.on_damage, get_args(OnDamage))
        check_tile(self.tile_px)
        if self.channels is not None:
            numbers_of(self.channels)
        is_path = isinstance(self.state, str | PathLike)
        if self.state is not None and not (is_path and Path(self.state).name):
            raise ConfigError(f"state is {shown(self.state)}, expected the path of a file")


def detect_tiled(
    source: Any,
    detector: Detector | None = None,
    *,
    mask: Any = None,
    tile_px: int = TILE_PX,
    on_damage: OnDamage = "raise",
    channel_order: ChannelOrder = "rgb",
    channels: Channels = None,
    state: str | PathLike[str] | None = None,
    mapped: bool = False,
    progress: Progress | None = None,
    **options: Unpack[DetectionOptions],
) -> Features:
    """Detect keypoints in an image of any size, in bounded memory.

    The result is that of a detector that sees the whole image at its native size: the same
    keypoints, with scores and positions up to round-off (in bfloat16 a few more differ). Each scale
    reads the image once; types other than 8 bits are read twice or more before, for their range of
    values. With `spread`, the network sees the image twice.

    Args:
        source: An array or anything that is sliced like one (memory map, zarr, dask, h5py), a
            raster file (extra `geo`), an image of a microscope (extra `bio`), a `WindowSource`, or
            any other image, which is decoded whole.
        detector: None takes `Detector()`. Its own `max_side` has no effect.
        mask: Where keypoints are allowed, of the image's size; `masks.allowed_by` has the rule. An
            array of any type, or another source, which is read in windows as the image is. None is
            the mask of a `SourceImage`, or allows them everywhere.
        tile_px: Side of a tile, px of the input, a multiple of 8.
        on_damage: "raise" ends at a tile that cannot be read; "skip" goes past it, and
            `meta["damaged"]` has its (x, y, width, height) in px of the image.
        channel_order: Order of the colours in arrays.
        channels: A channel from 0 on, or several, whose mean is taken; see `open_windows`.
        state: File for the tiles that are done. A call that was interrupted, or killed, resumes
            from it; the end removes it. Another image, mask, weights or settings start again.
        mapped: Without `max_keypoints`, keep all keypoints on disk: in the folder of `state`, or
            else in that of temporary files. The descriptors of the result are mapped from there,
            and saving them as .h5 takes little memory.
        progress: Called with the number of tiles that are done and of all tiles.
        options: Settings for this call, as for a call of the detector. `max_side` is None, and
            scales are at most 1.

    Returns:
        Features, with "tile_px" in `meta`.

    Raises:
        ImageError: The image, its mask or a tile of them cannot be read; the mask has another size;
            neither `max_keypoints` nor `mapped` for an image above `LARGE_PX`; or more keypoints
            than a file holds.
        ConfigError: A setting that is not possible in tiles.
        EngineError: The engine failed on a tile.
        FormatError: The state is a file of another program.
        OutputError: The disk is full, or another run is writing the state.
    """
    detector = detector or Detector()
    settings = TileSettings(tile_px, on_damage, channels, state, mapped)
    with tiled(source, detector, settings, mask, channel_order, progress, **options) as features:
        return features


@contextmanager
def tiled(
    source: Any,
    detector: Detector,
    settings: TileSettings,
    mask: Any = None,
    channel_order: ChannelOrder = "rgb",
    progress: Progress | None = None,
    **options: Unpack[DetectionOptions],
) -> Iterator[Features]:
    """As `detect_tiled`; the state stays until the end of the block, which may store the result."""
    request = detector.request(native(options), channel_order=channel_order)
    provenance = of_channels(request.provenance, settings.channels)
    request = replace(request, provenance=provenance)
    detection = request.detection
    check_detection(detection, detector)
    mask_name = None
    if mask is None and isinstance(source, SourceImage):
        mask, mask_name = source.mask, source.mask_name
    with ExitStack() as opened:
        image = opened.enter_context(open_windows(source, channel_order, settings.channels))
        allowed = None
        if mask is not None:
            allowed = opened.enter_context(open_mask(mask, image, mask_name))
        mapped = settings.mapped and detection.max_keypoints is None
        if not mapped:
            _check_bounded(image, detection)
        run = TiledRun(
            detector, image, request, allowed, settings.tile_px,
            goes_on=settings.on_damage == "skip", progress=progress,
        )  # fmt: skip
        records = None
        if settings.state is not None or mapped or detection.spread:
            decisive = made_from(
                image, source, None if allowed is None else (allowed.source, mask), provenance,
                tile_px=settings.tile_px, channel_order=channel_order, value_range=run.value_range,
            )  # fmt: skip
            records = TileRecords(settings.state, decisive)
            opened.callback(records.close)
        yield run.features(records, mapped=mapped)
        if records is not None:
            records.remove()


def _check_bounded(image: WindowSource, detection: DetectionConfig) -> None:
    pixels = math.prod(image.size_hw)
    if detection.max_keypoints is None and pixels > LARGE_PX:
        raise TooManyPixelsError(
            f"{image.name}: {pixels:,} px without max_keypoints, and above {LARGE_PX:,} px all of "
            "them may not fit into memory; give a number of keypoints, or keep them on disk: "
            "mapped=True, or on the command line -o with an .h5 file or a store of such files"
        )


def of_channels(provenance: Provenance, channels: Channels) -> Provenance:
    """A provenance whose settings have the channels, if some are chosen."""
    if channels is None:
        return provenance
    settings = {**provenance.settings, "channels": list(numbers_of(channels))}
    return replace(provenance, settings=settings)


def native(options: DetectionOptions) -> DetectionOptions:
    """The options at the image's native size; raises ConfigError for another one."""
    if options.get("max_side") is not None:
        raise ConfigError(
            f"max_side is {options['max_side']}, but tiles show an image at its native size; leave "
            "it out, or give smaller scales"
        )
    return {**options, "max_side": None}


def check_tile(tile_px: int) -> None:
    """Raise ConfigError for a side that is out of range, or that cuts cells."""
    check_whole("tile_px", tile_px, minimum=LEAST_TILE_PX, maximum=MOST_TILE_PX, unit="px")
    if tile_px % CELL_PX:
        raise ConfigError(f"tile_px is {tile_px}, expected a multiple of {CELL_PX} px")


def check_detection(detection: DetectionConfig, detector: Detector) -> None:
    """Raise ConfigError for settings that need the whole image at once."""
    if max(detection.scales) > 1:
        raise ConfigError(f"scales is {detection.scales}, expected at most 1 in tiles")
    if detection.descriptors and detector.checkpoint.sampling != "exact":
        raise ConfigError(
            f"checkpoint {detector.checkpoint.name!r} stretches descriptors over the whole image, "
            "which tiles cannot; convert it to the exact rules, or leave descriptors out"
        )
