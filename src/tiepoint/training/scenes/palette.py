"""Greys, textures and sizes of the shapes in one scene."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tiepoint.geometry import SizeHW
from tiepoint.training.scenes import draws
from tiepoint.training.scenes.basics import Rng
from tiepoint.training.scenes.canvas import Canvas, Fill
from tiepoint.training.scenes.textures import Texture, texture

TEXTURES = 6
TEXTURE_SIDE = 256
TEXTURED_FROM_PX = 14.0  # a texture on a smaller shape looks like a plain grey


class Palette:
    """The few greys and textures of one scene, as a real place has few materials."""

    def __init__(self, rng: Rng, textures: int = TEXTURES) -> None:
        self._rng = rng
        self.textures: list[Texture] = [texture(rng, TEXTURE_SIDE) for _ in range(textures)]
        self._centre, self._spread = rng.uniform(60, 195), math.exp(rng.uniform(3.2, 4.6))
        self._textured_share = rng.uniform(0.25, 1.0)

    def grey(self) -> int:
        """A grey of this scene, 0..255."""
        return int(np.clip(self._rng.normal(self._centre, self._spread), 0, 255))

    def fill(self, radius: float, centre: ArrayLike) -> int | Fill:
        """A grey or a texture for a shape of a radius (px) around (x, y) px."""
        if radius < TEXTURED_FROM_PX or self._rng.random() > self._textured_share:
            return self.grey()
        return self.textured(draws.pick(self._rng, self.textures), centre)

    def textured(self, texture: Texture, centre: ArrayLike) -> Fill:
        """A texture at any angle, with greys of this scene and its middle at (x, y) px."""
        rng = self._rng
        middle, range_ = float(self.grey()), math.exp(rng.uniform(2.3, 5.2))
        sign = 1 if rng.random() < 0.5 else -1
        greys = middle + sign * range_ * (np.arange(256) / 255 - 0.5)
        scale, angle = math.exp(rng.uniform(-0.4, 0.7)), draws.angle(rng)
        cos, sin = scale * math.cos(angle), scale * math.sin(angle)
        linear = np.array([[cos, -sin], [sin, cos]])
        texture_middle = np.full(2, (texture.image.shape[0] - 1) / 2)
        matrix = np.column_stack([linear, np.asarray(centre) - linear @ texture_middle])
        return Fill(texture, matrix, np.clip(greys, 0, 255).astype(np.uint8))

    def canvas(self, size_hw: SizeHW) -> Canvas:
        """A canvas whose background is a grey or a texture of this scene."""
        return Canvas(size_hw, self.fill(math.inf, middle_xy(size_hw)))


def middle_xy(size_hw: SizeHW) -> tuple[float, float]:
    """(x, y) of the middle of a sheet, px."""
    return size_hw[1] / 2, size_hw[0] / 2


def radii(rng: Rng, count: int, least: float, most: float) -> NDArray[np.float64]:
    """N: radii with density r^-3 between two limits, px."""
    u = rng.random(count)
    inverse = least**-2 + u * (most**-2 - least**-2)
    return np.asarray(inverse**-0.5, np.float64)
