"""Near-identical objects in rows: windows, tiles, fences, keys, dots, printed signs.

A descriptor can only distinguish them by their surroundings. Therefore instances differ a little,
some are missing, and a few other shapes cover them.
"""

from __future__ import annotations

import math

import numpy as np

from tiepoint.geometry import SizeHW
from tiepoint.training.scenes import draws, outlines
from tiepoint.training.scenes.basics import Points, Rng, rectangle
from tiepoint.training.scenes.canvas import Canvas, Sheet, vertex_kinds
from tiepoint.training.scenes.palette import Palette, radii

Part = tuple[Points, int]
"""An outline around (0, 0) and its grey."""


def repeats(rng: Rng, size_hw: SizeHW) -> Sheet:
    """A lattice of one or two motifs on a plain or textured ground."""
    palette = Palette(rng, textures=3)
    height, width = size_hw
    canvas = palette.canvas(size_hw)
    pitch = draws.log_uniform(rng, 36, 150)
    steps = pitch * np.array([1.0, math.exp(rng.uniform(-0.4, 0.5))])  # across, down
    motif, other_motif = _motif(rng, steps, palette), _motif(rng, steps, palette)
    shear, offset = rng.normal(0, 0.06), rng.choice([0, 0, 0.5])
    jitter, tone = rng.choice([0, 0.02, 0.06]), rng.uniform(0, 25)
    missing, changed = rng.choice([0, 0.04, 0.15]), rng.choice([0, 0.05, 0.5])
    for row in range(-2, int(height / steps[1]) + 3):
        for column in range(-3, int(width / steps[0]) + 3):
            if rng.random() < missing:
                continue
            node = np.array([column + (row % 2) * offset + shear * row, row + 0.3 * shear * column])
            centre = (node + rng.normal(0, 1, 2) * jitter) * steps
            parts = other_motif if rng.random() < changed else motif
            _draw(canvas, parts, centre, rng.normal(0, tone))
    least, most = 12.0, 0.2 * min(size_hw)
    for radius in radii(rng, int(rng.integers(0, 12)), least, max(most, 2 * least)):
        centre = rng.uniform((0, 0), (width, height))
        points = outlines.outline(rng, 1.5 * radius) + centre
        canvas.polygon(points, palette.fill(radius, centre), vertices=vertex_kinds(points))
    return canvas.sheet()


def _draw(canvas: Canvas, parts: list[Part], centre: Points, tone: float) -> None:
    height, width = canvas.size_hw
    for outline, grey in parts:
        points = outline + centre
        if (points.max(axis=0) < -2).any() or (points.min(axis=0) > (width + 1, height + 1)).any():
            continue
        shade = int(np.clip(grey + tone, 0, 255))
        canvas.polygon(points, shade, vertices=vertex_kinds(points))


def _motif(rng: Rng, steps: Points, palette: Palette) -> list[Part]:
    """The repeated object: a window, a tile, a bar, a signet or a dot."""
    half_wh = steps / 2 * rng.uniform(0.55, 0.92)
    kind = int(rng.integers(5))
    if kind == 0:
        return _window(rng, half_wh, palette)
    if kind == 1:
        return [(rectangle(half_wh), palette.grey())]
    if kind == 2:  # a picket or a plank: as tall as the row
        return [(rectangle((half_wh[0] * rng.uniform(0.2, 0.7), steps[1] / 2)), palette.grey())]
    radius = float(half_wh.min())
    parts = [(outlines.outline(rng, radius), palette.grey())]
    if kind == 4 and radius > 16:
        parts.append((outlines.outline(rng, radius * rng.uniform(0.35, 0.6)), palette.grey()))
    return parts


def _window(rng: Rng, half_wh: Points, palette: Palette) -> list[Part]:
    """A frame and one to four panes, with or without a sill."""
    parts = [(rectangle(half_wh), palette.grey())]
    if rng.random() < 0.4:
        sill = rectangle((half_wh[0] * 1.1, max(2.0, half_wh[1] * 0.08)))
        parts.append((sill + np.array([0, half_wh[1]]), palette.grey()))
    across, down = (int(n) for n in rng.integers(1, 3, 2))
    bar = max(2.5, float(half_wh.min()) * rng.uniform(0.08, 0.2))
    pane = (half_wh - bar * (np.array([across, down]) + 1) / 2) / (across, down)
    if (pane < 4).any():
        return parts
    grey = palette.grey()
    for row in range(down):
        for column in range(across):
            step = np.array([column - (across - 1) / 2, row - (down - 1) / 2])
            parts.append((rectangle(pane) + step * (2 * pane + bar), grey))
    return parts
