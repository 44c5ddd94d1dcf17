"""Random draws that several drawings share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from tiepoint.training.scenes.basics import Rng

T = TypeVar("T")


def log_uniform(rng: Rng, low: float, high: float) -> float:
    """A number between two limits whose logarithm is uniform."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def angle(rng: Rng) -> float:
    """Radians, uniform over the circle."""
    return float(rng.uniform(0, 2 * math.pi))


def pick(rng: Rng, choices: Sequence[T]) -> T:
    """One of some things, all equally likely."""
    return choices[int(rng.integers(len(choices)))]


def pick_by_share(rng: Rng, table: Sequence[tuple[T, float]]) -> T:
    """One thing of a table of (thing, share); shares need not sum to 1."""
    shares = np.array([share for _, share in table])
    return table[int(rng.choice(len(table), p=shares / shares.sum()))][0]
