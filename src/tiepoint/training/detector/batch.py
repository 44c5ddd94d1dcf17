"""Training pairs -> tensors of one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tiepoint.network.torch_device import uploaded

if TYPE_CHECKING:
    from tiepoint.training.scenes.pairs import TrainingPair


@dataclass(frozen=True, eq=False)
class Batch:
    """P pairs as 2P images: first all views A, then all views B.

    Attributes:
        pixels: 2P 1 H W float32 in 0..1.
        corner_image: M int64, index of each corner's image.
        corner_xy: M 2 float32, px. Corners outside the image do not count, so they can be padding.
        ignore: 2P H W bool, pixels without ground truth.
        flow: 2P H W 2 float32, position of each pixel in the pair's other view, px; NaN where it
            is not visible there.
    """

    pixels: Tensor
    corner_image: Tensor
    corner_xy: Tensor
    ignore: Tensor
    flow: Tensor

    @property
    def pairs(self) -> int:
        """Number of pairs P."""
        return len(self.pixels) // 2

    @property
    def size_hw(self) -> tuple[int, int]:
        """(height, width), px."""
        return self.pixels.shape[2], self.pixels.shape[3]


def collate(pairs: Sequence[TrainingPair], device: torch.device) -> Batch:
    """Stack pairs of one size into a batch on a device."""
    views = [pair.a for pair in pairs] + [pair.b for pair in pairs]
    counts = [len(view.corners_xy) for view in views]
    flows = [pair.a_to_b for pair in pairs] + [pair.b_to_a for pair in pairs]
    corners = np.concatenate([view.corners_xy.reshape(-1, 2) for view in views])  # M 2
    pixels, corner_image, corner_xy, ignore, flow = (
        uploaded(torch.from_numpy(array), device)
        for array in (
            np.stack([view.image for view in views]),  # 2P H W
            np.repeat(np.arange(len(views)), counts),
            corners.astype(np.float32),
            np.stack([view.ignore for view in views]),
            np.stack(flows).astype(np.float32, copy=False),
        )
    )
    return Batch(pixels[:, None].float() / 255, corner_image, corner_xy, ignore, flow)
