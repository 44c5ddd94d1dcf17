"""What lies around chosen pixels of a map."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def windows(
    values: NDArray[Any], rows: NDArray[np.intp], columns: NDArray[np.intp], reach_px: int
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """What lies around some pixels, these last: sums over a window then run along memory.

    Args:
        values: H W; outside it all is 0.
        rows, columns: N.
        reach_px: How far the window goes to each side.

    Returns:
        values: s s N (row, column, pixel), s = 2 reach_px + 1.
        offsets: s float32, px.
    """
    height, width = values.shape
    steps = np.arange(-reach_px, reach_px + 1)
    y, x = rows + steps[:, None], columns + steps[:, None]  # s N, s N
    out_y, out_x = (y < 0) | (y >= height), (x < 0) | (x >= width)
    at = (y.clip(0, height - 1) * width)[:, None] + x.clip(0, width - 1)  # s s N
    around: NDArray[Any] = np.take(values.reshape(-1), at)
    if out_y.any() or out_x.any():
        around[out_y[:, None] | out_x] = 0
    return around, steps.astype(np.float32)
