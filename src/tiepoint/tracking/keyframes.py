"""Keyframes: frames that share few tracks with the last keyframe, or have moved far from it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiepoint.config import TrackingConfig
from tiepoint.geometry import SizeHW

Float32 = NDArray[np.float32]
Indices = NDArray[np.int64]


class KeyframeChoice:
    """Decides for each frame at once, from the frames up to it.

    Args:
        config: `keyframe_overlap` and `keyframe_motion` count.
    """

    def __init__(self, config: TrackingConfig) -> None:
        self._config = config
        self._ids: Indices = np.empty(0, np.int64)
        self._xy: Float32 = np.empty((0, 2), np.float32)

    def __call__(self, ids: Indices, xy: Float32, size_hw: SizeHW, *, is_cut: bool) -> bool:
        """Whether a frame is a keyframe.

        Args:
            ids: M, its tracks in ascending order, overlays left out.
            xy: M 2, their positions, px.
            size_hw: Size of the frame, px.
            is_cut: Whether no motion connects it with the last frame.
        """
        if len(ids) == 0 or not (is_cut or self._is_far(ids, xy, size_hw)):
            return False
        self._ids, self._xy = ids, xy
        return True

    def _is_far(self, ids: Indices, xy: Float32, size_hw: SizeHW) -> bool:
        _, now, then = np.intersect1d(ids, self._ids, assume_unique=True, return_indices=True)
        if len(now) == 0 or len(now) < self._config.keyframe_overlap * len(self._ids):
            return True
        moved_px = float(np.median(np.linalg.norm(xy[now] - self._xy[then], axis=1)))
        return moved_px > self._config.keyframe_motion * max(size_hw)
