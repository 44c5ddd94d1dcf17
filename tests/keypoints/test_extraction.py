"""From dense maps to keypoints: NumPy against its slow twin, torch against NumPy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support import twins
from support.heatmaps import ALL, as_heatmap, empty_map, heatmaps
from support.selection import extract_batch, select
from tiepoint.config import DetectionConfig
from tiepoint.errors import ConfigError
from tiepoint.geometry import Placement
from tiepoint.keypoints import candidates, covariance, describe, heat_mass, top_k
from tiepoint.keypoints.descriptors import cell_coordinates
from tiepoint.keypoints.selection import Pixels
from tiepoint.network.dense_maps import DenseMaps


def dense(seed: int, h: int, w: int, d: int = 8, batch: int = 1) -> DenseMaps[np.ndarray]:
    random = np.random.default_rng(seed)
    heatmap = as_heatmap(random.normal(0, 2, (batch, 65, h, w)))
    return DenseMaps(heatmap, (random.normal(0, 1, (batch, d, h, w)).astype(np.float32),))


def values_side_by_side(maps: np.ndarray) -> np.ndarray:
    """B C h w laid out in memory as B h w C: how OpenVINO hands maps over."""
    return np.moveaxis(np.moveaxis(maps, 1, -1).copy(), -1, 1)


BLANK = np.zeros((1, 1, 40, 48), np.float32)

LAYOUTS = pytest.mark.parametrize("laid_out", [np.asarray, values_side_by_side])


def test_refinement_equals_the_slow_twin() -> None:
    heatmap = dense(5, 5, 6).heatmap[0]
    whole, _ = select(heatmap, ALL)
    refined, _ = select(heatmap, dataclasses.replace(ALL, subpixel=True))
    expected = [twins.subpixel(heatmap, int(x), int(y)) for x, y in whole]
    np.testing.assert_allclose(refined, expected, atol=1e-3)
    assert np.abs(refined - whole).max() > 0.1


@pytest.mark.parametrize("centre", [(12.0, 10.0), (12.3, 9.6), (11.51, 10.49)])
@pytest.mark.parametrize("sigma", [0.6, 0.8])
def test_refinement_finds_the_centre_of_a_blob(centre: tuple[float, float], sigma: float) -> None:
    y, x = np.mgrid[:24, :32]
    squared = (x - centre[0]) ** 2 + (y - centre[1]) ** 2
    blob = np.exp(-squared / (2 * sigma**2)).astype(np.float32)
    xy, _ = select(blob, DetectionConfig(0.5))
    np.testing.assert_allclose(xy, [centre], atol=0.02)


def test_refinement_leaves_a_lone_pixel_where_it_is_even_in_a_corner() -> None:
    heatmap = empty_map()
    heatmap[0, 0] = heatmap[12, 20] = heatmap[23, 31] = 0.5
    xy, _ = select(heatmap, dataclasses.replace(ALL, subpixel=True))
    assert xy.tolist() == [[0, 0], [20, 12], [31, 23]]


def test_the_second_moment_equals_the_slow_twin() -> None:
    heatmap = dense(5, 5, 6).heatmap[0]
    rows, columns = pixels = top_k(heatmap, candidates(heatmap, ALL), None)
    found = covariance(heat_mass(heatmap, pixels), 1.0)
    expected = [
        twins.second_moment(heatmap, int(x), int(y)) for y, x in zip(rows, columns, strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert len(rows) > 10 and np.abs(found[:, 0, 1]).max() > 0.1


def test_a_lone_pixel_is_known_to_a_pixel_and_a_streak_only_across() -> None:
    heatmap = empty_map()
    heatmap[0, 0] = 0.5
    heatmap[12, 15:20] = 0.5
    pixels = Pixels(np.array([0, 12]), np.array([0, 17]))
    lone, streak = covariance(heat_mass(heatmap, pixels), 1.0)
    np.testing.assert_allclose(lone, np.eye(2) / 12, atol=1e-6)
    np.testing.assert_allclose(streak, [[2 + 1 / 12, 0], [0, 1 / 12]], atol=1e-5)


def test_keypoints_have_covariances_only_where_a_scale_is_known() -> None:
    maps, size = dense(5, 5, 6), Placement((40, 48), (40, 48))
    plain, one, three = (
        extract_batch(maps, BLANK, [size], DetectionConfig(0.02, covariance_scale=s))[0]
        for s in (None, 1.0, 3.0)
    )
    assert plain.covariance is None
    np.testing.assert_allclose(three.covariance, 3 * one.covariance, rtol=1e-5)
    assert (np.linalg.eigvalsh(one.covariance) > 0).all()


def test_refinement_of_the_faintest_keypoint_is_finite() -> None:
    heatmap = np.full((24, 32), 1e-38, np.float32)
    heatmap[10, 10] = 2e-38
    xy, _ = select(heatmap, dataclasses.replace(ALL, subpixel=True))
    assert len(xy) > 0 and np.isfinite(xy).all()


@pytest.mark.parametrize("size_hw", [(8, 8), (8, 40), (40, 56)])
def test_a_ramp_of_coordinates_sampled_at_a_point_returns_the_point(
    size_hw: tuple[int, int],
) -> None:
    """Sampling is exact: descriptors (x, y, 1) of the cell centres give back x and y."""
    h, w = size_hw[0] // 8, size_hw[1] // 8
    rows, columns = np.mgrid[:h, :w]
    centres = np.stack([8 * columns + 3.5, 8 * rows + 3.5], axis=-1)  # h w 2
    # A scale at which unit length changes no direction by more than float32 resolves.
    ramp = np.stack([1e-3 * centres[..., 0], 1e-3 * centres[..., 1], np.ones((h, w))]) * 1.0
    xy = np.random.default_rng(0).uniform([3.5, 3.5], [8 * w - 4.5, 8 * h - 4.5], (50, 2))
    sampled = describe([ramp.astype(np.float32)], xy.astype(np.float32))
    np.testing.assert_allclose(1e3 * sampled[:, :2] / sampled[:, 2:], xy, atol=0.02)


@LAYOUTS
def test_sampling_equals_the_slow_twin(laid_out: Callable[..., np.ndarray]) -> None:
    maps = dense(2, 4, 5)
    xy = np.random.default_rng(1).uniform(-0.5, [39.5, 31.5], (60, 2)).astype(np.float32)
    expected = [twins.sample(maps.descriptors[0][0], x, y) for x, y in xy.astype(np.float64)]
    sampled = describe([laid_out(maps.descriptors[0])[0]], xy)
    np.testing.assert_allclose(sampled, expected, atol=1e-5)


def test_published_sampling_drifts_by_three_and_a_half_pixels_to_the_far_side() -> None:
    corners = np.array([[3.5, 3.5], [631.5, 471.5]], dtype=np.float32)
    ours = cell_coordinates(corners, (60, 80), "exact")
    theirs = cell_coordinates(corners, (60, 80), "superpoint")
    np.testing.assert_allclose(ours, [[0, 0], [78.5, 58.5]])
    np.testing.assert_allclose(theirs[0], [0, 0])
    assert (8 * (ours[1] - theirs[1]) < 0).all() or (8 * (ours[1] - theirs[1]) > 0).all()


def test_descriptors_have_unit_length_and_empty_input_keeps_their_width() -> None:
    maps = dense(2, 4, 5)
    none = describe([maps.descriptors[0][0]], np.zeros((0, 2), np.float32))
    assert none.shape == (0, 8) and none.dtype == np.float32
    some = describe([maps.descriptors[0][0]], np.array([[9.0, 9.0]], np.float32))
    np.testing.assert_allclose(np.linalg.norm(some, axis=1), 1, atol=1e-6)


def test_padding_in_a_batch_is_never_looked_at() -> None:
    maps = dense(7, 6, 8, batch=2)
    small = Placement(image_hw=(29, 41), resized_hw=(29, 41))
    whole = Placement(image_hw=(48, 64), resized_hw=(48, 64))
    config = DetectionConfig(0.01)
    inputs = np.random.default_rng(0).random((2, 1, 48, 64), dtype=np.float32)
    first = extract_batch(maps, inputs, [small, whole], config)[0]
    heatmap, descriptors = maps.heatmap.copy(), maps.descriptors[0].copy()
    heatmap[0, 29:], heatmap[0, :, 41:] = np.nan, np.nan
    descriptors[0, :, 4:], descriptors[0, :, :, 6:] = np.nan, np.nan
    inputs[0, :, 29:], inputs[0, :, :, 41:] = np.nan, np.nan
    again = extract_batch(DenseMaps(heatmap, (descriptors,)), inputs, [small, whole], config)[0]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert first.xy[:, 0].max() < 41 and first.xy[:, 1].max() < 29


@pytest.mark.parametrize(
    ("field", "value"),
    [("threshold", 1.5), ("threshold", float("nan")), ("max_keypoints", 0), ("nms_radius", -1),
     ("nms_radius", 2.5), ("border", True)],
)  # fmt: skip
def test_settings_out_of_range_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        DetectionConfig(**{field: value})


class TestTorchTwin:
    """`on_torch` follows the same rules."""

    torch: Any

    @pytest.fixture(autouse=True)
    def _torch(self) -> None:
        """Not in the class's body, where it would skip the whole module."""
        type(self).torch = pytest.importorskip("torch")

    @pytest.mark.parametrize("sampling", ["exact", "superpoint"])
    @pytest.mark.parametrize(("most", "spread"), [(None, False), (7, False), (7, True)])
    def test_mixed_batch_gives_the_same_keypoints(
        self, sampling: str, most: int | None, spread: bool
    ) -> None:
        from tiepoint.keypoints import on_torch

        maps = dense(11, 6, 8, batch=3)
        sizes = [(48, 64), (29, 41), (8, 8)]
        placements = [Placement(image_hw=size, resized_hw=size) for size in sizes]
        config = DetectionConfig(
            0.02, most, nms_radius=2, border=1, spread=spread, covariance_scale=0.5
        )
        inputs = np.zeros((3, 1, 48, 64), np.float32)
        expected = extract_batch(maps, inputs, placements, config, sampling)
        tensors = DenseMaps(
            self.torch.from_numpy(maps.heatmap), tuple(map(self.torch.from_numpy, maps.descriptors))
        )
        found = on_torch.extract(tensors, inputs, placements, config, sampling)
        assert sum(len(one.xy) for one in expected) > 10
        for ours, theirs in zip(expected, found, strict=True):
            np.testing.assert_allclose(ours.xy, theirs.xy, atol=1e-3)
            np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-6)
            np.testing.assert_allclose(ours.descriptors, theirs.descriptors, atol=1e-5)
            np.testing.assert_allclose(ours.covariance, theirs.covariance, atol=1e-4)

    @settings(max_examples=100, deadline=None)
    @given(heatmaps, st.integers(0, 4), st.sampled_from([None, 3]))
    def test_ties_break_the_same_way(
        self, heatmap: np.ndarray, radius: int, most: int | None
    ) -> None:
        from tiepoint.keypoints import on_torch

        config = DetectionConfig(0.2, most, radius, border=1)
        xy, scores = select(heatmap, config)
        flat = on_torch.select(self.torch.from_numpy(heatmap)[None], [heatmap.shape], config)
        np.testing.assert_allclose(flat.xy.numpy(), xy, atol=1e-5)
        np.testing.assert_array_equal(flat.scores.numpy(), scores)

    def test_scores_positions_and_descriptors_carry_a_finite_gradient(self) -> None:
        from tiepoint.keypoints import on_torch

        maps = dense(13, 5, 5)
        heatmap, descriptors = (
            self.torch.from_numpy(a).requires_grad_() for a in (maps.heatmap, maps.descriptors[0])
        )
        flat = on_torch.select(heatmap, [(40, 40)], DetectionConfig(0.02))
        cells_hw = self.torch.tensor([[5, 5]])
        described = on_torch.describe([descriptors], flat.image, flat.xy, cells_hw)
        (flat.xy.sum() + flat.scores.sum() + described.sum()).backward()
        for gradient in (heatmap.grad, descriptors.grad):
            assert self.torch.isfinite(gradient).all() and gradient.abs().max() > 0
