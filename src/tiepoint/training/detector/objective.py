"""One batch -> the loss to minimise, and figures for the log."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from tiepoint.architecture import CELL_PX, PHASES
from tiepoint.network.superpoint import heatmaps_of
from tiepoint.training.detector import losses
from tiepoint.training.detector.batch import Batch
from tiepoint.training.detector.sampling import PointPairs, sample_points
from tiepoint.training.devices import constant
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
    with_descriptors = stage.descriptor_weight > 0
    with precision:
        pixels = batch.pixels.contiguous(memory_format=torch.channels_last)
        taught = None
        if teacher is not None:
            with torch.no_grad():
                taught = Maps(teacher(pixels, descriptors=with_descriptors, phases=stage.phases))
        maps = Maps(network(pixels, descriptors=with_descriptors, phases=stage.phases))
    loss, figures = _detector_losses(maps, batch, stage)
    if taught is not None:
        cells = torch.stack(
            [
                losses.teacher_divergence(*each)
                for each in zip(maps.logits, taught.logits, strict=True)
            ]
        ).mean()
        loss = loss + stage.teacher_weight * cells
        figures["teacher_cells"] = cells.detach()
    if with_descriptors:
        with torch.no_grad():
            sampled = sample_points(batch, maps.heatmap, points, generator)
        more, descriptor_figures = _descriptor_losses(maps, taught, sampled, stage)
        loss = loss + stage.descriptor_weight * more
        figures.update(descriptor_figures)
    return Objective(loss, figures)


class Maps:
    """The network's output for a batch, of each cell phase, and the heat map of all.

    Attributes:
        logits: 2P 65 h w float32 each; shifted grids have one more row and column.
        dense: 2P D h w each, or empty.
        heatmaps: 2P H W of each phase.
        heatmap: 2P H W, their mean.
    """

    def __init__(self, phases: Sequence[tuple[Tensor, Tensor | None]]) -> None:
        self.logits = [logits.float() for logits, _ in phases]
        self.dense = [dense for _, dense in phases if dense is not None]

    @cached_property
    def heatmaps(self) -> list[Tensor]:
        return heatmaps_of(self.logits)

    @cached_property
    def heatmap(self) -> Tensor:
        return torch.stack(self.heatmaps).mean(dim=0)


def _detector_losses(maps: Maps, batch: Batch, stage: Stage) -> tuple[Tensor, dict[str, Tensor]]:
    each = []
    for logits, (down, right) in zip(maps.logits, PHASES[len(maps.logits)], strict=True):
        size_hw = (CELL_PX * logits.shape[2], CELL_PX * logits.shape[3])
        moved_xy = batch.corner_xy + constant((right, down), batch.corner_xy.device)
        labels = losses.soft_labels(batch.corner_image, moved_xy, len(logits), size_hw)
        # Outside the image there is no ground truth.
        ignore = functional.pad(batch.ignore, (right, right, down, down), value=True)
        each.append(losses.detector_loss(logits, labels, ignore))
    loss = torch.stack([one.loss for one in each]).mean()
    figures = {
        "detector": loss.detach(), "cross_entropy": each[0].cross_entropy, "blind": each[0].blind
    }  # fmt: skip
    if stage.phase_weight > 0:
        apart = losses.phase_difference(maps.heatmaps)
        loss = loss + stage.phase_weight * apart
        figures["phase_heatmap"] = apart.detach()
    if stage.repeat_weight > 0:
        a, b = maps.heatmap.chunk(2)
        a_to_b, b_to_a = batch.flow.chunk(2)
        repeat = (
            losses.repeatability_loss(a, b, a_to_b, stage.point_cost)
            + losses.repeatability_loss(b, a, b_to_a, stage.point_cost)
        ) / 2
        loss = loss + stage.repeat_weight * repeat
        figures["repeat"] = repeat.detach()
    return loss, figures


def _descriptor_losses(
    maps: Maps, taught: Maps | None, sampled: PointPairs, stage: Stage
) -> tuple[Tensor, dict[str, Tensor]]:
    each = sampled.descriptors(maps.dense)  # 2M D of each phase
    a, b = _mean_of(each).chunk(2)  # M D, as detection averages them
    matched = losses.descriptor_loss(
        a, b, sampled.pair, sampled.xy_a, sampled.xy_b, stage.temperature, sampled.valid
    )
    loss, figures = matched.loss, {
        "descriptor": matched.loss.detach(), "accuracy": matched.accuracy,
        "positive": matched.positive, "hardest_negative": matched.hardest_negative,
    }  # fmt: skip
    if stage.phase_weight > 0:
        both = None if sampled.valid is None else sampled.valid.repeat(2, 1)  # 2P N
        apart = losses.descriptor_difference(each, both)
        loss = loss + stage.phase_weight * apart / stage.temperature
        figures["phase_descriptor"] = apart.detach()
    if taught is not None:
        teacher_a, teacher_b = _mean_of(sampled.descriptors(taught.dense)).chunk(2)
        choice = losses.teacher_choice_loss(
            a, b, teacher_a, teacher_b, stage.temperature, sampled.valid
        )
        loss = loss + stage.teacher_weight * choice
        figures["teacher_choice"] = choice.detach()
    return loss, figures


def _mean_of(descriptors: Sequence[Tensor]) -> Tensor:
    """N D of each phase -> N D of unit length."""
    if len(descriptors) == 1:
        return descriptors[0]
    return functional.normalize(torch.stack(list(descriptors)).sum(dim=0), dim=1)
