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
from tiepoint.training.state import STATE_FILE, Progress, State, load_state
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
    start: Path | None = None,
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
        start: Folder of a run whose averaged network this one starts from, by a recipe of its
            own (see `presets.going_on`); None starts from random weights.
        workers: Processes that draw pairs; 0 draws them in this one.
        compiled: See `Trainer`.
        say: Gets each line for the terminal.

    Raises:
        TrainingError: The folder holds a run already, the start fits it not, or the run is
            hopeless.
    """
    _refuse_used(folder)
    about, network = _about(data, RANDOM_WEIGHTS), None
    if start is not None:
        state = load_state(start)
        network = _network_of(state, start, preset, seed)
        before = _manifest(start, state.run, state.progress)
        about = {**_about(data, f"run {before['name']}"), "before": before}
    trainer = Trainer(preset, seed, _opener(data, seed, workers), folder, find_device(device),
                      about=about, start=network, compiled=compiled)  # fmt: skip
    return _run(trainer, benchmark_photos, say)


def repeat(manifest: Path, folder: Path, *, photos: Sequence[str] = (), **options: Any) -> Result:
    """Train anew as a manifest says: every run in a row that led to it.

    Args:
        folder: Of the last run; those before it lie in `part-1`, `part-2`... inside. Parts that
            are finished are not run again.
        photos: Folders in place of those that the manifest names.
        options: `workers`, `device`, `compiled` and `say` of `train`.
    """
    parts = repeated(manifest)
    start: Path | None = None
    for number, (preset, stated, seed) in enumerate(parts, start=1):
        data = replace(stated, photos=tuple(photos) or stated.photos)
        own = folder if number == len(parts) else folder / f"part-{number}"
        held_out = [Path(photo) for photo in data.photos]
        if not (own / STATE_FILE).exists():
            found = train(
                preset, data, own, start=start, seed=seed, benchmark_photos=held_out, **options
            )
        elif own != folder:
            found = resume(own, **options)
        else:
            _refuse_used(folder)
        if not found.finished:
            break
        start = own
    return found


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
    about = _about(data, f"checkpoint {origin.name}, SHA-256 {origin.sha256}")
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
    run = load_state(folder).run
    data = data_from_json(run["about"]["data"])
    preset = with_budget(Preset.from_json(run["preset"]), minutes, None)
    opener = _opener(data, run["seed"], workers)
    trainer = Trainer.resume(folder, opener, find_device(device), preset=preset, compiled=compiled)
    photos = [Path(p) for p in data.photos] if benchmark_photos is None else benchmark_photos
    return _run(trainer, photos, say)


def repeated(manifest: Path) -> list[tuple[Preset, DataConfig, int]]:
    """Recipe, data and seed of the runs in a row that led to a checkpoint, budgets in steps.

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
            parts.append((budget, data, int(values["seed"])))
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
            threshold, scale = held_out.threshold(checkpoint), held_out.covariance_scale(checkpoint)
            _export(trainer, checkpoint, threshold, scale)
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


def _export(
    run: Trainer, folder: Path, threshold: float | None = None, scale: float | None = None
) -> None:
    detection = DetectionConfig(covariance_scale=scale)
    if threshold is not None:
        detection = replace(detection, threshold=threshold)
    export_checkpoint(
        folder,
        run.average.state_dict(),
        run.preset.network,
        _manifest(
            run.folder,
            {"preset": run.preset.to_json(), "seed": run.seed, "about": run.about},
            run.progress,
        ),
        detection=detection,
    )


def _manifest(folder: Path, run: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
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


def _about(data: DataConfig, origin: str) -> dict[str, Any]:
    return {"data": asdict(data), "origin": origin, "commit": commit()}


def _network_of(state: State, folder: Path, preset: Preset, seed: int) -> dict[str, torch.Tensor]:
    """The averaged network of a run, for another run to start from."""
    widths = Preset.from_json(state.run["preset"]).network
    if widths != preset.network:
        raise TrainingError(
            f"{folder}: a network of {widths}, the preset {preset.name!r} has {preset.network}; "
            "start from a run of the same preset"
        )
    if state.run["seed"] == seed:
        raise TrainingError(
            f"{folder}: its seed is {seed} too, so the new run would see the same scenes again; "
            "give another seed"
        )
    return state.average


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
