"""Tracker: the features of one frame after another -> ids of physical points. It knows no pixels.

`Tracker.step` is the way on one screen: predict, match, estimate the motion, re-find, start.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiepoint.config import TrackingConfig
from tiepoint.features import Features
from tiepoint.geometry import Float, Matrix, SizeHW
from tiepoint.matching.descriptors import descriptors_of
from tiepoint.tracking import overlays, steps
from tiepoint.tracking.steps import MIN_SUPPORT, Array, Float32, Indices

GAIN = 0.5
"""Share of an observation in the position from which the next one is predicted. A wrong neighbour
on an edge, half a px further in each frame, falls behind and is refused."""

REFIND_REACH = 2.0
"""Radius around the position that the geometry predicts, in thresholds."""

REFIND_SIMILARITY = 0.4
"""Minimum cosine there, as in guided matching, because few keypoints are near."""

MIN_RESEMBLANCE = 0.7
"""Cosine below which a track takes its present descriptor. With the newest one in each frame, a
track would slide along an edge, a little further in each."""

LEAST_SHARE = 0.2
"""Share of the tracks of the last frame; with fewer matches near the prediction all are tried."""


@dataclass
class Live:
    """K tracks that are seen, or may be seen again.

    Attributes:
        ids: K int64.
        xy: K 2 float64, px: the position, smoothed by `GAIN`, carried along by the motion while
            unseen.
        described: K D float32, the descriptor at the last observation.
        unseen: K int64, frames since the last observation.
        ages: K int64, observations.
        start, ghost, far_px: See `overlays`.
        static: K bool.
    """

    ids: Indices
    xy: Array
    described: Float32
    unseen: Indices
    ages: Indices
    start: Array
    ghost: Array
    far_px: Array
    static: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, index: NDArray[np.bool_]) -> Live:
        """The tracks where `index` is true."""
        return Live(*(getattr(self, field.name)[index] for field in fields(self)))

    def joined(self, other: Live) -> Live:
        """These tracks, then the others."""
        names = [field.name for field in fields(self)]
        both = ([getattr(self, name), getattr(other, name)] for name in names)
        return Live(*map(np.concatenate, both))


class Step(NamedTuple):
    """The observations of one frame.

    Attributes:
        keypoints: M indices of the observed keypoints in the frame's features, by id.
        ids: M int64.
        ages: M int64, observations of each track, this one included.
        static: M bool, whether the track is an overlay; see `overlays`.
        motion: 3x3, from the last readable frame to this one; None if it is unknown.
        is_cut: Whether no motion connects this frame with the last one.
        ended: Ids of the tracks that end: unseen for more than `max_gap` frames.
    """

    keypoints: Indices
    ids: Indices
    ages: Indices
    static: NDArray[np.bool_]
    motion: Matrix | None
    is_cut: bool
    ended: Indices


class Tracker:
    """Continues tracks frame by frame. Memory depends on the points in a frame, not on frames.

    Args:
        config: Settings.
    """

    def __init__(self, config: TrackingConfig) -> None:
        self.config = config
        self._live: Live | None = None
        self._next_id = 0
        self._motion: Matrix | None = None
        self._size_hw: SizeHW | None = None

    def step(self, features: Features) -> Step:
        """Match the features of the next frame with the tracks.

        Raises:
            ConfigError: Features without descriptors.
        """
        described, xy = descriptors_of(features, "frame"), features.xy.astype(np.float64)
        unit_px, config = features.px_per_input_px, self.config
        within_px = config.threshold_px * unit_px
        live, ended = self._begun(features, described.shape[1])
        pairs, motion = self._matched(live, features, described, within_px)
        carried = _carried(live, xy, pairs, motion, within_px, unit_px)  # K 2
        pairs = self._refound(live, features, described, pairs, carried, within_px)
        is_cut = len(pairs) < min(MIN_SUPPORT, len(live)) or len(ended) > 0
        overlays.follow(live, steps.moved(live.ghost, motion))
        live.xy, live.unseen = carried, live.unseen + 1
        track, keypoint = pairs.T
        live.xy[track] += GAIN * (xy[keypoint] - live.xy[track])
        _describe(live, track, described[keypoint])
        live.unseen[track], live.ages[track] = 0, live.ages[track] + 1
        overlays.judge(live, track, unit_px)
        live, keypoints = self._started(live, features, described, pairs)
        self._motion = motion
        is_over = live.unseen > config.max_gap
        ended = np.concatenate([ended, live.ids[is_over]])
        self._live = live.take(~is_over)
        seen = live.take(live.unseen == 0)
        return Step(keypoints, seen.ids, seen.ages, seen.static, motion, is_cut, ended)

    def skip(self) -> None:
        """Pass over a frame that cannot be read; it counts as no gap."""
        self._motion = None  # the next motion is over two frames

    def _begun(self, features: Features, size: int) -> tuple[Live, Indices]:
        """The tracks before this frame, and the ids of all if they end: its size is another."""
        live, ended = self._live, np.empty(0, np.int64)
        if live is not None and features.size_hw != self._size_hw:
            ended, self._motion = live.ids, None
        if live is None or len(live) == len(ended):
            live = _new(np.empty((0, 2)), np.empty((0, size), np.float32), 0)
        self._size_hw = features.size_hw
        return live, ended

    def _matched(
        self, live: Live, features: Features, described: Float32, within_px: float
    ) -> tuple[Indices, Matrix | None]:
        """Matches M 2 of tracks and keypoints that move alike, and the motion of the frame.

        Tracks of the last frame are searched near the prediction. If few are found, after a jerk
        or a flash, all tracks are searched everywhere.
        """
        seen = live.unseen == 0
        expected = np.where(live.static[:, None], live.xy, steps.moved(live.xy, self._motion))
        radius_px = self.config.search * max(features.size_hw)
        least = max(MIN_SUPPORT, LEAST_SHARE * seen.sum())
        best: tuple[Indices, Matrix | None] = np.empty((0, 2), np.int64), None
        for chosen, radius in ((seen, radius_px), (np.ones(len(live), bool), np.inf)):
            index = np.flatnonzero(chosen)
            pairs = steps.pairs_near(
                expected[index], live.described[index], features.xy, described, radius,
                self.config.min_similarity,
            )  # fmt: skip
            pairs[:, 0] = index[pairs[:, 0]]
            alike = _alike(live, features, pairs, within_px)
            best = max(alike, best, key=lambda result: len(result[0]))
            if len(best[0]) >= least:
                break
        return best

    def _refound(
        self,
        live: Live,
        features: Features,
        described: Float32,
        pairs: Indices,
        carried: Array,
        within_px: float,
    ) -> Indices:
        """Add matches of the other tracks where the geometry predicts them, which closes gaps."""
        if len(pairs) < MIN_SUPPORT:
            return pairs
        track, keypoint = pairs.T
        lost = np.setdiff1d(np.arange(len(live)), track)
        free = np.setdiff1d(np.arange(len(features)), keypoint)
        more = steps.pairs_near(
            carried[lost], live.described[lost], features.xy[free], described[free],
            REFIND_REACH * within_px, REFIND_SIMILARITY,
        )  # fmt: skip
        more = np.stack([lost[more[:, 0]], free[more[:, 1]]], axis=1)
        both = np.concatenate([pairs, more])
        return both[np.argsort(both[:, 0])]

    def _started(
        self, live: Live, features: Features, described: Float32, pairs: Indices
    ) -> tuple[Live, Indices]:
        """Start tracks from free keypoints; also the keypoint of each track seen, in its order."""
        free = np.setdiff1d(np.arange(len(features)), pairs[:, 1])  # best score first
        new = steps.spaced(
            features.xy,
            live.xy,
            free,
            self.config.spacing_px * features.px_per_input_px,
            self.config.max_tracks - len(pairs),
        )
        if len(new):
            live = live.joined(_new(features.xy[new], described[new], self._next_id))
            self._next_id += len(new)
        return live, np.concatenate([pairs[:, 1], new])


def _new(xy: Float, described: Float32, first_id: int) -> Live:
    """Tracks that are seen for the first time, at xy N 2 px."""
    count = len(xy)
    return Live(
        ids=np.arange(first_id, first_id + count),
        xy=xy.astype(np.float64),
        described=described.copy(),
        unseen=np.zeros(count, np.int64),
        ages=np.ones(count, np.int64),
        start=xy.astype(np.float64),
        ghost=xy.astype(np.float64),
        far_px=np.zeros(count),
        static=np.zeros(count, bool),
    )


def _carried(
    live: Live,
    xy: Array,
    pairs: Indices,
    motion: Matrix | None,
    within_px: float,
    unit_px: float,
) -> Array:
    """K 2: where the tracks would be without the noise of this frame's positions xy, N 2.

    Tracks move with the frame. Those that are unseen, or were seen elsewhere, move with their
    surroundings; overlays do not move.
    """
    carried = steps.moved(live.xy, motion)  # K 2
    track, keypoint = pairs.T
    residuals = xy[keypoint] - carried[track]  # M 2
    apart = np.ones(len(live), bool)
    apart[track[np.linalg.norm(residuals, axis=1) <= within_px]] = False
    around = steps.local_residuals(live.xy[apart], live.xy[track], residuals)
    carried[apart] += np.nan_to_num(around)
    still = live.static.copy()
    is_near = np.linalg.norm(xy[keypoint] - live.xy[track], axis=1) <= overlays.STILL_PX * unit_px
    still[track[is_near & apart[track]]] = True
    return np.where(still[:, None], live.xy, carried)


def _describe(live: Live, track: Indices, described: Float32) -> None:
    """Keep the descriptor that a track began with while it is similar; see `MIN_RESEMBLANCE`."""
    if len(track) == 0:
        return
    cosines = np.einsum("ij,ij->i", live.described[track], described)  # M
    changed = cosines < MIN_RESEMBLANCE
    live.described[track[changed]] = described[changed]


def _alike(
    live: Live, features: Features, pairs: Indices, within_px: float
) -> tuple[Indices, Matrix | None]:
    """The matches that move as the frame, as their surroundings or not at all; the motion.

    Overlays do not count for the motion of the frame, unless there is hardly anything else.
    """
    before, after = live.xy[pairs[:, 0]], features.xy[pairs[:, 1]].astype(np.float64)  # M 2
    counts = ~live.static[pairs[:, 0]]
    if counts.sum() < MIN_SUPPORT:
        counts[:] = True
    motion = steps.motion_of(before[counts], after[counts], within_px)
    alike = steps.agreeing(before, after, motion, within_px).any(axis=1)
    alike |= np.linalg.norm(after - before, axis=1) <= overlays.STILL_PX * features.px_per_input_px
    return pairs[alike], motion
