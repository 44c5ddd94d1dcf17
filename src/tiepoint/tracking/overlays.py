"""Static overlays: points that do not move in the image while the scene behind them does.

Each track has a start and a ghost: a point of the scene that was at the start. The ghost moves
with the frame. A track is an overlay when the ghost has left and the track has not.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

STILL_PX = 1.0
"""Largest distance of an overlay from its start, px of the input: the scatter of a position."""

LEFT_PX = 8.0
"""Distance of the ghost from the start, px of the input, at which a still track is an overlay."""

MIN_AGE = 5
"""Observations of a track before it is judged."""

RENEWAL = 60
"""Observations after which start and ghost are set again, before the ghost's errors add up."""


class Followed(Protocol):
    """Tracks with what is needed to recognise overlays.

    Attributes:
        xy: K 2, px.
        ages: K, observations.
        start: K 2, px, where the track was when it was set.
        ghost: K 2, px, where a point of the scene that was there is now.
        far_px: K, largest distance of the track from its start, px.
        static: K bool, whether the track is an overlay.
    """

    xy: Array
    ages: NDArray[np.int64]
    start: Array
    ghost: Array
    far_px: Array
    static: NDArray[np.bool_]


def follow(tracks: Followed, ghost: Array) -> None:
    """Move the ghosts, K 2 px, with the frame."""
    tracks.ghost = ghost


def judge(tracks: Followed, seen: NDArray[np.int64], unit_px: float) -> None:
    """Update `static` of the tracks at the indices `seen`, which have a new position and age.

    Args:
        tracks: Changed in place.
        seen: Indices.
        unit_px: Pixels of the frame per pixel of the input.
    """
    off_px = np.linalg.norm(tracks.xy[seen] - tracks.start[seen], axis=1)
    tracks.far_px[seen] = np.maximum(tracks.far_px[seen], off_px)
    ghost_px = np.linalg.norm(tracks.ghost[seen] - tracks.start[seen], axis=1)
    is_still = tracks.far_px[seen] <= STILL_PX * unit_px
    has_left = (ghost_px >= LEFT_PX * unit_px) & (tracks.ages[seen] >= MIN_AGE)
    tracks.static[seen] = is_still & (has_left | tracks.static[seen])
    renewed = seen[tracks.ages[seen] % RENEWAL == 0]
    tracks.start[renewed] = tracks.ghost[renewed] = tracks.xy[renewed]
    tracks.far_px[renewed] = 0
