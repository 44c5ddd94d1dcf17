"""Greys, textures and sizes of the shapes in one scene."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tiepoint.training.scenes.canvas import Fill
from tiepoint.training.scenes.textures import Texture, texture

Rng = np.random.Generator

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
