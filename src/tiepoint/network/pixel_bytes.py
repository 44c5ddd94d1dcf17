"""Pixels in two bytes: how they enter a network in bfloat16 without losing grey levels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

WHITE = 65535
"""Number of steps of a pixel that two bytes encode."""

KEPT, HALF = np.uint32(0xFFFF0000), np.uint32(0x8000)
"""Bits of a float32 that a bfloat16 keeps, and half a unit in their last place."""


def pixel_bytes(pixels: Float32) -> NDArray[np.uint8]:
    """B 1 H W in 0..1 -> B H W 2: each pixel's low and high byte, in steps of 1/65535.

    bfloat16 has 8 bits and would round pixels near white to whole grey levels; it represents bytes
    exactly. `benchmarks/precision.py` prints the share of keypoints that stay.
    """
    B, _, H, W = pixels.shape
    words = np.empty((B, H, W), "<u2")
    np.multiply(pixels[:, 0], np.float32(WHITE), out=words, casting="unsafe")
    return words.view(np.uint8).reshape(B, H, W, 2)


def byte_weights(weight: Float32) -> Float32:
    """O 1 3 3 -> O 2 3 3, weights of a pixel's low and high byte that bfloat16 does not round.

    Derivative-like filters sum to almost zero. Independent rounding would break that and make them
    respond to brightness, so each rounding error is carried to the next weight, largest first.
    """
    exact = weight.reshape(len(weight), -1) * np.float32((WHITE + 1) / WHITE)  # O 9
    rounded, carried = np.empty_like(exact), np.zeros(len(exact), np.float32)
    for taps in np.argsort(-np.abs(exact), axis=1).T[..., None]:  # O 1
        wanted = np.take_along_axis(exact, taps, 1) + carried[:, None]
        nearest = ((wanted.view(np.uint32) + HALF) & KEPT).view(np.float32)
        np.put_along_axis(rounded, taps, nearest, 1)
        carried = (wanted - nearest)[:, 0]
    high = rounded.reshape(weight.shape) / np.float32((WHITE + 1) / 256)
    return np.concatenate([high / 256, high], axis=1)
