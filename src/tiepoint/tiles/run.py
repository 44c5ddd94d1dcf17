"""One image, from its tiles to its features.

There are three ways to choose the keypoints:

- the best k: those of all tiles so far are in memory.
- all: the rows of tiles are on disk, and so are the descriptors of the result.
- spread: the heat map's pixels above the threshold are on disk. Suppression of a growing radius
  chooses k of them, and a second pass over their tiles makes the keypoints.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiepoint.config import DetectionConfig
from tiepoint.detector import Detector
from tiepoint.errors import EngineError, ImageError, reason_of
from tiepoint.features import Features
from tiepoint.geometry import Placement, SizeHW
from tiepoint.images.mask_windows import MaskWindows
from tiepoint.images.ranges import Range
from tiepoint.images.windows import Window, WindowSource, tiles
from tiepoint.keypoints.request import ImageHead, Request
from tiepoint.keypoints.result import Keypoints, in_image, merge_scales
from tiepoint.keypoints.selection import Pixels
from tiepoint.network.windowed import WindowedInput
from tiepoint.streaming import read_ahead
from tiepoint.tiles.best import BestKeypoints
from tiepoint.tiles.mapped import MOST_KEYPOINTS, mapped_keypoints
from tiepoint.tiles.margins import margin_px, within_border
from tiepoint.tiles.records import TileRecords, keypoint_rows, keypoints_of, rows_of
from tiepoint.tiles.sparse_nms import Points, SparseMap
from tiepoint.tiles.spread import PIXEL_ROWS, pixel_rows, points_of, spread_points

Float32 = NDArray[np.float32]
Rows = NDArray[Any]
Mask = NDArray[np.bool_]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Task:
    """A tile at one scale.

    Attributes:
        tile: The tile, px of the input at its scale.
        scale: The scale.
        size_hw: (height, width) of the input at that scale, px.
        key: Name of its rows.
    """

    tile: Window
    scale: float
    size_hw: SizeHW
    key: str


class TiledRun:
    """One image, from its tiles to its features.

    Args:
        detector, image, request: What detects, where, and how.
        allowed: Where keypoints are allowed; None = everywhere.
        tile_px: Side of a tile, px of the input.
        goes_on: Whether tiles that cannot be read are left out.
        progress: Called with the number of tiles that are done and of all tiles.
    """

    def __init__(
        self,
        detector: Detector,
        image: WindowSource,
        request: Request,
        allowed: MaskWindows | None,
        tile_px: int,
        *,
        goes_on: bool,
        progress: Progress | None,
    ) -> None:
        self._detector, self._image, self._request = detector, image, request
        self._allowed, self._tile_px, self._goes_on = allowed, tile_px, goes_on
        self._progress, self._done = progress, 0
        self._records: TileRecords | None = None
        self._input = WindowedInput(image, request.processor, go_on=goes_on)
        self._damaged: set[tuple[int, int, int, int]] = set()
        detection, length = request.detection, None
        if detection.descriptors:
            length = detector.checkpoint.network.descriptor_decoder_dim
        has_covariance = detection.covariance_scale is not None
        self._rows = keypoint_rows(length, covariance=has_covariance)
        sizes = [self._input.size_hw(scale) for scale in detection.scales]
        self._levels = [
            [
                Task(tile, scale, size_hw, f"{scale}/{index}")
                for index, tile in enumerate(tiles(size_hw, tile_px))
            ]
            for scale, size_hw in zip(detection.scales, sizes, strict=True)
        ]
        passes = 2 if detection.spread else 1
        self._count = passes * sum(map(len, self._levels))

    @property
    def value_range(self) -> Range | None:
        """See `WindowedInput.value_range`; other strips may have been read for it before."""
        return self._input.value_range

    def features(self, records: TileRecords | None, *, mapped: bool) -> Features:
        """The features of the image.

        Args:
            records: The tiles that are done; needed for `mapped` and for `spread`.
            mapped: Keep all keypoints on disk.
        """
        self._records = records
        if self._request.detection.spread:
            keypoints = self._spread()
        elif mapped:
            keypoints = self._all()
        else:
            keypoints = self._best()
        return self._with_record(keypoints)

    def _best(self) -> Keypoints[Float32]:
        """The best keypoints of all tiles at all scales, in px of the image."""
        detection, levels = self._request.detection, []
        lowest = detection.threshold
        for tasks in self._levels:
            best = BestKeypoints(detection.max_keypoints, lowest)
            for _, rows in self._each(tasks, partial(self._detect, best=best), self._rows):
                best.add(keypoints_of(rows))
            levels.append(self._in_image(best.result(self._rows), tasks[0]))
            lowest = best.lowest
        return merge_scales(levels, detection.max_keypoints)

    def _all(self) -> Keypoints[Float32]:
        """All keypoints of all tiles at all scales, in px of the image."""
        records, count = self._records, 0
        assert records is not None
        for tasks in self._levels:
            for _, rows in self._each(tasks, self._detect, self._rows):
                count += len(rows)
                if count > MOST_KEYPOINTS:
                    raise ImageError(
                        f"{self._image.name}: more than {MOST_KEYPOINTS:,} keypoints, which no "
                        "file holds; raise the threshold, or give max_keypoints"
                    )

        def parts() -> Iterator[Keypoints[Float32]]:
            none = np.zeros(0, self._rows)  # a tile that cannot be read has none
            for tasks in self._levels:
                for task in tasks:
                    rows = records.read(task.key, self._rows)
                    yield self._in_image(keypoints_of(none if rows is None else rows), task)

        return mapped_keypoints(parts, records.folder)

    def _spread(self) -> Keypoints[Float32]:
        """Keypoints spread evenly over the image, in px of the image."""
        records, detection, (tasks,) = self._records, self._request.detection, self._levels
        assert records is not None
        for _ in self._each(tasks, self._heat, PIXEL_ROWS):
            pass

        def read(index: int) -> Points:
            rows = records.read(tasks[index].key, PIXEL_ROWS)
            return points_of(np.zeros(0, PIXEL_ROWS) if rows is None else rows, tasks[index].tile)

        workers = self._detector.in_flight
        heat = SparseMap(tasks[0].size_hw, self._tile_px, read, workers)
        points = spread_points(heat, detection)
        best, again = BestKeypoints(detection.max_keypoints, detection.threshold), []
        chosen: dict[str, Pixels] = {}
        for task in tasks:
            inside = Pixels(*(one[_inside(points, task.tile)] for one in points[:2]))
            if len(inside.rows):
                again.append(replace(task, key=f"chosen {task.key}"))
                chosen[again[-1].key] = inside
        self._advance(len(tasks) - len(again))
        for _, rows in self._each(again, partial(self._describe, chosen=chosen), self._rows):
            best.add(keypoints_of(rows))
        return self._in_image(best.result(self._rows), tasks[0])

    def _each(
        self, tasks: Sequence[Task], work: Callable[[Task], Rows | None], dtype: np.dtype[Any]
    ) -> Iterator[tuple[Task, Rows]]:
        """The rows of each tile that can be read, those of an earlier run first."""
        records, left = self._records, []
        for task in tasks:
            is_done = records is not None and task.key in records
            rows = records.read(task.key, dtype) if records is not None and is_done else None
            if is_done and (rows is not None or self._goes_on):
                yield from self._finished(task, rows)
            else:
                left.append(task)
        for task, rows in read_ahead(left, work, self._detector.in_flight):
            if records is not None:
                records.add(task.key, rows)
            yield from self._finished(task, rows)

    def _finished(self, task: Task, rows: Rows | None) -> Iterator[tuple[Task, Rows]]:
        if rows is None:
            self._damaged.add(self._in_px_of_image(task))
        else:
            yield task, rows
        self._advance(1)

    def _advance(self, count: int) -> None:
        self._done += count
        if count and self._progress is not None:
            self._progress(self._done, self._count)

    def _detect(self, task: Task, best: BestKeypoints | None = None) -> Rows | None:
        """Keypoints of a tile, in px of the input at its scale; None if it cannot be read."""
        detection = replace(self._request.detection, max_keypoints=None)
        if best is not None:
            detection = replace(detection, threshold=best.lowest)
        return self._keypoint_rows(task, detection)

    def _describe(self, task: Task, chosen: dict[str, Pixels]) -> Rows | None:
        """Keypoints at the chosen pixels of a tile."""
        detection = replace(self._request.detection, spread=False, max_keypoints=None)
        return self._keypoint_rows(task, detection, chosen[task.key])

    def _keypoint_rows(
        self, task: Task, detection: DetectionConfig, chosen: Pixels | None = None
    ) -> Rows | None:
        window, image = self._window(task)
        if image is None:
            return None
        grey, mask = image
        if chosen is not None:
            chosen = Pixels(chosen.rows - window.top, chosen.columns - window.left)
        detection = replace(detection, border=0)  # it is in the mask
        with self._engine_errors(window):
            keypoints = self._detector.in_window(
                grey, detection, mask, task.tile.within(window), chosen
            )
        return rows_of(keypoints, window, self._rows)

    def _heat(self, task: Task) -> Rows | None:
        """Pixels of a tile above the threshold; None if it cannot be read."""
        window, image = self._window(task)
        if image is None:
            return None
        grey, mask = image
        detection, inside = self._request.detection, task.tile.within(window)
        with self._engine_errors(window):
            heat = self._detector.heat_in_window(grey, detection)
        return pixel_rows(heat[inside], None if mask is None else mask[inside], detection.min_score)

    def _window(self, task: Task) -> tuple[Window, tuple[Float32, Mask | None] | None]:
        """A tile with its margin, and its pixels and mask; None if they cannot be read."""
        detection = self._request.detection
        window = task.tile.grown(margin_px(detection.nms_radius), task.size_hw)
        try:
            grey, mask = self._input.read(window, task.size_hw)
            if self._allowed is not None:
                allowed = self._allowed.read(window, task.size_hw)
                mask = allowed if mask is None else mask & allowed
        except ImageError:
            if self._goes_on:
                return window, None
            raise
        return window, (grey, within_border(mask, window, task.size_hw, detection.border))

    @contextmanager
    def _engine_errors(self, window: Window) -> Iterator[None]:
        try:
            yield
        except (MemoryError, RuntimeError) as error:  # engines raise RuntimeError
            raise EngineError(
                f"{self._image.name}: the engine failed on a tile of {window.width}x"
                f"{window.height} px ({reason_of(error)}); if memory ran out, lower tile_px"
            ) from error

    def _in_image(self, keypoints: Keypoints[Float32], task: Task) -> Keypoints[Float32]:
        """Keypoints in px of the input at a task's scale -> in px of the image."""
        return in_image(keypoints, Placement(self._image.size_hw, task.size_hw))

    def _in_px_of_image(self, task: Task) -> tuple[int, int, int, int]:
        """(x, y, width, height) of a tile in px of the image."""
        (y, bottom), (x, right) = (
            (math.floor(at.start * old / new), math.ceil(at.stop * old / new))
            for at, old, new in zip(
                task.tile.slices, self._image.size_hw, task.size_hw, strict=True
            )
        )
        return x, y, right - x, bottom - y

    def _with_record(self, keypoints: Keypoints[Float32]) -> Features:
        """The keypoints with the record of the image."""
        head = ImageHead(
            self._image.name,
            self._image.size_hw,
            getattr(self._image, "exif_orientation", 1),
            None if self._allowed is None else self._allowed.name,
        )
        features = self._request.features(head, self._input.value_range, keypoints)
        meta: dict[str, Any] = {**features.meta, "tile_px": self._tile_px}
        if self._damaged:
            meta["damaged"] = sorted([list(one) for one in self._damaged])
        return replace(features, meta=meta)


def _inside(points: Points, tile: Window) -> Mask:
    rows, columns = tile.slices
    inside = (points.rows >= rows.start) & (points.rows < rows.stop)
    return np.asarray(inside & (points.columns >= columns.start) & (points.columns < columns.stop))
