"""What lies around chosen pixels of a map."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Windows:
    """Square windows around some pixels of maps of one size, s = 2 reach_px + 1.

    Args:
        size_hw: (height, width) of the maps, px.
        rows, columns: N.
        reach_px: How far a window goes to each side.

    Attributes:
        offsets: s float32, px.
    """

    def __init__(
        self,
        size_hw: tuple[int, ...],
        rows: NDArray[np.intp],
        columns: NDArray[np.intp],
        reach_px: int,
    ) -> None:
        height, width = size_hw
        steps = np.arange(-reach_px, reach_px + 1)
        self.offsets: NDArray[np.float32] = steps.astype(np.float32)
        self._at = ((steps * width)[:, None] + steps)[..., None] + (rows * width + columns)  # s s N
        self._outside: NDArray[np.bool_] | None = None
        if not (_lie_within(rows, reach_px, height) and _lie_within(columns, reach_px, width)):
            y, x = rows + steps[:, None], columns + steps[:, None]  # s N, s N
            out_y, out_x = (y < 0) | (y >= height), (x < 0) | (x >= width)
            self._outside = out_y[:, None] | out_x  # s s N
            self._at[self._outside] = 0

    def of(self, values: NDArray[Any]) -> NDArray[Any]:
        """What the windows hold of a map H W; outside it all is 0.

        Returns:
            s s N (row, column, pixel): pixels last, so that sums over a window run along memory.
        """
        around: NDArray[Any] = np.take(values.reshape(-1), self._at)
        if self._outside is not None:
            around[self._outside] = 0
        return around


def _lie_within(places: NDArray[np.intp], reach_px: int, length: int) -> bool:
    """Whether all windows along one side end on the map."""
    return len(places) == 0 or bool(places.min() >= reach_px and places.max() < length - reach_px)
