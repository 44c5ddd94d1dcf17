"""Scenes by kind, kept in a bank and looked at several times.

Slot `index % bank` shows one scene for `reuse` rounds and then another; slots change at different
rounds, so that the work is even. What a pair shows depends on seed and index alone: whoever lacks a
scene draws it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.training.scenes import boxes, glyphs, leaves, photographs, repeats, shapes
from tiepoint.training.scenes.cameras import Matrix, flat_views
from tiepoint.training.scenes.canvas import Canvas, Sheet
from tiepoint.training.scenes.palette import Palette, placed
from tiepoint.training.scenes.render import Layer
from tiepoint.training.scenes.settings import RASTER_PER_PX, DataConfig
from tiepoint.training.scenes.textures import Grey, texture

Rng = np.random.Generator
Draw = Callable[[Rng, tuple[int, int]], Sheet]

SHEET_SIDES = 1.5
"""A sheet is so many times larger than what a view at scale 1 shows of it."""

DRAWN: dict[str, Draw] = {
    "leaves": leaves.leaves,
    "shapes": shapes.shapes,
    "glyphs": glyphs.glyph_sheet,
    "repeats": repeats.repeats,
}

PLANES = (0.42, 0.08, 0.16, 0.16, 0.18)
"""Shares of the drawn kinds, in their order, and of plain surfaces on the planes of a scene."""

OBJECT_SHEETS = 3


@dataclass(frozen=True, eq=False)
class Scene:
    """What is drawn once and seen by several pairs.

    Attributes:
        kind: One of `settings.KINDS`.
        sheets: One for a flat scene, several for boxes.
        backdrop: uint8, behind everything.
    """

    kind: str
    sheets: tuple[Sheet, ...]
    backdrop: Grey


@dataclass(frozen=True, eq=False)
class Look:
    """Two cameras before a scene.

    Attributes:
        layers: What there is.
        to_views: For A and B: 3x3 per layer, px of its sheet -> px of the view.
        orders: For A and B: the layers to draw, far ones first.
    """

    layers: Sequence[Layer]
    to_views: tuple[Sequence[Matrix], Sequence[Matrix]]
    orders: tuple[Sequence[int], Sequence[int]]


_BANK: OrderedDict[tuple[DataConfig, int, int], tuple[int, Scene]] = OrderedDict()
"""(config, seed, slot) -> (scene number, scene) of this process; only ever saves time."""


def scene(config: DataConfig, seed: int, index: int) -> Scene:
    """The scene that the pair of this index shows."""
    number = scene_number(config, index)
    key = config, seed, index % config.bank
    held = _BANK.get(key)
    if held is not None and held[0] == number:
        _BANK.move_to_end(key)
        return held[1]
    drawn = draw_scene(config, np.random.default_rng([seed, number, 0]))
    _BANK[key] = number, drawn
    _BANK.move_to_end(key)
    while len(_BANK) > config.bank:
        _BANK.popitem(last=False)
    return drawn


def scene_number(config: DataConfig, index: int) -> int:
    """Which scene a pair shows; pairs less than `bank` apart never share one."""
    turn, slot = divmod(index, config.bank)
    started = slot * config.reuse // config.bank  # rounds that this slot is ahead
    return (turn + started) // config.reuse * config.bank + slot


def draw_scene(config: DataConfig, rng: Rng) -> Scene:
    """A new scene of a kind that the mix gives."""
    shares = config.shares()
    kind = str(rng.choice(list(shares), p=np.array(list(shares.values()))))
    height, width = (round(RASTER_PER_PX * SHEET_SIDES * side) for side in config.size_hw)
    backdrop = texture(rng, 96).image
    backdrop = np.asarray(cv2.GaussianBlur(backdrop, (0, 0), math.exp(rng.uniform(0, 2.5))))
    if kind == "boxes":
        wall = _sheet(config, rng, (height, width))
        side = round(0.7 * min(height, width))
        others = [_sheet(config, rng, (side, side)) for _ in range(OBJECT_SHEETS)]
        return Scene(kind, (wall, *others), backdrop)
    if kind == "photo":
        sheet = photographs.photograph(rng, (height, width), config.photos, config.part)
    else:
        sheet = DRAWN[kind](rng, (height, width))
    return Scene(kind, (sheet,), backdrop)


def _sheet(config: DataConfig, rng: Rng, size_hw: tuple[int, int]) -> Sheet:
    """What a plane of a scene in space shows: any drawn kind, one texture, or a photograph."""
    if config.photos and rng.random() < config.photo_share:
        return photographs.photograph(rng, size_hw, config.photos, config.part)
    kind = rng.choice([*DRAWN, "surface"], p=PLANES)
    return surface(rng, size_hw) if kind == "surface" else DRAWN[kind](rng, size_hw)


def surface(rng: Rng, size_hw: tuple[int, int]) -> Sheet:
    """One material all over."""
    palette = Palette(rng, textures=1)
    height, width = size_hw
    fill = palette.textured(palette.textures[0]) if rng.random() < 0.75 else palette.grey()
    return Canvas(size_hw, placed(fill, (width / 2, height / 2))).sheet()


def look(scene: Scene, config: DataConfig, rng: Rng) -> Look:
    """Two cameras before a scene, drawn anew for each pair."""
    if scene.kind == "boxes":
        return Look(*boxes.two_looks(rng, config.geometry, config.size_hw, scene.sheets))
    sheet = scene.sheets[0]
    height, width = sheet.image.shape
    to_a, to_b = flat_views(
        rng, config.geometry, config.size_hw, (height, width), upright=scene.kind == "photo"
    )
    layer = Layer(sheet, whole((height, width)), np.zeros(4, bool), 0)
    return Look([layer], ([to_a], [to_b]), ([0], [0]))


def whole(size_hw: tuple[int, int]) -> NDArray[np.float64]:
    """The outline of a sheet: 4 2 px."""
    right, bottom = size_hw[1] - 0.5, size_hw[0] - 0.5
    return np.array([[-0.5, -0.5], [right, -0.5], [right, bottom], [-0.5, bottom]])
