"""Suppression from pixels in tiles leaves what suppression of the whole map leaves."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiepoint.images.windows import tiles
from tiepoint.keypoints.nms import suppress
from tiepoint.tiles import sparse_nms
from tiepoint.tiles.sparse_nms import Points, SparseMap

THRESHOLD = 0.1


def reader(heatmap: np.ndarray, allowed: np.ndarray, tile_px: int) -> Callable[[int], Points]:
    """The points of each tile of a map."""
    windows = tiles(heatmap.shape, tile_px)

    def read(index: int) -> Points:
        part, window = heatmap[windows[index].slices], windows[index]
        rows, columns = np.nonzero(part > THRESHOLD)
        rows, columns = rows + window.top, columns + window.left
        return Points(rows, columns, heatmap[rows, columns], allowed[rows, columns])

    return read


def blobs(rng: np.random.Generator, height: int, width: int, levels: int | None) -> np.ndarray:
    """A smooth random map with peaks; few levels make many equal pixels."""
    noise = cv2.GaussianBlur(rng.random((height, width), np.float32), (0, 0), 1.3)
    heatmap = np.clip((noise - 0.5) * 6, 0, 1)
    return heatmap if levels is None else np.ceil(heatmap * levels).astype(np.float32) / levels


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    tile_px=st.integers(3, 40),
    radius=st.integers(1, 70),
    levels=st.sampled_from([None, 1, 3, 12]),
    block_px=st.sampled_from([1, 30, 2048]),
    few=st.booleans(),
)
def test_survivors_are_those_of_the_whole_map(
    seed: int, size: tuple[int, int], tile_px: int, radius: int, levels: int | None,
    block_px: int, few: bool,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    heatmap = blobs(rng, *size, levels)
    allowed = rng.random(size) > 0.3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparse_nms, "BLOCK_PX", block_px)
        if few:
            patch.setattr(sparse_nms, "CACHE_BYTES", 100)
            patch.setattr(sparse_nms, "MOST_PAIRS", 7)
        sparse = SparseMap(size, tile_px, reader(heatmap, allowed, tile_px), workers=2)
        survivors = sparse.survivors(radius)
    expected = suppress(heatmap, radius, THRESHOLD, allowed & (heatmap > THRESHOLD))
    index = survivors.rows * size[1] + survivors.columns
    np.testing.assert_array_equal(np.sort(index), expected)
    np.testing.assert_array_equal(survivors.scores, heatmap.reshape(-1)[index])


def test_it_stops_with_enough() -> None:
    heatmap = blobs(np.random.default_rng(1), 200, 300, None)
    allowed = np.ones(heatmap.shape, bool)
    sparse = SparseMap(heatmap.shape, 64, reader(heatmap, allowed, 64))
    everything = len(sparse.survivors(5).rows)
    first = len(sparse.survivors(5, enough=10).rows)
    assert 10 <= first < everything
    assert len(sparse.survivors(5, enough=everything + 1).rows) == everything


def test_a_map_without_pixels_has_no_survivors() -> None:
    heatmap = np.zeros((50, 60), np.float32)
    sparse = SparseMap((50, 60), 16, reader(heatmap, heatmap > 0, 16))
    assert len(sparse.survivors(9).rows) == 0
