"""Two generated images of one scene with an exact map between them: turned, zoomed and bent."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SIDE, TURN_DEG, ZOOM, BEND_PX = 1500, 37.0, 1.3, 8.0


def to_a(xy: Array, side: int = SIDE, bend_px: float = BEND_PX) -> Array:
    """N 2: the exact places in A of N 2 places of B, px."""
    middle, (x, y) = (side - 1) / 2, xy.T
    waves = np.stack([np.sin(2 * np.pi * y / side + 0.6), np.cos(2 * np.pi * x / side)], axis=1)
    c, s = np.cos(np.radians(TURN_DEG)) / ZOOM, np.sin(np.radians(TURN_DEG)) / ZOOM
    placed = (xy + bend_px * waves - middle) @ np.array([[c, -s], [s, c]]) + middle
    return np.asarray(placed)


def texture(side: int = SIDE, seed: int = 0) -> NDArray[np.uint8]:
    """H W: blots of several sizes with sharp edges."""
    rng = np.random.default_rng(seed)
    image = np.full((side, side), 128, np.float32)
    for size in (160, 60, 24, 10):
        noise = rng.standard_normal((side // size + 2, side // size + 2)).astype(np.float32)
        large = cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)
        image += np.where(large > 0.3, 25.0, -15.0)
    return np.clip(image + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8)


def pair(
    side: int = SIDE, bend_px: float = BEND_PX, seed: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A, and B in other light with noise of its own; H W."""
    a = texture(side, seed)
    y, x = np.mgrid[:side, :side].astype(np.float64)
    places = to_a(np.stack([x.ravel(), y.ravel()], axis=1), side, bend_px).astype(np.float32)
    b = cv2.remap(a, places.reshape(side, side, 2), None, cv2.INTER_CUBIC)
    noise = np.random.default_rng(seed + 1).normal(0, 4, b.shape)
    return a, np.clip(0.7 * b + 30 + noise, 0, 255).astype(np.uint8)


def errors_px(
    transform: object, side: int = SIDE, bend_px: float = BEND_PX, from_px: float = 0.0
) -> Array:
    """N: distances in B of a transform from the exact map, at an even grid of B inside A.

    Places above the row `from_px` of A or of B do not count.
    """
    axis = np.linspace(0.05, 0.95, 25) * side
    xy = np.stack(np.meshgrid(axis, axis), axis=2).reshape(-1, 2)
    in_a = to_a(xy, side, bend_px)
    shown = ((in_a >= 0) & (in_a <= side - 1)).all(axis=1)
    shown &= np.minimum(in_a[:, 1], xy[:, 1]) >= from_px
    return np.linalg.norm(transform(in_a[shown]) - xy[shown], axis=1)  # type: ignore[operator,no-any-return]
