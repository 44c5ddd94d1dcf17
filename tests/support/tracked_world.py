"""A plane of points with descriptors of their own, seen by a moving camera: features, no pixels."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.features import Features
from tiepoint.geometry import apply_homography, inside

SIZE_HW = (240, 320)


def camera(step: float) -> NDArray[np.float64]:
    """3x3, plane -> frame: a camera that moves, turns and zooms."""
    turned = cv2.getRotationMatrix2D((160, 120), 10 * np.sin(step / 9), 1 + 0.1 * np.sin(step / 7))
    matrix = np.vstack([turned, [0, 0, 1]])
    matrix[:2, 2] += 40 * np.sin(step / 8), 3 * step
    return matrix


class World:
    """Points of a plane, and of a logo that is in the same place in each frame.

    Args:
        count: Points of the plane, partly outside of the first frame.
        logo: Points of the logo.
        noise_px: Standard deviation of positions.
    """

    def __init__(self, count: int = 200, logo: int = 0, noise_px: float = 0.2) -> None:
        self.rng = np.random.default_rng(5)
        self.xy = self.rng.uniform((-100, -200), (420, 300), (count, 2))
        self.logo = self.rng.uniform((10, 10), (70, 40), (logo, 2))
        described = self.rng.normal(size=(count + logo, 64))
        self.described = described / np.linalg.norm(described, axis=1, keepdims=True)
        self.noise_px = noise_px

    def seen(
        self, matrix: NDArray[np.float64], hidden: NDArray[np.int64] | None = None
    ) -> tuple[Features, NDArray[np.int64]]:
        """The features of a frame, and the point of each; best score first, in any order."""
        mapped = apply_homography(matrix, self.xy)
        mapped += self.rng.normal(0, self.noise_px, mapped.shape)
        xy = np.concatenate([mapped, self.logo])
        names = np.flatnonzero(inside(xy, SIZE_HW))
        names = np.setdiff1d(names, [] if hidden is None else hidden)
        names = self.rng.permutation(names)
        described = self.described[names] + self.rng.normal(0, 0.03, (len(names), 64))
        described /= np.linalg.norm(described, axis=1, keepdims=True)
        scores = np.linspace(1, 0.1, len(names), dtype=np.float32)
        features = Features(
            xy[names].astype(np.float32), scores, described.astype(np.float32), SIZE_HW
        )
        return features, names
