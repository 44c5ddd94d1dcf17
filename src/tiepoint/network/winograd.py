"""3x3 convolutions in an OpenVINO graph with half the multiplications, for float32.

Winograd's F(4, 3) along the rows (Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural
Networks", section 4): four neighbouring outputs of three taps from six products instead of twelve.
Along rows only, because the intermediate maps cost time too: they have 1.5 times the size of a
plain convolution's, and 2.25 times with columns too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiepoint.network.runtime import ops, ov

Float32 = NDArray[np.float32]

TILE = 4
"""Outputs computed together."""

LEAST_CHANNELS = 96
"""With fewer input or output channels, the intermediate maps cost as much as is saved."""

INPUTS = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    np.float32,
)
"""Six pixels of a row to one factor of each product: values at 0, 1, -1, 2, -2 and infinity of
polynomials, as are the rows of FILTERS."""

FILTERS = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
"""Three taps to the other factor of each product."""


def suits(weight: Float32) -> bool:
    """Whether a layer with weights O I kh kw is faster this way."""
    return weight.shape[2:] == (3, 3) and min(weight.shape[:2]) >= LEAST_CHANNELS


def convolution(
    node: ov.Output, weight: Float32, bias: Float32, *, relu: bool, pool: bool
) -> ov.Output:
    """A zero-padded convolution with bias, ReLU and pool.

    Args:
        node: B I H W, its sizes known; H and W even, if `pool`.
        weight: O I 3 3.
        bias: O.
        relu: Clip at zero.
        pool: 2x2 maximum pool.

    Returns:
        B O H W, or B O H/2 W/2.
    """
    columns = [ops.add(one, bias.reshape(1, -1, 1, 1)) for one in _columns(node, weight)]
    if relu:
        columns = [ops.relu(one) for one in columns]
    width = node.get_shape()[3]
    if pool:
        columns = [ops.maximum(*columns[:2]), ops.maximum(*columns[2:])]
        width //= 2
    tiles = ops.concat(columns, 1).output(0)  # B 4O H w, or B 2O H w
    if pool:
        tiles = ops.max_pool(tiles, [2, 1], [1, 1], [0, 0], [0, 0], [2, 1]).output(0)
    # OpenVINO stores channels innermost, so nothing is copied before the slice, which is needed
    # only if a row does not end with a tile.
    channels_last = ops.transpose(tiles, np.array([0, 2, 3, 1]))
    rows = ops.reshape(channels_last, np.array([0, 0, -1, len(weight)]), True)  # B H 4w O
    if width % len(columns):
        rows = ops.slice(rows, [0], [width], [1], [2])
    return ops.transpose(rows, np.array([0, 3, 1, 2])).output(0)


def _columns(node: ov.Output, weight: Float32) -> list[ov.Node]:
    """The outputs at x = 0, 1, 2 and 3 of each tile, B O H ceil(W/4) each."""
    channels = weight.shape[1]
    filters = np.einsum("kx,oiyx->koiy", FILTERS, weight.astype(np.float64))
    products = []
    for pixels, taps in zip(INPUTS, filters.astype(np.float32), strict=True):
        alike = np.tile(pixels, (channels, 1, 1, 1, 1))  # I 1 1 1 6
        # 4 zeros on the right complete the last tile.
        factor = ops.group_convolution(node, alike, [1, TILE], [0, 1], [0, TILE], [1, 1])
        products.append(ops.convolution(factor, taps[..., None], [1, 1], [1, 0], [1, 0], [1, 1]))
    zero, one, minus_one, two, minus_two, infinity = products
    even, odd = ops.add(one, minus_one), ops.subtract(one, minus_one)
    even_2, odd_2 = ops.add(two, minus_two), ops.subtract(two, minus_two)
    return [
        ops.add(ops.add(zero, even), even_2),
        ops.add(odd, ops.multiply(odd_2, np.float32(2))),
        ops.add(even, ops.multiply(even_2, np.float32(4))),
        ops.add(ops.add(odd, ops.multiply(odd_2, np.float32(8))), infinity),
    ]
