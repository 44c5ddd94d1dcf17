"""Textures: grey values that fill shapes, some with exact corners of their own.

Edges are box filtered analytically, so a boundary at b px is at b px in the grey values too.

Sources: 1/f^a noise, Field, "Relations between the statistics of natural images" (1987); random
coordinate networks, Stanley, "Compositional pattern producing networks" (2007).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.training.scenes import draws
from tiepoint.training.scenes.basics import Grey, Rng, Values

NO_CORNERS = np.zeros((0, 2), np.float32)


@dataclass(frozen=True, eq=False)
class Texture:
    """A square image that shapes are filled with."""

    image: Grey
    corners_xy: NDArray[np.float32]  # N 2 px, its exact corners; may be empty

    @cached_property
    def mirrored_xy(self) -> NDArray[np.float32]:
        """The corners of the texture and of its eight mirrored neighbours: 9 N 2 px."""
        side = self.image.shape[0]
        if len(self.corners_xy) == 0:
            return self.corners_xy
        x, y = (np.stack([c, -1 - c, 2 * side - 1 - c]) for c in self.corners_xy.T)  # 3 N
        every = np.stack(np.broadcast_arrays(x[:, None], y[None]), axis=-1)  # 3 3 N 2
        return np.asarray(every.reshape(-1, 2), np.float32)


def texture(rng: Rng, side: int) -> Texture:
    """A texture of a random sort, `side` px wide and high."""
    return draws.pick_by_share(rng, MAKERS)(rng, side)


def noise(rng: Rng, side: int, exponent: float | None = None) -> Values:
    """1/f^a noise: the amplitude falls with the frequency to the power a; None draws a.

    It is periodic, `side` px wide and high, and has mean 0 and standard deviation 1.
    """
    a = rng.uniform(0.5, 2.5) if exponent is None else exponent
    fy, fx = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :]
    stretch = math.exp(rng.normal(0, 0.3))  # grain is rarely isotropic
    radius = np.hypot(fx * stretch, fy / stretch)
    radius[0, 0] = 1
    amplitude = radius**-a
    amplitude[0, 0] = 0
    phases = rng.standard_normal((2, *amplitude.shape), np.float32)
    drawn = np.fft.irfft2(amplitude * (phases[0] + 1j * phases[1]), s=(side, side))
    values: Values = (drawn / (drawn.std() + 1e-12)).astype(np.float32)
    return values


def grain(rng: Rng, side: int) -> Texture:
    """1/f^a noise as a fill."""
    return Texture(_grey(0.5 + 0.2 * noise(rng, side)), NO_CORNERS)


def blotches(rng: Rng, side: int) -> Texture:
    """Softly thresholded noise: patches with ragged borders, like bark, lichen or camouflage."""
    values = noise(rng, side, rng.uniform(1.2, 2.2))
    steepness = math.exp(rng.uniform(0, 3))
    values = np.tanh(steepness * (values - rng.normal(0, 0.6)))
    fine = noise(rng, side, rng.uniform(0.6, 1.5))
    return Texture(_grey(0.5 + 0.35 * values + rng.uniform(0, 0.12) * fine), NO_CORNERS)


def sinusoids(rng: Rng, side: int) -> Texture:
    """A few plane waves; with several, a weave."""
    x, y = _coordinates(side)
    total = np.zeros((side, side), np.float32)
    for _ in range(int(rng.integers(1, 5))):
        period, angle = draws.log_uniform(rng, 5, 80), rng.uniform(0, math.pi)
        phase = draws.angle(rng)
        turn = 2 * math.pi / period
        cos, sin = np.float32(turn * math.cos(angle)), np.float32(turn * math.sin(angle))
        total += np.float32(rng.uniform(0.3, 1)) * np.sin(cos * x + sin * y + np.float32(phase))
    return Texture(_stretched(total), NO_CORNERS)


def stripes(rng: Rng, side: int) -> Texture:
    """Bands of random widths and greys at a random angle."""
    angle = rng.uniform(0, math.pi)
    x, y = _coordinates(side)
    along = x * np.float32(math.cos(angle)) + y * np.float32(math.sin(angle))
    width = draws.log_uniform(rng, 4, 50)
    edges = _edges(rng, 1.5 * side, width, rng.uniform(0, 0.8)) - 0.75 * side
    greys = rng.uniform(0, 1, len(edges) + 1)
    if rng.random() < 0.5:  # two alternating greys, as on awnings and crossings
        greys = np.resize(rng.permutation([0.05, 0.95]), len(edges) + 1)
    return Texture(_grey(_steps(along, edges, greys)), NO_CORNERS)


def checks(rng: Rng, side: int) -> Texture:
    """A chequerboard with even or uneven rows and columns; every crossing is a corner."""
    width = draws.log_uniform(rng, 10, 60)
    uneven = 0.0 if rng.random() < 0.5 else rng.uniform(0.1, 0.6)
    columns = _edges(rng, side, width, uneven)
    rows = _edges(rng, side, width * math.exp(rng.normal(0, 0.2)), uneven)
    across = np.arange(side)
    signs = np.resize([-1.0, 1.0], max(len(columns), len(rows)) + 1)
    s_x = _steps(across, columns, signs[: len(columns) + 1])
    s_y = _steps(across, rows, signs[: len(rows) + 1])
    corners = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)  # N 2
    return Texture(_grey(0.5 + 0.5 * np.outer(s_y, s_x)), corners.astype(np.float32))


def bricks(rng: Rng, side: int) -> Texture:
    """Courses of bricks; with joints of at least 5 px each brick has four corners."""
    height = draws.log_uniform(rng, 10, 45)
    length, joint = height * rng.uniform(1.3, 3.5), rng.uniform(1.5, 0.35 * height)
    mortar, spread = rng.uniform(0, 1), rng.uniform(0.02, 0.3)
    base = (mortar + rng.uniform(0.3, 0.7)) % 1
    image = np.full((side, side), mortar, np.float64)
    across, corners = np.arange(side), []
    top, course = -rng.uniform(0, height), 0
    while top < side:
        bottom = top + height - joint
        cover = np.clip(across - top + 0.5, 0, 1) - np.clip(across - bottom + 0.5, 0, 1)
        lefts = np.arange(-1, side / length + 1) * length + (course % 2) * length / 2
        edges = np.stack([lefts, lefts + length - joint], axis=1).ravel()
        greys = np.full(len(edges) + 1, mortar)
        greys[1::2] = base + spread * rng.standard_normal(len(lefts))
        image += cover[:, None] * (_steps(across, edges, greys) - mortar)[None, :]
        corners.append(np.stack(np.meshgrid(edges, [top, bottom]), axis=-1).reshape(-1, 2))
        top, course = top + height, course + 1
    if joint < 5:
        return Texture(_grey(image), NO_CORNERS)
    xy = np.concatenate(corners)
    inside = ((xy > 1) & (xy < side - 2)).all(axis=1)
    return Texture(_grey(image), xy[inside].astype(np.float32))


def voronoi(rng: Rng, side: int) -> Texture:
    """Voronoi cells of random sites, each with its own grey: stones, dry mud, scales."""
    fine = 2 * side
    count = int(draws.log_uniform(rng, 12, 400))
    sites = np.full((fine, fine), 255, np.uint8)
    sites[tuple(rng.integers(0, fine, (2, count)))] = 0
    distances, labels = cv2.distanceTransformWithLabels(
        sites, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    greys = rng.uniform(0, 1, count + 2).astype(np.float32)
    image = greys[labels]
    if rng.random() < 0.4:  # each cell darkens towards its border
        image -= np.float32(rng.uniform(0.2, 0.6)) * distances / (distances.max() + 1e-6)
    return Texture(_grey(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)), NO_CORNERS)


def gradient(rng: Rng, side: int) -> Texture:
    """Smoothly changing grey, along a line or around a point."""
    x, y = _coordinates(side)
    if rng.random() < 0.5:
        angle = draws.angle(rng)
        values = x * np.float32(math.cos(angle)) + y * np.float32(math.sin(angle))
    else:
        cx, cy = rng.uniform(-0.7, 0.7, 2).astype(np.float32) * side
        values = np.hypot(x - cx, y - cy)
    return Texture(_stretched(values), NO_CORNERS)


def network(rng: Rng, side: int) -> Texture:
    """A random network applied to the coordinates: smooth folds, rings and creases."""
    small = 72  # its features are larger than a few px, so the image is drawn small and enlarged
    x, y = (axis.ravel() / (small / 2) for axis in _coordinates(small))
    state = np.stack([x, y, np.hypot(x, y), np.ones_like(x)], axis=1)  # P 4
    state = state * math.exp(rng.uniform(0, 1.3))
    activations: tuple[Callable[[Values], Any], ...] = (np.sin, np.tanh, np.abs, np.cos)
    for width in (10, 10, 1):
        weights = rng.standard_normal((state.shape[1], width)).astype(np.float32)
        state = state @ (weights * np.float32(1.6 / math.sqrt(state.shape[1])))
        state = np.asarray(draws.pick(rng, activations)(state * np.float32(2)))
        state = state.astype(np.float32)
    image = cv2.resize(state.reshape(small, small), (side, side), interpolation=cv2.INTER_CUBIC)
    return Texture(_stretched(np.asarray(image, np.float32)), NO_CORNERS)


MAKERS: tuple[tuple[Callable[[Rng, int], Texture], float], ...] = (
    (grain, 0.28),
    (blotches, 0.14),
    (sinusoids, 0.06),
    (stripes, 0.08),
    (checks, 0.10),
    (bricks, 0.08),
    (voronoi, 0.08),
    (gradient, 0.08),
    (network, 0.10),
)
"""(maker, share). Noise has the largest share because real surfaces are mostly rough."""


def _coordinates(side: int) -> tuple[Values, Values]:
    axis = np.arange(side, dtype=np.float32) - np.float32((side - 1) / 2)
    x, y = np.meshgrid(axis, axis)
    return x, y


def _edges(rng: Rng, length: float, width: float, uneven: float) -> NDArray[np.float64]:
    """Increasing positions of boundaries in 0..`length` px, `width` apart on average."""
    gaps = width * (1 + uneven * rng.uniform(-1, 1, int(length / (width * 0.4)) + 2))
    edges = np.cumsum(np.maximum(gaps, 2.0)) - rng.uniform(0, width)
    kept: NDArray[np.float64] = edges[(edges > 1) & (edges < length - 2)]
    return kept


def _steps(
    positions: NDArray[Any], edges: NDArray[np.float64], greys: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The grey at each position between edges; a px with an edge in it has the mean over the px."""
    if len(edges) == 0:
        return np.full(positions.shape, float(greys[0]))
    knots = np.stack([edges - 0.5, edges + 0.5], axis=1).ravel()
    values = np.stack([greys[:-1], greys[1:]], axis=1).ravel()
    return np.asarray(np.interp(positions, knots, values), np.float64)


def _stretched(values: Values) -> Grey:
    low, high = float(values.min()), float(values.max())
    return _grey((values - low) / max(high - low, 1e-6))


def _grey(values: NDArray[Any]) -> Grey:
    grey: Grey = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return grey
