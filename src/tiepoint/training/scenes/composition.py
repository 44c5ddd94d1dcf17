"""Scenes of all kinds, kept in a bank and used for several pairs each.

Slot `index % bank` shows one scene for `reuse` rounds and then the next one. Slots change at
different rounds, so that the work is even. The content of a pair depends on seed and index alone:
a scene that is not in the bank is drawn.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from tiepoint.geometry import SizeHW
from tiepoint.training.scenes import boxes, glyphs, leaves, photographs, repeats, shapes
from tiepoint.training.scenes.basics import Grey, Rng
from tiepoint.training.scenes.cameras import flat_views
from tiepoint.training.scenes.canvas import Canvas, Sheet
from tiepoint.training.scenes.palette import Palette, middle_xy
from tiepoint.training.scenes.render import Plane, ViewPair
from tiepoint.training.scenes.settings import RASTER_PER_PX, DataConfig
from tiepoint.training.scenes.textures import texture

SHEET_SIDES = 1.5
"""Size of a sheet relative to the part that a view at scale 1 shows."""

OBJECT_SHEETS = 3
MOST_SHEETS = 1 + OBJECT_SHEETS  # of a scene
BACKDROP_PX = 96  # side of a backdrop


def plain_sheet(rng: Rng, size_hw: SizeHW) -> Sheet:
    """A sheet of one texture or grey."""
    palette = Palette(rng, textures=1)
    is_textured = rng.random() < 0.75
    middle = middle_xy(size_hw)
    fill = palette.textured(palette.textures[0], middle) if is_textured else palette.grey()
    return Canvas(size_hw, fill).sheet()


DRAWN: dict[str, Callable[[Rng, SizeHW], Sheet]] = {
    "leaves": leaves.leaves,
    "shapes": shapes.shapes,
    "glyphs": glyphs.glyph_sheet,
    "repeats": repeats.repeats,
    "plain": plain_sheet,
}

SURFACE_SHARES = (0.42, 0.08, 0.16, 0.16, 0.18)
"""Shares of the drawn kinds, in their order, in box scenes."""


@dataclass(frozen=True, eq=False)
class Scene:
    """A scene that several pairs show."""

    kind: str  # one of `settings.KINDS`
    sheets: tuple[Sheet, ...]  # one for a flat scene, several for boxes
    backdrop: Grey  # behind everything


BANK: OrderedDict[tuple[DataConfig, int, int], tuple[int, Scene]] = OrderedDict()
"""(config, seed, slot) -> (scene number, scene) of this process: a cache."""


def scene(config: DataConfig, seed: int, index: int) -> Scene:
    """The scene that the pair of this index shows."""
    number = scene_number(config, index)
    key = config, seed, index % config.bank
    if key not in BANK or BANK[key][0] != number:
        BANK[key] = number, draw_scene(config, np.random.default_rng([seed, number, 0]))
    BANK.move_to_end(key)
    while len(BANK) > config.bank:
        BANK.popitem(last=False)
    return BANK[key][1]


def scene_number(config: DataConfig, index: int) -> int:
    """The number of the scene of a pair; pairs less than `bank` apart never share one."""
    turn, slot = divmod(index, config.bank)
    rounds_ahead = slot * config.reuse // config.bank
    return (turn + rounds_ahead) // config.reuse * config.bank + slot


def draw_scene(config: DataConfig, rng: Rng) -> Scene:
    """A new scene of a kind drawn from the mix."""
    kinds, shares = zip(*config.shares().items(), strict=True)
    return scene_of(str(rng.choice(kinds, p=shares)), config, rng)


def scene_of(kind: str, config: DataConfig, rng: Rng) -> Scene:
    """A new scene of one kind."""
    height, width = (round(RASTER_PER_PX * SHEET_SIDES * side) for side in config.size_hw)
    backdrop = texture(rng, BACKDROP_PX).image
    backdrop = np.asarray(cv2.GaussianBlur(backdrop, (0, 0), math.exp(rng.uniform(0, 2.5))))
    if kind != "boxes":
        return Scene(kind, (_sheet(kind, config, rng, (height, width)),), backdrop)
    side, sheets = round(0.7 * min(height, width)), []
    for size_hw in [(height, width)] + [(side, side)] * OBJECT_SHEETS:
        photo = config.photos and rng.random() < config.photo_share
        drawn = "photo" if photo else str(rng.choice(list(DRAWN), p=SURFACE_SHARES))
        sheets.append(_sheet(drawn, config, rng, size_hw))
    return Scene(kind, tuple(sheets), backdrop)


def _sheet(kind: str, config: DataConfig, rng: Rng, size_hw: SizeHW) -> Sheet:
    if kind == "photo":
        return photographs.photograph(rng, size_hw, config.photos, config.part)
    return DRAWN[kind](rng, size_hw)


def view_pair(scene: Scene, config: DataConfig, rng: Rng) -> ViewPair:
    """Two random cameras before a scene."""
    if scene.kind == "boxes":
        return boxes.box_views(rng, config.geometry, config.size_hw, scene.sheets)
    sheet, upright = scene.sheets[0], scene.kind == "photo"
    a, b = flat_views(rng, config.geometry, config.size_hw, sheet.size_hw, upright=upright)
    plane = Plane(sheet, sheet.outline, np.zeros(4, bool), 0)
    return ViewPair([plane], ([a], [b]), ([0], [0]))
