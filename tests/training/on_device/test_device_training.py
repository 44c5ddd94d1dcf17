"""Training on pairs of a device: it learns as on the reference's pairs, and waits for nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from support.device_pairs import CPU
from support.queued import queue_everything, waits
from tiepoint.training.log import LogRecord
from tiepoint.training.on_device import source
from tiepoint.training.on_device.source import DevicePairs
from tiepoint.training.presets import PRESETS, Preset, Stage
from tiepoint.training.scenes.loader import PairLoader
from tiepoint.training.scenes.settings import DataConfig
from tiepoint.training.state import RunConfig
from tiepoint.training.trainer import Hooks, Trainer

DATA = DataConfig(size_hw=(64, 64), mix=(("shapes", 0.5), ("repeats", 0.3), ("boxes", 0.2)), bank=8)
STAGE = Stage("all", 1.0, (64, 64), 4, repeat_weight=0.5, phase_weight=1.0)
PRESET = replace(
    PRESETS["smoke"], steps=80, bf16=False, learning_rate=8e-3, stages=(STAGE,), points=32
)


def trained(folder: Path, way: str, preset: Preset = PRESET) -> list[LogRecord]:
    def open_source(stage: Stage, step: int) -> PairLoader | DevicePairs:
        if way == "device":
            return DevicePairs(DATA, 0, stage.pairs, step, place=CPU)
        return PairLoader(DATA, 0, stage.pairs, step)

    records: list[LogRecord] = []
    hooks = Hooks(record=records.append)
    Trainer(RunConfig(preset, 1), open_source, folder, CPU, hooks=hooks).run()
    return records


def test_pairs_of_the_device_are_learnt_from_as_the_references(tmp_path: Path) -> None:
    ours, theirs = (trained(tmp_path / way, way) for way in ("device", "reference"))
    assert [record.step for record in ours] == [20, 40, 60, 80]
    for name in ("detector", "descriptor"):
        first, last = ours[0].figures[name], ours[-1].figures[name]
        assert last < first
        assert last == pytest.approx(theirs[-1].figures[name], rel=0.1)
        assert first == pytest.approx(theirs[0].figures[name], rel=0.1)
    assert all(record.skipped == 0 for record in ours)


def test_a_whole_step_waits_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the layouts to the new weights, as on a GPU, where the host reads no value."""
    queue_everything(monkeypatch)
    monkeypatch.setattr(source, "CHUNK_STEPS", 1)  # each step makes its pairs
    with DevicePairs(DATA, 0, STAGE.pairs, place=CPU) as steps_of:
        run = Trainer(RunConfig(PRESET, 1), lambda stage, step: steps_of, tmp_path, CPU)
        run.step(run.collate(next(steps_of)), STAGE)  # constants are uploaded once
        assert not waits(lambda: run.step(run.collate(next(steps_of)), STAGE))
