"""Exact positions -> which keypoints match, and which have no match, for a batch of pairs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

MATCH_PX, UNMATCHABLE_PX = 2.5, 5.0
"""A match is nearer than the first in both images. A keypoint that is farther than the second from
all keypoints of the other image has no match. What is between them is left out of the loss."""


class Side(NamedTuple):
    """Keypoints of one image of each pair; N is at least 1, padding included.

    Attributes:
        xy: B N 2 float32, px.
        other_xy: B N 2 float32, px: exact position in the other image; NaN where it does not show
            the point.
        doubtful: B N bool; see `positions.Elsewhere`.
        valid: B N bool, False for padding.
    """

    xy: Tensor
    other_xy: Tensor
    doubtful: Tensor
    valid: Tensor


class Labels(NamedTuple):
    """Ground truth of a batch.

    Attributes:
        matched: B N_A N_B bool, at most one in each row and column.
        unmatchable_a: B N_A bool.
        unmatchable_b: B N_B bool.
    """

    matched: Tensor
    unmatchable_a: Tensor
    unmatchable_b: Tensor


@torch.no_grad()
def labels(a: Side, b: Side) -> Labels:
    """Mutually nearest keypoints within `MATCH_PX`, and those beyond `UNMATCHABLE_PX`.

    The distance of i and j is the larger one of their distances in both images. Keypoints that the
    other image does not show have no match either, unless they are doubtful.
    """
    in_b = _distances(a.other_xy, b.xy)  # B N_A N_B
    in_a = _distances(b.other_xy, a.xy).transpose(1, 2)  # B N_A N_B
    padding = ~(a.valid[:, :, None] & b.valid[:, None])
    in_a, in_b = (one.masked_fill_(padding, torch.inf) for one in (in_a, in_b))
    both, nearer = torch.maximum(in_a, in_b), torch.minimum(in_a, in_b)
    best_a, of_a = both.min(2)  # B N_A
    of_b = both.argmin(1)  # B N_B
    numbers = torch.arange(both.shape[1], device=both.device)
    mutual = (of_b.gather(1, of_a) == numbers) & (best_a <= MATCH_PX)  # B N_A
    matched = torch.zeros_like(padding)
    matched.scatter_(2, of_a[..., None], mutual[..., None])
    alone_a, alone_b = (nearer.amin(axis) > UNMATCHABLE_PX for axis in (2, 1))
    return Labels(
        matched,
        alone_a & a.valid & ~a.doubtful,
        alone_b & b.valid & ~b.doubtful,
    )


def _distances(places: Tensor, xy: Tensor) -> Tensor:
    """B N 2 and B M 2 -> B N M, px; infinite where a place is unknown."""
    x = places[:, :, None, 0] - xy[:, None, :, 0]
    y = places[:, :, None, 1] - xy[:, None, :, 1]
    return torch.nan_to_num(torch.hypot(x, y), nan=torch.inf, posinf=torch.inf)
