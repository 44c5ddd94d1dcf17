"""Square windows around chosen pixels of a map."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Windows:
    """Windows around N pixels of maps of one size; s = 2 reach_px + 1.

    Args:
        size_hw: (height, width) of the maps, px.
        rows, columns: N.
        reach_px: Half-width of a window.

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
        self._index = ((steps * width)[:, None] + steps)[..., None] + (
            rows * width + columns
        )  # s s N
        self._outside: NDArray[np.bool_] | None = None
        if not (_all_within(rows, reach_px, height) and _all_within(columns, reach_px, width)):
            y, x = rows + steps[:, None], columns + steps[:, None]  # s N, s N
            out_y, out_x = (y < 0) | (y >= height), (x < 0) | (x >= width)
            self._outside = out_y[:, None] | out_x  # s s N
            self._index[self._outside] = 0

    def gather(self, values: NDArray[Any]) -> NDArray[Any]:
        """The values of a map H W in the windows; 0 outside the map.

        Returns:
            s s N (row, column, pixel): pixels last, so that sums over a window run along memory.
        """
        window_values: NDArray[Any] = np.take(values.reshape(-1), self._index)
        if self._outside is not None:
            window_values[self._outside] = 0
        return window_values


def _all_within(centres: NDArray[np.intp], reach_px: int, length: int) -> bool:
    return len(centres) == 0 or bool(
        centres.min() >= reach_px and centres.max() < length - reach_px
    )
