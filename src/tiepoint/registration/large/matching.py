"""Windows of two large images in common frames -> matched points in px of both."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiepoint.detector import Detector
from tiepoint.errors import ImageError
from tiepoint.features import Features, covariances_of
from tiepoint.geometry import apply_homography
from tiepoint.images.reading import SourceImage
from tiepoint.images.windows import WindowSource
from tiepoint.matching.guided import match_guided
from tiepoint.registration import planar, verification
from tiepoint.registration.large.cells import Frame, Level
from tiepoint.registration.large.patches import resampled

Array = NDArray[np.float64]
Progress = Callable[[int, int], None]

KEYPOINTS = 400
"""Number of best keypoints of each window."""
AGREE_PX = 2.0
"""Distance up to which the matches of one window agree on an affine map, px of the frame."""
LEAST_AGREEING = 8
MOST_LOG10_NFA = -2.0
"""Limits for the matches of one window: with reach and matches given, chance would bring as many
once in a hundred windows."""


@dataclass(frozen=True, eq=False)
class Points:
    """Matched points of two images.

    Attributes:
        xy_a, xy_b: N 2, px.
        deviation_px: N, expected standard deviation per axis in px of B; only proportions count.
        cells: N, index of the window of each.
        centres_xy: C 2, centres in A of the windows that were compared, px.
        agreeing: C, whether the matches of a window agree.
        damaged: Windows that could not be read: (image "A" or "B", centre in A).
    """

    xy_a: Array
    xy_b: Array
    deviation_px: Array
    cells: NDArray[np.int64]
    centres_xy: Array
    agreeing: NDArray[np.bool_]
    damaged: tuple[tuple[str, tuple[float, float]], ...] = ()

    def __len__(self) -> int:
        return len(self.xy_a)


@dataclass
class _Reader:
    """Reads the windows of both images, and notes those that cannot be read."""

    sources: tuple[WindowSource, WindowSource]
    skips: bool
    damaged: list[tuple[str, tuple[float, float]]]

    def pictures(self, frame: Frame) -> tuple[SourceImage, SourceImage] | None:
        """Both windows in the frame; None without data in one of them."""
        pictures = []
        for name, source, matrix in zip("AB", self.sources, (frame.to_a, frame.to_b), strict=True):
            try:
                picture = resampled(source, matrix, frame.size_hw)
            except ImageError:
                if not self.skips:
                    raise
                self.damaged.append((name, frame.centre_xy))
                return None
            if picture.valid is not None and not picture.valid.any():
                return None
            pictures.append(picture)
        return pictures[0], pictures[1]


def matched_points(
    sources: tuple[WindowSource, WindowSource],
    frames: Sequence[Frame],
    level: Level,
    detector: Detector,
    *,
    points_per_cell: int,
    skips: bool = False,
    progress: Progress | None = None,
) -> Points:
    """Match two images window by window.

    Args:
        sources: A and B.
        frames: The windows.
        level: Search radius.
        detector: Its checkpoint and phases are used, at one scale.
        points_per_cell: Points that a window contributes at most, spread over it.
        skips: Leave out windows that cannot be read.
        progress: Called with the number of windows done, and of all.
    """
    reader = _Reader(sources, skips, [])
    parts: list[tuple[Array, Array, Array]] = []
    cells, agreeing = [], np.zeros(len(frames), bool)
    for number, (index, features) in enumerate(_detected(reader, frames, detector), 1):
        if features is not None:
            chosen = _agreed(*features, frames[index], level.reach_px, points_per_cell)
            if chosen is not None:
                agreeing[index] = True
                parts.append(chosen)
                cells.append(np.full(len(chosen[0]), index, np.int64))
        if progress is not None:
            progress(number, len(frames))
    none = (np.empty((0, 2)), np.empty((0, 2)), np.empty(0))
    xy_a, xy_b, deviation = (np.concatenate(one) for one in zip(none, *parts, strict=True))
    return Points(
        xy_a,
        xy_b,
        deviation,
        np.concatenate([np.empty(0, np.int64), *cells]),
        np.array([frame.centre_xy for frame in frames]).reshape(-1, 2),
        agreeing,
        tuple(reader.damaged),
    )


def _detected(
    reader: _Reader, frames: Sequence[Frame], detector: Detector
) -> Iterator[tuple[int, tuple[Features, Features] | None]]:
    """The features of both windows of each frame, in order; None where there is no data."""
    waiting: deque[tuple[int, bool]] = deque()

    def pictures() -> Iterator[SourceImage]:
        for index, frame in enumerate(frames):
            pair = reader.pictures(frame)
            waiting.append((index, pair is not None))
            if pair is not None:
                yield from pair

    detections = detector.stream(
        pictures(), max_side=None, max_keypoints=KEYPOINTS, threshold=0.0, scales=(1.0,),
        spread=False,
    )  # fmt: skip
    while True:
        first = next(detections, None)
        while waiting and not waiting[0][1]:
            yield waiting.popleft()[0], None
        if first is None:
            return
        second = next(detections)
        yield waiting.popleft()[0], (first.require(), second.require())


def _agreed(
    a: Features, b: Features, frame: Frame, reach_px: float, most: int
) -> tuple[Array, Array, Array] | None:
    """Points of a window in A and in B, N 2 px, and their deviations; None if too few agree."""
    if len(a) == 0 or len(b) == 0:
        return None
    matches = match_guided(a, b, np.eye(3), reach_px)
    xy_a = a.xy[matches.pairs[:, 0]].astype(np.float64)
    xy_b = b.xy[matches.pairs[:, 1]].astype(np.float64)
    shift = planar.consensus("translation", xy_a, xy_b, AGREE_PX)
    if shift is None:
        return None
    _, agree = planar.refine("affine", shift, xy_a, xy_b, AGREE_PX)
    rate = min(1.0, (AGREE_PX / reach_px) ** 2)
    count = int(agree.sum())
    if count < LEAST_AGREEING or (
        verification.log10_nfa(len(agree), count, sample_size=3, inlier_rate=rate) > MOST_LOG10_NFA
    ):
        return None
    index = np.flatnonzero(agree)  # best score first
    index = index[_spread(xy_a[index], frame.size_hw[0], most)]
    covariances = covariances_of(a, b, matches.pairs[index])
    deviation = np.ones(len(index))
    if covariances is not None:
        traces = sum(np.trace(one, axis1=1, axis2=2) for one in covariances)
        deviation = np.sqrt(np.maximum(traces / 2, 1e-12)).astype(np.float64)
    scale = abs(float(np.linalg.det(frame.to_b[:2, :2]))) ** 0.5
    return (
        apply_homography(frame.to_a, xy_a[index]),
        apply_homography(frame.to_b, xy_b[index]),
        deviation * scale,
    )


def _spread(xy: Array, side: int, most: int) -> NDArray[np.int64]:
    """Indices of at most `most` points, the first ones of each part of the window in turn."""
    parts = max(1, int(most**0.5))
    place = np.clip((xy + 0.5) * parts / side, 0, parts - 1).astype(np.int64)
    key = place[:, 1] * parts + place[:, 0]
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    lengths = np.diff(np.append(starts, len(order)))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - np.repeat(starts, lengths)
    return np.lexsort((np.arange(len(rank)), rank))[:most]
