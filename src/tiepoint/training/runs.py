"""Training runs from start to checkpoint: train, resume, repeat and adapt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from tiepoint.config import DetectionConfig
from tiepoint.errors import TrainingError
from tiepoint.evaluation.noise_floor import measure_noise_floor
from tiepoint.files.paths import exists
from tiepoint.files.writing import make_folder
from tiepoint.network.superpoint import SuperPoint
from tiepoint.training import lineage
from tiepoint.training.detector.benchmark import Benchmark
from tiepoint.training.export import export_checkpoint
from tiepoint.training.log import Log, LogRecord
from tiepoint.training.on_device.source import DevicePairs, makes_pairs
from tiepoint.training.presets import PYRAMID, Preset, Stage, adaptation_preset
from tiepoint.training.scenes.loader import PairLoader
from tiepoint.training.scenes.settings import DataConfig
from tiepoint.training.setup import Execution, find_device, stopped_by_signals
from tiepoint.training.state import STATE_FILE, RunConfig, State, load_state
from tiepoint.training.trainer import Hooks, Trainer
from tiepoint.weights.checkpoint import Checkpoint, load_checkpoint

KEPT_SETTINGS = (
    "threshold", "nms_radius", "border", "covariance_scale", "scales", "noise_floor", "phases",
)  # fmt: skip
"""Detection settings of a checkpoint that an adapted one inherits."""

HERE = Execution()


@dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
        finished: Whether its budget is spent.
        signal: Number of the signal that stopped it, or None.
    """

    finished: bool
    signal: int | None
    checkpoint: Path


def train(
    preset: Preset,
    data: DataConfig,
    folder: Path,
    *,
    start: Path | None = None,
    teacher: str | None = None,
    seed: int = 0,
    benchmark_photos: Sequence[Path] = (),
    execution: Execution = HERE,
) -> Result:
    """Start a run in a folder that has none yet.

    Args:
        preset: Recipe with its budget; see `presets.continuation_preset` for a run with `start`.
        data: Scenes and photographs; its size is replaced by each stage's.
        start: Folder of a finished run to start from; None starts from random weights.
        teacher: Checkpoint to learn from beside the labels, or None.
        seed: Seed of the initial weights, the sampled points and the data.
        benchmark_photos: Folders with photographs; their development part is the benchmark.

    Raises:
        CheckpointError: No such teacher.
        ConfigError: No such device.
        TrainingError: The folder has a run already, `start` does not fit, or the run is hopeless.
    """
    _refuse_used(folder)
    info, weights = lineage.run_info(data, lineage.RANDOM_WEIGHTS), None
    if start is not None:
        state = load_state(start, optimiser=False)
        weights = lineage.starting_weights(state, start, preset, seed)
        preset = lineage.unfreeze_widened_blocks(preset, state.run)
        info = lineage.continued_run_info(data, start, state)
    if teacher is not None:
        info["teacher"] = {"checkpoint": teacher, "sha256": load_checkpoint(teacher).sha256}
    config = RunConfig(preset, seed, info)
    return _run(config, folder, benchmark_photos, execution, start=weights)


def resume(
    folder: Path,
    *,
    minutes: float | None = None,
    benchmark_photos: Sequence[Path] | None = None,
    execution: Execution = HERE,
) -> Result:
    """Resume the run in a folder with its own data, seed and schedule.

    Args:
        minutes: New total budget; None keeps the run's own.
        benchmark_photos: As for `train`; None takes the photographs that the run holds out.

    Raises:
        TrainingError: The folder has no run, or the run is hopeless.
    """
    state = load_state(folder)
    config = replace(state.run, preset=state.run.preset.with_budget(minutes, None))
    if benchmark_photos is None:
        benchmark_photos = held_out(lineage.data_from_json(config.info["data"]))
    return _run(config, folder, benchmark_photos, execution, state=state)


def repeat(
    manifest: Path, folder: Path, *, photos: Sequence[str] = (), execution: Execution = HERE
) -> Result:
    """Repeat the chain of runs in a manifest.

    Args:
        manifest: `manifest.json` of a checkpoint, or the checkpoint's folder.
        folder: Folder of the last run. Earlier runs are in `part-1`, `part-2`... inside it. A
            stopped part is resumed, and a finished one is kept.
        photos: Folders that replace those in the manifest.

    Raises:
        TrainingError: No manifest of finished runs, or the folder has another run.
    """
    _refuse_used(folder)
    recipes = [
        recipe._replace(data=replace(recipe.data, photos=tuple(photos) or recipe.data.photos))
        for recipe in lineage.recipes_from_manifest(manifest)
    ]
    for recipe in recipes:
        if recipe.teacher is not None:
            _load_teacher(recipe.teacher)
    start: Path | None = None
    for number, recipe in enumerate(recipes, start=1):
        part = folder if number == len(recipes) else folder / f"part-{number}"
        if not exists(part / STATE_FILE):
            result = train(
                recipe.preset, recipe.data, part, start=start, seed=recipe.seed,
                teacher=None if recipe.teacher is None else recipe.teacher["checkpoint"],
                benchmark_photos=held_out(recipe.data), execution=execution,
            )  # fmt: skip
        elif not lineage.same_run(state := load_state(part, optimiser=False), recipe):
            raise TrainingError(
                f"{part}: holds another run than part {number} of {manifest}; give another folder"
            )
        elif state.is_finished:
            result = Result(finished=True, signal=None, checkpoint=part / lineage.CHECKPOINT_FOLDER)
        else:
            result = resume(part, execution=execution)
        if not result.finished:
            break
        start = part
    return result


def adapt(
    data: DataConfig,
    folder: Path,
    *,
    checkpoint: str = "default",
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    execution: Execution = HERE,
) -> Result:
    """Fine-tune a checkpoint on images without labels.

    Args:
        data: Photographs and scenes; see `presets.adaptation_data`.
        checkpoint: Bundled name, folder or Hub id.
        minutes, steps: Budget, one of them; with both None the recipe's own.

    Raises:
        CheckpointError: No such checkpoint.
        ConfigError: Both budgets are given, or the device does not exist.
        TrainingError: As for `train`.
    """
    _refuse_used(folder)
    origin = load_checkpoint(checkpoint)
    _require_exact_rules(origin)
    preset = adaptation_preset(origin.network, origin.detection.phases).with_budget(minutes, steps)
    info = {
        **lineage.run_info(data, f"checkpoint {origin.name}, SHA-256 {origin.sha256}"),
        "detection": {name: getattr(origin.detection, name) for name in KEPT_SETTINGS},
    }
    weights = {name: torch.from_numpy(array.copy()) for name, array in origin.tensors.items()}
    return _run(RunConfig(preset, seed, info), folder, held_out(data), execution, start=weights)


def held_out(data: DataConfig) -> list[Path]:
    """Photograph folders whose development part is not trained on; none if all photographs are."""
    return [] if data.part == "all" else [Path(photo) for photo in data.photos]


def _teacher(
    info: Mapping[str, object], device: torch.device, *, compiled: bool
) -> nn.Module | None:
    """The network that a run learns from, frozen and on the device; None without a teacher."""
    named = info.get("teacher")
    if not isinstance(named, Mapping):
        return None
    origin = _load_teacher(named)
    network = SuperPoint(origin.network).load(origin.tensors).eval().requires_grad_(False)
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return torch.compile(network, dynamic=False) if compiled else network  # type: ignore[return-value]


def _load_teacher(named: Mapping[str, str]) -> Checkpoint:
    origin = load_checkpoint(named["checkpoint"])
    if origin.sha256 != named["sha256"]:
        raise TrainingError(
            f"teacher {named['checkpoint']!r} has weights {origin.sha256}, expected "
            f"{named['sha256']}; restore those weights"
        )
    _require_exact_rules(origin)
    return origin


def _require_exact_rules(checkpoint: Checkpoint) -> None:
    if checkpoint.rules != "exact":
        raise TrainingError(
            f"checkpoint {checkpoint.name!r} follows transformers' descriptor rules, expected one "
            "with tiepoint's own rules"
        )


def _run(
    config: RunConfig[Preset],
    folder: Path,
    photos: Sequence[Path],
    execution: Execution,
    *,
    start: Mapping[str, Tensor] | None = None,
    state: State[Preset] | None = None,
) -> Result:
    """Train with log, benchmark and checkpoint until the end of the budget, or a signal."""
    device, compiled = find_device(execution.device), execution.compiled
    data = lineage.data_from_json(config.info["data"])

    def open_source(stage: Stage, step: int) -> PairLoader | DevicePairs:
        sized = replace(data, size_hw=stage.size_hw)
        options = sized, config.seed, stage.pairs, step, execution.workers
        if makes_pairs(device):
            return DevicePairs(*options, place=device)
        return PairLoader(*options)

    teacher = _teacher(config.info, device, compiled=compiled)
    trainer = Trainer(
        config, open_source, folder, device, start=start, compiled=compiled, teacher=teacher
    )
    if state is not None:
        trainer.restore(state)
    make_folder(folder)
    checkpoint = folder / lineage.CHECKPOINT_FOLDER
    log = Log(folder, trainer.progress.step)
    held_out_pairs = Benchmark(photos, config.preset.benchmark_pairs)

    def record(values: LogRecord) -> None:
        log.add(values.to_json())
        execution.echo(values.terminal_line())

    def benchmark(run: Trainer) -> None:
        _export(run, checkpoint)
        figures = held_out_pairs.measure(checkpoint)
        if figures:
            log.add({"step": run.progress.step, **figures["tiepoint"], "benchmark": figures})
            methods = (
                f"{name} {values['within_3px']:.0%} within 3 px, "
                f"{values['repeatability']:.0%} repeated"
                for name, values in figures.items()
            )
            execution.echo("held-out: " + "; ".join(methods))

    trainer.hooks = Hooks(record, benchmark, lambda run: log.draw())
    with stopped_by_signals() as stop:
        finished = trainer.run(stop)
        if finished:
            benchmark(trainer)
            _export_measured(trainer, checkpoint, held_out_pairs)
        else:
            _export(trainer, checkpoint)
    log.draw()
    return Result(finished, stop.number, checkpoint)


def _export_measured(run: Trainer, folder: Path, held_out_pairs: Benchmark) -> None:
    """Export the finished network with settings measured on its checkpoint in the folder."""
    threshold = held_out_pairs.threshold(folder)
    _export(
        run, folder, threshold=threshold,
        covariance_scale=held_out_pairs.covariance_scale(folder),
        noise_floor=measure_noise_floor(folder, threshold),
    )  # fmt: skip


def _export(run: Trainer, folder: Path, **measured: float | None) -> None:
    """Export the averaged network; measured detection settings replace the run's unless None."""
    own = {"scales": PYRAMID, "phases": max(stage.phases for stage in run.preset.stages)}
    settings = {**run.config.info.get("detection", own)}
    settings |= {name: value for name, value in measured.items() if value is not None}
    manifest = lineage.manifest_of(run.folder, run.config, run.progress)
    export_checkpoint(
        folder, run.average.state_dict(), run.preset.network, manifest,
        detection=DetectionConfig(**settings),
    )  # fmt: skip


def _refuse_used(folder: Path) -> None:
    if exists(folder / STATE_FILE):
        raise TrainingError(
            f"{folder}: holds a run already; resume it by --resume {folder}, or give another folder"
        )
