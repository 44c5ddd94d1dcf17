"""Dead leaves: shapes of all sizes falling over one another, with textures.

Source: Lee, Mumford, Huang, "Occlusion models for natural images" (2001): with a density of radii
r^-3 the picture looks alike at every scale, as photographs do.
"""

from __future__ import annotations

import math

import numpy as np

from tiepoint.training.scenes import glyphs
from tiepoint.training.scenes.canvas import Canvas, Sheet, vertex_kinds
from tiepoint.training.scenes.outlines import outline
from tiepoint.training.scenes.palette import Palette, placed, radii

Rng = np.random.Generator

LEAST_RADIUS_PX = (9.0, 28.0)


def leaves(rng: Rng, size_hw: tuple[int, int]) -> Sheet:
    """A dead-leaves scene.

    Args:
        size_hw: (height, width) in px of the sheet.
    """
    palette = Palette(rng)
    height, width = size_hw
    canvas = Canvas(size_hw, placed(palette.fill(1e9), (width / 2, height / 2)))
    least = math.exp(rng.uniform(*np.log(LEAST_RADIUS_PX)))
    most = max(size_hw) * rng.uniform(0.25, 0.5)
    covered = rng.uniform(0.8, 2.2)  # how often the leaves would cover the sheet side by side
    mean_area = math.pi * 2 * least**2 * math.log(most / least) * 0.4
    count = int(covered * height * width / mean_area)
    for radius in radii(rng, count, least, most):
        centre = rng.uniform((-20, -20), (width + 20, height + 20))
        fill = placed(palette.fill(radius), (float(centre[0]), float(centre[1])))
        if radius > 10 and rng.random() < 0.06:
            glyphs.draw_glyph(canvas, rng, centre, 2 * radius, fill)
            continue
        points = outline(rng, radius) + centre
        canvas.polygon(points, fill, vertices=vertex_kinds(points))
    return canvas.sheet()
