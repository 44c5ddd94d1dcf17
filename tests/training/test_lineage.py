"""The history of a run: manifests, repetitions and starts from other runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tiepoint.architecture import NetworkConfig
from tiepoint.errors import TrainingError
from tiepoint.training.detector.network import TrainableSuperPoint
from tiepoint.training.lineage import (
    RANDOM_WEIGHTS,
    Recipe,
    continued_run_info,
    data_from_json,
    manifest_of,
    recipes_from_manifest,
    run_info,
    same_run,
    starting_weights,
    unfreeze_widened_blocks,
)
from tiepoint.training.presets import ADAPT, PRESETS, Preset
from tiepoint.training.scenes.settings import DataConfig, Geometry, Photometry
from tiepoint.training.state import Progress, RunConfig, State
from tiepoint.weights.checkpoint import BUNDLED, bundled_checkpoints

PRESET = replace(PRESETS["smoke"], steps=20)
DATA = DataConfig(
    mix=(("shapes", 1.0),), photos=("p", "q"), geometry=Geometry(roll_deg=3.0),
    photometry=Photometry(contrast=(0.5, 1.5)),
)  # fmt: skip
STAGE_STEPS = {"detector": 8, "joint": 6, "finish": 6}


def finished(
    preset: Preset = PRESET, seed: int = 3, info: dict[str, Any] | None = None, step: int = 20
) -> State:
    torch.manual_seed(seed)
    network = TrainableSuperPoint(preset.network, batch_norm=preset.batch_norm).state_dict()
    return State(
        run=RunConfig(preset, seed, info or run_info(DATA, RANDOM_WEIGHTS)),
        progress=Progress(step=step, stage_steps=STAGE_STEPS, seconds=7200.0, images=80, skipped=1),
        network=network,
        average={name: value + 1 for name, value in network.items()},
        optimiser={},
    )


def write_manifest(folder: Path, state: State, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    values = {**manifest_of(folder, state.run, state.progress), **changes}
    (folder / "manifest.json").write_text(json.dumps(values))
    return folder / "manifest.json"


def test_data_survives_a_file() -> None:
    values = json.loads(json.dumps(run_info(DATA, "x")["data"]))
    assert data_from_json(values) == DATA
    assert data_from_json(run_info(DATA, "x")["data"]) == DATA


def test_a_manifest_has_everything_about_a_run(tmp_path: Path) -> None:
    state = finished()
    manifest = manifest_of(tmp_path / "mine", state.run, state.progress)
    assert (manifest["name"], manifest["seed"], manifest["steps"]) == ("mine", 3, 20)
    assert manifest["note"] == "trained with preset smoke, 20 steps"
    assert (manifest["hours"], manifest["images"], manifest["skipped_steps"]) == (2.0, 80, 1)
    assert manifest["finished"] and manifest["origin"] == RANDOM_WEIGHTS
    assert manifest["machine"]["torch"] == torch.__version__
    assert json.loads(json.dumps(manifest))["preset"]["name"] == "smoke"


def test_a_manifest_of_a_stopped_run_is_not_finished(tmp_path: Path) -> None:
    state = finished(step=19)
    assert not manifest_of(tmp_path, state.run, state.progress)["finished"]


def test_a_recipe_has_the_steps_that_each_stage_took(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, finished(replace(PRESET, steps=None, minutes=2.0)))
    [recipe] = recipes_from_manifest(path)
    assert recipe.preset == replace(PRESET, steps=None, stage_steps=(8, 6, 6))
    assert (recipe.data, recipe.seed, recipe.teacher) == (DATA, 3, None)
    assert recipes_from_manifest(tmp_path) == [recipe]  # the folder will do


def test_a_teacher_is_part_of_a_recipe(tmp_path: Path) -> None:
    teacher = {"checkpoint": "default", "sha256": "0" * 64}
    [recipe] = recipes_from_manifest(write_manifest(tmp_path, finished(), teacher=teacher))
    assert recipe.teacher == teacher


def test_a_chain_of_runs_comes_first_run_first(tmp_path: Path) -> None:
    first = finished(seed=3)
    second = finished(seed=4, info=continued_run_info(DATA, tmp_path / "first", first))
    third = finished(seed=5, info=continued_run_info(DATA, tmp_path / "second", second))
    recipes = recipes_from_manifest(write_manifest(tmp_path / "third", third))
    assert [recipe.seed for recipe in recipes] == [3, 4, 5]


@pytest.mark.parametrize(
    "changes", [{"finished": False}, {"origin": "checkpoint default, SHA-256 0"}]
)
def test_only_finished_runs_from_random_weights_can_be_repeated(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    path = write_manifest(tmp_path, finished(), **changes)
    with pytest.raises(TrainingError, match="only finished runs that began with random weights"):
        recipes_from_manifest(path)


def test_a_chain_with_an_unfinished_run_cannot_be_repeated(tmp_path: Path) -> None:
    info = continued_run_info(DATA, tmp_path / "first", finished(step=5))
    with pytest.raises(TrainingError, match="finished: False"):
        recipes_from_manifest(write_manifest(tmp_path, finished(seed=4, info=info)))


@pytest.mark.parametrize("text", ["", "{}", "[1]", "3", '{"preset": 1}'])
def test_another_file_is_no_manifest(tmp_path: Path, text: str) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(text)
    with pytest.raises(TrainingError, match="not the manifest of a run by tiepoint train"):
        recipes_from_manifest(path)
    with pytest.raises(TrainingError, match="not the manifest .*FileNotFoundError"):
        recipes_from_manifest(tmp_path / "gone")


def test_a_manifest_without_the_steps_of_a_stage_is_refused(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, finished(), stage_steps={"detector": 8})
    with pytest.raises(TrainingError, match="KeyError: 'joint'"):
        recipes_from_manifest(path)


@pytest.mark.weights
@pytest.mark.parametrize("name", bundled_checkpoints())
def test_bundled_checkpoints_can_be_repeated(name: str) -> None:
    recipes = recipes_from_manifest(BUNDLED / name)
    assert len({recipe.seed for recipe in recipes}) == len(recipes) >= 1


def test_a_run_is_the_same_when_preset_data_and_seed_are() -> None:
    state = finished()
    recipe = Recipe(PRESET, DATA, 3, None)
    assert same_run(state, recipe)
    assert not same_run(state, recipe._replace(seed=4))
    assert not same_run(state, recipe._replace(data=replace(DATA, photos=("p",))))
    assert not same_run(state, recipe._replace(preset=replace(PRESET, steps=21)))


def test_a_continued_run_keeps_the_manifest_and_the_machine_of_the_one_before(
    tmp_path: Path,
) -> None:
    state, other = finished(), DataConfig()
    info = continued_run_info(other, tmp_path / "first", state)
    assert info["origin"] == "run first"
    assert data_from_json(info["data"]) == other
    assert info["before"]["seed"] == 3 and info["before"]["machine"] is None
    (tmp_path / "first" / "checkpoint").mkdir(parents=True)
    write_manifest(tmp_path / "first" / "checkpoint", state, machine={"processor": "old"})
    info = continued_run_info(other, tmp_path / "first", state)
    assert info["before"]["machine"] == {"processor": "old"}


def test_a_start_is_the_average_of_the_run_before(tmp_path: Path) -> None:
    state = finished()
    assert starting_weights(state, tmp_path, PRESET, seed=4) is state.average


def test_a_wider_start_depends_on_the_seed_and_leaves_torchs_randomness_alone(
    tmp_path: Path,
) -> None:
    wider = replace(PRESET, network=NetworkConfig((8, 8, 16, 24), 32, descriptor_decoder_dim=32))
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    first, again, other = (
        starting_weights(finished(), tmp_path, wider, seed) for seed in (4, 4, 5)
    )
    torch.manual_seed(1)
    assert torch.equal(torch.rand(2), expected)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    name = "encoder.conv_blocks.3.conv_b.weight"
    assert first[name].shape[:2] == (24, 24)
    assert torch.equal(first[name][:16, :16], finished().average[name])


@pytest.mark.parametrize(
    ("state", "preset", "seed", "message"),
    [
        (finished(step=7), PRESET, 4, "stopped at step 7; finish it by --resume"),
        (finished(), PRESET, 3, "seed 3 was used"),
        (finished(), replace(PRESET, batch_norm=False), 4, "batch_norm is True in this run"),
        (finished(), replace(PRESET, network=NetworkConfig()), 4, "start from another run"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(
    tmp_path: Path, state: State, preset: Preset, seed: int, message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        starting_weights(state, tmp_path, preset, seed)


def test_no_seed_of_the_whole_chain_comes_again(tmp_path: Path) -> None:
    second = finished(seed=4, info=continued_run_info(DATA, tmp_path, finished(seed=3)))
    for seed in (3, 4):
        with pytest.raises(TrainingError, match=f"seed {seed} was used"):
            starting_weights(second, tmp_path, PRESET, seed)
    assert starting_weights(second, tmp_path, PRESET, 5) is second.average


@pytest.mark.parametrize(
    ("widths", "frozen"),
    [((8, 8, 16, 16), 3), ((8, 8, 16, 24), 3), ((8, 8, 20, 24), 2), ((9, 8, 16, 16), 0)],
)
def test_blocks_that_grew_are_not_frozen(widths: tuple[int, ...], frozen: int) -> None:
    network = replace(PRESET.network, encoder_hidden_sizes=widths)
    preset = replace(PRESET, network=network, frozen_blocks=3)
    assert unfreeze_widened_blocks(preset, finished().run).frozen_blocks == frozen


def test_an_adapted_run_has_no_norms_to_continue_with(tmp_path: Path) -> None:
    adapted = finished(replace(ADAPT, network=PRESET.network).with_budget(None, 20))
    with pytest.raises(TrainingError, match="start from a run of tiepoint train"):
        starting_weights(adapted, tmp_path, PRESET, 4)
