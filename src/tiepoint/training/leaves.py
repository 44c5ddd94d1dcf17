"""Dead leaves: shapes of all sizes falling over one another, with textures.

Source: Lee, Mumford, Huang, "Occlusion models for natural images" (2001): with a density of radii
r^-3 the picture looks alike at every scale, as photographs do.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tiepoint.training import glyphs
from tiepoint.training.canvas import Canvas, Fill, Sheet, vertex_kinds
from tiepoint.training.outlines import outline
from tiepoint.training.textures import Texture, texture

Rng = np.random.Generator

LEAST_RADIUS_PX = (9.0, 28.0)
TEXTURES = 6
TEXTURE_SIDE = 256
TEXTURED_FROM_PX = 14.0  # a texture on a smaller leaf cannot be told from a grey


class Palette:
    """The greys and textures of one scene: few, as the materials of a place are."""

    def __init__(self, rng: Rng, textures: int = TEXTURES) -> None:
        self._rng = rng
        self.textures: list[Texture] = [texture(rng, TEXTURE_SIDE) for _ in range(textures)]
        self._centre, self._spread = rng.uniform(60, 195), math.exp(rng.uniform(3.2, 4.6))
        self._rough = rng.uniform(0.25, 1.0)  # how many surfaces are textured

    def grey(self) -> int:
        """A grey of this scene, 0..255."""
        return int(np.clip(self._rng.normal(self._centre, self._spread), 0, 255))

    def fill(self, radius: float) -> int | Fill:
        """A grey or a texture for a shape of this size in px."""
        if radius < TEXTURED_FROM_PX or self._rng.random() > self._rough:
            return self.grey()
        return self.textured(self.textures[int(self._rng.integers(len(self.textures)))])

    def textured(self, chosen: Texture, around: tuple[float, float] = (0.0, 0.0)) -> Fill:
        """A texture with greys of this scene, anywhere and at any angle."""
        rng = self._rng
        middle, range_ = float(self.grey()), math.exp(rng.uniform(2.3, 5.2))
        sign = 1 if rng.random() < 0.5 else -1
        greys = middle + sign * range_ * (np.arange(256) / 255 - 0.5)
        scale, angle = math.exp(rng.uniform(-0.4, 0.7)), rng.uniform(0, 2 * math.pi)
        side = chosen.image.shape[0]
        return Fill(
            chosen,
            _laid(scale, angle, side, around),
            np.clip(greys, 0, 255).astype(np.uint8),
        )


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


def radii(rng: Rng, count: int, least: float, most: float) -> NDArray[np.float64]:
    """Radii with density r^-3 between two limits, px."""
    u = rng.random(count)
    inverse = least**-2 + u * (most**-2 - least**-2)
    return np.asarray(inverse**-0.5, np.float64)


def placed(fill: int | Fill, centre: tuple[float, float]) -> int | Fill:
    """A fill whose texture's middle lies near a point, so that little of it is mirrored."""
    if not isinstance(fill, Fill):
        return fill
    matrix = fill.matrix.copy()
    matrix[:, 2] += centre
    return Fill(fill.texture, matrix, fill.greys)


def _laid(
    scale: float, angle: float, side: int, around: tuple[float, float]
) -> NDArray[np.float64]:
    """2 3: a texture turned and scaled, its middle at `around`."""
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    linear = np.array([[cos, -sin], [sin, cos]])
    middle = np.full(2, (side - 1) / 2)
    return np.column_stack([linear, np.asarray(around) - linear @ middle])
