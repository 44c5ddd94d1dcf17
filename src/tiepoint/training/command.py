"""What `tiepoint train` and `tiepoint adapt` do: data, trainer, log, benchmark, checkpoint."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tiepoint.config import DetectionConfig
from tiepoint.errors import ConfigError, TrainingError
from tiepoint.training.benchmark import Benchmark
from tiepoint.training.export import commit, export_checkpoint, machine
from tiepoint.training.loader import PairLoader
from tiepoint.training.log import Log, flat, terminal_line
from tiepoint.training.presets import ADAPT, Preset, Stage
from tiepoint.training.settings import DataConfig
from tiepoint.training.state import STATE_FILE
from tiepoint.training.trainer import Hooks, PairSource, Record, Trainer
from tiepoint.weights import MANIFEST_FILE, load_checkpoint

CHECKPOINT_FOLDER = "checkpoint"
RANDOM_WEIGHTS = "random weights"


@dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
        finished: Whether its budget is spent.
        signal: The signal that stopped it, or None.
        checkpoint: The folder with the weights.
    """

    finished: bool
    signal: int | None
    checkpoint: Path


def train(
    preset: Preset,
    data: DataConfig,
    folder: Path,
    *,
    seed: int = 0,
    workers: int = 0,
    device: str = "auto",
    compiled: bool = False,
    benchmark_photos: Sequence[Path] = (),
    say: Callable[[str], None] = print,
) -> Result:
    """Start a run in a folder that holds none yet.

    Args:
        data: Its size is replaced by each stage's.
        workers: Processes that draw pairs; 0 draws them in this one.
        compiled: See `Trainer`.
        say: Gets each line for the terminal.

    Raises:
        TrainingError: The folder holds a run already, or the run is hopeless.
    """
    _refuse_used(folder)
    about = _about(preset, data, RANDOM_WEIGHTS)
    trainer = Trainer(preset, seed, _opener(data, seed, workers), folder, find_device(device),
                      about=about, compiled=compiled)  # fmt: skip
    return _run(trainer, benchmark_photos, say)


def adapt(
    data: DataConfig,
    folder: Path,
    *,
    checkpoint: str = "default",
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    workers: int = 0,
    device: str = "auto",
    compiled: bool = False,
    say: Callable[[str], None] = print,
) -> Result:
    """Fine-tune a checkpoint on images without labels.

    Raises:
        CheckpointError: No such checkpoint.
        TrainingError: As `train`.
    """
    _refuse_used(folder)
    origin = load_checkpoint(checkpoint)
    if origin.rules != "exact":
        raise TrainingError(
            f"checkpoint {origin.name!r} follows transformers' rules for descriptors; only "
            "checkpoints with tiepoint's own rules can be trained further"
        )
    preset = with_budget(replace(ADAPT, network=origin.network), minutes, steps)
    about = _about(preset, data, f"checkpoint {origin.name}, SHA-256 {origin.sha256}")
    start = {name: torch.from_numpy(array.copy()) for name, array in origin.tensors.items()}
    trainer = Trainer(preset, seed, _opener(data, seed, workers), folder, find_device(device),
                      about=about, start=start, compiled=compiled)  # fmt: skip
    return _run(trainer, (), say)


def resume(
    folder: Path,
    *,
    minutes: float | None = None,
    workers: int = 0,
    device: str = "auto",
    compiled: bool = False,
    benchmark_photos: Sequence[Path] | None = None,
    say: Callable[[str], None] = print,
) -> Result:
    """Go on with the run that a folder holds, with its own data, seed and schedule.

    Args:
        minutes: Another budget in all, for a run whose budget is in minutes; None keeps its own.
        benchmark_photos: None takes the run's own photographs.

    Raises:
        TrainingError: No run there, or it does not fit.
    """
    from tiepoint.training.state import load_state

    run = load_state(folder).run
    data = data_from_json(run["about"]["data"])
    preset = with_budget(Preset.from_json(run["preset"]), minutes, None)
    opener = _opener(data, run["seed"], workers)
    trainer = Trainer.resume(folder, opener, find_device(device), preset=preset, compiled=compiled)
    photos = [Path(p) for p in data.photos] if benchmark_photos is None else benchmark_photos
    return _run(trainer, photos, say)


def repeated(manifest: Path) -> tuple[Preset, DataConfig, int]:
    """The recipe, data and seed of a finished run, its budget in steps: whatever the machine.

    Args:
        manifest: A checkpoint's `manifest.json`, or the checkpoint's folder.

    Raises:
        TrainingError: Not the manifest of a finished run from random weights.
    """
    path = manifest / MANIFEST_FILE if manifest.is_dir() else manifest
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        preset, data = Preset.from_json(values["preset"]), data_from_json(values["data"])
        steps = tuple(values["stage_steps"][stage.name] for stage in preset.stages)
        seed = int(values["seed"])
        fresh = values["finished"] and values["origin"] == RANDOM_WEIGHTS
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"{path}: not the manifest of a run by tiepoint train ({type(error).__name__}: {error})"
        ) from error
    if not fresh:
        raise TrainingError(
            f"{path}: started from {values['origin']}, finished: {values['finished']}; only a "
            "finished run from random weights can be repeated"
        )
    return replace(preset, minutes=None, steps=None, stage_steps=steps), data, seed


def with_budget(preset: Preset, minutes: float | None, steps: int | None) -> Preset:
    """The preset with another budget; both None keeps its own.

    Raises:
        ConfigError: Both given, or not above 0.
    """
    if minutes is not None and steps is not None:
        raise ConfigError("both minutes and steps are given, expected one of them as the budget")
    if minutes is None and steps is None:
        return preset
    return replace(preset, minutes=minutes, steps=steps, stage_steps=None)


def data_from_json(values: Mapping[str, Any]) -> DataConfig:
    """What `dataclasses.asdict` made of a `DataConfig`, also after it went through a file."""
    from tiepoint.training.settings import Geometry, Photometry

    def tuples(value: Any) -> Any:
        return tuple(tuples(v) for v in value) if isinstance(value, list | tuple) else value

    plain = {name: tuples(value) for name, value in values.items()}
    for name, kind in (("geometry", Geometry), ("photometry", Photometry)):
        plain[name] = kind(**{key: tuples(value) for key, value in plain[name].items()})
    return DataConfig(**plain)


def find_device(name: str) -> torch.device:
    """`auto` takes a CUDA GPU, then Apple's, then the CPU.

    Raises:
        ConfigError: No such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"device {name!r} cannot be used ({str(error).splitlines()[0]}); expected auto, cpu, "
            "cuda, cuda:N or mps"
        ) from error
    return device


def _opener(data: DataConfig, seed: int, workers: int) -> Callable[[Stage, int], PairSource]:
    def open_source(stage: Stage, step: int) -> PairSource:
        sized = replace(data, size_hw=stage.size_hw)
        return PairLoader(sized, seed, stage.pairs, step, workers)

    return open_source


def _run(trainer: Trainer, photos: Sequence[Path], say: Callable[[str], None]) -> Result:
    """Train with log, benchmark and checkpoint until the end, or a signal."""
    trainer.folder.mkdir(parents=True, exist_ok=True)
    checkpoint = trainer.folder / CHECKPOINT_FOLDER
    log = Log(trainer.folder, trainer.progress.step)
    held_out = Benchmark(photos, trainer.preset.benchmark_pairs)

    def record(values: Record) -> None:
        log.add(flat(values))
        say(terminal_line(values))

    def benchmark(run: Trainer) -> None:
        _export(run, checkpoint)
        found = held_out.measure(checkpoint)
        if found:
            log.add({"step": run.progress.step, **found["tiepoint"], "benchmark": found})
            say(_benchmark_line(found))

    trainer.hooks = Hooks(record, benchmark, lambda run: log.draw())
    with stopped_by_signals() as stop:
        finished = trainer.run(stop)
        if finished:
            benchmark(trainer)
            _export(trainer, checkpoint, held_out.threshold(checkpoint))
        else:
            _export(trainer, checkpoint)
    log.draw()
    return Result(finished, stop.number, checkpoint)


class Stop(threading.Event):
    """Set by a signal; `number` says which."""

    number: int | None = None


@contextmanager
def stopped_by_signals() -> Iterator[Stop]:
    """SIGINT and SIGTERM set the event, so that a run ends after its step and saves.

    A second signal does what it always did.
    """
    stop = Stop()
    before: dict[int, Any] = {}

    def note(number: int, _: object) -> None:
        stop.number = number
        stop.set()
        signal.signal(number, before[number])

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
    try:
        yield stop
    finally:
        for noted, handler in before.items():
            signal.signal(noted, handler)


def _export(run: Trainer, folder: Path, threshold: float | None = None) -> None:
    detection = DetectionConfig() if threshold is None else DetectionConfig(threshold=threshold)
    export_checkpoint(
        folder,
        run.average.state_dict(),
        run.preset.network,
        _manifest(run),
        detection=detection,
    )


def _manifest(run: Trainer) -> dict[str, Any]:
    progress = run.progress
    return {
        "name": run.folder.resolve().name,
        "note": f"trained with preset {run.preset.name}, {progress.step} steps",
        "licence": "Apache-2.0",
        "preset": run.preset.to_json(),
        "seed": run.seed,
        **run.about,
        "steps": progress.step,
        "stage_steps": progress.stage_steps,
        "images": progress.images,
        "hours": round(progress.seconds / 3600, 3),
        "skipped_steps": progress.skipped,
        "finished": run.done >= 1,
        "machine": machine(),
    }


def _about(preset: Preset, data: DataConfig, origin: str) -> dict[str, Any]:
    return {"data": asdict(data), "origin": origin, "commit": commit()}


def _benchmark_line(found: Mapping[str, Mapping[str, float]]) -> str:
    rows = (
        f"{name} {values['within_3px']:.0%} within 3 px, {values['repeatability']:.0%} repeated"
        for name, values in found.items()
    )
    return "held-out: " + "; ".join(rows)


def _refuse_used(folder: Path) -> None:
    if (folder / STATE_FILE).exists():
        raise TrainingError(
            f"{folder}: holds a run already; go on with it by --resume {folder}, or give "
            "another folder"
        )
