"""The heat map that each engine makes of a network's last layer, against the slow twin."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import openvino as ov
import pytest

from support import twins
from support.heatmaps import as_heatmap
from tiepoint.network.openvino_graph import heatmap_model


def by_openvino(logits: np.ndarray) -> np.ndarray:
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    found = ov.Core().compile_model(heatmap_model(), "CPU", hint)(logits)[0]
    return found[:, 0]  # B H W


def by_torch(logits: np.ndarray) -> np.ndarray:
    torch = pytest.importorskip("torch")
    from tiepoint.network.superpoint import cells_to_heatmap

    return cells_to_heatmap(torch.from_numpy(logits)).numpy()


def random_logits(seed: int, h: int, w: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, (1, 65, h, w)).astype(np.float32)


ENGINES = pytest.mark.parametrize("found_by", [by_openvino, by_torch])
FoundBy = Callable[[np.ndarray], np.ndarray]


@ENGINES
def test_channel_8_row_plus_column_is_that_pixel_of_the_cell(found_by: FoundBy) -> None:
    logits = np.full((1, 65, 2, 3), -20, dtype=np.float32)
    logits[0, 8 * 5 + 2, 1, 2] = 20
    found = found_by(logits)[0]
    assert found.shape == (16, 24)
    assert np.unravel_index(found.argmax(), found.shape) == (8 + 5, 16 + 2)
    assert found.max() == pytest.approx(1, abs=1e-6)


@ENGINES
@pytest.mark.parametrize("scale", [1, 60], ids=["as of networks", "of very sure ones"])
def test_the_heat_map_equals_the_slow_twin(scale: float, found_by: FoundBy) -> None:
    logits = scale * random_logits(1, 3, 4)
    np.testing.assert_allclose(found_by(logits)[0], twins.heatmap(logits[0]), atol=1e-6)
    np.testing.assert_allclose(as_heatmap(logits)[0], twins.heatmap(logits[0]), atol=1e-6)


@ENGINES
def test_a_cell_that_is_no_number_leaves_the_others_as_they_are(found_by: FoundBy) -> None:
    logits = np.zeros((1, 65, 2, 2), np.float32)
    logits[0, 0, 0, 0], logits[0, 0, 1, 1] = np.nan, 120
    found = found_by(logits)[0]
    assert found[8, 8] == 1
    np.testing.assert_allclose(found[:8, 8:], 1 / 65, rtol=1e-6)


@ENGINES
def test_equal_cells_have_equal_probabilities(found_by: FoundBy) -> None:
    cell = random_logits(0, 1, 1)
    for h, w in [(1, 1), (5, 7), (33, 17), (47, 62)]:
        found = found_by(np.tile(cell, (1, 1, h, w)))[0]
        np.testing.assert_array_equal(found, np.tile(found[:8, :8], (h, w)))
