"""What a run was and what it came from: manifests, starts, and what a repetition needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tiepoint.errors import ConfigError, TrainingError
from tiepoint.training.detector.network import TrainableSuperPoint, widened
from tiepoint.training.export import commit, machine
from tiepoint.training.presets import Preset
from tiepoint.training.scenes.settings import DataConfig
from tiepoint.training.state import Progress, State, load_state
from tiepoint.weights.folder import MANIFEST_FILE

CHECKPOINT_FOLDER = "checkpoint"
RANDOM_WEIGHTS = "random weights"


class Part(NamedTuple):
    """A run to repeat.

    Attributes:
        preset: Its budget is in steps.
        teacher: Checkpoint and SHA-256 of its weights, or None.
    """

    preset: Preset
    data: DataConfig
    seed: int
    teacher: Mapping[str, str] | None


def repeated(manifest: Path) -> list[Part]:
    """The runs in a row that led to a checkpoint, the first one first.

    Args:
        manifest: A checkpoint's `manifest.json`, or the checkpoint's folder.

    Raises:
        TrainingError: Not the manifest of finished runs, the first from random weights.
    """
    path = manifest / MANIFEST_FILE if manifest.is_dir() else manifest
    parts = []
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        while values is not None:
            preset, data = Preset.from_json(values["preset"]), data_from_json(values["data"])
            steps = tuple(values["stage_steps"][stage.name] for stage in preset.stages)
            budget = replace(preset, minutes=None, steps=None, stage_steps=steps)
            parts.append(Part(budget, data, int(values["seed"]), values.get("teacher")))
            before = values.get("before")
            if not values["finished"] or (before is None and values["origin"] != RANDOM_WEIGHTS):
                raise TrainingError(
                    f"{path}: started from {values['origin']}, finished: {values['finished']}; "
                    "only finished runs that began with random weights can be repeated"
                )
            values = before
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"{path}: not the manifest of a run by tiepoint train ({type(error).__name__}: {error})"
        ) from error
    return parts[::-1]


def data_from_json(values: Mapping[str, Any]) -> DataConfig:
    """What `dataclasses.asdict` made of a `DataConfig`, also after it went through a file."""
    from tiepoint.training.scenes.settings import Geometry, Photometry

    def tuples(value: Any) -> Any:
        return tuple(tuples(v) for v in value) if isinstance(value, list | tuple) else value

    plain = {name: tuples(value) for name, value in values.items()}
    for name, kind in (("geometry", Geometry), ("photometry", Photometry)):
        plain[name] = kind(**{key: tuples(value) for key, value in plain[name].items()})
    return DataConfig(**plain)


def holds(folder: Path, preset: Preset, data: DataConfig, seed: int) -> bool:
    """Whether the run in a folder is the one that these would make."""
    run = load_state(folder, optimiser=False).run
    same_data = data_from_json(run["about"]["data"]) == data
    return same_data and run["seed"] == seed and Preset.from_json(run["preset"]) == preset


def is_finished(state: State) -> bool:
    preset = Preset.from_json(state.run["preset"])
    return preset.done(state.progress.step, state.progress.seconds) >= 1


def manifest_of(folder: Path, run: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """What a run was.

    Args:
        run: As `state.State.run`.
    """
    preset = Preset.from_json(run["preset"])
    return {
        "name": folder.resolve().name,
        "note": f"trained with preset {preset.name}, {progress.step} steps",
        "licence": "Apache-2.0",
        "preset": preset.to_json(),
        "seed": run["seed"],
        **run["about"],
        "steps": progress.step,
        "stage_steps": progress.stage_steps,
        "images": progress.images,
        "hours": round(progress.seconds / 3600, 3),
        "skipped_steps": progress.skipped,
        "finished": preset.done(progress.step, progress.seconds) >= 1,
        "machine": machine(),
    }


def machine_of(folder: Path) -> Any:
    """What a run ran on, as its checkpoint says; None where there is no checkpoint."""
    try:
        path = folder / CHECKPOINT_FOLDER / MANIFEST_FILE
        return json.loads(path.read_text(encoding="utf-8")).get("machine")
    except (OSError, ValueError):
        return None


def about_run(data: DataConfig, origin: str) -> dict[str, Any]:
    return {"data": asdict(data), "origin": origin, "commit": commit()}


def network_of(state: State, folder: Path, preset: Preset, seed: int) -> dict[str, torch.Tensor]:
    """The averaged network of a finished run, for another run to start from.

    Where the preset is wider than that run was, the network lies inside a wider one that answers
    the same.

    Raises:
        TrainingError: The run is not finished, the preset is narrower, or the seed was used.
    """
    before = Preset.from_json(state.run["preset"])
    if before.batch_norm != preset.batch_norm:
        raise TrainingError(
            f"{folder}: a run {_norms(before)} batch norms, and preset {preset.name!r} is one "
            f"{_norms(preset)}: start from a run of tiepoint train"
        )
    if not is_finished(state):
        raise TrainingError(
            f"{folder}: stopped at step {state.progress.step}; finish it by --resume {folder} first"
        )
    if seed in _seeds(state.run["seed"], state.run["about"]):
        raise TrainingError(
            f"{folder}: seed {seed} was used on the way here, so the new run would see the same "
            "scenes again; give another --seed"
        )
    if before.network == preset.network:
        return state.average
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        wider = TrainableSuperPoint(preset.network, preset.batch_norm)
    try:
        return widened(state.average, before.network, wider)
    except ConfigError as error:
        raise TrainingError(f"{folder}: {error}; start from another run") from error


def without_new_channels_frozen(preset: Preset, start: State) -> Preset:
    """The preset with only those blocks frozen that are as wide as in the run it starts from."""
    before = Preset.from_json(start.run["preset"]).network.encoder_hidden_sizes
    widths = zip(before, preset.network.encoder_hidden_sizes, strict=True)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], widths))
    return replace(preset, frozen_blocks=min(preset.frozen_blocks, same))


def _norms(preset: Preset) -> str:
    return "with" if preset.batch_norm else "without"


def _seeds(seed: int, about: Mapping[str, Any]) -> set[int]:
    """Of a run and of all that it started from."""
    before = about.get("before")
    return {seed} | (set() if before is None else _seeds(before["seed"], before))
