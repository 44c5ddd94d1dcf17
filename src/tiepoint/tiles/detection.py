"""Detection in images of any size, tile by tile: the keypoints of the image as a whole.

Each tile is seen with a margin that covers the network's receptive field and non-maximum
suppression, so its own keypoints are those of the whole image, up to round-off. The best k are
taken of all tiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, Unpack, get_args

import numpy as np
from numpy.typing import NDArray

from tiepoint.architecture import CELL_PX
from tiepoint.checks import check_choice, check_whole
from tiepoint.config import DetectionConfig, DetectionOptions
from tiepoint.detector import Detector
from tiepoint.errors import ConfigError, EngineError, ImageError
from tiepoint.features import Features, Provenance
from tiepoint.geometry import Placement, SizeHW
from tiepoint.images.arrays import ChannelOrder
from tiepoint.images.opening import open_windows
from tiepoint.images.planes import Channels
from tiepoint.images.windows import Window, WindowSource, tiles
from tiepoint.keypoints.request import Request
from tiepoint.keypoints.result import Keypoints, in_image, merge_scales
from tiepoint.network.windowed import WindowedInput
from tiepoint.streaming import read_ahead
from tiepoint.tiles.best import BestKeypoints
from tiepoint.tiles.margins import margin_px, within_border

Float32 = NDArray[np.float32]
OnDamage = Literal["raise", "skip"]
Progress = Callable[[int, int], None]

TILE_PX = 1024
"""Side of a tile, px of the input; with its margin it takes about 0.4 GB in the network."""

LEAST_TILE_PX, MOST_TILE_PX = 64, 8192

LARGE_PX = 250_000_000
"""Images above this many px need `max_keypoints`, or memory would grow with the image."""


@dataclass(frozen=True)
class _Task:
    """A tile at one scale."""

    tile: Window
    scale: float
    size_hw: SizeHW


class _Damaged:
    """A tile that could not be read."""


def detect_tiled(
    source: Any,
    detector: Detector | None = None,
    *,
    mask: Any = None,
    tile_px: int = TILE_PX,
    on_damage: OnDamage = "raise",
    channel_order: ChannelOrder = "rgb",
    channels: Channels = None,
    progress: Progress | None = None,
    **options: Unpack[DetectionOptions],
) -> Features:
    """Detect keypoints in an image of any size, in bounded memory.

    The result is that of a detector that sees the whole image at its native size: the same
    keypoints, with scores and positions up to round-off (in bfloat16 a few more differ). Each scale
    reads the image once; types other than 8 bits are read twice or more before, for their range of
    values.

    Args:
        source: An array or anything that is sliced like one (memory map, zarr, dask, h5py), a
            raster file (extra `geo`), an image of a microscope (extra `bio`), a `WindowSource`, or
            any other image, which is decoded whole.
        detector: None takes `Detector()`. Its own `max_side` has no effect.
        mask: Where keypoints are allowed (0: not there), of the image's size: an array or another
            source that is read in windows; None allows them everywhere.
        tile_px: Side of a tile, px of the input, a multiple of 8.
        on_damage: "raise" ends at a tile that cannot be read; "skip" goes past it, and
            `meta["damaged"]` has its (x, y, width, height) in px of the image.
        channel_order: Order of the colours in arrays.
        channels: A channel from 0 on, or several, whose mean is taken; see `open_windows`.
        progress: Called with the number of tiles that are done and of all tiles.
        options: Settings for this call, as for a call of the detector. `max_side` is None, scales
            are at most 1, and `spread` is not possible.

    Returns:
        Features, with "tile_px" in `meta`.

    Raises:
        ImageError: The image or a tile of it cannot be read.
        ConfigError: A setting that is not possible in tiles, a mask of another size, or no
            `max_keypoints` for an image above `LARGE_PX`.
        EngineError: The engine failed on a tile.
    """
    detector = detector or Detector()
    check_choice("on_damage", on_damage, get_args(OnDamage))
    check_tile(tile_px)
    request = detector.request(native(options), channel_order=channel_order)
    request = replace(request, provenance=of_channels(request.provenance, channels))
    check_detection(request.detection, detector)
    with ExitStack() as opened:
        image = opened.enter_context(open_windows(source, channel_order, channels))
        allowed = None
        if mask is not None:
            allowed = _Allowed(opened.enter_context(open_windows(mask)), image)
        _check_bounded(image, request.detection)
        run = _Run(detector, image, request, allowed, tile_px, on_damage == "skip")
        keypoints = run.keypoints(progress)
        return run.features(keypoints)


def _check_bounded(image: WindowSource, detection: DetectionConfig) -> None:
    pixels = math.prod(image.size_hw)
    if detection.max_keypoints is None and pixels > LARGE_PX:
        raise ConfigError(
            f"{image.name}: {pixels:,} px without max_keypoints; give a number of keypoints, "
            f"because above {LARGE_PX:,} px all of them may not fit into memory"
        )


def of_channels(provenance: Provenance, channels: Channels) -> Provenance:
    """A provenance whose settings have the channels, if some are chosen."""
    if channels is None:
        return provenance
    numbers = [channels] if isinstance(channels, int) else list(channels)
    return replace(provenance, settings={**provenance.settings, "channels": numbers})


class _Allowed:
    """Where a mask of the image's size allows keypoints."""

    def __init__(self, mask: WindowSource, image: WindowSource) -> None:
        self._mask, self._size_hw = mask, image.size_hw
        if tuple(mask.size_hw) != tuple(image.size_hw):
            raise ConfigError(
                f"{image.name}: its mask has (height, width) {mask.size_hw}, expected "
                f"{image.size_hw}"
            )

    def read(self, window: Window, size_hw: SizeHW) -> NDArray[np.bool_]:
        """H W of a window of the input at one of its sizes: the nearest value of the mask."""
        rows, columns = (
            ((np.arange(at.start, at.stop) + 0.5) * (old / new)).astype(np.intp)
            for at, old, new in zip(window.slices, self._size_hw, size_hw, strict=True)
        )
        top, left = int(rows[0]), int(columns[0])
        part = Window(top, left, int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left)
        pixels = self._mask.read(part).pixels
        white = pixels != 0 if pixels.ndim == 2 else (pixels != 0).any(axis=2)
        return np.asarray(white[np.ix_(rows - top, columns - left)])


class _Run:
    """One image, from its tiles to its features."""

    def __init__(
        self,
        detector: Detector,
        image: WindowSource,
        request: Request,
        allowed: _Allowed | None,
        tile_px: int,
        goes_on: bool,
    ) -> None:
        self._detector, self._image, self._request = detector, image, request
        self._allowed, self._tile_px, self._goes_on = allowed, tile_px, goes_on
        self._input = WindowedInput(image, request.processor, go_on=goes_on)
        self._damaged: set[tuple[int, int, int, int]] = set()

    def keypoints(self, progress: Progress | None) -> Keypoints[Float32]:
        """The best keypoints of all tiles at all scales, in px of the image."""
        detection, levels = self._request.detection, []
        sizes = [self._input.size_hw(scale) for scale in detection.scales]
        total, done = sum(len(tiles(size_hw, self._tile_px)) for size_hw in sizes), 0
        lowest = detection.threshold
        for scale, size_hw in zip(detection.scales, sizes, strict=True):
            best = BestKeypoints(detection.max_keypoints, lowest)
            tasks = (_Task(tile, scale, size_hw) for tile in tiles(size_hw, self._tile_px))
            work = partial(self._detect, best=best)
            for task, result in read_ahead(tasks, work, self._detector.in_flight):
                if isinstance(result, _Damaged):
                    self._damaged.add(self._in_image(task))
                else:
                    best.add(*result)
                done += 1
                if progress is not None:
                    progress(done, total)
            placement = Placement(self._image.size_hw, size_hw)
            levels.append(in_image(best.result(self._descriptor_length()), placement))
            lowest = best.lowest
        return merge_scales(levels, detection.max_keypoints)

    def features(self, keypoints: Keypoints[Float32]) -> Features:
        """The keypoints with the record of the image."""
        meta: dict[str, Any] = {"source": self._image.name, "tile_px": self._tile_px}
        if self._input.value_range is not None:
            meta["value_range"] = list(self._input.value_range)
        if self._damaged:
            meta["damaged"] = sorted([list(one) for one in self._damaged])
        return Features(
            xy=keypoints.xy,
            scores=keypoints.scores,
            descriptors=keypoints.descriptors,
            covariance=keypoints.covariance,
            size_hw=self._image.size_hw,
            meta=meta,
            provenance=self._request.provenance,
            px_per_input_px=1 / max(self._request.detection.scales),
            scales_px=keypoints.scales_px,
        )

    def _detect(
        self, task: _Task, best: BestKeypoints
    ) -> tuple[Window, Keypoints[Float32]] | _Damaged:
        """Keypoints of a tile, in px of the input at its scale."""
        detection, tile = self._request.detection, task.tile
        window = tile.grown(margin_px(detection.nms_radius), task.size_hw)
        try:
            grey, mask = self._input.read(window, task.size_hw)
            if self._allowed is not None:
                allowed = self._allowed.read(window, task.size_hw)
                mask = allowed if mask is None else mask & allowed
        except ImageError:
            if self._goes_on:
                return _Damaged()
            raise
        mask = within_border(mask, window, task.size_hw, detection.border)
        part = replace(detection, border=0, max_keypoints=None, threshold=best.lowest)
        try:
            keypoints = self._detector.in_window(grey, part, mask, tile.within(window))
        except (MemoryError, RuntimeError) as error:  # engines raise RuntimeError
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise EngineError(
                f"{self._image.name}: the engine failed on a tile of {window.width}x"
                f"{window.height} px ({reason}); if memory ran out, lower tile_px"
            ) from error
        return window, keypoints

    def _in_image(self, task: _Task) -> tuple[int, int, int, int]:
        """(x, y, width, height) of a tile in px of the image."""
        (y, bottom), (x, right) = (
            (math.floor(at.start * old / new), math.ceil(at.stop * old / new))
            for at, old, new in zip(
                task.tile.slices, self._image.size_hw, task.size_hw, strict=True
            )
        )
        return x, y, right - x, bottom - y

    def _descriptor_length(self) -> int | None:
        if not self._request.detection.descriptors:
            return None
        return self._detector.checkpoint.network.descriptor_decoder_dim


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
    if detection.spread:
        raise ConfigError("spread is not possible in tiles; leave it out")
    if max(detection.scales) > 1:
        raise ConfigError(f"scales is {detection.scales}, expected at most 1 in tiles")
    if detection.descriptors and detector.checkpoint.sampling != "exact":
        raise ConfigError(
            f"checkpoint {detector.checkpoint.name!r} stretches descriptors over the whole image, "
            "which tiles cannot; convert it to the exact rules, or leave descriptors out"
        )
