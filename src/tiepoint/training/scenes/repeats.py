"""Near-identical things in rows: windows, tiles, fences, keys, dots, printed signs.

A descriptor must tell them apart by what lies around them, so instances differ a little, some are
missing, and a few things lie on top.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tiepoint.training.scenes import outlines
from tiepoint.training.scenes.canvas import Canvas, Points, Sheet, vertex_kinds
from tiepoint.training.scenes.palette import Palette, placed, radii

Rng = np.random.Generator
Part = tuple[Points, int]
"""An outline around (0, 0) and its grey."""


def repeats(rng: Rng, size_hw: tuple[int, int]) -> Sheet:
    """A lattice of one or two motifs over a plain or textured ground."""
    palette = Palette(rng, textures=3)
    height, width = size_hw
    canvas = Canvas(size_hw, placed(palette.fill(1e9), (width / 2, height / 2)))
    pitch = math.exp(rng.uniform(math.log(36), math.log(150)))
    steps = pitch * np.array([1.0, math.exp(rng.uniform(-0.4, 0.5))])  # across, down
    motif, other = _motif(rng, steps, palette), _motif(rng, steps, palette)
    shear, offset = rng.normal(0, 0.06), rng.choice([0, 0, 0.5])
    jitter, tone = rng.choice([0, 0.02, 0.06]), rng.uniform(0, 25)
    missing, changed = rng.choice([0, 0.04, 0.15]), rng.choice([0, 0.05, 0.5])
    for row in range(-2, int(height / steps[1]) + 3):
        for column in range(-3, int(width / steps[0]) + 3):
            if rng.random() < missing:
                continue
            place = np.array(
                [column + (row % 2) * offset + shear * row, row + 0.3 * shear * column]
            )
            centre = (place + rng.normal(0, 1, 2) * jitter) * steps
            parts = other if rng.random() < changed else motif
            _place(canvas, parts, centre, rng.normal(0, tone))
    least, most = 12.0, 0.2 * min(size_hw)
    for radius in radii(rng, int(rng.integers(0, 12)), least, max(most, 2 * least)):
        centre = rng.uniform((0, 0), (width, height))
        points = outlines.outline(rng, 1.5 * radius) + centre
        fill = placed(palette.fill(radius), (float(centre[0]), float(centre[1])))
        canvas.polygon(points, fill, vertices=vertex_kinds(points))
    return canvas.sheet()


def _place(canvas: Canvas, parts: list[Part], centre: NDArray[np.float64], tone: float) -> None:
    height, width = canvas.size_hw
    for points, grey in parts:
        at = points + centre
        if (at.max(axis=0) < -2).any() or (at.min(axis=0) > (width + 1, height + 1)).any():
            continue
        shade = int(np.clip(grey + tone, 0, 255))
        canvas.polygon(at, shade, vertices=vertex_kinds(at))


def _motif(rng: Rng, steps: NDArray[np.float64], palette: Palette) -> list[Part]:
    """What is repeated: a window, a tile, a bar, a signet, a dot."""
    room = steps / 2 * rng.uniform(0.55, 0.92)  # half sizes
    kind = int(rng.integers(5))
    if kind == 0:
        return _window(rng, room, palette)
    if kind == 1:
        return [(_box(room), palette.grey())]
    if kind == 2:  # a picket or a plank: as tall as the row
        return [(_box(np.array([room[0] * rng.uniform(0.2, 0.7), steps[1] / 2])), palette.grey())]
    radius = float(room.min())
    parts = [(outlines.outline(rng, radius), palette.grey())]
    if kind == 4 and radius > 16:
        parts.append((outlines.outline(rng, radius * rng.uniform(0.35, 0.6)), palette.grey()))
    return parts


def _window(rng: Rng, room: NDArray[np.float64], palette: Palette) -> list[Part]:
    """A frame and one to four panes; with a sill or without."""
    parts = [(_box(room), palette.grey())]
    if rng.random() < 0.4:
        sill = np.array([room[0] * 1.1, max(2.0, room[1] * 0.08)])
        parts.append((_box(sill) + np.array([0, room[1]]), palette.grey()))
    across, down = (int(n) for n in rng.integers(1, 3, 2))
    bar = max(2.5, float(room.min()) * rng.uniform(0.08, 0.2))
    pane = (room - bar * (np.array([across, down]) + 1) / 2) / (across, down)
    if (pane < 4).any():
        return parts
    grey = palette.grey()
    for row in range(down):
        for column in range(across):
            step = np.array([column - (across - 1) / 2, row - (down - 1) / 2])
            parts.append((_box(pane) + step * (2 * pane + bar), grey))
    return parts


def _box(half: NDArray[np.float64]) -> Points:
    return np.asarray(np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half, np.float64)
