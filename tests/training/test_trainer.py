"""The training loop: resuming bit for bit, stages, skipped steps, averages, hopeless runs."""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import count
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import pytest
import torch

from support.fake_pairs import Squares
from tiepoint.errors import TrainingError
from tiepoint.training import monitor, trainer
from tiepoint.training.detector.batch import Batch, collate
from tiepoint.training.log import LogRecord
from tiepoint.training.monitor import HopelessError
from tiepoint.training.presets import PRESETS, Preset, Stage
from tiepoint.training.state import RunConfig, load_state
from tiepoint.training.trainer import Hooks, Trainer

CPU = torch.device("cpu")
STEPS = 10
PRESET = replace(PRESETS["smoke"], steps=STEPS, bf16=False)  # bfloat16 is slow on some CPUs


def new(folder: Path, preset: Preset = PRESET, **options: object) -> Trainer:
    return Trainer(RunConfig(preset, 4), Squares, folder, CPU, **options)  # type: ignore[arg-type]


def resumed(folder: Path, preset: Preset = PRESET) -> Trainer:
    trainer = new(folder, preset)
    trainer.restore(load_state(folder))
    return trainer


class StopAfter(Event):
    """Set as soon as a run has done a number of steps."""

    def __init__(self, trainer: Trainer, step: int) -> None:
        super().__init__()
        self.trainer, self.at = trainer, step

    def is_set(self) -> bool:
        return self.trainer.progress.step >= self.at


def tensors(trainer: Trainer) -> list[torch.Tensor]:
    moments = [v for s in trainer.optimiser.state.values() for v in s.values()]
    states = trainer.network.state_dict(), trainer.average.state_dict()
    return [*(v for state in states for v in state.values()), *moments]


@pytest.mark.parametrize(
    ("stopped_at", "frozen", "bf16"),
    [(1, 0, False), (4, 0, True), (9, 0, False), (4, 2, False)],
)
def test_a_stopped_run_resumes_bit_for_bit(
    tmp_path: Path, stopped_at: int, frozen: int, bf16: bool
) -> None:
    preset = replace(PRESET, frozen_blocks=frozen, bf16=bf16)
    whole = new(tmp_path / "whole", preset)
    assert whole.run()
    first = new(tmp_path / "parts", preset)
    assert not first.run(StopAfter(first, stopped_at))
    assert first.progress.step == stopped_at
    second = resumed(tmp_path / "parts", preset)
    assert second.run()
    assert second.progress.step == whole.progress.step == STEPS
    for ours, theirs in zip(tensors(second), tensors(whole), strict=True):
        assert torch.equal(ours, theirs)


def test_another_seed_makes_another_network(tmp_path: Path) -> None:
    ours, theirs = (Trainer(RunConfig(PRESET, seed), Squares, tmp_path, CPU) for seed in (1, 2))
    assert not torch.equal(tensors(ours)[0], tensors(theirs)[0])


@pytest.mark.parametrize("seed", [2**32, 2**63 - 1])
def test_a_run_takes_every_seed_that_a_state_may_have(tmp_path: Path, seed: int) -> None:
    run = Trainer(RunConfig(replace(PRESET, steps=1), seed), Squares, tmp_path, CPU)
    assert run.run()
    assert load_state(tmp_path).run.seed == seed


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
    records: list[LogRecord] = []
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

    Trainer(RunConfig(PRESET, 0), open_source, tmp_path, CPU).run()
    assert [source.stage.name for source in opened] == ["detector", "joint", "finish"]
    assert all(source.closed for source in opened)
    assert [source.step for source in opened] == [4, 7, 10]  # each continues where the last ended


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
    monkeypatch.setattr(monitor, "HOPELESS_STREAK", 3)
    run = new(tmp_path)
    with torch.no_grad():
        next(run.network.parameters()).fill_(torch.nan)
    with pytest.raises(HopelessError, match="3 steps in a row"):
        run.run()


def test_a_detector_that_learns_nothing_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "HOPELESS_AFTER", 20)
    preset = replace(PRESET, steps=60, learning_rate=1e-9)
    with pytest.raises(HopelessError, match="learnt nothing in"):
        new(tmp_path, preset).run()


def test_descriptors_that_match_nothing_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "HOPELESS_AFTER", 20)
    monkeypatch.setattr(monitor, "HOPELESS_BLIND", 100.0)
    monkeypatch.setattr(monitor, "HOPELESS_ACCURACY", 0.99)
    preset = replace(PRESET, steps=60, stages=(Stage("joint", 1.0, (64, 64), 2),))
    with pytest.raises(HopelessError, match="match accuracy is"):
        new(tmp_path, preset).run()


def test_a_budget_in_minutes_ends_by_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that advances by 0.1 s whenever it is read: 0.2 s of a step, 0.1 s of it waiting."""
    ticks = count(0)
    monkeypatch.setattr(trainer, "time", SimpleNamespace(monotonic=lambda: next(ticks) / 10))
    run = new(tmp_path, replace(PRESET, steps=None, minutes=2.0 / 60))
    assert run.run()
    assert run.progress.step == 10
    assert run.progress.seconds == pytest.approx(2.0)
    assert run.progress.waited == pytest.approx(1.0)
    assert run.progress.stage_steps == {"detector": 4, "joint": 3, "finish": 3}


def test_the_state_is_saved_every_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = count(0)
    monkeypatch.setattr(trainer, "time", SimpleNamespace(monotonic=lambda: 5.0 * next(ticks)))
    saves: list[int] = []
    hooks = Hooks(saved=lambda run: saves.append(run.progress.step))
    new(tmp_path, hooks=hooks).run()  # four looks at the clock per step: 20 s
    assert saves == [3, 6, 9, 10]


def test_the_benchmark_runs_at_its_interval(tmp_path: Path) -> None:
    seen: list[int] = []
    hooks = Hooks(benchmark=lambda run: seen.append(run.progress.step))
    new(tmp_path, replace(PRESET, benchmark_every=3), hooks=hooks).run()
    assert seen == [3, 6, 9]


def test_a_state_of_other_widths_is_refused(tmp_path: Path) -> None:
    run = new(tmp_path)
    run.run(StopAfter(run, 1))
    other = replace(PRESET, network=PRESETS["small"].network)
    with pytest.raises(TrainingError, match="does not fit"):
        resumed(tmp_path, other)


def test_the_average_follows_the_network(tmp_path: Path) -> None:
    run = new(tmp_path, replace(PRESET, average=0.5))
    before = run.average.state_dict()["norms.encoder_conv_blocks_0_conv_a.running_mean"].clone()
    run.step(a_batch(run), PRESET.stages[1])
    theirs = run.network.state_dict()["norms.encoder_conv_blocks_0_conv_a.running_mean"]
    ours = run.average.state_dict()["norms.encoder_conv_blocks_0_conv_a.running_mean"]
    keep = 1 / 10  # early on the average forgets faster than `average`
    torch.testing.assert_close(ours, keep * before + (1 - keep) * theirs)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_network_takes_the_same_steps(tmp_path: Path) -> None:
    preset = replace(PRESET, steps=2, stages=(replace(PRESET.stages[1], share=1.0),))
    plain, compiled = new(tmp_path / "a", preset), new(tmp_path / "b", preset, compiled=True)
    assert plain.run() and compiled.run()
    # All together: Adam starts with signs, and where a gradient is all but 0 rounding decides.
    before, ours, theirs = (
        torch.cat([value.flatten() for value in run.network.parameters()])
        for run in (new(tmp_path / "c", preset), plain, compiled)
    )
    assert (ours - theirs).norm() <= 0.15 * (ours - before).norm()


def test_a_run_without_a_budget_left_does_no_step(tmp_path: Path) -> None:
    run = new(tmp_path)
    run.progress.step = STEPS
    assert run.run()
    assert run.progress.step == STEPS and run.progress.images == 0


def test_a_run_that_is_stopped_at_once_saves_its_start(tmp_path: Path) -> None:
    run, stop = new(tmp_path / "new" / "folder"), Event()
    stop.set()
    assert not run.run(stop)
    saved = load_state(tmp_path / "new" / "folder")
    assert saved.progress.step == 0
    for name, value in run.network.state_dict().items():
        assert torch.equal(saved.network[name], value)


def test_the_state_keeps_recipe_seed_and_origin(tmp_path: Path) -> None:
    config = RunConfig(PRESET, 8, {"origin": "random weights"})
    Trainer(config, Squares, tmp_path, CPU).save()
    assert load_state(tmp_path).run == config


def test_hooks_hear_of_records_and_saves(tmp_path: Path) -> None:
    records: list[LogRecord] = []
    saves: list[int] = []
    hooks = Hooks(record=records.append, saved=lambda run: saves.append(run.progress.step))
    run = new(tmp_path, hooks=hooks)
    run.run()
    [record] = records  # fewer steps than a whole window
    assert (record.step, record.stage, record.done, record.skipped) == (STEPS, "finish", 1, 0)
    assert {"loss", "detector", "descriptor", "repeat", "accuracy"} <= record.figures.keys()
    assert record.images_per_s > 0 and 0 <= record.waiting <= 1 and record.left_s == 0
    assert saves == [STEPS]


def test_progress_counts_steps_per_stage_images_and_time(tmp_path: Path) -> None:
    run = new(tmp_path)
    run.run()
    assert run.progress.stage_steps == {"detector": 4, "joint": 3, "finish": 3}
    assert run.progress.images == STEPS * 2 * PRESET.stages[0].pairs
    assert run.progress.stage_step == 3
    assert 0 <= run.progress.waited <= run.progress.seconds


def test_the_learning_rate_follows_the_recipe(tmp_path: Path) -> None:
    run = new(tmp_path)
    for step in range(3):
        run.step(a_batch(run), PRESET.stages[0])
        [rate] = {group["lr"] for group in run.optimiser.param_groups}
        assert rate == PRESET.rate_at(step / STEPS, step)


def test_norms_and_biases_do_not_decay(tmp_path: Path) -> None:
    decayed, others = new(tmp_path, replace(PRESET, weight_decay=0.3)).optimiser.param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.3, 0.0)
    assert {p.ndim for p in decayed["params"]} == {4}
    assert {p.ndim for p in others["params"]} == {1}


def test_a_run_starts_from_given_weights(tmp_path: Path) -> None:
    start = Trainer(RunConfig(PRESET, 99), Squares, tmp_path, CPU).network.state_dict()
    run = new(tmp_path, start=start)
    for name, value in start.items():
        assert torch.equal(run.network.state_dict()[name], value)
        assert torch.equal(run.average.state_dict()[name], value)


def test_a_source_is_closed_when_a_step_fails(tmp_path: Path) -> None:
    opened: list[Squares] = []

    def open_source(stage: Stage, step: int) -> Squares:
        opened.append(Squares(stage, step))
        return opened[-1]

    def fail(run: Trainer) -> None:
        raise OSError("disk full")

    preset = replace(PRESET, benchmark_every=2)
    run = Trainer(RunConfig(preset, 0), open_source, tmp_path, CPU, hooks=Hooks(benchmark=fail))
    with pytest.raises(OSError, match="disk full"):
        run.run()
    assert [source.closed for source in opened] == [True]


def test_resuming_with_another_budget_keeps_the_steps_done(tmp_path: Path) -> None:
    first = new(tmp_path)
    first.run(StopAfter(first, 4))
    second = resumed(tmp_path, replace(PRESET, steps=6))
    assert second.run()
    assert second.progress.step == 6


def test_resuming_without_a_state_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="missing"):
        resumed(tmp_path)


@pytest.mark.parametrize("has_kernels", [False, True])
def test_bfloat16_is_left_out_where_the_processor_would_emulate_it(
    has_kernels: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: has_kernels)
    run = new(tmp_path, replace(PRESET, bf16=True))
    with run._precision():
        assert torch.is_autocast_enabled("cpu") == has_kernels
    with new(tmp_path, replace(PRESET, bf16=False))._precision():
        assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(
    ("capability", "has_bf16"), [((9, 0), True), ((8, 0), True), ((7, 5), False)]
)
def test_bfloat16_is_left_out_where_the_gpu_would_emulate_it(
    capability: tuple[int, int], has_bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert trainer._computes_in_bf16(torch.device("cuda")) == has_bf16
