"""Keypoints settle on the image's own structure: NumPy, its slow twin, and torch."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import tiepoint
from support import twins
from support.heatmaps import as_heatmap
from support.selection import extract_batch
from tiepoint.config import DetectionConfig
from tiepoint.geometry import Placement
from tiepoint.keypoints import hessian_response
from tiepoint.keypoints.extraction import extract, submit
from tiepoint.keypoints.positions import mean_shift
from tiepoint.keypoints.selection import Pixels
from tiepoint.network.dense_maps import DenseMaps

SIZE = (48, 56)


def grey(photograph: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return photograph if photograph.ndim == 2 else cv2.cvtColor(photograph, cv2.COLOR_RGB2GRAY)


def noise(seed: int, size_hw: tuple[int, int] = SIZE) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random(size_hw, np.float32)


def points(seed: int, count: int, size_hw: tuple[int, int] = SIZE) -> NDArray[np.float32]:
    """Anywhere in the image, its rim included."""
    last = np.array(size_hw[::-1]) - 1
    return np.random.default_rng(seed).uniform(0, last, (count, 2)).astype(np.float32)


def settled(
    about: NDArray[np.float32], xy: NDArray[np.float32], radius_px: int = 6
) -> NDArray[np.float32]:
    """`mean_shift`, each point in the pixel nearest to it."""
    columns, rows = np.rint(xy).astype(np.intp).T
    return mean_shift(about, Pixels(rows, columns), xy, radius_px)


def slowly(about: NDArray[np.float32], xy: NDArray[np.float32], radius_px: int = 6) -> np.ndarray:
    return twins.settle(about, np.rint(xy).astype(int), xy, radius_px)


def blob(x: float, y: float, contrast: float = 0.4) -> NDArray[np.float32]:
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    image = 0.5 + contrast * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 1.8**2))
    return image.astype(np.float32)


def saddle(x: float, y: float) -> NDArray[np.float32]:
    """Where four squares of a chessboard meet, seen through a lens."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    image = 0.5 + 0.4 * np.tanh((columns - x) / 1.5) * np.tanh((rows - y) / 1.5)
    return image.astype(np.float32)


def test_structure_equals_the_slow_twin() -> None:
    image = noise(1, (13, 17))
    np.testing.assert_allclose(
        hessian_response(image), twins.structure(image), rtol=1e-3, atol=1e-6
    )


@pytest.mark.parametrize("size_hw", [(1, 1), (3, 4), (1, 30)])
def test_tiny_images_have_structure_too(size_hw: tuple[int, int]) -> None:
    image = noise(2, size_hw)
    np.testing.assert_allclose(
        hessian_response(image), twins.structure(image), rtol=1e-3, atol=1e-6
    )
    xy = points(3, 5, size_hw)
    about = hessian_response(image)
    np.testing.assert_allclose(settled(about, xy), slowly(about, xy), atol=1e-4)


def test_settling_equals_the_slow_twin_on_noise_and_on_a_photograph(
    photographs: list[NDArray[np.uint8]],
) -> None:
    photograph = grey(photographs[0])[:96, :128].astype(np.float32) / 255
    for image in (noise(4), photograph):
        about, xy = hessian_response(image), points(5, 60, image.shape)
        for radius_px in (0, 3, 6):
            found = settled(about, xy, radius_px)
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, slowly(about, xy, radius_px), atol=1e-3)


@pytest.mark.parametrize("contrast", [0.4, -0.4, 0.02])
def test_a_point_beside_a_blob_settles_on_its_centre_whatever_its_contrast(contrast: float) -> None:
    centre = np.float32([30.3, 20.6])
    about = hessian_response(blob(*centre, contrast))
    for angle in np.arange(0, 2 * np.pi, 0.7):
        start = centre + 1.3 * np.float32([np.cos(angle), np.sin(angle)])
        assert np.hypot(*(settled(about, start[None])[0] - centre)) < 0.06


def test_a_point_beside_a_saddle_settles_on_it() -> None:
    centre = np.float32([25.7, 22.2])
    found = settled(hessian_response(saddle(*centre)), centre[None] + np.float32([0.8, -0.7]))
    assert np.hypot(*(found[0] - centre)) < 0.12


def test_without_structure_points_stay_where_they_are() -> None:
    xy = points(6, 20)
    for image in (np.full(SIZE, 0.5, np.float32), np.zeros(SIZE, np.float32)):
        np.testing.assert_allclose(settled(hessian_response(image), xy), xy, atol=1e-5)
    assert settled(hessian_response(noise(7)), xy[:0]).shape == (0, 2)


def test_points_go_only_where_there_may_be_any() -> None:
    """The last step leads to a centre of allowed pixels, wherever a point began."""
    for seed in range(5):
        about = hessian_response(noise(seed))
        about[:, :20] = about[:5] = 0
        xy = points(9, 400)
        xy = xy[(xy[:, 0] >= 19) & (xy[:, 1] >= 4)]  # some begin outside
        found = settled(about, xy)
        assert (found[:, 0] >= 20).all() and (found[:, 1] >= 5).all()


@pytest.mark.parametrize("angle", [0.0, 0.35, 0.8])
def test_along_a_straight_edge_there_is_nothing_to_settle_on(angle: float) -> None:
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    across = (columns - 28) * np.cos(angle) + (rows - 24) * np.sin(angle)
    about = hessian_response((0.5 + 0.3 * np.tanh(across / 2)).astype(np.float32))
    xy = points(15, 300)
    inner = np.all((xy > 9) & (xy < np.array(SIZE[::-1]) - 10), axis=1)
    xy = xy[inner]
    np.testing.assert_allclose(settled(about, xy), xy, atol=1e-4)


@pytest.mark.parametrize("radius_px", [0, 1, 3, 4])
def test_no_two_points_meet(radius_px: int) -> None:
    """Pixels on a grid as narrow as the radius allows, about one blob that draws them all."""
    step = radius_px + 1
    chosen = np.stack(np.meshgrid(30 + step * np.arange(-1, 2), 20 + step * np.arange(-1, 2)), -1)
    found = settled(
        hessian_response(blob(30, 20)), chosen.reshape(-1, 2).astype(np.float32), radius_px
    )
    gaps = np.abs(found[:, None] - found[None]).max(axis=-1)
    np.fill_diagonal(gaps, np.inf)
    assert gaps.min() >= (1 - 1e-5 if radius_px else 0.02 - 1e-5)
    assert np.abs(found - chosen.reshape(-1, 2)).max() > radius_px / 2 - 0.1  # they do move


def one_peak(x: int, y: int) -> NDArray[np.float32]:
    """The heat map of one keypoint at a px (x, y)."""
    heatmap = np.full(SIZE, 1e-5, np.float32)
    heatmap[y, x] = 0.99
    return heatmap


def test_a_keypoint_is_refined_on_the_image_and_only_on_request() -> None:
    heatmap, image = one_peak(29, 20), blob(30.4, 20.4)

    def position(image: NDArray[np.float32], config: DetectionConfig) -> list[float]:
        return extract(heatmap, None, image, config, "exact").xy[0].tolist()

    assert position(image, DetectionConfig(0.5)) == pytest.approx([30.4, 20.4], abs=0.15)
    blank = np.zeros(SIZE, np.float32)
    assert position(blank, DetectionConfig(0.5)) == pytest.approx([29, 20], abs=0.1)
    assert position(image, DetectionConfig(0.5, subpixel=False)) == [29, 20]


def test_the_mask_and_the_border_hold_for_refined_positions() -> None:
    """The centre of the blob is outside of them, the peak inside."""
    mask = np.zeros(SIZE, np.bool_)
    mask[:, :30] = True
    masked = extract(one_peak(29, 20), None, blob(30.4, 20.4), DetectionConfig(0.5), "exact", mask)
    assert 27 < masked.xy[0, 0] <= 29
    config = DetectionConfig(0.5, border=5)
    inside = extract(one_peak(5, 20), None, blob(3.0, 20.4), config, "exact")
    assert 5 <= inside.xy[0, 0] < 6.2


@pytest.mark.parametrize("pool_is", ["idle", "busy", "ended"])
def test_work_is_done_by_the_helper_thread_if_it_can_be(pool_is: str) -> None:
    started, done = threading.Event(), threading.Event()

    def work(value: int) -> tuple[int, str]:
        started.set()
        return 2 * value, threading.current_thread().name

    with ThreadPoolExecutor(1, "helper") as pool:
        if pool_is == "busy":
            pool.submit(done.wait, 10)
        elif pool_is == "ended":
            pool.shutdown()
        result = submit(pool, work, 21)
        if pool_is == "idle":
            started.wait(10)
        answer, thread = result()
        done.set()
    assert answer == 42
    assert thread == ("helper_0" if pool_is == "idle" else threading.current_thread().name)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_helper_thread_changes_no_keypoint(workers: int) -> None:
    side = 384  # above MIN_ASYNC_PX
    heatmap = as_heatmap(np.random.default_rng(0).normal(0, 2, (1, 65, side // 8, side // 8)))[0]
    image = noise(1, (side, side))
    expected = extract(heatmap, None, image, DetectionConfig(0.3), "exact")
    with ThreadPoolExecutor(1) as pool:
        executor = pool if workers else None
        again = extract(heatmap, None, image, DetectionConfig(0.3), "exact", None, executor)
    np.testing.assert_array_equal(again.xy, expected.xy)


def test_keypoints_of_a_moved_photograph_move_with_it(
    photographs: list[NDArray[np.uint8]],
) -> None:
    """By 3.5 px and so against the cells: the network alone moves most points."""
    detector = tiepoint.Detector(precision="f32", max_keypoints=300, max_side=None)
    image = grey(photographs[0])[:240, :320]
    large = cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    first, moved = (cv2.resize(large[:, n : 600 + n], (300, 240), interpolation=cv2.INTER_AREA)
                    for n in (0, 7))  # fmt: skip

    def apart(subpixel: bool) -> float:
        a, b = (detector(picture, subpixel=subpixel) for picture in (first, moved))
        there = a.xy[a.xy[:, 0] > 10] - np.float32([3.5, 0])
        gaps = np.hypot(*(there[:, None] - b.xy[None]).transpose(2, 0, 1)).min(axis=1)
        return float(np.median(gaps[gaps < 3]))

    assert apart(subpixel=True) < 0.6 * apart(subpixel=False)


def as_tensors(*arrays: np.ndarray) -> list[Any]:
    torch = pytest.importorskip("torch")
    return [torch.from_numpy(array) for array in arrays]


@pytest.mark.parametrize("sizes", [[(48, 56), (30, 41), (7, 5)], [(41, 53)] * 3, [SIZE] * 3])
def test_torch_sees_the_structure_of_each_image_of_a_batch(sizes: list[tuple[int, int]]) -> None:
    [images] = as_tensors(np.stack([noise(seed) for seed in range(3)]))
    from tiepoint.keypoints import positions_torch

    found = positions_torch.hessian_response(images, images.new_tensor(sizes).long()).numpy()
    for image, about, (height, width) in zip(images.numpy(), found, sizes, strict=True):
        expected = hessian_response(np.ascontiguousarray(image[:height, :width]))
        np.testing.assert_allclose(about[:height, :width], expected, rtol=1e-3, atol=1e-6)


def test_torch_settles_on_the_same_places() -> None:
    about = np.stack([hessian_response(noise(seed)) for seed in (10, 11)])
    xy = np.concatenate([points(12, 80), points(13, 60)])
    columns, rows = np.rint(xy).astype(np.int64).T
    image = np.repeat([0, 1], [80, 60])
    tensors = as_tensors(about, image, rows, columns, xy)
    from tiepoint.keypoints import positions_torch

    expected = [settled(one, xy[image == number], 4) for number, one in enumerate(about)]
    response, *pixels, start = tensors
    pixels = positions_torch.FlatPixels(*pixels)
    moved = positions_torch.mean_shift(response, pixels, start, 4).numpy()
    np.testing.assert_allclose(moved, np.concatenate(expected), atol=1e-4)
    none = positions_torch.FlatPixels(*(part[:0] for part in pixels))
    assert positions_torch.mean_shift(response, none, start[:0], 4).shape == (0, 2)


def test_both_ways_find_the_same_in_a_batch_with_masks(
    photographs: list[NDArray[np.uint8]],
) -> None:
    """Two sizes in one batch, one image with a mask: NumPy alone, torch, and torch in autocast."""
    torch = pytest.importorskip("torch")
    from tiepoint.keypoints import on_torch

    sizes = [(96, 128), (90, 109)]
    pixels = np.zeros((2, 1, 96, 128), np.float32)
    for image, (height, width), photograph in zip(pixels, sizes, photographs, strict=False):
        image[0, :height, :width] = grey(photograph)[:height, :width] / np.float32(255)
    heatmap = as_heatmap(np.random.default_rng(16).normal(0, 2, (2, 65, 12, 16)))
    dense = np.random.default_rng(17).normal(0, 1, (2, 8, 12, 16)).astype(np.float32)
    mask = np.zeros(sizes[1], np.bool_)
    mask[20:60, 30:80] = True
    config = DetectionConfig(0.02, covariance_scale=0.3)
    placements = [Placement(image_hw=size, resized_hw=size) for size in sizes]
    expected = extract_batch(
        DenseMaps(heatmap, (dense,)), pixels, placements, config, masks=[None, mask]
    )
    heat, cells = as_tensors(heatmap, dense)
    maps = DenseMaps(heat, (cells,))
    for narrow in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            found = on_torch.extract(maps, pixels, placements, config, "exact", [None, mask])
        for ours, theirs in zip(expected, found, strict=True):
            assert len(ours.xy) > 20
            atol = 0.02 if narrow else 5e-3  # rounding, where there is next to nothing
            np.testing.assert_allclose(theirs.xy, ours.xy, atol=atol)
            assert theirs.descriptors is not None
            np.testing.assert_allclose(theirs.descriptors, ours.descriptors, atol=atol)
    inside = found[1].xy
    assert (inside >= [30, 20]).all() and (inside <= [79, 59]).all()


def test_the_guide_s_model_passes_gradients_to_pixels_of_any_size() -> None:
    torch = pytest.importorskip("torch")
    from tiepoint import SuperPointForKeypointDetection

    model = SuperPointForKeypointDetection.from_pretrained(keypoint_threshold=0.0)
    for height, width in ((64, 80), (60, 76)):
        pixels = torch.rand(1, 1, height, width, requires_grad=True)
        outputs = model(pixels.expand(1, 3, height, width))
        (outputs.scores.sum() + outputs.descriptors.sum()).backward()
        assert pixels.grad is not None and bool(pixels.grad.abs().sum() > 0)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_narrow_models_settle_on_the_pixels_that_were_given(kind: str) -> None:
    """What they round is the network's, not the image."""
    torch = pytest.importorskip("torch")
    from tiepoint import SuperPointForKeypointDetection
    from tiepoint.keypoints import on_torch

    seen = []
    plain = on_torch.hessian_response
    model = SuperPointForKeypointDetection.from_pretrained(dtype=kind)
    pixels = torch.rand(1, 3, 40, 48, generator=torch.Generator().manual_seed(1))
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(on_torch, "hessian_response", lambda p, s: seen.append(p) or plain(p, s))
        model(pixels)
    torch.testing.assert_close(seen[0], pixels[:, 0], atol=0, rtol=0)
