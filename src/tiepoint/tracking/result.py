"""The tracks of one frame."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import ImageError
from tiepoint.features.frozen import freeze
from tiepoint.geometry import Matrix, SizeHW


def _none(*shape: int, kind: Any) -> Any:
    return field(default_factory=lambda: np.empty(shape, kind))


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
    ids: NDArray[np.int64] = _none(0, kind=np.int64)
    xy: NDArray[np.float32] = _none(0, 2, kind=np.float32)
    scores: NDArray[np.float32] = _none(0, kind=np.float32)
    ages: NDArray[np.int64] = _none(0, kind=np.int64)
    static: NDArray[np.bool_] = _none(0, kind=bool)
    motion: Matrix | None = None
    is_keyframe: bool = False
    is_cut: bool = False
    ended: NDArray[np.int64] = _none(0, kind=np.int64)
    error: ImageError | None = None

    def __post_init__(self) -> None:
        freeze(self)

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        if self.error is not None:
            return f"TrackedFrame({self.index}, broken: {self.error})"
        return f"TrackedFrame({self.index}, {len(self)} tracks, {int((self.ages == 1).sum())} new)"
