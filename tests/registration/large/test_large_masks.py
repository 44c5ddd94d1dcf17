"""Masks of large images: what they leave out takes no part in the registration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from support import large_pairs
from tiepoint.errors import ImageError
from tiepoint.geometry import SizeHW
from tiepoint.images import mask_windows
from tiepoint.images.arrays import Decoded
from tiepoint.images.mask_windows import MaskWindows
from tiepoint.images.windows import ArrayWindows, Window
from tiepoint.registration.large.masking import MaskedWindows
from tiepoint.registration.large.register import register_large
from tiepoint.registration.register import registration_detector


class Levels:
    """An image with smaller copies, each of the nearest pixels."""

    name, dtype, has_gaps = "levels", np.dtype(np.uint8), False

    def __init__(self, array: NDArray[np.uint8], sizes: Sequence[SizeHW]) -> None:
        self.size_hw: SizeHW = (array.shape[0], array.shape[1])
        self.levels: Sequence[SizeHW] = [self.size_hw, *sizes]
        self.arrays = [array, *(nearest(array, size) for size in sizes)]

    def read(self, window: Window, level: int = 0) -> Decoded:
        return ArrayWindows(self.arrays[level]).read(window)


def nearest(array: NDArray[Any], size_hw: SizeHW) -> NDArray[Any]:
    return np.asarray(cv2.resize(array, size_hw[::-1], interpolation=cv2.INTER_NEAREST_EXACT))


@pytest.fixture
def arrays() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """An image and its mask, of which half of the blocks of 7 px are black."""
    rng = np.random.default_rng(4)
    image = rng.integers(0, 255, (203, 157), np.uint8)
    mask = cv2.resize(rng.integers(0, 2, (29, 23), np.uint8), (157, 203), interpolation=0)
    return image, np.asarray(mask) * np.uint8(255)


def some_windows(size_hw: SizeHW, seed: int) -> Iterator[Window]:
    rng = np.random.default_rng(seed)
    yield Window(0, 0, *size_hw)
    for _ in range(20):
        top, left = (int(rng.integers(0, length)) for length in size_hw)
        height, width = size_hw[0] - top, size_hw[1] - left
        yield Window(top, left, int(rng.integers(1, height + 1)), int(rng.integers(1, width + 1)))


@pytest.mark.parametrize("mask_levels", [[], [(102, 79)], [(150, 116), (51, 40)]])
@pytest.mark.parametrize("block_px", [50, 1 << 22])
def test_windows_have_no_data_where_the_mask_is_black(
    arrays: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    mask_levels: list[SizeHW],
    block_px: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mask_windows, "BLOCK_PX", block_px)
    image, mask = arrays
    levels = Levels(image, [(102, 79), (51, 40)])
    source = MaskedWindows(levels, MaskWindows(Levels(mask, mask_levels), levels, "mask"))
    for level, size_hw in enumerate(source.levels):
        sizes: list[SizeHW] = [(203, 157), *mask_levels]
        used = min(size for size in sizes if size[0] >= size_hw[0])
        expected = nearest(nearest(mask, used), size_hw) > 0
        for window in some_windows(size_hw, level):
            read = source.read(window, level)
            valid = np.ones(read.pixels.shape, bool) if read.valid is None else read.valid
            np.testing.assert_array_equal(valid, expected[window.slices])
            np.testing.assert_array_equal(
                read.pixels, nearest(image, size_hw)[window.slices], strict=True
            )


def test_gaps_of_the_image_and_transparent_parts_of_the_mask_add_up() -> None:
    image = np.ones((20, 30), np.float32)
    image[:, :5] = np.nan
    mask = np.full((20, 30, 4), 255, np.uint8)
    mask[:, 25:, 3] = 0
    mask[:4, :, :3] = 0
    windows = ArrayWindows(image)
    source = MaskedWindows(windows, MaskWindows(ArrayWindows(mask), windows, "mask"))
    read = source.read(Window(0, 0, 20, 30))
    expected = np.zeros((20, 30), bool)
    expected[4:, 5:25] = True
    assert read.valid is not None
    np.testing.assert_array_equal(read.valid, expected)


def with_labels(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image with a frame of text at a fixed place, as scans have."""
    labelled = image.copy()
    labelled[:600] = 255
    for row in range(20):
        text = f"Sheet {row * 37 % 91} / {row * 53 % 97} - survey of 1934, scale 1 : 25,000"
        cv2.putText(labelled, text, (10, 28 + 29 * row), cv2.FONT_HERSHEY_SIMPLEX, 0.9, 0, 2)
    return labelled


def test_masked_labels_take_no_part(tmp_path: Path) -> None:
    pair = large_pairs.pair()
    a, b = map(with_labels, pair)
    mask = np.full(a.shape, 255, np.uint8)
    mask[:600] = 0
    path = tmp_path / "mask.png"
    assert cv2.imwrite(str(path), mask)
    detector = registration_detector("small", precision="f32")
    result = register_large(a, b, detector=detector, mask_a=path, mask_b=mask)
    assert result.success
    assert min(result.xy_a[:, 1].min(), result.xy_b[:, 1].min()) > 595
    below = large_pairs.errors_px(result.transform, from_px=640)
    assert np.median(below) < 0.5
    assert register_large(*pair, detector=detector).xy_a[:, 1].min() < 500  # of both unmasked


def test_unusable_masks_are_refused(tmp_path: Path) -> None:
    image = large_pairs.texture(300)
    small = np.ones((300, 299), np.uint8)
    with pytest.raises(ImageError, match=r"mask .*\(300, 299\), expected \(300, 300\)"):
        register_large(image, image, mask_b=small)
    with pytest.raises(ImageError, match="missing.png"):
        register_large(image, image, mask_a=tmp_path / "missing.png")
