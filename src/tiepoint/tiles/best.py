"""The best keypoints of many tiles."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiepoint.keypoints.result import Keypoints, merge_scales
from tiepoint.tiles.records import keypoints_of

Float32 = NDArray[np.float32]


class BestKeypoints:
    """The best keypoints so far; the order of tiles does not matter.

    Attributes:
        lowest: Score that a keypoint must exceed to be among them.
    """

    def __init__(self, k: int | None, lowest: float) -> None:
        self._k, self.lowest = k, lowest
        self._parts: list[Keypoints[Float32]] = []
        self._count = 0
        self._lock = threading.Lock()

    def add(self, keypoints: Keypoints[Float32]) -> None:
        """Add the keypoints of a tile."""
        with self._lock:
            self._parts.append(keypoints)
            self._count += len(keypoints.scores)
            if self._k is not None and self._count > 2 * self._k:
                self._shrink()

    def result(self, rows: np.dtype[Any]) -> Keypoints[Float32]:
        """The keypoints, best first; `rows` has the arrays of none."""
        self._parts.append(keypoints_of(np.zeros(0, rows)))
        self._shrink()
        return self._parts[0]

    def _shrink(self) -> None:
        kept = merge_scales([*self._parts, _none_of(self._parts[0])], self._k)
        self._parts, self._count = [kept], len(kept.scores)
        if self._k is not None and self._count == self._k:
            # A threshold must be exceeded, and an equal score may come first.
            last = float(np.nextafter(kept.scores[-1], np.float32(0)))
            self.lowest = max(self.lowest, last)


def _none_of(keypoints: Keypoints[Float32]) -> Keypoints[Float32]:
    return Keypoints(*(None if one is None else one[:0] for one in keypoints))  # type: ignore[arg-type]
