"""The sheets of the scenes in use, on a device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tiepoint.geometry import SizeHW
from tiepoint.training.on_device.transfer import together_on
from tiepoint.training.scenes.stored import scene_dtype

GROWTH = 1.25  # of the memory, each time it is too small


class SheetBank:
    """Sheets and backdrops of scenes, by the numbers of the scenes.

    Args:
        size_hw: (height, width) of the views, px.
        scenes: Number of scenes to expect; the memory grows if there are more.

    Attributes:
        atlases: N H W uint8, the levels of each sheet; see `layouts.AtlasShape`.
        corners: N C 4 float32: x, y, clearance (px of the sheet), 1 if positive.
        backdrops: M h w uint8.
    """

    def __init__(self, size_hw: SizeHW, scenes: int, place: torch.device) -> None:
        kind = scene_dtype(size_hw)
        self._place = place
        self._of: dict[int, tuple[list[int], NDArray[np.int32], int]] = {}
        """Number of a scene -> rows of its sheets, counts of their corners, row of its backdrop."""
        _, *atlas_hw = kind["atlases"].shape
        _, *corners = kind["corners"].shape
        self.atlases = torch.zeros((2 * scenes, *atlas_hw), dtype=torch.uint8, device=place)
        self.corners = torch.zeros((2 * scenes, *corners), device=place)
        self.backdrops = torch.zeros(
            (scenes, *kind["backdrop"].shape), dtype=torch.uint8, device=place
        )
        self._free, self._free_backdrops = list(range(2 * scenes)), list(range(scenes))

    def __len__(self) -> int:
        """Number of scenes in it."""
        return len(self._of)

    def add(self, scenes: Sequence[tuple[int, Any]]) -> None:
        """Upload scenes: (number, row of `scene_dtype`) each; the rows may change afterwards."""
        if not scenes:
            return
        counts = [int(stored["sheets"]) for _, stored in scenes]
        self._grow(sum(counts), len(scenes))
        rows, backdrops = [], []
        for (number, stored), count in zip(scenes, counts, strict=True):
            own = [self._free.pop() for _ in range(count)]
            backdrop = self._free_backdrops.pop()
            self._of[number] = own, stored["counts"][:count].copy(), backdrop
            rows += own
            backdrops.append(backdrop)
        arrays = {
            "rows": np.array(rows),
            "backdrop_rows": np.array(backdrops),
            **{
                name: np.concatenate(
                    [s[name][:n] for (_, s), n in zip(scenes, counts, strict=True)]
                )
                for name in ("atlases", "corners")
            },
            "backdrops": np.stack([stored["backdrop"] for _, stored in scenes]),
        }
        on = together_on(arrays, self._place)
        self.atlases.index_copy_(0, on["rows"], on["atlases"])
        self.corners.index_copy_(0, on["rows"], on["corners"])
        self.backdrops.index_copy_(0, on["backdrop_rows"], on["backdrops"])

    def keep(self, numbers: Iterable[int]) -> None:
        """Free the memory of all other scenes, for what is uploaded from now on."""
        kept = set(numbers)
        for number in [number for number in self._of if number not in kept]:
            rows, _, backdrop = self._of.pop(number)
            self._free += rows
            self._free_backdrops.append(backdrop)

    def sheet_rows(self, number: int) -> list[int]:
        """Rows of `atlases` and `corners` of the sheets of a scene."""
        return self._of[number][0]

    def corner_counts(self, number: int) -> NDArray[np.int32]:
        """Number of corners of each sheet of a scene."""
        return self._of[number][1]

    def backdrop_row(self, number: int) -> int:
        """Row of `backdrops` of a scene."""
        return self._of[number][2]

    def _grow(self, sheets: int, scenes: int) -> None:
        if (missing := sheets - len(self._free)) > 0:
            more = max(missing, round((GROWTH - 1) * len(self.atlases)))
            self._free += range(len(self.atlases), len(self.atlases) + more)
            self.atlases, self.corners = _larger(self.atlases, more), _larger(self.corners, more)
        if (missing := scenes - len(self._free_backdrops)) > 0:
            more = max(missing, round((GROWTH - 1) * len(self.backdrops)))
            self._free_backdrops += range(len(self.backdrops), len(self.backdrops) + more)
            self.backdrops = _larger(self.backdrops, more)


def _larger(values: Tensor, rows: int) -> Tensor:
    return torch.cat([values, values.new_zeros((rows, *values.shape[1:]))])
