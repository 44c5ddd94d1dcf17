"""Pairs whose ground truth is known, and methods that know it, or nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import ImageError
from tiepoint.evaluation.homography_pairs import LoadedHomography
from tiepoint.evaluation.methods import Method
from tiepoint.evaluation.settings import FrameSize
from tiepoint.features import Features
from tiepoint.geometry import apply_homography, inside

SIZE = 240, 320


def truth_of(number: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(number)
    matrix = np.eye(3) + rng.uniform(-0.08, 0.08, (3, 3))
    matrix[:2, 2] = rng.uniform(-20, 20, 2)
    matrix[2] = [*rng.uniform(-3e-4, 3e-4, 2), 1]
    return matrix


@dataclass(frozen=True)
class KnownPair:
    """A blank pair whose images carry the pair's number, so that a method can know the truth."""

    number: int
    group: str = "known"
    readable: bool = True

    @property
    def name(self) -> str:
        return f"pair {self.number}"

    def load(self, frame: FrameSize | int) -> LoadedHomography:
        if not self.readable:
            raise ImageError(f"{self.name}: truncated")
        image_a, image_b = np.zeros(SIZE, np.uint8), np.ones(SIZE, np.uint8)
        image_a[0, 0] = image_b[0, 0] = self.number
        return LoadedHomography(image_a, image_b, truth_of(self.number))


def features(
    xy: NDArray[np.float64], descriptors: NDArray[np.float64], size_hw: tuple[int, int] = SIZE
) -> Features:
    """Features in the order given, best first."""
    scores = np.linspace(1, 0, len(xy), dtype=np.float32)
    return Features(xy.astype(np.float32), scores, descriptors.astype(np.float32), size_hw)


def unit_rows(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Random descriptors of unit length."""
    rows = rng.standard_normal((count, 32))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def knows_the_truth(shift: tuple[float, float] = (0, 0)) -> Method:
    """Points of A and their true positions in B, moved by `shift` px, with unique descriptors."""

    def detect(image: NDArray[np.uint8], k: int) -> Features:
        truth = truth_of(int(image[0, 0]))
        rng = np.random.default_rng(0)
        xy = rng.uniform(0, 1, (4 * k, 2)) * (SIZE[1] - 1, SIZE[0] - 1)
        codes = unit_rows(rng, 4 * k)
        in_b = apply_homography(truth, xy) + shift
        shared = inside(in_b, SIZE) & inside(in_b - shift, SIZE)
        return features((xy if image[1, 1] == 0 else in_b)[shared], codes[shared])

    return Method(f"truth+{shift}", detect)


def knows_nothing() -> Method:
    """Random points with random descriptors."""

    def detect(image: NDArray[np.uint8], k: int) -> Features:
        rng = np.random.default_rng([int(image[0, 0]), int(image[1, 1])])
        codes = unit_rows(rng, k)
        return features(rng.uniform(0, 1, (k, 2)) * (SIZE[1] - 1, SIZE[0] - 1), codes)

    return Method("random", detect)


def finds_nothing() -> Method:
    """No points at all."""
    return Method("empty", lambda image, k: features(np.empty((0, 2)), np.empty((0, 8))))
