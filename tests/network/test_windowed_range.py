"""The range of values that is measured in strips is that of the whole image."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from tiepoint.config import ProcessorConfig
from tiepoint.errors import ImageError
from tiepoint.images.arrays import Decoded
from tiepoint.images.windows import ArrayWindows, Window
from tiepoint.network.inputs import as_grey
from tiepoint.network.windowed_range import measured_range

RNG = np.random.default_rng(3)
SIZE = (131, 203)


def shaded(low: float, high: float) -> np.ndarray:
    ramp = np.linspace(0, 1, SIZE[1])[None] * np.linspace(0.3, 1, SIZE[0])[:, None]
    blobs = cv2.GaussianBlur(RNG.random(SIZE), (0, 0), 2)
    return low + (high - low) * (0.5 * ramp + 0.5 * blobs)


def noisy() -> np.ndarray:
    return (1000 + RNG.normal(0, 6, SIZE)).astype(np.uint16)


def with_gaps() -> np.ndarray:
    image = shaded(-3, 40).astype(np.float32)
    image[:50], image[60, 100] = np.nan, 2e37
    return image


CASES: dict[str, np.ndarray] = {
    "16 bits": shaded(200, 3000).astype(np.uint16),
    "16 bits, most of the range": shaded(0, 65535).astype(np.uint16),
    "noise alone": noisy(),
    "constant": np.full(SIZE, 700, np.uint16),
    "floats": shaded(-3, 40).astype(np.float32),
    "floats in 0..1 with overshoot": shaded(-0.0008, 0.3).astype(np.float32),
    "whole floats": np.rint(shaded(0, 90)).astype(np.float32),
    "gaps": with_gaps(),
    "only gaps": np.full(SIZE, np.nan, np.float32),
    "one pixel with data": np.where(np.arange(SIZE[1]) == 5, 3.5, np.nan) * np.ones((SIZE[0], 1)),
    "colours": np.stack([shaded(0, 900).astype(np.uint16)] * 3, axis=2),
    "signed": np.rint(shaded(-500, 900)).astype(np.int16),
    "8 bits": shaded(10, 90).astype(np.uint8),
}


@pytest.mark.parametrize("contrast", ["auto", "stretch"])
@pytest.mark.parametrize("name", CASES)
def test_the_range_is_that_of_the_whole(
    name: str, contrast: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tiepoint.images.windows.BLOCK_PX", 4000)
    monkeypatch.setattr("tiepoint.images.ranges.SAMPLE_PX", 3000)
    image = ArrayWindows(CASES[name])
    config = ProcessorConfig(max_side=None, contrast=contrast)
    whole = image.read(Window(0, 0, *SIZE))
    expected = as_grey(np.clip(whole.pixels, 0, 1) if "overshoot" in name else whole.pixels,
                       config, whole.seen).stretch  # fmt: skip
    found, clips = measured_range(image, contrast)
    assert clips == ("overshoot" in name)
    if expected is None:
        assert found is None
    else:
        assert found == pytest.approx(expected, rel=1e-5)


class Broken(ArrayWindows):
    """Rows from 60 to 70 cannot be read."""

    def read(self, window: Window, level: int = 0) -> Decoded:
        if window.top < 70 and window.top + window.height > 60:
            raise ImageError("broken")
        return super().read(window, level)


def test_strips_that_cannot_be_read_are_left_out_on_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tiepoint.images.windows.BLOCK_PX", 4000)
    image = CASES["16 bits"].copy()
    image[65] = 60000
    with pytest.raises(ImageError, match="broken"):
        measured_range(Broken(image), "stretch")
    found, _ = measured_range(Broken(image), "stretch", go_on=True)
    assert found is not None and found[1] < 0.1
