"""Pairs that are drawn in a millisecond: bright squares on grey, the second view moved."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tiepoint.training.presets import Stage
from tiepoint.training.scenes.pairs import TrainingPair, TrainingView

SHIFT_XY = (3.25, -2.5)


def squares(seed: int, index: int, size_hw: tuple[int, int]) -> TrainingPair:
    rng = np.random.default_rng([seed, index])
    height, width = size_hw
    image = np.full((height, width), 90, np.uint8)
    corners = []
    for _ in range(6):
        side = int(rng.integers(8, 20))
        x, y = int(rng.integers(6, width - 26)), int(rng.integers(6, height - 26))
        image[y : y + side, x : x + side] = rng.integers(150, 255)
        corners += [(x, y), (x + side - 1, y), (x, y + side - 1), (x + side - 1, y + side - 1)]
    noisy = np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)
    view_a = TrainingView(noisy, np.array(corners, np.float32), np.zeros(size_hw, np.bool_))
    shift = np.array(SHIFT_XY, np.float32)
    moved = np.roll(noisy, (-2, 3), axis=(0, 1))
    view_b = TrainingView(moved, view_a.corners_xy + shift, np.zeros(size_hw, np.bool_))
    return TrainingPair(
        view_a, view_b, shifted_flow(size_hw, shift), shifted_flow(size_hw, -shift), "shapes"
    )


def shifted_flow(size_hw: tuple[int, int], shift: np.ndarray) -> np.ndarray:
    height, width = size_hw
    y, x = np.mgrid[:height, :width].astype(np.float32)
    flow = np.stack([x, y], axis=-1) + shift
    outside = (flow < 0) | (flow > np.array([width - 1, height - 1]))
    flow[outside.any(axis=-1)] = np.nan
    return flow.astype(np.float32)


class Squares:
    """A source that keeps the promise of one: the same batches for the same seed and step."""

    def __init__(self, stage: Stage, step: int, seed: int = 0) -> None:
        self.stage, self.step, self.seed, self.closed = stage, step, seed, False

    def __iter__(self) -> Iterator[list[TrainingPair]]:
        while True:
            first = self.step * self.stage.pairs
            self.step += 1
            yield [
                squares(self.seed, first + n, self.stage.size_hw) for n in range(self.stage.pairs)
            ]

    def close(self) -> None:
        self.closed = True
