"""The best keypoints of many tiles."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from tiepoint.images.windows import Window
from tiepoint.keypoints.result import Keypoints, merge_scales

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

    def add(self, window: Window, keypoints: Keypoints[Float32]) -> None:
        """Add the keypoints of a window, in px of it."""
        offset = np.array([window.left, window.top], np.float32)
        moved = keypoints._replace(xy=keypoints.xy + offset)
        with self._lock:
            self._parts.append(moved)
            self._count += len(moved.scores)
            if self._k is not None and self._count > 2 * self._k:
                self._shrink()

    def result(self, descriptor_length: int | None) -> Keypoints[Float32]:
        """The keypoints, best first."""
        if self._parts:
            self._shrink()
            return self._parts[0]
        empty = np.zeros((0, descriptor_length or 0), np.float32)
        return Keypoints(
            np.zeros((0, 2), np.float32),
            np.zeros(0, np.float32),
            None if descriptor_length is None else empty,
        )

    def _shrink(self) -> None:
        kept = merge_scales([*self._parts, _none_of(self._parts[0])], self._k)
        self._parts, self._count = [kept], len(kept.scores)
        if self._k is not None and self._count == self._k:
            # A threshold must be exceeded, and an equal score may come first.
            last = float(np.nextafter(kept.scores[-1], np.float32(0)))
            self.lowest = max(self.lowest, last)


def _none_of(keypoints: Keypoints[Float32]) -> Keypoints[Float32]:
    return Keypoints(*(None if one is None else one[:0] for one in keypoints))  # type: ignore[arg-type]
