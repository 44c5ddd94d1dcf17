"""One batch -> the loss to minimise, and figures for the log."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tiepoint.network.superpoint import cells_to_heatmap
from tiepoint.training.detector import losses
from tiepoint.training.detector.batch import Batch
from tiepoint.training.detector.sampling import sample_points
from tiepoint.training.presets import Stage


class Objective(NamedTuple):
    """The loss to minimise, and scalars without gradient for the log, by name."""

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
    """Compute the losses of a batch, weighted as a stage requires.

    Args:
        network: `TrainableSuperPoint` in training mode, possibly compiled.
        points: Number of points per pair in the descriptor loss, satellites not counted.
        precision: Autocast context, entered for the convolutions only.
        teacher: Larger network to learn from as well, with weight `stage.teacher_weight`.
    """
    taught: tuple[Tensor, Tensor | None] | None = None
    with_descriptors = stage.descriptor_weight > 0
    with precision:
        pixels = batch.pixels.contiguous(memory_format=torch.channels_last)
        if teacher is not None:
            with torch.no_grad():
                taught = teacher(pixels, descriptors=with_descriptors)
        logits, dense = network(pixels, descriptors=with_descriptors)
    logits = logits.float()  # 2P 65 h w
    loss, figures = _detector_losses(logits, batch, stage)
    if taught is not None:
        cells = losses.teacher_divergence(logits, taught[0])
        loss = loss + stage.teacher_weight * cells
        figures["teacher_cells"] = cells.detach()
    if dense is not None:
        with torch.no_grad():
            sampled = sample_points(batch, cells_to_heatmap(logits), points, generator)
        a, b = sampled.descriptors(dense)
        matched = losses.descriptor_loss(
            a, b, sampled.pair, sampled.xy_a, sampled.xy_b, stage.temperature
        )
        if taught is not None and taught[1] is not None:
            choice = losses.teacher_choice_loss(
                a, b, *sampled.descriptors(taught[1]), stage.temperature
            )
            loss = loss + stage.teacher_weight * stage.descriptor_weight * choice
            figures["teacher_choice"] = choice.detach()
        loss = loss + stage.descriptor_weight * matched.loss
        figures["descriptor"] = matched.loss.detach()
        figures["accuracy"] = matched.accuracy
        figures["positive"] = matched.positive
        figures["hardest_negative"] = matched.hardest_negative
    return Objective(loss, figures)


def _detector_losses(
    logits: Tensor, batch: Batch, stage: Stage
) -> tuple[Tensor, dict[str, Tensor]]:
    labels = losses.soft_labels(batch.corner_image, batch.corner_xy, len(logits), batch.size_hw)
    loss, cross_entropy, blind = losses.detector_loss(logits, labels, batch.ignore)
    figures = {"detector": loss.detach(), "cross_entropy": cross_entropy, "blind": blind}
    if stage.repeat_weight > 0:
        logits_a, logits_b = logits.chunk(2)
        a_to_b, b_to_a = batch.flow.chunk(2)
        repeat = (
            losses.repeatability_loss(logits_a, logits_b, a_to_b, stage.point_cost)
            + losses.repeatability_loss(logits_b, logits_a, b_to_a, stage.point_cost)
        ) / 2
        loss = loss + stage.repeat_weight * repeat
        figures["repeat"] = repeat.detach()
    return loss, figures
