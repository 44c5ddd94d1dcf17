"""One batch -> the loss to minimise, and the figures that tell how training goes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tiepoint.keypoints.on_torch import describe
from tiepoint.network.superpoint import cells_to_heatmap
from tiepoint.training.detector.batch import Batch
from tiepoint.training.detector.losses import (
    descriptor_loss,
    detector_loss,
    repeatability_loss,
    soft_labels,
    teacher_cells_loss,
    teacher_choice_loss,
)
from tiepoint.training.detector.sampling import choose_points
from tiepoint.training.presets import Stage


@dataclass(frozen=True, eq=False)
class Objective:
    """Attributes:
    loss: What is minimised.
    figures: Name -> scalar, without gradients.
    """

    loss: Tensor
    figures: dict[str, Tensor]


def objective(
    network: nn.Module,
    batch: Batch,
    stage: Stage,
    points: int,
    generator: torch.Generator,
    precision: AbstractContextManager[object],
    teacher: nn.Module | None = None,
) -> Objective:
    """Losses of a batch, as a stage weighs them.

    Args:
        network: Trained, a `TrainableSuperPoint` or the same compiled; in training mode.
        points: Wanted of each pair by the descriptor loss.
        precision: Autocast, entered for the convolutions only.
        teacher: A larger network, whose answers are learnt as well; weighed by
            `stage.teacher_weight`.
    """
    taught: tuple[Tensor, Tensor | None] | None = None
    with precision:
        pixels = batch.pixels.contiguous(memory_format=torch.channels_last)
        if teacher is not None:
            with torch.no_grad():
                taught = teacher(pixels, descriptors=stage.descriptor_weight > 0)
        logits, dense = network(pixels, descriptors=stage.descriptor_weight > 0)
    logits = logits.float()  # 2P 65 h w
    found = _detector(logits, batch)
    loss, figures = found.loss, found.figures
    if stage.repeat_weight > 0:
        first, second = logits.chunk(2)
        there, back = batch.flow.chunk(2)
        repeat = (
            repeatability_loss(first, second, there, stage.point_cost)
            + repeatability_loss(second, first, back, stage.point_cost)
        ) / 2
        loss = loss + stage.repeat_weight * repeat
        figures["repeat"] = repeat.detach()
    if taught is not None:
        cells = teacher_cells_loss(logits, taught[0])
        loss = loss + stage.teacher_weight * cells
        figures["teacher_cells"] = cells.detach()
    if dense is not None:
        at = _points(logits, batch, points, generator)
        a, b = at.read(dense)
        matched = descriptor_loss(a, b, at.pair, at.xy_a, at.xy_b, stage.temperature)
        if taught is not None and taught[1] is not None:
            choice = teacher_choice_loss(a, b, *at.read(taught[1]), stage.temperature)
            loss = loss + stage.teacher_weight * stage.descriptor_weight * choice
            figures["teacher_choice"] = choice.detach()
        loss = loss + stage.descriptor_weight * matched.loss
        figures["descriptor"] = matched.loss.detach()
        figures["accuracy"] = matched.accuracy
        figures["positive"] = matched.positive
        figures["hardest_negative"] = matched.hardest_negative
    return Objective(loss, figures)


def _detector(logits: Tensor, batch: Batch) -> Objective:
    labels = soft_labels(batch.corner_image, batch.corner_xy, len(logits), batch.size_hw)
    found = detector_loss(logits, labels, batch.ignore)
    figures = {
        "detector": found.loss.detach(),
        "cross_entropy": found.cross_entropy,
        "blind": found.blind,
    }
    return Objective(found.loss, figures)


@dataclass(frozen=True, eq=False)
class _Points:
    """Where descriptors are read: M pairs of points, in both views of each pair of the batch."""

    pair: Tensor
    xy_a: Tensor
    xy_b: Tensor
    pairs: int

    def read(self, dense: Tensor) -> tuple[Tensor, Tensor]:
        """2P D h w -> M D of unit length, of each view."""
        h, w = dense.shape[2:]
        cells_hw = torch.tensor([[h, w]], device=dense.device).expand(len(dense), 2)  # 2P 2
        image = torch.cat([self.pair, self.pair + self.pairs])  # 2M
        xy = torch.cat([self.xy_a, self.xy_b])  # 2M 2
        a, b = describe(dense, image, xy, cells_hw).chunk(2)  # M D each
        return a, b


def _points(logits: Tensor, batch: Batch, points: int, generator: torch.Generator) -> _Points:
    with torch.no_grad():
        chosen = choose_points(batch, cells_to_heatmap(logits), points, generator)
    return _Points(chosen.pair, chosen.xy_a, chosen.xy_b, batch.pairs)
