"""Dead leaves: textured shapes of all sizes that fall on top of one another.

Source: Lee, Mumford, Huang, "Occlusion models for natural images" (2001). With a density of radii
r^-3 the image looks alike at every scale, as photographs do.
"""

from __future__ import annotations

import math

from tiepoint.geometry import SizeHW
from tiepoint.training.scenes import draws, glyphs
from tiepoint.training.scenes.basics import Rng
from tiepoint.training.scenes.canvas import Sheet, vertex_kinds
from tiepoint.training.scenes.outlines import outline
from tiepoint.training.scenes.palette import Palette, radii

LEAST_RADIUS_PX = (9.0, 28.0)
"""Range of the smallest radius of a scene."""


def leaves(rng: Rng, size_hw: SizeHW) -> Sheet:
    """A dead-leaves scene of (height, width) in px."""
    palette = Palette(rng)
    height, width = size_hw
    canvas = palette.canvas(size_hw)
    least = draws.log_uniform(rng, *LEAST_RADIUS_PX)
    most = max(size_hw) * rng.uniform(0.25, 0.5)
    layers = rng.uniform(0.8, 2.2)  # total area of the leaves in areas of the sheet
    mean_area = math.pi * 2 * least**2 * math.log(most / least) * 0.4
    count = int(layers * height * width / mean_area)
    for radius in radii(rng, count, least, most):
        centre = rng.uniform((-20, -20), (width + 20, height + 20))
        fill = palette.fill(radius, centre)
        if radius > 10 and rng.random() < 0.06:
            glyphs.draw_glyph(canvas, rng, centre, 2 * radius, fill)
            continue
        points = outline(rng, radius) + centre
        canvas.polygon(points, fill, vertices=vertex_kinds(points))
    return canvas.sheet()
