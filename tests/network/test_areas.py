"""Area averages of windows equal OpenCV's of the whole image."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tiepoint.network.areas import area_average, axis_weights


@pytest.mark.parametrize("old_new", [(100, 50), (101, 50), (97, 31), (64, 64), (1000, 3), (7, 1)])
def test_weights_of_every_window_are_those_of_the_whole(old_new: tuple[int, int]) -> None:
    old, new = old_new
    values = np.random.default_rng(0).random((old, old), np.float32)
    whole = cv2.resize(values, (new, new), interpolation=cv2.INTER_AREA)
    for first in {0, new // 3, new - 1}:
        for count in {1, new - first}:
            rows, columns = axis_weights(old, new, first, count), axis_weights(old, new, 0, new)
            assert columns.start == 0 and columns.stop == old
            part = area_average(values[rows.start : rows.stop], rows, columns)
            np.testing.assert_allclose(part, whole[first : first + count], atol=2e-6)


def test_weights_sum_to_one_and_cover_each_old_pixel_equally() -> None:
    weights = axis_weights(1003, 77, 0, 77).weights
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(weights.sum(axis=0), 77 / 1003, atol=1e-6)
