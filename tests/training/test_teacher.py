"""A network that learns the answers of a larger one beside its labels."""

from __future__ import annotations

import contextlib

import numpy as np
import torch

from support.fake_pairs import squares
from tiepoint.network.superpoint import SuperPoint
from tiepoint.training.detector.batch import collate
from tiepoint.training.detector.network import TrainableSuperPoint
from tiepoint.training.detector.objective import objective
from tiepoint.training.presets import PRESETS
from tiepoint.weights.checkpoint import load_checkpoint


def test_a_teacher_pulls_the_answers_of_the_network_to_its_own() -> None:
    """Steps on one batch: what is taught comes nearer, with the labels beside it."""
    torch.manual_seed(0)
    origin = load_checkpoint("default")
    teacher = SuperPoint(origin.network).load(origin.tensors).eval()
    network = TrainableSuperPoint(PRESETS["smoke"].network)
    batch = collate([squares(0, i, (64, 64)) for i in range(2)], torch.device("cpu"))
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    seen = []
    for step in range(40):
        generator = torch.Generator().manual_seed(step)
        found = objective(
            network, batch, PRESETS["smoke"].stages[1], 32, generator,
            contextlib.nullcontext(), teacher,
        )  # fmt: skip
        optimiser.zero_grad()
        found.loss.backward()
        optimiser.step()
        seen.append([float(found.figures[name]) for name in ("teacher_cells", "teacher_choice")])
    first, last = np.mean(seen[:5], axis=0), np.mean(seen[-5:], axis=0)
    assert (last < 0.7 * first).all()


def test_without_descriptors_only_the_cells_are_taught() -> None:
    origin = load_checkpoint("default")
    teacher = SuperPoint(origin.network).load(origin.tensors).eval()
    network = TrainableSuperPoint(PRESETS["smoke"].network)
    batch = collate([squares(0, 0, (64, 64))], torch.device("cpu"))
    found = objective(
        network, batch, PRESETS["smoke"].stages[0], 32, torch.Generator(),
        contextlib.nullcontext(), teacher,
    )  # fmt: skip
    assert "teacher_cells" in found.figures and "teacher_choice" not in found.figures
