"""Runs as a library: train, resume, repeat and adapt, with their folders and messages."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiepoint.config import DetectionConfig
from tiepoint.errors import CheckpointError, ConfigError, TrainingError
from tiepoint.training import runs
from tiepoint.training.lineage import data_from_json
from tiepoint.training.presets import PRESETS, PYRAMID, Preset, Stage, adaptation_data
from tiepoint.training.scenes.settings import DataConfig
from tiepoint.training.setup import Execution
from tiepoint.training.state import load_state
from tiepoint.weights.checkpoint import load_checkpoint

pytestmark = pytest.mark.usefixtures("small_frames")

QUICK = replace(
    PRESETS["smoke"], steps=2, bf16=False, stages=(Stage("only", 1.0, (64, 64), 1),), points=16
)
SHAPES = DataConfig(mix=(("shapes", 1.0),))
QUIET = Execution(device="cpu", echo=lambda line: None)


def train(folder: Path, preset: Preset = QUICK, **options: Any) -> runs.Result:
    return runs.train(preset, SHAPES, folder, **{"execution": QUIET, **options})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, small_frames: None) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "first"
    result = train(folder)
    assert result == runs.Result(finished=True, signal=None, checkpoint=folder / "checkpoint")
    return folder


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Send SIGTERM to this process after a step."""
    whole_step = runs.Trainer.step

    def stopping(trainer: Any, *arguments: Any) -> Any:
        result = whole_step(trainer, *arguments)
        if trainer.progress.step == step:
            signal.raise_signal(signal.SIGTERM)
        return result

    monkeypatch.setattr(runs.Trainer, "step", stopping)


def same_weights(one: Path, other: Path) -> bool:
    a, b = (load_checkpoint(folder / "checkpoint").tensors for folder in (one, other))
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_a_finished_run_leaves_a_checkpoint_with_two_scales(finished: Path) -> None:
    checkpoint = load_checkpoint(finished / "checkpoint")
    detection = checkpoint.detection
    assert replace(detection, noise_floor=0.0) == DetectionConfig(scales=PYRAMID)
    assert checkpoint.network == QUICK.network
    assert checkpoint.rules == "exact"


def test_a_run_whose_pairs_are_made_on_its_device_resumes_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "makes_pairs", lambda place: True)
    monkeypatch.setattr(runs, "PairLoader", None)  # is not asked
    preset = replace(QUICK, steps=5)
    train(tmp_path / "whole", preset)
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        assert not train(tmp_path / "parts", preset).finished
    assert runs.resume(tmp_path / "parts", execution=QUIET).finished
    assert same_weights(tmp_path / "whole", tmp_path / "parts")


def test_a_preset_of_several_stages_trains_on_pairs_of_its_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "makes_pairs", lambda place: True)
    preset = replace(PRESETS["smoke"], bf16=False)
    assert train(tmp_path / "run", preset).finished
    state = load_state(tmp_path / "run")
    assert state.progress.stage_steps == {"detector": 8, "joint": 6, "finish": 6}
    assert state.progress.skipped == 0


def test_a_finished_run_measures_the_noise_floor_of_its_weights(finished: Path) -> None:
    detection = load_checkpoint(finished / "checkpoint").detection
    assert 0 < detection.noise_floor <= detection.threshold


def test_adapting_measures_the_noise_floor_again(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "measure_noise_floor", lambda folder, threshold: 0.00125)
    origin = finished / "checkpoint"
    result = runs.adapt(SHAPES, tmp_path / "run", checkpoint=str(origin), steps=1, execution=QUIET)
    assert load_checkpoint(result.checkpoint).detection.noise_floor == 0.00125


def test_a_stopped_adaptation_keeps_the_noise_floor_of_its_origin(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at(monkeypatch, 1)
    origin = finished / "checkpoint"
    result = runs.adapt(SHAPES, tmp_path / "run", checkpoint=str(origin), steps=2, execution=QUIET)
    assert not result.finished
    adapted, before = (load_checkpoint(one).detection for one in (result.checkpoint, origin))
    assert adapted.noise_floor == before.noise_floor > 0


def test_the_echo_gets_a_line_per_record(tmp_path: Path) -> None:
    lines: list[str] = []
    train(tmp_path / "run", execution=replace(QUIET, echo=lines.append))
    assert len(lines) == 1 and "100% only" in lines[0]


def test_a_used_folder_is_refused_by_every_kind_of_run(finished: Path) -> None:
    for begin in (
        lambda: train(finished),
        lambda: runs.repeat(finished / "checkpoint", finished, execution=QUIET),
        lambda: runs.adapt(SHAPES, finished, execution=QUIET),
    ):
        with pytest.raises(TrainingError, match="holds a run already; resume it by --resume"):
            begin()


def test_nothing_is_written_when_the_arguments_are_wrong(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for error, options in (
        (ConfigError, {"execution": replace(QUIET, device="abacus")}),
        (CheckpointError, {"teacher": "no such checkpoint"}),
        (TrainingError, {"start": tmp_path / "nowhere"}),
    ):
        with pytest.raises(error):
            train(folder, **options)
    assert not folder.exists()


def test_a_stopped_run_resumes_to_the_same_weights(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "parts"
    with monkeypatch.context() as patch:
        stop_at(patch, 1)
        result = train(folder)
    assert (result.finished, result.signal) == (False, signal.SIGTERM)
    assert not json.loads((folder / "checkpoint" / "manifest.json").read_text())["finished"]
    assert runs.resume(folder, execution=QUIET).finished
    assert same_weights(folder, finished)


def test_a_missing_run_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="missing"):
        runs.resume(tmp_path, execution=QUIET)


def test_a_run_in_steps_takes_a_new_budget_in_minutes(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the budget"):
        runs.resume(finished, minutes=0.0, execution=QUIET)


def test_a_stopped_repetition_is_resumed_and_its_finished_parts_are_kept(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = tmp_path / "second"
    train(second, seed=1, start=finished)
    again = tmp_path / "again"
    with monkeypatch.context() as patch:
        stop_at(patch, 1)
        result = runs.repeat(second / "checkpoint", again, execution=QUIET)
    assert not result.finished and result.checkpoint == again / "part-1" / "checkpoint"
    assert not (again / "state.pt").exists()
    result = runs.repeat(second / "checkpoint", again, execution=QUIET)
    assert result.finished and result.checkpoint == again / "checkpoint"
    assert same_weights(again, second)
    assert same_weights(again / "part-1", finished)


def test_a_part_that_is_another_run_is_refused(finished: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    train(second, seed=1, start=finished)
    train(tmp_path / "again" / "part-1", seed=5)
    with pytest.raises(TrainingError, match="holds another run than part 1"):
        runs.repeat(second / "checkpoint", tmp_path / "again", execution=QUIET)


def test_a_repetition_may_take_photographs_from_elsewhere(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[DataConfig] = []

    def note(preset: Preset, data: DataConfig, *_: object, **__: object) -> runs.Result:
        seen.append(data)
        return runs.Result(finished=False, signal=None, checkpoint=tmp_path)

    monkeypatch.setattr(runs, "train", note)
    for photos in ((), ("elsewhere",)):
        runs.repeat(finished / "checkpoint", tmp_path / "x", photos=photos, execution=QUIET)
    assert [data.photos for data in seen] == [(), ("elsewhere",)]


def test_a_teacher_with_other_weights_by_now_is_refused(finished: Path, tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    manifest = json.loads((finished / "checkpoint" / "manifest.json").read_text())
    manifest["teacher"] = {"checkpoint": "small", "sha256": "0" * 64}
    path.write_text(json.dumps(manifest))
    with pytest.raises(TrainingError, match="teacher 'small' has weights .* restore those"):
        runs.repeat(path, tmp_path / "again", execution=QUIET)
    assert not (tmp_path / "again").exists()


def test_adapting_keeps_the_checkpoints_settings_and_names_it(
    finished: Path, tmp_path: Path
) -> None:
    origin = load_checkpoint(finished / "checkpoint")
    folder = tmp_path / "adapted"
    result = runs.adapt(
        SHAPES, folder, checkpoint=str(finished / "checkpoint"), steps=1, execution=QUIET
    )
    adapted = load_checkpoint(result.checkpoint)
    assert adapted.detection == origin.detection
    run = load_state(folder).run
    assert origin.sha256 in run.info["origin"]
    assert (run.preset.name, run.preset.batch_norm, run.preset.steps) == ("adapt", False, 1)
    assert data_from_json(run.info["data"]) == SHAPES


def test_a_checkpoint_uses_the_cell_phases_it_was_trained_with_and_so_does_an_adapted_one(
    tmp_path: Path, small_frames: None
) -> None:
    stage = Stage("only", 1.0, (64, 64), 1, phase_weight=1.0)
    trained = train(tmp_path / "run", replace(QUICK, steps=1, stages=(stage,))).checkpoint
    assert load_checkpoint(trained).detection.phases == 2
    folder = tmp_path / "adapted"
    adapted = runs.adapt(SHAPES, folder, checkpoint=str(trained), steps=1, execution=QUIET)
    assert load_checkpoint(adapted.checkpoint).detection.phases == 2
    assert [stage.phases for stage in load_state(folder).run.preset.stages] == [2]


def test_adapting_by_two_budgets_is_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="both minutes and steps"):
        runs.adapt(SHAPES, tmp_path / "x", minutes=1.0, steps=1, execution=QUIET)
    assert not (tmp_path / "x").exists()


def test_only_photographs_that_are_not_trained_on_are_a_benchmark() -> None:
    assert runs.held_out(adaptation_data(["a", "b"], "training")) == [Path("a"), Path("b")]
    assert runs.held_out(adaptation_data(["a", "b"], "all")) == []
    assert runs.held_out(SHAPES) == []
