"""What training minimises: detector, descriptor and repeatability losses. All in float32."""

from __future__ import annotations

from math import log
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tiepoint.architecture import CELL_PX
from tiepoint.network.superpoint import cells_to_heatmap

NEAR_PX = 3.0
"""Points nearer than this are one to a descriptor that is read between cells of 8 px: no negatives
of each other. Farther ones must differ: with 8 px here, a point whose partner the other image
lacks was matched with the partner's neighbour in two of three cases, SIFT's in one of nine."""

PLACE_WEIGHT = 4.0
"""Extra weight of where in its cell a corner lies, beside whether there is one: an untrained
network earns more by the second and learns the first late."""

REPEAT_SIGMA_PX = 0.8
"""A point found again at a distance d from where it should be counts exp(-d^2 / (2 sigma^2)):
a plain count within a radius would not ask for positions better than that radius."""

LEFT_OUT = -1e4
"""A logit that takes part in no soft-max; finite, so that zero times its logarithm is zero."""


class DetectorLoss(NamedTuple):
    """All in nats per cell.

    Attributes:
        loss: Cross-entropy less the labels' own entropy, its part about the place in the cell
            counted 1 + `PLACE_WEIGHT` times: 0 when the network says the labels.
        cross_entropy: ln 65 = 4.17 for a network that says nothing.
        blind: Cross-entropy of the best answer that is the same everywhere. A network that does
            not get below it has learnt no more than how many corners there are.
    """

    loss: Tensor
    cross_entropy: Tensor
    blind: Tensor


class DescriptorLoss(NamedTuple):
    """Attributes:
    loss: InfoNCE in nats, the mean of both directions.
    accuracy: Share of points whose own partner is the most similar of all.
    positive: Mean cosine of partners.
    hardest_negative: Mean over the points of the highest cosine with another point.
    """

    loss: Tensor
    accuracy: Tensor
    positive: Tensor
    hardest_negative: Tensor


def soft_labels(image: Tensor, xy: Tensor, batch: int, size_hw: tuple[int, int]) -> Tensor:
    """Corners as a distribution over the 65 classes of each cell.

    A corner is shared out among the four pixels around it, by area: the centre of mass is where
    the corner is. Where corners crowd, a cell's pixels are scaled down to a sum of 1.

    Args:
        image: M int64, which image of the batch.
        xy: M 2 float32, px; what lies outside the image is dropped.
        batch: Number of images B.
        size_hw: (height, width), px, multiples of 8.

    Returns:
        B 65 h w float32; what a cell's pixels leave over belongs to "no keypoint".
    """
    height, width = size_hw
    corner = xy.floor()  # M 2
    along = xy - corner  # M 2
    mass = torch.zeros(batch * height * width, device=xy.device)
    for dx in (0, 1):
        for dy in (0, 1):
            x, y = corner[:, 0].long() + dx, corner[:, 1].long() + dy  # M
            weight = torch.abs(1 - dx - along[:, 0]) * torch.abs(1 - dy - along[:, 1])  # M
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            place = ((image * height + y) * width + x)[inside]
            mass.index_add_(0, place, weight[inside])
    bins = functional.pixel_unshuffle(mass.view(batch, 1, height, width), CELL_PX)  # B 64 h w
    bins = bins / bins.sum(dim=1, keepdim=True).clamp(min=1)
    rest = (1 - bins.sum(dim=1, keepdim=True)).clamp(min=0)  # B 1 h w
    return torch.cat([bins, rest], dim=1)  # B 65 h w


def detector_loss(logits: Tensor, labels: Tensor, ignore: Tensor) -> DetectorLoss:
    """Cross-entropy over the 65 classes of each cell that the labels speak about.

    A cell without a corner but with a pixel to ignore is left out: "no keypoint" may be wrong
    there. In a cell with a corner the other pixels to ignore take no part in the soft-max.

    Args:
        logits: B 65 h w.
        labels: B 65 h w, sums of 1.
        ignore: B H W bool, pixels about which nothing is known.
    """
    bins = labels[:, :-1]  # B 64 h w
    unknown = functional.pixel_unshuffle(ignore[:, None].float(), CELL_PX) > 0  # B 64 h w
    counted = (bins.sum(dim=1) > 0) | ~unknown.any(dim=1)  # B h w
    left_out = functional.pad(unknown & (bins == 0), (0, 0, 0, 0, 0, 1))  # B 65 h w
    logarithms = logits.float().masked_fill(left_out, LEFT_OUT).log_softmax(dim=1)  # B 65 h w
    cells = counted.sum().clamp(min=1)
    cross_entropy = -((labels * logarithms).sum(dim=1) * counted).sum() / cells
    entropy = -(torch.xlogy(labels, labels).sum(dim=1) * counted).sum() / cells
    place = _place_loss(bins, logarithms[:, :-1]) / cells
    full = (bins.sum(dim=1) * counted).sum() / cells  # share of cells with a corner, 0..1
    blind = full * log(CELL_PX**2) - torch.xlogy(full, full) - torch.xlogy(1 - full, 1 - full)
    loss = cross_entropy - entropy + PLACE_WEIGHT * place
    return DetectorLoss(loss, cross_entropy.detach(), blind)


def _place_loss(bins: Tensor, logarithms: Tensor) -> Tensor:
    """Given that a cell has a corner, where: the divergence from the labels, summed over cells.

    Args:
        bins: B 64 h w, of sums up to 1; cells without a corner count nothing.
        logarithms: B 64 h w, of the same bins.
    """
    mass = bins.sum(dim=1)  # B h w
    within = logarithms - logarithms.logsumexp(dim=1, keepdim=True)  # B 64 h w
    shares = bins / mass[:, None].clamp(min=torch.finfo(bins.dtype).tiny)  # B 64 h w
    said = (torch.xlogy(shares, shares) - shares * within).sum(dim=1)  # B h w
    return (mass * said).sum()


def descriptor_loss(
    a: Tensor, b: Tensor, pair: Tensor, xy_a: Tensor, xy_b: Tensor, temperature: float
) -> DescriptorLoss:
    """InfoNCE with a dual soft-max: of all points of the batch, which is this one's partner?

    Args:
        a, b: M D of unit length: row i of both is the same point of a scene.
        pair: M int64, which pair of the batch.
        xy_a, xy_b: M 2, px, where the points lie.
        temperature: Divides the cosines; smaller looks at the hardest negatives only.
    """
    if len(a) == 0:
        nothing = (a.float() * b.float()).sum()  # 0, with a gradient
        return DescriptorLoss(nothing, *torch.zeros(3, device=a.device).unbind())
    cosines = a.float() @ b.float().T  # M M
    itself = torch.eye(len(a), dtype=torch.bool, device=a.device)
    same = pair[:, None] == pair[None]  # M M
    near = (_distances2(xy_a) < NEAR_PX**2) | (_distances2(xy_b) < NEAR_PX**2)
    masked = same & near & ~itself
    logits = (cosines / temperature).masked_fill(masked, LEFT_OUT)  # M M
    target = torch.arange(len(a), device=a.device)
    loss = (
        functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)
    ) / 2
    with torch.no_grad():
        others = cosines.masked_fill(masked | itself, -1)
        hardest = others.max(dim=1).values
        own = cosines.diagonal()
        return DescriptorLoss(
            loss, (own > hardest).float().mean(), own.mean(), hardest.clamp(min=-1).mean()
        )


def repeatability_loss(
    logits: Tensor, other_logits: Tensor, flow: Tensor, point_cost: float
) -> Tensor:
    """A point is worth having where the other view has it too.

    Each cell draws a point, or none, from its soft-max. A point earns the chance that the other
    view has one where it should be, less the farther away that one lies (`REPEAT_SIGMA_PX`), and
    costs `point_cost`. This is the policy gradient's reward, its expectation taken exactly rather
    than by drawing. The other view is held fixed: call once each way. No detector is averaged
    over warps.

    Args:
        logits: B 65 h w.
        other_logits: B 65 h w, of the other view.
        flow: B H W 2, where each pixel lies in the other view, px; NaN where it is not visible.
        point_cost: 0..1; points that earn less lose.

    Returns:
        Minus the reward per cell; 0 when nothing is visible in both views.
    """
    visible = torch.isfinite(flow).all(dim=-1)  # B H W
    chance = cells_to_heatmap(logits)  # B H W
    with torch.no_grad():
        around = _near(cells_to_heatmap(other_logits)).clamp(max=1)  # B H W
        reward = _read(around, torch.where(visible[..., None], flow, 0.0)) - point_cost  # B H W
        cells = visible.sum().clamp(min=1) / CELL_PX**2
    return -(chance * reward * visible).sum() / cells


def teacher_cells_loss(logits: Tensor, taught: Tensor) -> Tensor:
    """How far a network's answer in each cell is from a larger one's: their divergence, nats.

    Args:
        logits, taught: B 65 h w; what is taught is held fixed.
    """
    said = logits.float().log_softmax(dim=1)
    wanted = taught.detach().float().log_softmax(dim=1)
    return (wanted.exp() * (wanted - said)).sum(dim=1).mean()


def teacher_choice_loss(
    a: Tensor, b: Tensor, taught_a: Tensor, taught_b: Tensor, temperature: float
) -> Tensor:
    """How far a network's choice among all points is from a larger one's, nats, both directions.

    The larger network's descriptors may be longer: only cosines are compared. They say which wrong
    points are nearly right, which a single right answer does not.

    Args:
        a, b: M D of unit length, points of both views.
        taught_a, taught_b: M D' of unit length, of the same points.
        temperature: Divides the cosines.
    """
    if len(a) == 0:
        return (a.float() * b.float()).sum()  # 0, with a gradient
    said = a.float() @ b.float().T / temperature  # M M
    wanted = (taught_a.float() @ taught_b.float().T / temperature).detach()  # M M
    return (_divergence(said, wanted) + _divergence(said.T, wanted.T)) / 2


def _divergence(said: Tensor, wanted: Tensor) -> Tensor:
    wanted = wanted.log_softmax(dim=1)
    return (wanted.exp() * (wanted - said.log_softmax(dim=1))).sum(dim=1).mean()


def _near(values: Tensor) -> Tensor:
    """Sum over the pixel and its eight neighbours, the farther the less. B H W -> B H W."""
    offset = torch.tensor([-1.0, 0.0, 1.0], device=values.device)
    weight = torch.exp(-(offset**2) / (2 * REPEAT_SIGMA_PX**2))  # 3
    kernel = weight[:, None] * weight[None]  # 3 3
    return functional.conv2d(values[:, None], kernel[None, None], padding=1)[:, 0]


def _read(values: Tensor, xy: Tensor) -> Tensor:
    """B H W at B H W 2 px, bilinearly; 0 outside."""
    size_wh = torch.tensor([values.shape[2], values.shape[1]], device=values.device)
    grid = (xy + 0.5) / size_wh * 2 - 1  # -1..1 from edge to edge
    read = functional.grid_sample(
        values[:, None], grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return read[:, 0]


def _distances2(xy: Tensor) -> Tensor:
    """M 2 -> M M, square px, between all points."""
    across, down = (values[:, None] - values for values in xy.unbind(dim=1))
    return across.square_().add_(down.square_())
