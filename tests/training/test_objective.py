"""The loss of a batch: each part has the weight of its stage, and a teacher adds to it."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from support.fake_pairs import squares
from tiepoint.network.superpoint import cells_to_heatmap
from tiepoint.training.detector.batch import Batch, collate
from tiepoint.training.detector.losses import (
    descriptor_difference,
    descriptor_loss,
    detector_loss,
    phase_difference,
    repeatability_loss,
    soft_labels,
    teacher_divergence,
)
from tiepoint.training.detector.network import TrainableSuperPoint
from tiepoint.training.detector.objective import Objective, objective
from tiepoint.training.detector.sampling import sample_points
from tiepoint.training.presets import PRESETS, Stage

D, POINTS = 8, 20
STAGE = Stage("x", 1.0, (64, 64), 2, descriptor_weight=0.0)


class Fixed(nn.Module):
    """A network whose outputs are its parameters."""

    def __init__(self, seed: int, length: int = D) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.logits = nn.Parameter(torch.randn(4, 65, 8, 8, generator=generator))
        dense = torch.randn(4, length, 8, 8, generator=generator)
        self.dense = nn.Parameter(nn.functional.normalize(dense, dim=1))
        self.asked: list[bool] = []

    def forward(
        self, pixels: Tensor, *, descriptors: bool = True, phases: int = 1
    ) -> list[tuple[Tensor, Tensor | None]]:
        self.asked.append(descriptors)
        return [(self.logits, self.dense if descriptors else None)]


@pytest.fixture
def batch() -> Batch:
    return collate([squares(0, index, (64, 64)) for index in range(2)], torch.device("cpu"))


def loss_of(batch: Batch, stage: Stage, teacher: nn.Module | None = None) -> Objective:
    generator = torch.Generator().manual_seed(5)
    precision = contextlib.nullcontext()
    return objective(Fixed(0), batch, stage, POINTS, generator, precision, teacher)


def test_the_detector_is_always_trained(batch: Batch) -> None:
    result = loss_of(batch, STAGE)
    labels = soft_labels(batch.corner_image, batch.corner_xy, 4, (64, 64))
    expected = detector_loss(Fixed(0).logits, labels, batch.ignore)
    assert torch.equal(result.loss, expected.loss)
    assert result.figures.keys() == {"detector", "cross_entropy", "blind"}
    assert torch.equal(result.figures["blind"], expected.blind)


def test_without_descriptors_their_head_is_not_run(batch: Batch) -> None:
    network = Fixed(0)
    for weight in (0.0, 0.5):
        stage = replace(STAGE, descriptor_weight=weight)
        objective(network, batch, stage, POINTS, torch.Generator(), contextlib.nullcontext())
    assert network.asked == [False, True]


def test_the_repeatability_loss_is_the_mean_of_both_directions(batch: Batch) -> None:
    stage = replace(STAGE, repeat_weight=3.0, point_cost=0.1)
    a, b = cells_to_heatmap(Fixed(0).logits).chunk(2)
    a_to_b, b_to_a = batch.flow.chunk(2)
    expected = (repeatability_loss(a, b, a_to_b, 0.1) + repeatability_loss(b, a, b_to_a, 0.1)) / 2
    result = loss_of(batch, stage)
    torch.testing.assert_close(result.figures["repeat"], expected.detach())
    torch.testing.assert_close(result.loss, loss_of(batch, STAGE).loss + 3 * expected)


def test_the_descriptor_loss_is_at_the_sampled_points(batch: Batch) -> None:
    network = Fixed(0)
    heatmap = cells_to_heatmap(network.logits).detach()
    points = sample_points(batch, heatmap, POINTS, torch.Generator().manual_seed(5))
    [both] = points.descriptors([network.dense])
    a, b = both.chunk(2)
    expected = descriptor_loss(a, b, points.pair, points.xy_a, points.xy_b, 0.07)
    result = loss_of(batch, replace(STAGE, descriptor_weight=0.25))
    torch.testing.assert_close(result.loss, loss_of(batch, STAGE).loss + 0.25 * expected.loss)
    for name in ("accuracy", "positive", "hardest_negative"):
        torch.testing.assert_close(result.figures[name], getattr(expected, name))


def test_a_teacher_adds_its_divergences_with_its_weight(batch: Batch) -> None:
    teacher = Fixed(1, length=3 * D)
    stage = replace(STAGE, descriptor_weight=0.5, teacher_weight=2.0)
    plain, taught = loss_of(batch, stage), loss_of(batch, stage, teacher)
    cells = teacher_divergence(Fixed(0).logits, teacher.logits).detach()
    torch.testing.assert_close(taught.figures["teacher_cells"], cells)
    choice = taught.figures["teacher_choice"]
    assert choice > 0
    torch.testing.assert_close(taught.loss, plain.loss + 2 * cells + 2 * 0.5 * choice)


def test_a_network_equal_to_its_teacher_learns_nothing_from_it(batch: Batch) -> None:
    result = loss_of(batch, replace(STAGE, descriptor_weight=1.0), Fixed(0))
    assert float(result.figures["teacher_cells"]) == pytest.approx(0, abs=1e-6)
    assert float(result.figures["teacher_choice"]) == pytest.approx(0, abs=1e-6)


def test_gradients_reach_the_network_but_not_the_teacher_and_no_figure(batch: Batch) -> None:
    network, teacher = Fixed(0), Fixed(1)
    stage = replace(STAGE, descriptor_weight=1.0, repeat_weight=1.0)
    result = objective(
        network, batch, stage, POINTS, torch.Generator(), contextlib.nullcontext(), teacher
    )
    torch.autograd.backward(result.loss)
    assert network.logits.grad is not None and network.logits.grad.abs().max() > 0
    assert network.dense.grad is not None and network.dense.grad.abs().max() > 0
    assert teacher.logits.grad is None and teacher.dense.grad is None
    assert not any(figure.requires_grad for figure in result.figures.values())


def test_a_batch_whose_views_share_nothing_has_a_finite_loss(batch: Batch) -> None:
    alone = replace(batch, flow=torch.full_like(batch.flow, torch.nan))
    result = loss_of(alone, replace(STAGE, descriptor_weight=1.0, repeat_weight=1.0))
    assert torch.isfinite(result.loss)
    assert float(result.figures["repeat"]) == 0 and float(result.figures["descriptor"]) == 0


class TwoPhases(nn.Module):
    """A network with an answer for each cell phase."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(9)
        for index, side in enumerate((8, 9)):
            logits = torch.randn(4, 65, side, side, generator=generator)
            dense = torch.randn(4, D, side, side, generator=generator)
            setattr(self, f"logits_{index}", nn.Parameter(logits))
            setattr(self, f"dense_{index}", nn.Parameter(nn.functional.normalize(dense, dim=1)))

    def forward(
        self, pixels: Tensor, *, descriptors: bool = True, phases: int = 1
    ) -> list[tuple[Tensor, Tensor | None]]:
        both = [(self.logits_0, self.dense_0), (self.logits_1, self.dense_1)]
        return [(logits, dense if descriptors else None) for logits, dense in both[:phases]]


def test_both_phases_are_trained_on_the_same_corners_and_on_their_difference(batch: Batch) -> None:
    network, stage = TwoPhases(), replace(STAGE, phase_weight=0.5)
    generator, precision = torch.Generator(), contextlib.nullcontext()
    result = objective(network, batch, stage, POINTS, generator, precision)
    labels = soft_labels(batch.corner_image, batch.corner_xy, 4, (64, 64))
    first = detector_loss(network.logits_0, labels, batch.ignore)
    # The shifted grid begins half a cell outside the image, where nothing is known.
    moved = soft_labels(batch.corner_image, batch.corner_xy + 4, 4, (72, 72))
    ignore = nn.functional.pad(batch.ignore, (4, 4, 4, 4), value=True)
    second = detector_loss(network.logits_1, moved, ignore)
    heatmaps = cells_to_heatmap(network.logits_0), cells_to_heatmap(network.logits_1)[:, 4:-4, 4:-4]
    apart = phase_difference(heatmaps)
    assert apart > 0
    torch.testing.assert_close(result.loss, (first.loss + second.loss) / 2 + 0.5 * apart)
    torch.testing.assert_close(result.figures["phase_heatmap"], apart.detach())


def test_descriptors_are_compared_as_the_mean_of_both_phases(batch: Batch) -> None:
    network = TwoPhases()
    stage = replace(STAGE, descriptor_weight=0.25, phase_weight=0.5)
    precision = contextlib.nullcontext()
    seeded = torch.Generator().manual_seed(5)
    result = objective(network, batch, stage, POINTS, seeded, precision)
    only_corners = replace(stage, descriptor_weight=0.0)
    rest = objective(network, batch, only_corners, POINTS, seeded, precision)
    heatmap = (
        cells_to_heatmap(network.logits_0) + cells_to_heatmap(network.logits_1)[:, 4:-4, 4:-4]
    ) / 2
    points = sample_points(batch, heatmap.detach(), POINTS, torch.Generator().manual_seed(5))
    each = points.descriptors([network.dense_0, network.dense_1])
    a, b = nn.functional.normalize(each[0] + each[1], dim=1).chunk(2)
    matched = descriptor_loss(a, b, points.pair, points.xy_a, points.xy_b, stage.temperature)
    apart = descriptor_difference(each)
    expected = matched.loss + 0.5 * apart / stage.temperature
    torch.testing.assert_close(result.loss, rest.loss + 0.25 * expected)
    torch.testing.assert_close(result.figures["phase_descriptor"], apart.detach())


def test_training_brings_the_phases_together() -> None:
    """Steps on one batch: both differences shrink beside the other losses."""
    torch.manual_seed(1)
    network = TrainableSuperPoint(PRESETS["smoke"].network)
    batch = collate([squares(0, i, (64, 64)) for i in range(2)], torch.device("cpu"))
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    stage, seen = replace(PRESETS["smoke"].stages[1], phase_weight=1.0), []
    for step in range(40):
        generator = torch.Generator().manual_seed(step)
        found = objective(network, batch, stage, 32, generator, contextlib.nullcontext())
        optimiser.zero_grad()
        found.loss.backward()
        optimiser.step()
        seen.append([float(found.figures[f"phase_{name}"]) for name in ("heatmap", "descriptor")])
    assert np.mean(seen[-5:], axis=0)[1] < 0.7 * np.mean(seen[:5], axis=0)[1]
