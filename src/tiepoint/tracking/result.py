"""The tracks of one frame."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import ImageError
from tiepoint.features.frozen import freeze
from tiepoint.geometry import Matrix, SizeHW

_NO_NUMBERS: Any = partial(np.empty, 0, np.int64)
_NO_PLACES: Any = partial(np.empty, (0, 2), np.float32)
_NO_SCORES: Any = partial(np.empty, 0, np.float32)
_NO_FLAGS: Any = partial(np.empty, 0, bool)


@dataclass(frozen=True, eq=False)
class TrackedFrame:
    """The tracked points of one frame, by id. The arrays are read-only.

    Attributes:
        index: Number of the frame from 0 on; broken frames count.
        time_s: Time since the first frame, s; NaN where it is unknown.
        source: The frame as it was given: pixels H W 3 RGB of a video, a path of a folder.
        size_hw: (height, width), px; None if the frame is broken.
        ids: M int64, one id for each physical point, in ascending order. Ids count from 0 on.
        xy: M 2 float32, px of the upright frame; pixel centres are whole numbers.
        scores: M float32, probabilities of the keypoints.
        ages: M int64, observations of each track up to this frame; 1 for a new one.
        static: M bool, points that stay in place while the scene moves: logos, time stamps, HUDs.
        motion: 3x3, px of the last readable frame -> px of this one; None if it is unknown.
        is_keyframe: Whether the frame shares few tracks with the last keyframe, or moved far.
        is_cut: Whether no motion connects it with the last frame: another shot.
        ended: Ids of tracks that will not continue.
        error: Why the frame is broken; None if it was read.
    """

    index: int
    time_s: float
    source: Any
    size_hw: SizeHW | None = None
    ids: NDArray[np.int64] = field(default_factory=_NO_NUMBERS)
    xy: NDArray[np.float32] = field(default_factory=_NO_PLACES)
    scores: NDArray[np.float32] = field(default_factory=_NO_SCORES)
    ages: NDArray[np.int64] = field(default_factory=_NO_NUMBERS)
    static: NDArray[np.bool_] = field(default_factory=_NO_FLAGS)
    motion: Matrix | None = None
    is_keyframe: bool = False
    is_cut: bool = False
    ended: NDArray[np.int64] = field(default_factory=_NO_NUMBERS)
    error: ImageError | None = None

    def __post_init__(self) -> None:
        freeze(self)

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        if self.error is not None:
            return f"TrackedFrame({self.index}, broken: {self.error})"
        return f"TrackedFrame({self.index}, {len(self)} tracks, {int((self.ages == 1).sum())} new)"
