"""Detector, descriptor, repeatability and teacher losses, computed in float32."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tiepoint.architecture import CELL_PX
from tiepoint.training.devices import constant

NEAR_PX = 3.0
"""Points nearer than this are no negatives of each other, because descriptors interpolated between
cells of 8 px cannot differ there. With 8 px instead, two of three points without a partner matched
a neighbour of where it would be (SIFT: one of nine)."""

POSITION_WEIGHT = 4.0
"""Extra weight of a corner's position in its cell, relative to its presence. An untrained network
gains more from presence and would learn positions late."""

REPEAT_SIGMA_PX = 0.8
"""Sigma of the reward exp(-d^2 / (2 sigma^2)) for a point repeated at a distance of d px. A count
within a fixed radius would not reward more precise positions than that radius."""

TINY = 1e-8
"""Keeps quotients of probabilities finite."""

MASKED_LOGIT = -1e4
"""Logit of an excluded class; finite, because zero times its logarithm must be zero."""

AROUND = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0))
"""(x, y) of the four pixels around a corner, relative to the first."""


class DetectorLoss(NamedTuple):
    """Losses in nats per cell.

    Attributes:
        loss: Cross-entropy minus the labels' entropy, with `POSITION_WEIGHT` extra for the position
            in the cell; 0 when the network predicts the labels.
        cross_entropy: Cross-entropy; ln 65 = 4.17 for a uniform prediction.
        blind: Cross-entropy of the best constant prediction. A network that does not get below it
            has learnt only the number of corners.
    """

    loss: Tensor
    cross_entropy: Tensor
    blind: Tensor


class DescriptorLoss(NamedTuple):
    """Attributes:
    loss: InfoNCE in nats, mean of both directions.
    accuracy: Fraction of points whose partner is the nearest neighbour, 0..1.
    positive, hardest_negative: Mean cosines of partners and of the nearest non-partners.
    """

    loss: Tensor
    accuracy: Tensor
    positive: Tensor
    hardest_negative: Tensor


def soft_labels(image: Tensor, xy: Tensor, batch: int, size_hw: tuple[int, int]) -> Tensor:
    """Convert corners to a distribution over the 65 classes of each cell.

    Each corner is distributed bilinearly over the four pixels around it, so the centroid is the
    corner. Where a cell has several corners, its pixels are scaled to a sum of at most 1.

    Args:
        image: M int64, index of each corner's image.
        xy: M 2 float32, px; corners outside the image are dropped.
        batch, size_hw: Number of images B and their (height, width), px, multiples of 8.

    Returns:
        B 65 h w float32, sums of 1; the last class is "no keypoint".
    """
    height, width = size_hw
    around = constant(AROUND, xy.device)[:, None]  # 4 1 2
    first = xy.floor()  # M 2
    weight = (1 - around - (xy - first)).abs().prod(dim=-1)  # 4 M
    x, y = (first + around).long().unbind(dim=-1)  # 4 M
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    pixel = (image * height + y.clamp(0, height - 1)) * width + x.clamp(0, width - 1)  # 4 M
    mass = torch.zeros(batch * height * width, device=xy.device)
    mass.index_add_(0, pixel.flatten(), (weight * inside).flatten())
    bins = functional.pixel_unshuffle(mass.view(batch, 1, height, width), CELL_PX)  # B 64 h w
    bins = bins / bins.sum(dim=1, keepdim=True).clamp(min=1)
    rest = (1 - bins.sum(dim=1, keepdim=True)).clamp(min=0)  # B 1 h w
    return torch.cat([bins, rest], dim=1)  # B 65 h w


def detector_loss(logits: Tensor, labels: Tensor, ignore: Tensor) -> DetectorLoss:
    """Cross-entropy over the 65 classes of each cell with ground truth.

    A cell without a corner but with ignored pixels does not count, because "no keypoint" may be
    wrong there. In a cell with a corner, other ignored pixels are excluded from the soft-max.

    Args:
        logits, labels: B 65 h w; see `soft_labels`.
        ignore: B H W bool, pixels without ground truth.
    """
    bins = labels[:, :-1]  # B 64 h w
    mass = bins.sum(dim=1)  # B h w, 0..1
    unknown = functional.pixel_unshuffle(ignore[:, None].float(), CELL_PX) > 0  # B 64 h w
    counted = (mass > 0) | ~unknown.any(dim=1)  # B h w
    masked = functional.pad(unknown & (bins == 0), (0, 0, 0, 0, 0, 1))  # B 65 h w
    logarithms = logits.float().masked_fill(masked, MASKED_LOGIT).log_softmax(dim=1)  # B 65 h w
    cells = counted.sum().clamp(min=1)
    cross_entropy = -((labels * logarithms).sum(dim=1) * counted).sum() / cells
    entropy = -(torch.xlogy(labels, labels).sum(dim=1) * counted).sum() / cells
    # The KL divergence of the position in a cell, given that it has a corner.
    within = logarithms[:, :-1]  # B 64 h w
    within = within - within.logsumexp(dim=1, keepdim=True)
    shares = bins / mass[:, None].clamp(min=torch.finfo(bins.dtype).tiny)  # B 64 h w
    divergence = (torch.xlogy(shares, shares) - shares * within).sum(dim=1)  # B h w
    position = (mass * divergence).sum() / cells
    full = (mass * counted).sum() / cells  # fraction of cells with a corner, 0..1
    blind = full * log(CELL_PX**2) - torch.xlogy(full, full) - torch.xlogy(1 - full, 1 - full)
    loss = cross_entropy - entropy + POSITION_WEIGHT * position
    return DetectorLoss(loss, cross_entropy.detach(), blind)


def descriptor_loss(
    a: Tensor,
    b: Tensor,
    pair: Tensor,
    xy_a: Tensor,
    xy_b: Tensor,
    temperature: float,
    valid: Tensor | None = None,
) -> DescriptorLoss:
    """InfoNCE in both directions: identify each point's partner among all points of the batch.

    Args:
        a, b: M D of unit length, descriptors of the same scene points in both views.
        pair: M int64, index of each point's pair.
        xy_a, xy_b: M 2, px, positions in both views; finite.
        temperature: Divisor of the cosines; lower weights the hardest negatives more.
        valid: P N bool for points in order of their pairs, N of each: False for padding, which
            changes nothing. None if there is no padding.

    Returns:
        Means over the points; all 0 without any.
    """
    if len(a) == 0:
        zero = (a.float() * b.float()).sum()  # with a gradient
        return DescriptorLoss(zero, *torch.zeros(3, device=a.device).unbind())
    logits = _similarities(a, b, temperature, valid)  # M M
    with torch.no_grad():  # a logit this low has no gradient
        if valid is None:
            near = _near(xy_a, xy_b) & (pair[:, None] == pair)  # M M
            logits.masked_fill_(near, MASKED_LOGIT)
        else:
            P, N = valid.shape
            near = _near(xy_a.view(P, N, 2), xy_b.view(P, N, 2))  # P N N
            own = logits.view(P, N, P, N).diagonal(dim1=0, dim2=2)  # N N P
            own.masked_fill_(near.permute(1, 2, 0), MASKED_LOGIT)
    to_a, to_b = (_mean(logits.log_softmax(dim=axis).diagonal(), valid) for axis in (0, 1))
    loss = -(to_a + to_b) / 2
    with torch.no_grad():
        partner = logits.diagonal()  # M
        hardest = logits.clone().fill_diagonal_(MASKED_LOGIT).amax(dim=1)  # M
        return DescriptorLoss(
            loss,
            _mean((partner > hardest).float(), valid),
            _mean(temperature * partner, valid),
            _mean((temperature * hardest).clamp(min=-1), valid),
        )


def repeatability_loss(
    heatmap: Tensor, other_heatmap: Tensor, flow: Tensor, point_cost: float
) -> Tensor:
    """Reward keypoints that the other view repeats.

    Each cell samples a keypoint, or none, from its soft-max. A keypoint costs `point_cost` and
    earns the other view's probability of the same keypoint, discounted by its distance
    (`REPEAT_SIGMA_PX`). The loss is the exact expectation of this policy-gradient reward. The
    other view has no gradient, so call it once in each direction.

    Args:
        heatmap, other_heatmap: B H W, probabilities of this view and of the other.
        flow: B H W 2, position of each pixel in the other view, px; NaN where it is not visible.
        point_cost: Cost of a keypoint, 0..1.

    Returns:
        Negative expected reward per cell; 0 when the views have nothing in common.
    """
    visible = torch.isfinite(flow).all(dim=-1)  # B H W
    with torch.no_grad():
        repeated = _blur(other_heatmap).clamp(max=1)  # B H W
        height, width = flow.shape[1:3]
        size_wh = constant((width, height), flow.device)  # 2
        # Positions go from -1 to 1 from edge to edge; samples outside are 0.
        grid = (torch.where(visible[..., None], flow, 0.0) + 0.5) / size_wh * 2 - 1  # B H W 2
        sampled = functional.grid_sample(repeated[:, None], grid, align_corners=False)  # B 1 H W
        reward = sampled[:, 0] - point_cost  # B H W
        cells = visible.sum().clamp(min=1) / CELL_PX**2
    return -(heatmap * reward * visible).sum() / cells


def phase_difference(heatmaps: Sequence[Tensor]) -> Tensor:
    """How much the heat maps of cell phases differ, per cell: 0 if equal, 2 if they share nothing.

    The triangular discrimination sum (p - q)^2 / (p + q), of each heat map and their mean: unlike
    the KL divergence it is bounded, and unlike squares it counts faint keypoints in proportion.

    Args:
        heatmaps: B H W each, at least two.
    """
    mean = torch.stack(list(heatmaps)).mean(dim=0)  # B H W
    apart = [((one - mean) ** 2 / (one + mean + TINY)).sum() for one in heatmaps]
    return torch.stack(apart).mean() * CELL_PX**2 / mean.numel()


def descriptor_difference(descriptors: Sequence[Tensor], valid: Tensor | None = None) -> Tensor:
    """1 less the mean cosine of the same points' descriptors in two cell phases, 0..2.

    Args:
        descriptors: M D each, of unit length; of more than two phases the first is compared.
        valid: Bool of M elements, False for padding; None if there is none.
    """
    first, *others = descriptors
    if len(first) == 0:
        return first.sum() * 0
    return torch.stack([_mean(1 - (first * one).sum(dim=1), valid) for one in others]).mean()


def teacher_divergence(logits: Tensor, taught: Tensor) -> Tensor:
    """Mean KL divergence of the soft-max over dimension 1 from a teacher's, nats."""
    return _divergence(logits, taught, 1).mean()


def teacher_choice_loss(
    a: Tensor,
    b: Tensor,
    taught_a: Tensor,
    taught_b: Tensor,
    temperature: float,
    valid: Tensor | None = None,
) -> Tensor:
    """KL divergence of the match probabilities from the teacher's, nats, mean of both directions.

    Unlike labels, the teacher's probabilities rank the wrong matches. The descriptor sizes may
    differ, because only cosines are compared.

    Args:
        a, b: M D of unit length, descriptors of the same points in both views.
        taught_a, taught_b: M D' of unit length, descriptors of the teacher.
        valid: See `descriptor_loss`.
    """
    if len(a) == 0:
        return (a.float() * b.float()).sum()  # 0, with a gradient
    logits = _similarities(a, b, temperature, valid)  # M M
    taught = _similarities(taught_a, taught_b, temperature, valid)  # M M
    to_a, to_b = (_mean(_divergence(logits, taught, axis), valid) for axis in (0, 1))
    return (to_a + to_b) / 2


def _similarities(a: Tensor, b: Tensor, temperature: float, valid: Tensor | None) -> Tensor:
    """Logits M M of the cosines of M D and M D; those of padding are `MASKED_LOGIT` and less.

    The product of the matrices adds what excludes padding, as two more coordinates: M can be ten
    thousand on a GPU, where each pass over M M costs as much as the product.
    """
    a, b = a.float() / temperature, b.float()
    if valid is not None:
        excluded = MASKED_LOGIT * ~valid.view(-1, 1)  # M 1
        one = torch.ones_like(excluded)
        a, b = torch.cat([a, excluded, one], dim=1), torch.cat([b, one, excluded], dim=1)
    return a @ b.T


def _near(xy_a: Tensor, xy_b: Tensor) -> Tensor:
    """Whether two points are too near to be negatives, in either view: ... N 2 -> ... N N bool."""
    N = xy_a.shape[-2]
    itself = torch.eye(N, dtype=torch.bool, device=xy_a.device)
    near = (_distances2(xy_a) < NEAR_PX**2) | (_distances2(xy_b) < NEAR_PX**2)
    return near & ~itself


def _mean(values: Tensor, valid: Tensor | None) -> Tensor:
    """The mean over the valid points of M; 0 without any."""
    if valid is None:
        return values.mean()
    valid = valid.view(-1)
    return torch.where(valid, values, 0).sum() / valid.sum().clamp(min=1)


def _divergence(logits: Tensor, taught: Tensor, axis: int) -> Tensor:
    """KL divergence of the soft-max over an axis from a teacher's, nats, without this axis."""
    expected = taught.detach().float().log_softmax(dim=axis)
    return (expected.exp() * (expected - logits.float().log_softmax(dim=axis))).sum(dim=axis)


def _blur(values: Tensor) -> Tensor:
    """Sum over each pixel and its eight neighbours, weighted by distance. B H W -> B H W."""
    weight = [exp(-(offset**2) / (2 * REPEAT_SIGMA_PX**2)) for offset in (-1, 0, 1)]  # 3
    kernel = constant(tuple(one * other for one in weight for other in weight), values.device)
    return functional.conv2d(values[:, None], kernel.view(1, 1, 3, 3), padding=1)[:, 0]


def _distances2(xy: Tensor) -> Tensor:
    """Squared distances between all points: ... N 2 -> ... N N, px²."""
    across, down = (values[..., None] - values[..., None, :] for values in xy.unbind(dim=-1))
    return across.square_().add_(down.square_())
