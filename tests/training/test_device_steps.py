"""The training loop as on a GPU: no step waits, and the device itself skips what is not finite."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from support.fake_pairs import Squares
from support.queued import queue_everything, waits
from tiepoint.training import monitor, trainer
from tiepoint.training.detector.batch import Batch, collate
from tiepoint.training.detector.network import TrainableSuperPoint
from tiepoint.training.monitor import HopelessError
from tiepoint.training.presets import PRESETS, Preset, Stage
from tiepoint.training.state import RunConfig, load_state
from tiepoint.training.trainer import Hooks, Trainer

CPU = torch.device("cpu")
EVERYTHING = Stage(
    "all", 1.0, (64, 64), 2, descriptor_weight=0.5, repeat_weight=0.5, phase_weight=1.0
)
PRESET = replace(PRESETS["smoke"], steps=10, bf16=False, stages=(EVERYTHING,))


@pytest.fixture
def queued(monkeypatch: pytest.MonkeyPatch) -> None:
    queue_everything(monkeypatch)


def new(folder: Path, preset: Preset = PRESET, **options: object) -> Trainer:
    return Trainer(RunConfig(preset, 4), Squares, folder, CPU, **options)  # type: ignore[arg-type]


def a_batch(step: int = 0) -> Batch:
    return collate(next(iter(Squares(EVERYTHING, step))), CPU)


def broken(batch: Batch) -> Batch:
    return replace(batch, pixels=batch.pixels * torch.nan)


def tensors(run: Trainer) -> list[torch.Tensor]:
    moments = [v for s in run.optimiser.state.values() for v in s.values()]
    states = run.network.state_dict(), run.average.state_dict()
    return [*(v for state in states for v in state.values()), *moments]


def teacher() -> nn.Module:
    return TrainableSuperPoint(PRESET.network).eval().requires_grad_(False)


@pytest.mark.usefixtures("queued")
@pytest.mark.parametrize("taught", [False, True])
def test_a_step_waits_for_nothing(tmp_path: Path, taught: bool) -> None:
    run = new(tmp_path, teacher=teacher() if taught else None)
    batch = a_batch()
    run.step(batch, EVERYTHING)  # constants are copied to the device once
    assert not waits(lambda: run.step(batch, EVERYTHING))


def test_the_count_of_waits_sees_them(tmp_path: Path) -> None:
    """On a CPU a step reads whether it is finite, and removes the padding of its points."""
    run = new(tmp_path)
    run.step(a_batch(), EVERYTHING)
    seen = waits(lambda: run.step(a_batch(1), EVERYTHING))
    assert seen["item"] and seen["nonzero"] and seen["__bool__"] and seen["tolist"]


def test_a_device_takes_the_same_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    for name in ("here", "device"):
        with monkeypatch.context() as patch:
            if name == "device":
                queue_everything(patch)
            run = new(tmp_path / name)
            results = [run.step(a_batch(step), EVERYTHING) for step in range(3)]
            runs.append((run, results))
    (here, expected), (device, found) = runs
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.figures.keys() == theirs.figures.keys()
        torch.testing.assert_close(ours.loss, theirs.loss, rtol=1e-4, atol=1e-5)
    # All together: Adam starts with signs, and where a gradient is all but 0 rounding decides.
    before, ours, theirs = (
        torch.cat([value.flatten() for value in run.network.parameters()])
        for run in (new(tmp_path / "start"), device, here)
    )
    assert (ours - theirs).norm() <= 0.02 * (ours - before).norm()


@pytest.mark.usefixtures("queued")
@pytest.mark.parametrize("steps_before", [0, 2])
def test_a_step_without_a_finite_gradient_changes_nothing(
    tmp_path: Path, steps_before: int
) -> None:
    run, batch = new(tmp_path), a_batch()
    for _ in range(steps_before):
        run.step(batch, EVERYTHING)
    before = [value.clone() for value in tensors(run)]
    run.step(broken(batch), EVERYTHING)
    after = tensors(run)
    if steps_before == 0:  # the optimiser has a state now, of nothing
        assert all((value == 0).all() for value in after[len(before) :])
    for ours, theirs in zip(after, before, strict=steps_before > 0):
        assert torch.equal(ours, theirs)
    run.count_skipped()
    assert (run.progress.skipped, run.progress.streak) == (1, 1)
    run.step(batch, EVERYTHING)
    run.count_skipped()
    assert (run.progress.skipped, run.progress.streak) == (1, 0)
    assert all(value.isfinite().all() for value in tensors(run))
    assert any(not torch.equal(a, b) for a, b in zip(tensors(run), before, strict=False))


@pytest.mark.usefixtures("queued")
def test_the_weights_after_a_skipped_step_are_those_without_it(tmp_path: Path) -> None:
    """The optimiser's own count of steps matters to its next step."""
    runs = [new(tmp_path / name) for name in ("skipping", "plain")]
    for run in runs:
        run.step(a_batch(0), EVERYTHING)
    runs[0].step(broken(a_batch(1)), EVERYTHING)
    for run in runs:
        run.progress.step = 2  # decides the rate and the points
        run.step(a_batch(2), EVERYTHING)
    for ours, theirs in zip(*map(tensors, runs), strict=True):
        assert torch.equal(ours, theirs)


class BrokenAt:
    """Squares with NaN pixels at some steps."""

    def __init__(self, *steps: int) -> None:
        self.steps = steps

    def collate(self, run: Trainer) -> None:
        plain = run.collate

        def broken_or_not(items: object) -> Batch:
            batch = plain(items)  # type: ignore[arg-type]
            return broken(batch) if run.progress.step in self.steps else batch

        run.collate = broken_or_not  # type: ignore[method-assign]


@pytest.mark.usefixtures("queued")
def test_skipped_steps_are_counted_in_the_record_and_not_in_its_means(tmp_path: Path) -> None:
    records: list[trainer.LogRecord] = []
    run = new(tmp_path, hooks=Hooks(record=records.append))
    BrokenAt(2, 3, 7).collate(run)
    assert run.run()
    [record] = records
    assert record.skipped == 3 and run.progress.streak == 0
    assert all(value == value for value in record.figures.values())


@pytest.mark.usefixtures("queued")
def test_a_streak_ends_the_run_when_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also a streak that was over by then, as on a CPU."""
    monkeypatch.setattr(monitor, "HOPELESS_STREAK", 3)
    monkeypatch.setattr(trainer, "LOG_EVERY", 8)
    run = new(tmp_path)
    BrokenAt(2, 3, 4).collate(run)
    with pytest.raises(HopelessError, match="3 steps in a row"):
        run.run()
    assert run.progress.step == 8


@pytest.mark.usefixtures("queued")
@pytest.mark.parametrize("stopped_at", [1, 4])
def test_a_stopped_run_resumes_bit_for_bit(tmp_path: Path, stopped_at: int) -> None:
    whole, first = new(tmp_path / "whole"), new(tmp_path / "parts")
    for run in (whole, first):
        BrokenAt(3).collate(run)
    assert whole.run()
    for _ in range(stopped_at):
        first.step(first.collate(next(iter(Squares(EVERYTHING, first.progress.step)))), EVERYTHING)
    first.folder.mkdir()
    first.save()
    second = new(tmp_path / "parts")
    BrokenAt(3).collate(second)
    second.restore(load_state(tmp_path / "parts"))
    assert second.run()
    assert second.progress.skipped == whole.progress.skipped == 1
    for ours, theirs in zip(tensors(second), tensors(whole), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("saved_on_device", [False, True])
def test_a_run_goes_on_where_the_other_kind_of_device_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved_on_device: bool
) -> None:
    for on_device in (saved_on_device, not saved_on_device):
        with monkeypatch.context() as patch:
            if on_device:
                queue_everything(patch)
            run = new(tmp_path)
            if on_device != saved_on_device:
                run.restore(load_state(tmp_path))
            assert [g["fused"] for g in run.optimiser.param_groups] == [on_device or None] * 2
            for _ in range(2):
                run.step(a_batch(run.progress.step), EVERYTHING)
            run.save()
    assert run.progress.step == 4
    assert all(float(state["step"]) == 4 for state in run.optimiser.state.values())
    assert all(value.isfinite().all() for value in tensors(run))
