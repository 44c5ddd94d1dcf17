"""What `tiepoint train` and `tiepoint adapt` do: data, trainer, log, benchmark, checkpoint."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tiepoint.config import DetectionConfig
from tiepoint.errors import ConfigError, TrainingError
from tiepoint.network.superpoint import SuperPoint
from tiepoint.training.detector.benchmark import Benchmark
from tiepoint.training.export import export_checkpoint
from tiepoint.training.lineage import (
    CHECKPOINT_FOLDER,
    RANDOM_WEIGHTS,
    about_run,
    data_from_json,
    holds,
    is_finished,
    machine_of,
    manifest_of,
    network_of,
    repeated,
    without_new_channels_frozen,
)
from tiepoint.training.log import Log, flat, terminal_line
from tiepoint.training.presets import ADAPT, PYRAMID, Preset, Stage
from tiepoint.training.scenes.loader import PairLoader
from tiepoint.training.scenes.settings import DataConfig
from tiepoint.training.state import STATE_FILE, load_state
from tiepoint.training.trainer import Hooks, PairSource, Record, Trainer
from tiepoint.weights.checkpoint import Checkpoint, load_checkpoint


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
    teacher: str | None = None,
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
        teacher: A checkpoint whose answers the network learns as well; None learns from labels
            alone.
        workers: Processes that draw pairs; 0 draws them in this one.
        compiled: See `Trainer`.
        say: Gets each line for the terminal.

    Raises:
        TrainingError: The folder holds a run already, the start fits it not, or the run is
            hopeless.
    """
    _refuse_used(folder)
    about, network = about_run(data, RANDOM_WEIGHTS), None
    if start is not None:
        state = load_state(start, optimiser=False)
        network = network_of(state, start, preset, seed)
        preset = without_new_channels_frozen(preset, state)
        before = {**manifest_of(start, state.run, state.progress), "machine": machine_of(start)}
        about = {**about_run(data, f"run {before['name']}"), "before": before}
    chosen = find_device(device)
    if teacher is not None:
        about["teacher"] = {"checkpoint": teacher, "sha256": load_checkpoint(teacher).sha256}
    trainer = Trainer(preset, seed, _opener(data, seed, workers), folder, chosen,
                      about=about, start=network, compiled=compiled,
                      teacher=_teacher(about, chosen, compiled))  # fmt: skip
    return _run(trainer, benchmark_photos, say)


def repeat(manifest: Path, folder: Path, *, photos: Sequence[str] = (), **options: Any) -> Result:
    """Train anew as a manifest says: every run in a row that led to it.

    Args:
        folder: Of the last run; those before it lie in `part-1`, `part-2`... inside. A part that
            was stopped goes on, and one that is finished is not run again.
        photos: Folders in place of those that the manifest names.
        options: `workers`, `device`, `compiled` and `say` of `train`.

    Raises:
        TrainingError: The manifest is not that of finished runs, or the folder holds another run.
    """
    _refuse_used(folder)
    parts = [
        part._replace(data=replace(part.data, photos=tuple(photos) or part.data.photos))
        for part in repeated(manifest)
    ]
    for part in parts:
        _check_teacher(part.teacher)
    start: Path | None = None
    for number, part in enumerate(parts, start=1):
        own = folder if number == len(parts) else folder / f"part-{number}"
        if not (own / STATE_FILE).exists():
            found = train(
                part.preset, part.data, own, start=start, seed=part.seed,
                teacher=None if part.teacher is None else part.teacher["checkpoint"],
                benchmark_photos=held_out(part.data), **options,
            )  # fmt: skip
        elif not holds(own, part.preset, part.data, part.seed):
            raise TrainingError(
                f"{own}: holds another run than part {number} of {manifest}; give another folder"
            )
        elif not is_finished(load_state(own, optimiser=False)):
            found = resume(own, **options)
        start = own
        if not is_finished(load_state(own, optimiser=False)):
            break
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
    names = ("threshold", "nms_radius", "border", "covariance_scale", "scales")
    kept = {name: getattr(origin.detection, name) for name in names}
    about = {
        **about_run(data, f"checkpoint {origin.name}, SHA-256 {origin.sha256}"), "detection": kept,
    }  # fmt: skip
    start = {name: torch.from_numpy(array.copy()) for name, array in origin.tensors.items()}
    trainer = Trainer(preset, seed, _opener(data, seed, workers), folder, find_device(device),
                      about=about, start=start, compiled=compiled)  # fmt: skip
    return _run(trainer, held_out(data), say)


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
        benchmark_photos: None takes the run's own photographs, as far as they are held out.

    Raises:
        TrainingError: No run there, or it does not fit.
    """
    run = load_state(folder, optimiser=False).run
    data = data_from_json(run["about"]["data"])
    preset = with_budget(Preset.from_json(run["preset"]), minutes, None)
    opener = _opener(data, run["seed"], workers)
    chosen = find_device(device)
    teacher = _teacher(run["about"], chosen, compiled)
    trainer = Trainer.resume(
        folder, opener, chosen, preset=preset, compiled=compiled, teacher=teacher
    )
    photos = held_out(data) if benchmark_photos is None else benchmark_photos
    return _run(trainer, photos, say)


def held_out(data: DataConfig) -> list[Path]:
    """Folders whose development part a run is not trained on; none where it takes all."""
    return [] if data.part == "all" else [Path(photo) for photo in data.photos]


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


def _teacher(
    about: Mapping[str, Any], device: torch.device, compiled: bool
) -> torch.nn.Module | None:
    """The network that a run learns from beside its labels, if it has one.

    Raises:
        CheckpointError: It is gone.
        TrainingError: Other weights lie there by now, or ones that follow other rules.
    """
    named = about.get("teacher")
    if named is None:
        return None
    origin = _check_teacher(named)
    assert origin is not None
    network = SuperPoint(origin.network).load(origin.tensors).eval().requires_grad_(False)
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return torch.compile(network, dynamic=False) if compiled else network  # type: ignore[return-value]


def _check_teacher(named: Mapping[str, str] | None) -> Checkpoint | None:
    """The checkpoint that a run names as its teacher; errors as from `_teacher`."""
    if named is None:
        return None
    origin = load_checkpoint(named["checkpoint"])
    if origin.sha256 != named["sha256"] or origin.rules != "exact":
        raise TrainingError(
            f"teacher {named['checkpoint']!r}: SHA-256 {origin.sha256}, rules {origin.rules}; "
            f"expected {named['sha256']} and tiepoint's own rules"
        )
    return origin


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
    detection = DetectionConfig(**run.about.get("detection", {"scales": PYRAMID}))
    if threshold is not None:
        detection = replace(detection, threshold=threshold)
    if scale is not None:
        detection = replace(detection, covariance_scale=scale)
    export_checkpoint(
        folder,
        run.average.state_dict(),
        run.preset.network,
        manifest_of(
            run.folder,
            {"preset": run.preset.to_json(), "seed": run.seed, "about": run.about},
            run.progress,
        ),
        detection=detection,
    )


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
