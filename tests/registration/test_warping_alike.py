"""Two images in one type, for blending: the deeper type, and as many channels as either has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tiepoint.registration import warping


def test_images_of_one_type_are_alike_already() -> None:
    grey, colour = np.zeros((4, 5), np.uint8), np.zeros((4, 5, 3), np.uint8)
    a, b = warping.alike(grey, grey)
    assert a is grey and b is grey
    a, b = warping.alike(colour, grey)
    assert a is colour and b.shape == (4, 5, 3)


def test_floats_without_a_white_become_eight_bits_beside_another_type() -> None:
    degrees = np.linspace(-12, 38, 20, dtype=np.float32).reshape(4, 5)
    grey = np.full((4, 5), 90, np.uint8)
    a, b = warping.alike(degrees, grey)
    assert a.dtype == b.dtype == np.uint8
    assert a.shape == b.shape == (4, 5, 3)
    assert (a.min(), a.max(), b.min()) == (0, 255, 90)


@pytest.mark.parametrize(("value", "dtype", "expected"), [(255, np.uint16, 65535), (51, "f4", 0.2)])
def test_the_shallower_image_takes_the_range_of_the_deeper(
    value: int, dtype: Any, expected: float
) -> None:
    shallow, deep = np.full((4, 5), value, np.uint8), np.zeros((4, 5), dtype)
    for a, b in (warping.alike(shallow, deep), warping.alike(deep, shallow)[::-1]):
        assert a.dtype == b.dtype == np.dtype(dtype)
        np.testing.assert_allclose(a, expected)
