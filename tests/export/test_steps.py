"""Each step as graph nodes gives what the same step in NumPy gives."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from support.onnx_graphs import evaluate, random_image
from tiepoint import keypoints as steps
from tiepoint.config import DescriptorSampling, DetectionConfig
from tiepoint.export import descriptors, pixels, positions, selection
from tiepoint.export.graph import Value, concatenate, rows_of
from tiepoint.geometry import with_longer_side
from tiepoint.keypoints.nms import suppress
from tiepoint.keypoints.selection import Pixels
from tiepoint.network.inputs import pad_to, resize_to, to_grey

pytest.importorskip("onnx", reason="needs the extra onnx")
pytest.importorskip("onnxruntime", reason="needs the extra onnx")

Float32 = NDArray[np.float32]

SIZES_HW = [(1, 1), (1, 9), (7, 5), (33, 47), (64, 40)]
"""One pixel, one row, less than a cell, odd, and whole cells."""


@pytest.mark.parametrize("size_hw", SIZES_HW)
@pytest.mark.parametrize("scale", [0.6, 0.5, 0.35, 0.123])
def test_resizing_averages_areas_as_opencv_does(size_hw: tuple[int, int], scale: float) -> None:
    image = random_image(*size_hw)
    longer = max(1, round(max(size_hw) * scale))
    expected = resize_to(image, with_longer_side(size_hw, longer))
    resized = evaluate(lambda value: pixels.resize(value, scale), image[None, None])
    assert resized.shape[2:] == expected.shape
    np.testing.assert_allclose(resized[0, 0], expected, atol=2e-6)


@pytest.mark.parametrize("length", range(1, 130))
def test_sizes_are_rounded_half_to_even(length: int) -> None:
    """5 and 25 px at scale 0.5 become 2 and 12 px, 15 px become 8."""
    expected = with_longer_side((length, 131), max(1, round(131 * 0.5)))
    sides = evaluate(
        lambda value: concatenate(
            [pixels.resize(value, 0.5).size(axis) for axis in (2, 3)], axis=0
        ),
        np.zeros((1, 1, length, 131), np.float32),
        rank=1,
    )
    assert tuple(sides) == expected


@pytest.mark.parametrize("size_hw", SIZES_HW)
def test_padding_to_cells_repeats_the_last_row_and_column(size_hw: tuple[int, int]) -> None:
    image = random_image(*size_hw)
    padded_hw = tuple(-(-side // 8) * 8 for side in size_hw)
    padded = evaluate(pixels.to_cells, image[None, None])[0, 0]
    np.testing.assert_array_equal(padded, pad_to(image, padded_hw))  # type: ignore[arg-type]


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_of_one_channel_is_itself_and_of_three_their_luma(channels: int) -> None:
    image = np.random.default_rng(0).random((2, channels, 6, 9), dtype=np.float32)
    image[0, :, 0] *= 3  # above white
    grey = evaluate(pixels.to_grey, image)
    for one, expected in zip(grey, image, strict=True):
        planes = expected[0] if channels == 1 else expected.transpose(1, 2, 0)
        np.testing.assert_allclose(one[0], to_grey(np.ascontiguousarray(planes)), atol=1e-6)


@pytest.mark.parametrize("padding", [(0, 0), (1, 31), (17, 0), (0, 8)])
def test_padding_of_colmap_is_found_and_left_out(padding: tuple[int, int]) -> None:
    image = random_image(33, 37)
    below, right = padding
    padded = np.pad(image, ((0, below), (0, right)), mode="edge")
    own = evaluate(pixels.without_padding, np.stack([padded, padded * 0.5, padded])[None])
    np.testing.assert_array_equal(own[0, 0], image)


@pytest.mark.parametrize("size_hw", [(1, 1), (32, 1), (40, 64)])
def test_of_a_blank_image_at_least_one_pixel_is_left(size_hw: tuple[int, int]) -> None:
    own = evaluate(pixels.without_padding, np.ones((1, 3, *size_hw), np.float32))
    assert own.shape[2:] == tuple(max(1, side - 31) for side in size_hw)


def blocky(seed: int, steps_of_grey: int) -> Float32:
    """A map with many equal neighbours."""
    smooth = random_image(37, 53, seed=seed)
    return np.float32(np.round(smooth * steps_of_grey) / steps_of_grey)


@pytest.mark.parametrize("radius", [0, 1, 3, 6])
@pytest.mark.parametrize("steps_of_grey", [3, 20, 100_000])
def test_suppression_equals_that_of_numpy_on_plateaus_too(radius: int, steps_of_grey: int) -> None:
    heatmap = blocky(radius, steps_of_grey)
    kept = evaluate(lambda value: selection.suppress(value, radius), heatmap[None, None])
    kept &= heatmap > 0
    np.testing.assert_array_equal(np.flatnonzero(kept), suppress(heatmap, radius))


def chosen(heatmap: Float32, config: DetectionConfig, count: int, field: str) -> NDArray[Any]:
    def build(value: Value) -> Value:
        allowed = selection.inside_border(value, config.border)
        limits = selection.fixed_limits(value.graph, config, count)
        pixels = selection.select(value, allowed, config.nms_radius, limits)
        field_value: Value = getattr(pixels, field)
        return field_value

    return evaluate(build, heatmap, rank=2)


@pytest.mark.parametrize("count", [3, 20, 400])
def test_the_best_keypoints_come_first_and_empty_places_hold_zeros(count: int) -> None:
    config = DetectionConfig(0.4, nms_radius=2, border=3)
    maps = np.stack([blocky(1, 20), blocky(2, 1000)])
    rows, columns, scores = (
        chosen(maps[:, None], config, count, field) for field in ("rows", "columns", "scores")
    )
    for index, heatmap in enumerate(maps):
        expected = steps.top_k(heatmap, steps.candidates(heatmap, config), count)
        found = len(expected.rows)
        assert found > 2
        np.testing.assert_array_equal(rows[index, :found], expected.rows)
        np.testing.assert_array_equal(columns[index, :found], expected.columns)
        np.testing.assert_array_equal(scores[index, :found], heatmap[expected])
        assert not scores[index, found:].any() and not rows[index, found:].any()


def test_a_border_wider_than_the_image_leaves_nothing() -> None:
    config = DetectionConfig(0.0, border=30)
    assert not chosen(blocky(0, 100)[None, None], config, 5, "scores").any()


def test_the_hessian_response_equals_that_of_opencv() -> None:
    image = random_image(41, 58)
    response = evaluate(positions.hessian_response, image[None, None])[0, 0]
    np.testing.assert_allclose(response, steps.hessian_response(image), atol=2e-6)


@pytest.mark.parametrize("radius", [0, 3])
def test_refinement_equals_that_of_numpy_at_the_border_too(radius: int) -> None:
    heatmap, image = random_image(41, 58, seed=1) ** 4, random_image(41, 58, seed=2)
    rows, columns = (np.array(one) for one in ([0, 5, 40, 20, 3], [0, 57, 30, 20, 2]))
    around = steps.heat_mass(heatmap, Pixels(rows, columns))
    response = steps.hessian_response(image)
    steps.zero_outside(response, 2, None)
    expected = steps.refine(Pixels(rows, columns), around, response, radius)

    def build(value: Value, own: Value) -> Value:
        constants = [value.graph.constant(one[None]) for one in (rows, columns)]
        scores = value.graph.constant(heatmap[rows, columns][None])
        allowed = selection.inside_border(value, 2)
        return positions.refine(selection.Pixels(*constants, scores), value, own, allowed, radius)

    refined = evaluate(build, heatmap[None, None], image[None, None], rank=3)[0]
    np.testing.assert_allclose(refined, expected, atol=1e-4)
    assert np.abs(refined - np.stack([columns, rows], axis=1)).max() > 0.3


@pytest.mark.parametrize("sampling", ["exact", "superpoint"])
@pytest.mark.parametrize("phases", [1, 2, 4])
@pytest.mark.parametrize("size_hw", [(1, 1), (3, 5)])
def test_descriptors_equal_those_of_numpy(
    sampling: DescriptorSampling, phases: int, size_hw: tuple[int, int]
) -> None:
    random, (h, w) = np.random.default_rng(phases), size_hw
    if sampling == "superpoint" and h == 1:
        h, w = 2, 2  # the published rule is for two cells and more
    shifts = [(0, 0), (1, 1), (0, 1), (1, 0)][:phases]
    maps = [random.normal(size=(7, h + y, w + x)).astype(np.float32) for y, x in shifts]
    xy = random.uniform(-1, [8 * w, 8 * h], (30, 2)).astype(np.float32)
    expected = steps.describe(maps, xy, sampling)

    def build(xy: Value, *dense: Value) -> Value:
        return descriptors.describe(dense, xy, sampling)

    sampled = evaluate(build, xy[None], *(one[None] for one in maps))[0]
    np.testing.assert_allclose(sampled, expected, atol=2e-6)


def test_rows_are_chosen_for_each_image_of_a_batch() -> None:
    values = np.random.default_rng(0).random((3, 4, 2), dtype=np.float32)
    index = np.array([[3, 0], [1, 1], [0, 2]])
    expected = np.take_along_axis(values, index[..., None], axis=1)
    np.testing.assert_array_equal(evaluate(rows_of, values, index), expected)


def test_opencv_resizes_by_areas_and_not_by_another_rule() -> None:
    """What the graph is compared with is an average of areas: a check by hand."""
    image = np.array([[0, 3, 6, 9, 12]], np.float32)
    by_hand = [(0 + 3 * 2 / 3) / (5 / 3), (1 + 6 + 3) / (5 / 3), (2 / 3 * 9 + 12) / (5 / 3)]
    np.testing.assert_allclose(
        cv2.resize(image, (3, 1), interpolation=cv2.INTER_AREA)[0], by_hand, rtol=1e-6
    )
