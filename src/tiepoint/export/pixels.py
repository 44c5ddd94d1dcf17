"""Image -> grey, padded to cells and resized, as graph nodes; see `network.inputs`."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from tiepoint.architecture import CELL_PX
from tiepoint.export.graph import Graph, Value
from tiepoint.network.inputs import LUMA

MAX_PADDING_PX = 31
"""COLMAP pads to multiples of 32 px."""

MIN_SHARE = 1000
"""OpenCV leaves out pixels of which less than 1 / 1000 is under the new pixel."""


def to_grey(image: Value, channels: int | None = None) -> Value:
    """B C H W in 0..1 -> B 1 H W.

    Args:
        channels: 3 for RGB; None takes 1 or 3.
    """
    graph = image.graph
    if channels == 3:
        luma = graph.constant(LUMA.reshape(1, 3, 1, 1))
    else:  # the weights follow the number of channels: [1] or those of R, G, B
        both = graph.constant(np.concatenate([np.ones((1, 1), np.float32), LUMA], axis=1))  # 1 4
        C = image.size(1)
        start = (C - 1).minimum(1)
        luma = both.slice(1, start, start + C).reshape(1, -1, 1, 1)
    return (image * luma).sum(1, keep=True).clip(0, 1)  # B 1 H W


def without_padding(image: Value) -> Value:
    """Leave out up to 31 rows and columns at the bottom and right that repeat the one before.

    COLMAP pads its images so, and the graph is not given their size.
    """
    for axis in (2, 3):
        length = image.size(axis)
        others = [other for other in range(4) if other != axis]
        before, after = image.slice(axis, 0, length - 1), image.slice(axis, 1, length)
        step = image.graph.node("Abs", after - before)
        change = image.graph.node("ReduceMax", step, axes=others, keepdims=0)  # length - 1
        place = (image.graph.arange(length - 1) + 2).where(change.above(0), 1)
        ends = image.graph.constant([1])
        place = image.graph.node("Concat", place, ends, axis=0)  # one row has no difference
        own = image.graph.node("ReduceMax", place, axes=[0], keepdims=1)
        image = image.slice(axis, 0, own.maximum(length - MAX_PADDING_PX))
    return image


def to_cells(pixels: Value) -> Value:
    """B 1 H W -> B 1 H' W', multiples of 8: the bottom row and the right column are repeated."""
    for axis in (2, 3):
        length = pixels.size(axis)
        padded = (length + (CELL_PX - 1)) // CELL_PX * CELL_PX
        pixels = pixels.take(pixels.graph.arange(padded).minimum(length - 1), axis)
    return pixels


def resize(pixels: Value, scale: float) -> Value:
    """B 1 H W -> B 1 H' W' at a scale below 1, as `cv2.INTER_AREA` does."""
    height, width = pixels.size(2), pixels.size(3)
    longer = height.maximum(width)
    share = ratio_of(scale)
    target = _rounded_ratio(longer * share.numerator, longer * 0 + share.denominator)
    down, along = (
        _area_weights(side, _rounded_ratio(side * target, longer)) for side in (height, width)
    )
    graph = pixels.graph
    narrow = graph.node("MatMul", pixels, along.transpose(1, 0))  # B 1 H W'
    return graph.node("MatMul", down, narrow)  # B 1 H' W'


def ratio_of(scale: float) -> Fraction:
    """A scale as a ratio of whole numbers."""
    return Fraction(str(scale)).limit_denominator(1000)


def _rounded_ratio(numerator: Value, denominator: Value) -> Value:
    """The ratio of whole numbers, rounded half to even as in Python, at least 1."""
    doubled, divisor = numerator * 2 + denominator, denominator * 2
    nearest = doubled // divisor
    is_tie = (doubled % divisor).equals(0) & (nearest % 2).equals(1)
    return (nearest - is_tie.to("int")).maximum(1)


def _area_weights(old: Value, new: Value) -> Value:
    """Share of each old pixel in each new one, new x old.

    Computed in whole numbers: a length of 1 old pixel is `new`, that of 1 new pixel is `old`.
    """
    graph: Graph = old.graph
    start, first = graph.arange(old) * new, graph.arange(new).reshape(-1, 1) * old
    common = (start + new).minimum(first + old) - start.maximum(first)  # new old
    counted = (common * MIN_SHARE).above(new)
    return common.to("float").where(counted) / old.to("float")
