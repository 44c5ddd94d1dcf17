"""Heat map -> the pixels that become keypoints, as graph nodes; see `keypoints.selection`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tiepoint.config import DetectionConfig
from tiepoint.export.graph import Graph, Value
from tiepoint.keypoints.nms import NMS_ROUNDS


class Pixels(NamedTuple):
    """Chosen pixels, best score first.

    Attributes:
        rows, columns: B K int64; 0 where there is no keypoint.
        scores: B K float32; 0 where there is no keypoint.
    """

    rows: Value
    columns: Value
    scores: Value


class Limits(NamedTuple):
    """Limits of the selection, as values of the graph.

    Attributes:
        min_score: Score that a keypoint must exceed.
        places: Number of places for keypoints, 1 element; an int if the file sets it.
    """

    min_score: Value
    places: Value | int

    def top_k(self, scores: Value) -> tuple[Value, Value]:
        """The highest of B N: scores and indices, B K.

        A number in the file gives that many, with 0 in empty places.
        """
        graph = scores.graph
        if isinstance(self.places, int):
            scores = graph.node("Pad", scores, np.array([0, 0, 0, self.places], np.int64))
            places = graph.constant([self.places])
        else:
            places = self.places.minimum(scores.size(1))
        best, index = graph.nodes("TopK", scores, places, kinds=["float", "int"], axis=1)
        return best, index.where(best.above(0))


def fixed_limits(graph: Graph, config: DetectionConfig, places: int) -> Limits:
    """Limits that are written into the file."""
    return Limits(graph.constant(float(config.min_score)), places)


def select(heatmap: Value, allowed: Value, radius_px: int, limits: Limits) -> Pixels:
    """Candidates, and of these the top k.

    Args:
        heatmap: B 1 H W, the image itself, without padding.
        allowed: H W bool; see `inside_border`.
        radius_px: NMS radius.
    """
    B, H, W = heatmap.size(0), heatmap.size(2), heatmap.size(3)
    kept = suppress(heatmap, radius_px) & allowed & heatmap.above(limits.min_score)
    scores = heatmap.where(kept).reshape(B, H * W)
    best, index = limits.top_k(scores)  # B K
    rows = index // W
    return Pixels(rows, index - rows * W, best)


def inside_border(heatmap: Value, border_px: int) -> Value:
    """H W bool: the pixels that are not on the border."""
    sides = []
    for axis in (2, 3):
        length = heatmap.size(axis)
        place = heatmap.graph.arange(length)
        sides.append(place.above(border_px - 1) & place.below(length - border_px))
    return sides[0].reshape(-1, 1) & sides[1]


def suppress(heatmap: Value, radius_px: int) -> Value:
    """Non-maximum suppression in rounds: B 1 H W -> B 1 H W bool; see `nms.suppress`."""
    if radius_px == 0:
        return heatmap.above(-1)
    order = _reading_order(heatmap)
    kept = _maxima(heatmap, order, radius_px)
    for _ in range(NMS_ROUNDS - 1):
        is_open = dilate(kept.to("float"), radius_px).equals(0)
        kept = kept | (_maxima(heatmap.where(is_open), order, radius_px) & is_open)
    return kept


def _maxima(heatmap: Value, order: Value, radius_px: int) -> Value:
    """Pixels that no other within the radius exceeds; of equal ones the first in order."""
    highest = heatmap.equals(dilate(heatmap, radius_px))
    place = order.where(highest)
    return highest & place.equals(dilate(place, radius_px))


def _reading_order(heatmap: Value) -> Value:
    """1 1 H W: H * W for the first pixel, down to 1; exact up to 2**24 pixels."""
    H, W = heatmap.size(2), heatmap.size(3)
    total = H * W
    return (total - heatmap.graph.arange(total)).to("float").reshape(1, 1, H, W)


def dilate(value: Value, radius_px: int) -> Value:
    """Largest value within the radius in x and y; two passes cost far less than one square."""
    side = 2 * radius_px + 1
    for kernel, ends in (([1, side], [0, radius_px]), ([side, 1], [radius_px, 0])):
        value = value.graph.node("MaxPool", value, kernel_shape=kernel, pads=[*ends, *ends])
    return value
