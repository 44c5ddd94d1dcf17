from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
import torch

from support.fake_pairs import Squares
from tiepoint.errors import TrainingError
from tiepoint.training import trainer as trainer_module
from tiepoint.training.detector.batch import Batch, collate
from tiepoint.training.presets import PRESETS, Preset, Stage
from tiepoint.training.trainer import Hooks, HopelessError, Record, Trainer

CPU = torch.device("cpu")
STEPS = 10
PRESET = replace(PRESETS["smoke"], steps=STEPS)


def new(folder: Path, preset: Preset = PRESET, **options: object) -> Trainer:
    return Trainer(preset, 4, Squares, folder, CPU, **options)  # type: ignore[arg-type]


class StopAfter(Event):
    """Set as soon as a run has done so many steps."""

    def __init__(self, trainer: Trainer, step: int) -> None:
        super().__init__()
        self.trainer, self.at = trainer, step

    def is_set(self) -> bool:
        return self.trainer.progress.step >= self.at


def tensors(trainer: Trainer) -> list[torch.Tensor]:
    moments = [v for s in trainer.optimiser.state.values() for v in s.values()]
    states = trainer.network.state_dict(), trainer.average.state_dict()
    return [*(v for state in states for v in state.values()), *moments]


@pytest.mark.parametrize(("stopped_at", "frozen"), [(1, 0), (4, 0), (9, 0), (4, 2)])
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path, stopped_at: int, frozen: int) -> None:
    preset = replace(PRESET, frozen_blocks=frozen)
    whole = new(tmp_path / "whole", preset)
    assert whole.run()
    first = new(tmp_path / "parts", preset)
    assert not first.run(StopAfter(first, stopped_at))
    assert first.progress.step == stopped_at
    second = Trainer.resume(tmp_path / "parts", Squares, CPU)
    assert second.run()
    assert second.progress.step == whole.progress.step == STEPS
    for ours, theirs in zip(tensors(second), tensors(whole), strict=True):
        assert torch.equal(ours, theirs)


def test_another_seed_makes_another_network(tmp_path: Path) -> None:
    ours, theirs = (Trainer(PRESET, seed, Squares, tmp_path, CPU) for seed in (1, 2))
    assert not torch.equal(tensors(ours)[0], tensors(theirs)[0])


def test_starting_a_run_leaves_torchs_own_randomness_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    new(tmp_path)
    assert torch.equal(torch.rand(3), expected)


def test_training_lowers_the_losses(tmp_path: Path) -> None:
    preset = replace(
        PRESET, steps=120, learning_rate=8e-3, stages=(Stage("all", 1.0, (64, 64), 4),)
    )
    records: list[Record] = []
    run = new(tmp_path, preset, hooks=Hooks(record=records.append))
    run.run()
    assert [record.step for record in records] == [20, 40, 60, 80, 100, 120]
    first, last = records[0].figures, records[-1].figures
    assert last["detector"] < 0.9 * first["detector"]
    assert last["descriptor"] < 0.8 * first["descriptor"]
    assert last["accuracy"] > 1.2 * first["accuracy"]


def test_every_stage_gets_its_own_source_and_closes_it(tmp_path: Path) -> None:
    opened: list[Squares] = []

    def open_source(stage: Stage, step: int) -> Squares:
        opened.append(Squares(stage, step))
        return opened[-1]

    Trainer(PRESET, 0, open_source, tmp_path, CPU).run()
    assert [source.stage.name for source in opened] == ["detector", "joint", "finish"]
    assert all(source.closed for source in opened)
    assert [source.step for source in opened] == [4, 7, 10]  # each goes on where the last ended


def a_batch(trainer: Trainer) -> Batch:
    return collate(next(iter(Squares(trainer.preset.stages[1], 0))), CPU)


def test_a_step_without_a_finite_gradient_changes_nothing_but_the_count(tmp_path: Path) -> None:
    run = new(tmp_path)
    batch, stage = a_batch(run), PRESET.stages[1]
    run.step(batch, stage)
    before = [value.clone() for value in tensors(run)]
    run.step(replace(batch, pixels=batch.pixels * torch.nan), stage)
    for ours, theirs in zip(tensors(run), before, strict=True):
        assert torch.equal(ours, theirs)
    assert (run.progress.skipped, run.progress.streak, run.progress.step) == (1, 1, 2)
    run.step(batch, stage)
    assert (run.progress.skipped, run.progress.streak) == (1, 0)
    assert all(value.isfinite().all() for value in tensors(run))


def test_a_streak_of_nan_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module, "HOPELESS_STREAK", 3)
    run = new(tmp_path)
    with torch.no_grad():
        next(run.network.parameters()).fill_(torch.nan)
    with pytest.raises(HopelessError, match="3 steps in a row"):
        run.run()


def test_a_detector_that_learns_nothing_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_module, "HOPELESS_AFTER", 20)
    preset = replace(PRESET, steps=60, learning_rate=1e-9)
    with pytest.raises(HopelessError, match="learnt nothing in"):
        new(tmp_path, preset).run()


def test_descriptors_that_match_nothing_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_module, "HOPELESS_AFTER", 20)
    monkeypatch.setattr(trainer_module, "HOPELESS_BLIND", 100.0)
    monkeypatch.setattr(trainer_module, "HOPELESS_ACCURACY", 0.99)
    preset = replace(PRESET, steps=60, stages=(Stage("joint", 1.0, (64, 64), 2),))
    with pytest.raises(HopelessError, match="match accuracy is"):
        new(tmp_path, preset).run()


def test_a_budget_in_minutes_ends_by_the_clock(tmp_path: Path) -> None:
    preset = replace(PRESET, steps=None, minutes=0.02)
    run = new(tmp_path, preset)
    assert run.run()
    assert 1.2 <= run.progress.seconds < 10
    assert run.progress.stage == 2


def test_the_benchmark_runs_every_so_many_steps(tmp_path: Path) -> None:
    seen: list[int] = []
    hooks = Hooks(benchmark=lambda run: seen.append(run.progress.step))
    new(tmp_path, replace(PRESET, benchmark_every=3), hooks=hooks).run()
    assert seen == [3, 6, 9]


def test_a_state_of_other_widths_is_refused(tmp_path: Path) -> None:
    run = new(tmp_path)
    run.run(StopAfter(run, 1))
    other = replace(PRESET, network=PRESETS["small"].network)
    with pytest.raises(TrainingError, match="does not fit"):
        Trainer.resume(tmp_path, Squares, CPU, preset=other)


def test_the_average_follows_the_network(tmp_path: Path) -> None:
    run = new(tmp_path, replace(PRESET, average=0.5))
    before = run.average.state_dict()["norms.encoder_conv_blocks_0_conv_a.running_mean"].clone()
    run.step(a_batch(run), PRESET.stages[1])
    theirs = run.network.state_dict()["norms.encoder_conv_blocks_0_conv_a.running_mean"]
    ours = run.average.state_dict()["norms.encoder_conv_blocks_0_conv_a.running_mean"]
    keep = 1 / 10  # early on the average forgets faster than `average` says
    torch.testing.assert_close(ours, keep * before + (1 - keep) * theirs)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_network_takes_the_same_steps(tmp_path: Path) -> None:
    preset = replace(PRESET, steps=2, stages=(replace(PRESET.stages[1], share=1.0),), bf16=False)
    plain, compiled = new(tmp_path / "a", preset), new(tmp_path / "b", preset, compiled=True)
    assert plain.run() and compiled.run()
    # All together: Adam starts with signs, and where a gradient is all but 0 rounding decides.
    before, ours, theirs = (
        torch.cat([value.flatten() for value in run.network.parameters()])
        for run in (new(tmp_path / "c", preset), plain, compiled)
    )
    assert (ours - theirs).norm() <= 0.15 * (ours - before).norm()
