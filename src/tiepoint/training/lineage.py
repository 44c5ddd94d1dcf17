"""The history of a run: its manifest, the runs it started from, and how to repeat them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from tiepoint.errors import ConfigError, TrainingError
from tiepoint.files.paths import is_folder
from tiepoint.files.reading import read_json
from tiepoint.training.detector.network import TrainableSuperPoint, widen
from tiepoint.training.export import commit, machine
from tiepoint.training.presets import Preset
from tiepoint.training.scenes.settings import DataConfig, Geometry, Photometry
from tiepoint.training.schedule import Schedule, with_tuples
from tiepoint.training.state import Progress, RunConfig, State
from tiepoint.weights.folder import MANIFEST_FILE

CHECKPOINT_FOLDER = "checkpoint"
RANDOM_WEIGHTS = "random weights"

P = TypeVar("P", bound=Schedule)


class Recipe(NamedTuple):
    """A run to repeat.

    Attributes:
        preset: Recipe with a budget in steps per stage.
        data, seed: Scenes, photographs and seed of the run.
        teacher: Checkpoint and SHA-256 of the teacher's weights, or None.
    """

    preset: Preset
    data: DataConfig
    seed: int
    teacher: Mapping[str, str] | None


def recipes_from_manifest(manifest: Path) -> list[Recipe]:
    """Read the chain of runs in a manifest or checkpoint folder, the first run first.

    Raises:
        TrainingError: No manifest of finished runs of which the first began with random weights.
    """
    path = manifest / MANIFEST_FILE if is_folder(manifest) else manifest
    recipes = []
    try:
        values = read_json(path)
        while values is not None:
            preset, data = Preset.from_json(values["preset"]), data_from_json(values["data"])
            steps = tuple(values["stage_steps"][stage.name] for stage in preset.stages)
            preset = replace(preset, minutes=None, steps=None, stage_steps=steps)
            recipes.append(Recipe(preset, data, int(values["seed"]), values.get("teacher")))
            before = values.get("before")
            if not values["finished"] or (before is None and values["origin"] != RANDOM_WEIGHTS):
                raise TrainingError(
                    f"{path}: started from {values['origin']}, finished: {values['finished']}; "
                    "only finished runs that began with random weights can be repeated"
                )
            values = before
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise TrainingError(
            f"{path}: not the manifest of a run by tiepoint train ({type(error).__name__}: {error})"
        ) from error
    return recipes[::-1]


def data_from_json(values: Mapping[str, Any]) -> DataConfig:
    """Rebuild a `DataConfig` from `dataclasses.asdict`, also after it was stored as JSON.

    Raises:
        ConfigError: A value out of range.
        TrainingError: Other values.
    """
    try:
        values = with_tuples(values)
        geometry, photometry = Geometry(**values["geometry"]), Photometry(**values["photometry"])
        return DataConfig(**{**values, "geometry": geometry, "photometry": photometry})
    except (LookupError, TypeError, AttributeError, RecursionError) as error:
        raise TrainingError(
            f"the run's data settings are damaged ({type(error).__name__}: {error}); copy the run "
            "again or start over"
        ) from error


def run_info(data: DataConfig, origin: str) -> dict[str, Any]:
    """`RunConfig.info` of a new run; `origin` names the source of the initial weights."""
    return {"data": asdict(data), "origin": origin, "commit": commit()}


def same_run(state: State[Preset], recipe: Recipe) -> bool:
    """Whether a stored run has a recipe's preset, data and seed."""
    run = state.run
    same_data = data_from_json(run.info["data"]) == recipe.data
    return same_data and run.seed == recipe.seed and run.preset == recipe.preset


def manifest_of(folder: Path, run: RunConfig[P], progress: Progress) -> dict[str, Any]:
    """The manifest of a run: recipe, data, origin, progress and machine as plain values."""
    preset = run.preset
    return {
        "name": folder.resolve().name,
        "note": f"trained with preset {preset.name}, {progress.step} steps",
        "licence": "Apache-2.0",
        "preset": asdict(preset),
        "seed": run.seed,
        **run.info,
        "steps": progress.step,
        "stage_steps": progress.stage_steps,
        "images": progress.images,
        "hours": round(progress.seconds / 3600, 3),
        "skipped_steps": progress.skipped,
        "finished": preset.done(progress.step, progress.seconds) >= 1,
        "machine": machine(),
    }


def continued_run_info(data: DataConfig, start: Path, state: State[Preset]) -> dict[str, Any]:
    """`RunConfig.info` of a run that starts from the run in folder `start`, with its manifest."""
    try:
        path = start / CHECKPOINT_FOLDER / MANIFEST_FILE
        ran_on = read_json(path)["machine"]
    except (OSError, ValueError, LookupError, TypeError):
        ran_on = None
    before = {**manifest_of(start, state.run, state.progress), "machine": ran_on}
    return {**run_info(data, f"run {before['name']}"), "before": before}


def starting_weights(
    state: State[Preset], folder: Path, preset: Preset, seed: int
) -> dict[str, torch.Tensor]:
    """The averaged network of a finished run, as the initial weights of another run.

    A wider preset gets the network embedded in a wider one with the same outputs.

    Args:
        state: State of the finished run in `folder`.
        preset, seed: Recipe and seed of the new run.

    Raises:
        TrainingError: The run is not finished, the preset is narrower, or the seed was used before.
    """
    before = state.run.preset
    if before.batch_norm != preset.batch_norm:
        raise TrainingError(
            f"{folder}: batch_norm is {before.batch_norm} in this run and {preset.batch_norm} in "
            f"preset {preset.name!r}; start from a run of tiepoint train"
        )
    if not state.is_finished:
        raise TrainingError(
            f"{folder}: stopped at step {state.progress.step}; finish it by --resume {folder} first"
        )
    if seed in _seeds(state.run.seed, state.run.info):
        raise TrainingError(
            f"{folder}: seed {seed} was used by this run or one before it, so the new run would "
            "see the same scenes again; give another --seed"
        )
    if before.network == preset.network:
        return state.average
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        wider = TrainableSuperPoint(preset.network, batch_norm=preset.batch_norm)
    try:
        return widen(state.average, before.network, wider)
    except ConfigError as error:
        raise TrainingError(f"{folder}: {error}; start from another run") from error


def unfreeze_widened_blocks(preset: Preset, start: RunConfig[Preset]) -> Preset:
    """Limit the frozen blocks to those as wide as in the run that the new one starts from."""
    networks = start.preset.network, preset.network
    widths = zip(*(network.encoder_hidden_sizes for network in networks), strict=True)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], widths))
    return replace(preset, frozen_blocks=min(preset.frozen_blocks, same))


def _seeds(seed: int, info: Mapping[str, Any]) -> set[int]:
    """Seeds of a run and of all runs before it."""
    before = info.get("before")
    return {seed} | (set() if before is None else _seeds(before["seed"], before))
