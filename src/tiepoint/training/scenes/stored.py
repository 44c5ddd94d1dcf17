"""Scenes as rows of fixed size, which processes and devices exchange."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiepoint.geometry import SizeHW
from tiepoint.training.scenes.basics import Grey
from tiepoint.training.scenes.canvas import Sheet
from tiepoint.training.scenes.composition import BACKDROP_PX, MOST_SHEETS, SHEET_SIDES, Scene
from tiepoint.training.scenes.settings import RASTER_PER_PX

CORNER_PX = 64
"""px of a sheet per corner that is kept of it; drawn sheets have at most half as many."""


@dataclass(frozen=True)
class AtlasShape:
    """The levels of a sheet side by side in one image: 1 at the left; 1/2 and 1/4 at its right."""

    sheet_hw: SizeHW  # of the largest sheet

    @property
    def size_hw(self) -> SizeHW:
        """(height, width) in px."""
        return self.sheet_hw[0], self.sheet_hw[1] + self.sheet_hw[1] // 2

    def offsets_xy(self, levels: NDArray[np.int64]) -> NDArray[np.float64]:
        """N 2 px: top left px of each level."""
        height, width = self.sheet_hw
        return np.array([[0, 0], [width, 0], [width, height // 2]], np.float64)[levels]

    def fill(self, sheet: Sheet, atlas: Grey) -> None:
        """Copy the levels of a sheet into an atlas of this shape."""
        for level, (left, top) in zip(
            sheet.levels, self.offsets_xy(np.arange(3)).astype(int), strict=True
        ):
            height, width = level.shape
            atlas[top : top + height, left : left + width] = level


def atlas_shape(size_hw: SizeHW) -> AtlasShape:
    """The atlas for the sheets of views of this size."""
    height, width = (round(RASTER_PER_PX * SHEET_SIDES * side) for side in size_hw)
    return AtlasShape((height, width))


def scene_dtype(size_hw: SizeHW) -> np.dtype[Any]:
    """The fields of a stored scene, for views of this size."""
    atlas = atlas_shape(size_hw)
    corners = math.prod(atlas.sheet_hw) // CORNER_PX
    return np.dtype([
        ("sheets", np.int32),  # number of them
        ("atlases", np.uint8, (MOST_SHEETS, *atlas.size_hw)),
        ("corners", np.float32, (MOST_SHEETS, corners, 4)),  # x, y, clearance, 1 if positive
        ("counts", np.int32, MOST_SHEETS),  # corners of each sheet
        ("backdrop", np.uint8, (BACKDROP_PX, BACKDROP_PX)),
    ])  # fmt: skip


def store_scene(scene: Scene, stored: Any, size_hw: SizeHW) -> None:
    """Copy a scene into a row of `scene_dtype`; corners that find no room are left out."""
    stored["sheets"], stored["backdrop"] = len(scene.sheets), scene.backdrop
    for number, sheet in enumerate(scene.sheets):
        atlas_shape(size_hw).fill(sheet, stored["atlases"][number])
        room = stored["corners"][number]
        count = stored["counts"][number] = min(len(sheet.corners_xy), len(room))
        room[:count, :2], room[:count, 2] = sheet.corners_xy[:count], sheet.clearance[:count]
        room[:count, 3] = sheet.positive[:count]
        room[count:] = 0  # without clearance they are no corners
