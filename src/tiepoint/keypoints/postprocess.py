"""Dense maps -> keypoints, in NumPy and OpenCV. `postprocess_torch` follows the same rules.

Source: SuperPoint (DeTone et al. 2018), sections 3.2 and 3.3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiepoint.architecture import CELL_PX
from tiepoint.config import DescriptorSampling, DetectionConfig
from tiepoint.geometry import Placement, SizeHW
from tiepoint.keypoints.nms import suppress
from tiepoint.keypoints.refinement import settle, structure
from tiepoint.keypoints.result import Keypoints, Masks
from tiepoint.keypoints.windows import Windows
from tiepoint.network.dense_maps import DenseMaps

Float32 = NDArray[np.float32]

SUBPIXEL_REACH_PX = 2
"""By the heat map a keypoint lies at the centre of what it holds so far around its pixel. Wider
windows share more with those of neighbours, and draw them together."""

PIXEL_VARIANCE = np.float32(1 / 12)
"""Of a place that is known to lie in a pixel and no better, px^2."""

BESIDE_PX = 2**17
"""A map's size, below which handing it to another thread takes as long as the work itself."""

FLOOR = np.float32(1e-12)
"""Keeps divisions finite; no length and no probability that matters is smaller."""


def extract(
    maps: DenseMaps[Float32],
    placements: Sequence[Placement],
    config: DetectionConfig,
    sampling: DescriptorSampling,
    masks: Masks = None,
    beside: Executor | None = None,
) -> list[Keypoints[Float32]]:
    """Keypoints of every image of a batch, in px of the network's input.

    Args:
        beside: Works on an image's structure while its keypoints are chosen; None: afterwards.
    """
    found = []
    for index, placement in enumerate(placements):
        height, width = placement.resized_hw
        heatmap = np.ascontiguousarray(maps.heatmap[index, :height, :width])
        mask = None if masks is None else masks[index]
        about = None
        if config.subpixel and maps.pixels is not None:
            image = np.ascontiguousarray(maps.pixels[index, 0, :height, :width])
            about = _begun(beside, structure, image)
        rows, columns = choose(heatmap, config, mask)  # N, N
        around = None
        if config.subpixel or config.covariance_scale is not None:
            around = _around(heatmap, rows, columns)
        xy = _places(rows, columns, around if config.subpixel else None)  # N 2
        if about is not None:  # waited for without keypoints, too: nothing runs on afterwards
            structure_map = about()  # H W
            _bar(structure_map, config.border, mask)
            xy = settle(structure_map, rows, columns, xy, config.nms_radius)
        described = None
        if config.descriptors and maps.descriptors is not None:
            h, w = (side // CELL_PX for side in placement.padded_hw)
            described = sample_at(maps.descriptors[index, :, :h, :w], xy, sampling)  # N D
        covariance = None
        if around is not None and config.covariance_scale is not None:
            covariance = _second_moment(*around)  # N 2 2
            covariance *= np.float32(config.covariance_scale)
        found.append(Keypoints(xy, heatmap[rows, columns], described, covariance))
    return found


def _begun(
    beside: Executor | None, work: Callable[[Float32], Float32], values: Float32
) -> Callable[[], Float32]:
    """Have work done by another thread; what is returned waits for it, or does it if none has."""
    if beside is None or values.size < BESIDE_PX:
        return lambda: work(values)
    try:
        future = beside.submit(work, values)
    except RuntimeError:  # no thread can be started, or the interpreter ends
        beside.shutdown(wait=False, cancel_futures=True)  # or it would keep what it was given
        return lambda: work(values)
    return lambda: work(values) if future.cancel() else future.result()


def select(
    heatmap: Float32, config: DetectionConfig, mask: NDArray[np.bool_] | None = None
) -> tuple[Float32, Float32]:
    """Decide which pixels are keypoints.

    Args:
        heatmap: H W, probabilities; only the image itself, without padding.
        mask: H W, where keypoints may lie; None = everywhere. What lies outside still suppresses
            weaker neighbours: a mask never makes a point out of the slope of another.

    Returns:
        xy: N 2 float32, px, best score first; ties by y, then x.
        scores: N float32, the heat map at the pixel that was chosen.
    """
    heatmap = np.ascontiguousarray(heatmap)
    rows, columns = choose(heatmap, config, mask)
    around = _around(heatmap, rows, columns) if config.subpixel else None
    return _places(rows, columns, around), heatmap[rows, columns]


def choose(
    heatmap: Float32, config: DetectionConfig, mask: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the pixels that `select` takes, N each, in its order."""
    height, width = heatmap.shape
    allowed = heatmap > config.threshold
    _bar(allowed, config.border, mask)
    most = config.max_keypoints

    def chosen(radius: int) -> NDArray[np.intp]:
        return suppress(heatmap, radius, config.threshold, allowed, most)

    radius = widest_radius(lambda r: len(chosen(r)), (height, width), config)
    pixels = chosen(radius)  # row by row, so that a stable sort breaks ties right
    scores = heatmap.reshape(-1)[pixels]  # N
    if most is not None and most < len(scores):  # sort only those that may stay
        enough = scores >= np.partition(scores, -most)[-most]
        pixels, scores = pixels[enough], scores[enough]
    rows, columns = np.divmod(pixels[np.argsort(-scores, kind="stable")[:most]], width)
    return rows, columns


def _bar(values: NDArray[Any], border: int, mask: NDArray[np.bool_] | None) -> None:
    """Set a map H W to 0 where no keypoint may lie."""
    height, width = values.shape
    top, left = min(border, height), min(border, width)
    values[:top], values[height - top :] = 0, 0
    values[:, :left], values[:, width - left :] = 0, 0
    if mask is not None:
        values *= mask


def _places(
    rows: NDArray[np.intp], columns: NDArray[np.intp], around: tuple[Float32, Float32] | None
) -> Float32:
    """Chosen pixels -> positions, N 2; refined by what `_around` says of them, if given."""
    xy = np.stack([columns, rows], axis=1).astype(np.float32)  # N 2
    if around is not None:
        xy += _shift(*around)
    return xy


def widest_radius(count: Callable[[int], int], size_hw: SizeHW, config: DetectionConfig) -> int:
    """The NMS radius, widened where keypoints shall be spread evenly.

    Points that are farther apart are fewer: a wide radius that still leaves `max_keypoints`, found
    by halving, spreads them over the whole image, each the best of its neighbourhood.

    Args:
        count: radius -> how many keypoints it leaves.
    """
    if not config.spread or config.max_keypoints is None:
        return config.nms_radius
    # N points farther apart than r own squares of side r + 1: N (r + 1)^2 <= (H + r) (W + r).
    radius, too_wide = config.nms_radius, 1
    height, width = size_hw
    while config.max_keypoints * (too_wide + 1) ** 2 <= (height + too_wide) * (width + too_wide):
        too_wide *= 2
    while too_wide - radius > 1:
        middle = (radius + too_wide) // 2
        if count(middle) >= config.max_keypoints:
            radius = middle
        else:
            too_wide = middle
    return radius


def subpixel_shift(heatmap: Float32, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Float32:
    """From each pixel to the centre of mass of the probabilities around it.

    It uses the blob that the network draws around a corner. Wider windows and mean shift draw
    neighbouring keypoints together (benchmarks/subpixel.py).

    Args:
        heatmap: H W; outside it there is nothing.
        rows, columns: N.

    Returns:
        N 2 float32 (x, y), px; mostly well under 1, never beyond the window.
    """
    return _shift(*_around(heatmap, rows, columns))


def _shift(mass: Float32, offsets: Float32) -> Float32:
    across, down = mass.sum(axis=0), mass.sum(axis=1)  # s N, s N: of each column, of each row
    moments = np.stack([offsets @ across, offsets @ down], axis=1)  # N 2
    shift: Float32 = moments / np.maximum(across.sum(axis=0), FLOOR)[:, None]  # N 2
    return shift


def second_moment(heatmap: Float32, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Float32:
    """How wide the probabilities lie about their centre of mass, around each pixel.

    Args:
        heatmap: H W; outside it there is nothing.
        rows, columns: N.

    Returns:
        N 2 2 float32 (x, y), px^2; a twelfth, the variance within a pixel, at least on the
        diagonal.
    """
    return _second_moment(*_around(heatmap, rows, columns))


def _second_moment(mass: Float32, offsets: Float32) -> Float32:
    across, down = mass.sum(axis=0), mass.sum(axis=1)  # s N, s N: of each column, of each row
    total = np.maximum(across.sum(axis=0), FLOOR)  # N
    mean = _shift(mass, offsets)  # N 2
    squares = np.stack([offsets**2 @ across, offsets**2 @ down], axis=1) / total[:, None]  # N 2
    s = len(offsets)
    of_columns = (offsets @ mass.reshape(s, -1)).reshape(s, -1)  # s N, each weighed by its rows
    mixed = offsets @ of_columns / total  # N
    moment = np.empty((len(mean), 2, 2), np.float32)
    moment[:, [0, 1], [0, 1]] = np.maximum(squares - mean**2, 0) + PIXEL_VARIANCE
    moment[:, 0, 1] = moment[:, 1, 0] = mixed - mean[:, 0] * mean[:, 1]
    return moment


def _around(
    heatmap: Float32, rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> tuple[Float32, Float32]:
    """The probabilities around each pixel, in parts of its own, s s N; and the offsets, s px."""
    windows = Windows(heatmap.shape, rows, columns, SUBPIXEL_REACH_PX)
    around = windows.of(heatmap)
    # Relative to the pixel itself, so that the faintest keypoint does not underflow.
    around /= np.maximum(heatmap[rows, columns], FLOOR)
    return around, windows.offsets


def sample_at(descriptors: Float32, xy: Float32, sampling: DescriptorSampling = "exact") -> Float32:
    """Read the dense descriptors between cell centres, bilinearly.

    Only the four cells around each keypoint are touched. Beyond the outermost centres the
    outermost cells hold.

    Args:
        descriptors: D h w, of any length.
        xy: N 2, px of the network's input.
        sampling: "exact", or "superpoint" for weights trained with its stretched coordinates.

    Returns:
        N D float32 of unit length.
    """
    cells = np.moveaxis(descriptors, 0, -1)  # h w D
    h, w, D = cells.shape
    columns, rows = cell_coordinates(xy, (h, w), sampling).T  # N, N
    left = np.clip(np.floor(columns).astype(np.intp), 0, max(w - 2, 0))
    top = np.clip(np.floor(rows).astype(np.intp), 0, max(h - 2, 0))
    right, bottom = np.minimum(left + 1, w - 1), np.minimum(top + 1, h - 1)
    along_x = np.clip(columns - np.float32(left), 0, 1)
    along_y = np.clip(rows - np.float32(top), 0, 1)
    read: Float32 = np.zeros((len(xy), D), np.float32)
    for y, part_y in ((top, 1 - along_y), (bottom, along_y)):
        for x, part_x in ((left, 1 - along_x), (right, along_x)):
            cell = cells[y, x]  # N D
            cell *= (part_y * part_x / _length(cell))[:, None]
            read += cell
    return _unit(read)  # N D


def cell_coordinates(
    xy: Float32, size_hw: tuple[int, int], sampling: DescriptorSampling
) -> Float32:
    """Pixels -> cells (column, row); cell centres are whole numbers.

    "superpoint" is the published code's rule: the first centre at 3.5 px, the last at the
    image's end less 1 px, so it is off by up to 3.5 px at the right and bottom.

    Args:
        xy: N 2, px.
        size_hw: (h, w), cells.

    Returns:
        N 2 float32.
    """
    centred = xy - np.float32((CELL_PX - 1) / 2)
    if sampling == "exact":
        return centred / np.float32(CELL_PX)
    cells = np.array(size_hw[::-1], dtype=np.float32)  # 2 (w, h)
    return centred / (cells * CELL_PX - np.float32((CELL_PX + 1) / 2)) * (cells - 1)


def _unit(vectors: Float32) -> Float32:
    unit: Float32 = vectors / _length(vectors)[:, None]
    return unit


def _length(vectors: Float32) -> Float32:
    length: Float32 = np.maximum(np.sqrt(np.einsum("nd,nd->n", vectors, vectors)), FLOOR)
    return length
