"""JPEG compression of grey images on a device: what is lost, without the bytes.

Source: ITU-T T.81, annexes A.3 (DCT) and K.1 (luminance table); the scale of the table by quality
is that of the Independent JPEG Group's library, as in OpenCV.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from tiepoint.network.torch_device import uploaded

SIDE = 8
"""Px per block."""

FRACTION = 4 * 8**0.5
"""Scale of the numbers between the two passes: two bits, and the library's transform is not
orthonormal."""

LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
"""Steps of the quantisation at quality 50, by frequency (down, across)."""


def compressed(greys: Tensor, left_top: Tensor, quality: Tensor) -> Tensor:
    """Images as they are after compression; see `photometry.Jpeg`.

    Args:
        greys: B H W, whole, 0..255.
        left_top: B 2, whole, 0..7 px: offset of each image in its grid of blocks.
        quality: B, whole, 1..95; 0 leaves an image as it is.

    Returns:
        B H W, whole, 0..255.
    """
    B, H, W = greys.shape
    device = greys.device
    left, top = left_top.long()[..., None].unbind(dim=1)  # B 1, B 1
    image = torch.arange(B, device=device)[:, None, None]
    rows, columns = _mirrored(H, top), _mirrored(W, left)  # B 8h, B 8w
    padded = greys[image, rows[:, :, None], columns[:, None]] - 128  # B 8h 8w
    waves = _waves(device)
    steps = _steps(quality)[:, None, :, None]  # B 1 8 1 8
    blocks = _along_both(padded, waves).reshape(B, -1, SIDE, columns.shape[1] // SIDE, SIDE)
    levels = ((blocks.abs() * 8).round() / 8 / steps + 0.5).floor()  # B h 8 w 8
    kept = levels.copysign(blocks) * steps
    restored = _along_both(kept.reshape(padded.shape), waves.T)  # B 8h 8w
    back_rows = torch.arange(H, device=device) + top  # B H
    back_columns = torch.arange(W, device=device) + left  # B W
    restored = restored[image, back_rows[:, :, None], back_columns[:, None]]  # B H W
    restored = (restored + 128.5).floor().clamp(0, 255)
    return torch.where(quality[:, None, None] > 0, restored, greys)


def _mirrored(side: int, before: Tensor) -> Tensor:
    """Px that each px of whole blocks shows, B 8n: the view is mirrored at its outermost px.

    Args:
        before: B 1, px before the view; 8 in all are added to it.
    """
    whole = torch.arange(side + SIDE + -side % SIDE, device=before.device)
    index = whole.clamp(max=side + SIDE - 1) - before  # the library repeats the last px
    return (side - 1) - ((side - 1) - index.abs()).abs()


def _steps(quality: Tensor) -> Tensor:
    """B 8 8: steps of the quantisation."""
    quality = quality.clamp(min=1)[:, None, None]
    percent = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)
    return ((_table(quality.device) * percent + 50) / 100).floor().clamp(1, 255)


def _along_both(values: Tensor, matrix: Tensor) -> Tensor:
    """Multiply the rows and then the columns of all blocks of B 8h 8w by a matrix of 8x8.

    In between, the library's "slow" integer transform keeps two bits of fraction.
    """
    _, H, W = values.shape
    across = values.reshape(-1, SIDE) @ (matrix.T * FRACTION)  # B*8h*w 8
    across = across.round().reshape(-1, SIDE, W)  # B*h 8 W
    return ((matrix / FRACTION) @ across).reshape(-1, H, W)


@lru_cache(maxsize=8)
def _waves(device: torch.device) -> Tensor:
    """8 8: the discrete cosine transform, a wave in each row."""
    frequency, place = np.arange(SIDE)[:, None], np.arange(SIDE) + 0.5
    waves = np.cos(np.pi / SIDE * frequency * place) / 2
    waves[0] /= np.sqrt(2)
    return uploaded(torch.from_numpy(waves.astype(np.float32)), device)


@lru_cache(maxsize=8)
def _table(device: torch.device) -> Tensor:
    return uploaded(torch.tensor(LUMINANCE, dtype=torch.float32), device)
