"""Outlines of single shapes: N 2 px around (0, 0), whose sharp vertices are exact corners."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tiepoint.training.scenes import draws
from tiepoint.training.scenes.basics import Points, Rng, rectangle, turned


def polygon(rng: Rng, radius: float) -> Points:
    """Three to eight vertices at random angles, at 0.55 to 1 of the radius."""
    count = int(rng.integers(3, 9))
    gaps = rng.dirichlet(np.full(count, 4.0))
    angles = 2 * math.pi * (np.cumsum(gaps) + rng.random())
    lengths = radius * rng.uniform(0.55, 1, count)
    return _polar(angles, lengths)


def regular(rng: Rng, radius: float) -> Points:
    """A regular polygon of three to eight sides."""
    count = int(rng.integers(3, 9))
    return _polar(2 * math.pi * (np.arange(count) / count + rng.random()), radius)


def parallelogram(rng: Rng, radius: float) -> Points:
    """A rectangle or parallelogram of any proportion down to 1 : 5."""
    ratio, lean = draws.log_uniform(rng, 0.2, 1), rng.normal(0, 0.2)
    corners = rectangle((1, ratio))
    corners[:, 0] += lean * corners[:, 1]
    return turned(corners * radius / math.hypot(1, ratio), draws.angle(rng))


def star(rng: Rng, radius: float) -> Points:
    """A star of four to eight points."""
    count = int(rng.integers(4, 9))
    angles = 2 * math.pi * (np.arange(2 * count) / (2 * count) + rng.random())
    return _polar(angles, np.resize([radius, radius * rng.uniform(0.35, 0.7)], 2 * count))


def angular(rng: Rng, radius: float) -> Points:
    """An L, T, U or arrow: right angles outwards and inwards."""
    a, b = rng.uniform(0.25, 0.75, 2)
    shapes = (
        [(0, 0), (1, 0), (1, a), (b, a), (b, 1), (0, 1)],
        [(0, 0), (1, 0), (1, a), (0.5 + b / 2, a), (0.5 + b / 2, 1), (0.5 - b / 2, 1),
         (0.5 - b / 2, a), (0, a)],
        [(0, 0), (1, 0), (1, 1), (0.5 + b / 3, 1), (0.5 + b / 3, a), (0.5 - b / 3, a),
         (0.5 - b / 3, 1), (0, 1)],
        [(0, 0.5 - a / 4), (0.5, 0.5 - a / 4), (0.5, 0), (1, 0.5), (0.5, 1), (0.5, 0.5 + a / 4),
         (0, 0.5 + a / 4)],
    )  # fmt: skip
    corners = np.array(draws.pick(rng, shapes), np.float64) * 2 - 1
    corners *= (1, math.exp(rng.normal(0, 0.25)))
    return turned(corners * radius / math.sqrt(2), draws.angle(rng))


def ellipse(rng: Rng, radius: float) -> Points:
    """An ellipse with enough vertices that none is a corner."""
    count = int(np.clip(2.5 * math.sqrt(radius) + 26, 28, 80))
    angles = 2 * math.pi * np.arange(count) / count
    ratio = rng.uniform(0.3, 1)
    points = np.stack([np.cos(angles), ratio * np.sin(angles)], axis=1) * radius
    return turned(points, draws.angle(rng))


def blob(rng: Rng, radius: float) -> Points:
    """A closed smooth curve: a pebble or a leaf without corners."""
    count = int(np.clip(3 * math.sqrt(radius) + 30, 36, 90))
    angles = 2 * math.pi * np.arange(count) / count
    waves = sum(
        rng.normal(0, 0.3 / order**1.6) * np.cos(order * angles + draws.angle(rng))
        for order in range(2, 6)
    )
    return _polar(angles, radius * np.clip(0.75 + waves, 0.25, 1.2))


def bar(rng: Rng, radius: float) -> Points:
    """A thin straight bar: a twig, a wire, a line of a drawing."""
    half = max(radius * draws.log_uniform(rng, 0.03, 0.15), 1.5)
    return turned(rectangle((radius, half)), draws.angle(rng))


def sector(rng: Rng, radius: float) -> Points:
    """A sector of a disc: two or three corners on a curve."""
    start, span = draws.angle(rng), rng.uniform(0.6, math.pi)
    arc = _polar(start + np.linspace(0, span, 24), radius)
    return np.vstack([arc, [[0, 0]]]) if span < 2.6 else arc


OUTLINES: tuple[tuple[Callable[[Rng, float], Points], float], ...] = (
    (polygon, 0.28),
    (parallelogram, 0.20),
    (regular, 0.06),
    (star, 0.05),
    (angular, 0.09),
    (ellipse, 0.10),
    (blob, 0.08),
    (bar, 0.09),
    (sector, 0.05),
)
"""(maker, share)."""


def outline(rng: Rng, radius: float) -> Points:
    """A random shape around (0, 0), mostly within a radius in px."""
    return draws.pick_by_share(rng, OUTLINES)(rng, radius)


def _polar(angles: NDArray[np.float64], lengths: NDArray[np.float64] | float) -> Points:
    return np.stack([np.cos(angles) * lengths, np.sin(angles) * lengths], axis=1)
