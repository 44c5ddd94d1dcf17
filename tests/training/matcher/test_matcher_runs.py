"""Runs of the matcher: the folder, stopping and resuming, refusals, the choice by poses."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from support.checkpoints import random_checkpoint
from support.matcher_scenes import fake_scene, tiny_preset
from support.queued import queue_everything
from tiepoint.errors import CheckpointError, TiepointError, TrainingError
from tiepoint.features import Features
from tiepoint.matching.learned.folder import load_matcher
from tiepoint.matching.learned.matcher import LearnedMatcher
from tiepoint.training import trainer
from tiepoint.training.matcher import bank, runs
from tiepoint.training.matcher.bank import open_held_out
from tiepoint.training.matcher.drawing import SceneFeatures
from tiepoint.training.matcher.runs import MatcherResult, repeat_matcher, train_matcher
from tiepoint.training.matcher.settings import MatcherData, MatcherPreset
from tiepoint.training.matcher.trainer import MatcherTrainer, as_tensors
from tiepoint.training.matcher.validation import Validation, score
from tiepoint.training.matcher.workers import Drawing
from tiepoint.training.monitor import HopelessError
from tiepoint.training.setup import Execution
from tiepoint.training.state import RunConfig, load_state, read_state
from tiepoint.weights.checkpoint import Checkpoint

CHECKPOINT = random_checkpoint()
PRESET = tiny_preset()
DATA = MatcherData()


def fake_drawing(
    drawing: Drawing, indices: range, workers: int, stop: Event
) -> Iterator[SceneFeatures]:
    for index in indices:
        if stop.is_set():
            return
        yield fake_scene((drawing.seed + index) % 2**32)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenes that are not drawn, a checkpoint that is not on disk, a record every two steps."""
    monkeypatch.setattr(bank, "drawn_scenes", fake_drawing)
    monkeypatch.setattr(bank, "SHARD_SCENES", 2)
    monkeypatch.setattr(runs, "load_checkpoint", named)
    monkeypatch.setattr(trainer, "LOG_EVERY", 2)


def named(name: str) -> Checkpoint:
    known = name in ("fake", CHECKPOINT.name)
    return CHECKPOINT if known else replace(CHECKPOINT, name=name, sha256="1" * 64)


def train(
    folder: Path,
    preset: MatcherPreset = PRESET,
    data: MatcherData = DATA,
    checkpoint: str = "fake",
    seed: int = 0,
    echo: Callable[[str], None] = lambda line: None,
    start: Path | None = None,
) -> MatcherResult:
    execution = Execution(device="cpu", echo=echo)
    return train_matcher(
        checkpoint, folder, preset, data, seed=seed, start=start, execution=execution
    )


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bank, "drawn_scenes", fake_drawing)
        patch.setattr(bank, "SHARD_SCENES", 2)
        patch.setattr(runs, "load_checkpoint", named)
        patch.setattr(trainer, "LOG_EVERY", 2)
        folder = tmp_path_factory.mktemp("run") / "whole"
        result = train(folder)
    assert result.finished and result.has_matcher and result.signal is None
    return folder


def test_a_run_leaves_a_matcher_its_record_and_its_state(whole: Path) -> None:
    assert {path.name for path in whole.iterdir()} == {
        "config.json", "curves.png", "features", "log.jsonl", "manifest.json",
        "model.safetensors", "optimiser-6.pt", "state.pt",
    }  # fmt: skip
    checkpoint = load_matcher(whole)
    assert checkpoint.config == PRESET.network
    assert checkpoint.detector_sha256 == CHECKPOINT.sha256
    assert len(weights(whole)) < 3 * sum(a.size for a in checkpoint.tensors.values())  # float16
    scene = fake_scene(0)
    a, b = (
        Features(
            scene.xy[rows], np.ones(10), scene.descriptors[rows].astype(np.float32), (120, 160)
        )
        for rows in (slice(0, 10), slice(60, 70))
    )
    assert len(LearnedMatcher(checkpoint)(a, b).matchability_a) == 10


def test_the_manifest_has_recipe_data_and_progress(whole: Path) -> None:
    manifest = json.loads((whole / "manifest.json").read_text())
    assert MatcherPreset.from_json(manifest["preset"]) == PRESET
    assert MatcherData.from_json(manifest["data"]) == DATA
    assert manifest["detector"] == {"checkpoint": CHECKPOINT.name, "sha256": CHECKPOINT.sha256}
    assert (manifest["scenes"], manifest["steps"], manifest["stage_steps"]) == (4, 6, {"match": 6})
    assert manifest["finished"] and manifest["chosen_step"] == 6 and manifest["seed"] == 0
    assert manifest["sha256"] == load_matcher(whole).sha256
    assert {"commit", "machine", "hours", "images", "origin", "licence"} <= manifest.keys()
    assert set(manifest["held_out"]) == {"planar"}


def test_the_log_has_training_and_held_out_figures(whole: Path) -> None:
    lines = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6, 6]
    assert {"all_layers", "last_layer", "precision", "recall", "rate"} <= lines[0].keys()
    assert {"planar_recall", "planar_within_3px", "planar_last_layer", "score"} <= lines[-1].keys()


class Killed(BaseException):
    """As if the process had ended."""


@pytest.mark.parametrize(
    ("how", "at_line"), [("kill", 2), ("kill", 5), ("signal", 1), ("signal", 6)]
)
def test_a_stopped_run_resumes_by_the_same_command_bit_for_bit(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, how: str, at_line: int
) -> None:
    """Lines: held-out scenes, two shards, nearest neighbours, records."""
    monkeypatch.setattr(trainer, "SAVE_EVERY_S", 0.0)
    lines: list[str] = []

    def stop(line: str) -> None:
        lines.append(line)
        if len(lines) == at_line:
            if how == "kill":
                raise Killed
            os.kill(os.getpid(), signal.SIGINT)

    if how == "kill":
        with pytest.raises(Killed):
            train(tmp_path, echo=stop)
    else:
        result = train(tmp_path, echo=stop)
        assert not result.finished and result.signal == signal.SIGINT
    assert train(tmp_path).finished
    assert weights(tmp_path) == weights(whole)
    steps = [json.loads(x)["step"] for x in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(steps) and steps[-1] == 6


def test_a_run_starts_from_the_weights_of_another_matcher(whole: Path, tmp_path: Path) -> None:
    still = replace(PRESET, learning_rate=1e-12, weight_decay=0.0)
    assert train(tmp_path / "next", still, seed=1, start=whole).finished
    before, after = (load_matcher(folder).tensors for folder in (whole, tmp_path / "next"))
    for name, array in before.items():
        np.testing.assert_allclose(after[name], array, atol=1e-3)
    manifest = json.loads((tmp_path / "next" / "manifest.json").read_text())
    assert manifest["origin"] == f"matcher {load_matcher(whole).sha256}"
    assert train(tmp_path / "next", still, seed=1, start=whole).finished
    with pytest.raises(TrainingError, match="has another run"):
        train(tmp_path / "next", still, seed=1)
    with pytest.raises(TrainingError, match="only finished runs that began with random weights"):
        repeat_matcher(tmp_path / "next", tmp_path / "again")


def test_a_start_of_another_detector_is_adapted(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def adapted(matcher: object, old: Checkpoint, new: Checkpoint, *_: object) -> object:
        asked.append((old.sha256, new.sha256))
        return {n: torch.zeros_like(t) for n, t in first.items()}, 0.5

    first = as_tensors(load_matcher(whole))
    monkeypatch.setattr(runs, "transferred", adapted)
    still = replace(PRESET, learning_rate=1e-12)
    echoed: list[str] = []
    assert train(tmp_path, still, start=whole, checkpoint="other", echo=echoed.append).finished
    assert asked == [(CHECKPOINT.sha256, "1" * 64)]
    assert any("50% of the variance of random-0's descriptors" in line for line in echoed)
    assert not any(array.any() for array in load_matcher(tmp_path).tensors.values())
    assert load_matcher(tmp_path).detector_sha256 == "1" * 64


def test_a_start_whose_detector_is_gone_is_refused(whole: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(whole, alone)
    (alone / "manifest.json").unlink()
    with pytest.raises(TrainingError, match="start from a matcher with its manifest and detector"):
        train(tmp_path / "next", start=alone, checkpoint="other")
    manifest = json.loads((whole / "manifest.json").read_text())
    manifest["detector"]["checkpoint"] = "other"  # has other weights by now
    (alone / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(TrainingError, match=f"there are weights {'1' * 64} now"):
        train(tmp_path / "next", start=alone, checkpoint="other")


def test_a_start_of_other_sizes_is_refused(whole: Path, tmp_path: Path) -> None:
    wider = replace(PRESET, network=replace(PRESET.network, layers=3))
    with pytest.raises(TrainingError, match="start from a matcher of the same sizes"):
        train(tmp_path, wider, start=whole)
    with pytest.raises(CheckpointError, match="nowhere"):
        train(tmp_path, start=tmp_path / "nowhere")
    assert not list(tmp_path.iterdir())


def test_a_finished_run_stays_as_it_is(whole: Path) -> None:
    before = {
        p.name: p.read_bytes() for p in whole.iterdir() if p.suffix in (".safetensors", ".jsonl")
    }
    assert train(whole).finished
    assert before == {name: (whole / name).read_bytes() for name in before}


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"data": replace(DATA, max_keypoints=500)},
        {"checkpoint": "other"},
        {"preset": replace(PRESET, learning_rate=1e-3)},
        {"preset": replace(PRESET, network=replace(PRESET.network, layers=3))},
    ],
)
def test_another_run_in_the_folder_is_refused(whole: Path, changes: dict[str, object]) -> None:
    with pytest.raises(TrainingError, match="has another run|features of another run"):
        train(whole, **changes)  # type: ignore[arg-type]


def test_a_longer_budget_continues_a_run(tmp_path: Path) -> None:
    assert train(tmp_path, replace(PRESET, steps=3)).finished
    assert train(tmp_path, replace(PRESET, steps=5)).finished
    assert read_state(tmp_path, MatcherPreset).progress.step == 5


def test_a_state_of_the_matcher_is_no_state_of_the_detector(whole: Path) -> None:
    with pytest.raises(TiepointError, match="does not know"):
        load_state(whole)


def test_drawing_takes_a_part_of_the_minutes_and_training_the_rest(tmp_path: Path) -> None:
    preset = replace(PRESET, steps=None, minutes=0.02, scenes=10**6)
    result = train(tmp_path, preset)
    assert result.finished
    record = bank.read_record(tmp_path / "features")
    state = read_state(tmp_path, MatcherPreset)
    assert record is not None and 0 < record.scenes < 10**6
    left = max(0.02 - record.seconds / 60, 0.01)
    assert state.run.preset.minutes == pytest.approx(left)
    assert state.run.info["scenes"] == record.scenes
    assert state.progress.seconds >= 60 * left


def test_the_matcher_is_the_state_with_the_best_poses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later state may be worse by no more than what is noise."""
    scores = iter([0.5, 0.7, 0.69, 0.4])
    monkeypatch.setattr(runs, "score", lambda figures: next(scores))
    train(tmp_path, replace(PRESET, steps=7, benchmark_every=2))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert (manifest["chosen_step"], manifest["steps"], manifest["finished"]) == (6, 7, True)
    assert load_matcher(tmp_path).sha256 == manifest["sha256"]


def test_a_manifest_repeats_a_run(whole: Path, tmp_path: Path) -> None:
    execution = Execution(device="cpu", echo=lambda line: None)
    result = repeat_matcher(whole, tmp_path, checkpoint="fake", execution=execution)
    assert result.finished
    assert weights(tmp_path) == weights(whole)
    with pytest.raises(TrainingError, match="has weights 1111"):
        repeat_matcher(whole, tmp_path / "x", checkpoint="other", execution=execution)


@pytest.mark.parametrize(
    "change",
    [
        {"finished": False}, {"preset": 5}, {"data": {}}, {"stage_steps": {}}, {"seed": -1},
        {"detector": None}, {"scenes": "x"}, {"stage_steps": {"match": 10**400}},
    ],
)  # fmt: skip
def test_a_manifest_of_something_else_is_refused(
    whole: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    values = json.loads((whole / "manifest.json").read_text())
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({**values, **change}))
    with pytest.raises(TiepointError):
        repeat_matcher(path, tmp_path / "run", checkpoint="fake")
    assert not (tmp_path / "run").exists()


def test_a_short_training_beats_random_weights_clearly(tmp_path: Path) -> None:
    preset = replace(tiny_preset(steps=160, scenes=24, held_out=2), benchmark_every=1000)
    train(tmp_path, preset)
    validation = Validation(open_held_out(tmp_path / "features"))
    device = torch.device("cpu")
    random = MatcherTrainer(RunConfig(preset, 0), lambda *_: None, tmp_path, device)  # type: ignore[arg-type, return-value]
    before = validation.measure(random.average, device)["planar"]
    after = json.loads((tmp_path / "manifest.json").read_text())["held_out"]["planar"]
    assert before["recall"] < 0.1
    assert after["recall"] > 0.5 and after["precision"] > 0.7
    assert after["last_layer"] < 0.6 * before["last_layer"]
    assert after["within_3px"] > 0.5


def test_a_matcher_whose_recall_stays_low_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tiepoint.training.matcher import trainer as matcher_trainer

    monkeypatch.setattr(matcher_trainer, "HOPELESS_AFTER", 4)
    monkeypatch.setattr(matcher_trainer, "HOPELESS_RECALL", 0.99)
    with pytest.raises(HopelessError, match="recall is"):
        train(tmp_path, replace(PRESET, steps=20, learning_rate=1e-9))


@pytest.mark.parametrize("on_device", [False, True])
def test_tied_weights_are_averaged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_device: bool
) -> None:
    if on_device:
        queue_everything(monkeypatch)
    run = MatcherTrainer(RunConfig(PRESET, 0), lambda *_: None, tmp_path, torch.device("cpu"))  # type: ignore[arg-type, return-value]
    before = run.average.arrays()
    with torch.no_grad():
        for value in run.network.parameters():
            value.add_(1)
    run._update.begin()
    run._update.end(torch.tensor(True), 0.9)  # without gradients, the optimiser does nothing
    for name, value in run.average.arrays().items():
        np.testing.assert_allclose(value - before[name], 0.9, atol=1e-5)


def test_poses_count_before_homographies() -> None:
    planar, poses = {"within_3px": 0.9}, {"auc_10deg": 0.3}
    assert score({"planar": planar, "two_camera": poses}) == 0.3
    assert score({"planar": planar}) == 0.9 and score({}) == 0.0
