"""Runs of the learned matcher: features, training, and the folder of the result."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from threading import Event
from typing import Any

import torch
from torch import Tensor

from tiepoint.errors import CheckpointError, TrainingError
from tiepoint.files.paths import exists, is_folder
from tiepoint.files.reading import read_json
from tiepoint.files.writing import make_folder
from tiepoint.matching.learned.choice import matcher_folder
from tiepoint.matching.learned.folder import MatcherCheckpoint, load_matcher, save_matcher
from tiepoint.training.export import commit
from tiepoint.training.lineage import RANDOM_WEIGHTS, manifest_of
from tiepoint.training.log import LOG_FILE, Log, LogRecord, read_log
from tiepoint.training.matcher.bank import BankBuilder, Scenes, open_held_out, open_scenes
from tiepoint.training.matcher.batch import BankSource, pairs_of_step
from tiepoint.training.matcher.device_bank import (
    DeviceBank,
    DeviceSource,
    fits,
    free_bytes,
)
from tiepoint.training.matcher.settings import (
    BANK_SHARE,
    MatcherData,
    MatcherPreset,
    MatcherStage,
    check_minutes,
    check_seed,
)
from tiepoint.training.matcher.start import first_weights, sampled_descriptors
from tiepoint.training.matcher.trainer import MatcherTrainer, as_tensors
from tiepoint.training.matcher.transfer import transferred
from tiepoint.training.matcher.validation import Validation, flat_figures, score
from tiepoint.training.setup import Execution, find_device, stopped_by_signals
from tiepoint.training.state import STATE_FILE, RunConfig, State, read_state
from tiepoint.training.trainer import Hooks
from tiepoint.weights.checkpoint import Checkpoint, load_checkpoint
from tiepoint.weights.folder import MANIFEST_FILE, WEIGHTS_FILE, write_files

FEATURES_FOLDER = "features"
LEAST_TRAINING_SHARE = 0.5
"""Least fraction of a budget in minutes that training has, if drawing took longer than planned."""
TIE = 0.02
"""A later state replaces the chosen one unless its score is lower by more than this: on some two
hundred held-out pairs, smaller differences are noise."""

HERE = Execution()


@dataclass(frozen=True)
class MatcherResult:
    """How a run ended.

    Attributes:
        finished: Whether its budget is spent.
        signal: Number of the signal that stopped it, or None.
        folder: Folder of the run and of the matcher.
        has_matcher: Whether the folder has weights yet.
    """

    finished: bool
    signal: int | None
    folder: Path
    has_matcher: bool


def train_matcher(
    checkpoint: str,
    folder: Path,
    preset: MatcherPreset,
    data: MatcherData,
    *,
    seed: int = 0,
    start: str | PathLike[str] | None = None,
    execution: Execution = HERE,
) -> MatcherResult:
    """Train a matcher on a checkpoint's descriptors, or resume the run in the folder.

    A budget in minutes is for both parts: about a quarter goes to the features, at most
    `preset.scenes` scenes. With a budget in steps all scenes are drawn.

    Args:
        checkpoint: Bundled name, folder or Hub id of the detector.
        folder: Folder of the run. A stopped run with the same arguments is resumed; its budget may
            be another one.
        start: Matcher whose weights are the first ones: its folder, or the folder or name of a
            checkpoint with one. Give another seed, so that the scenes are others. That of another
            detector is adapted, see `transfer`. None starts from random weights.

    Raises:
        CheckpointError: No such checkpoint or matcher.
        ConfigError: No such device, or a setting out of range.
        TrainingError: The folder has another run, or the run is hopeless.
    """
    check_seed(seed)
    check_minutes(preset.minutes)
    detector, device = load_checkpoint(checkpoint), find_device(execution.device)
    initial = None if start is None else _initial(start, preset)
    origin = RANDOM_WEIGHTS if initial is None else f"matcher {initial.sha256}"
    state = _stored_state(folder, detector, preset, data, seed, origin)
    old = None
    if start is not None and initial is not None and state is None:
        old = _other_detector(start, initial, detector)
    where = None if device.type == "cpu" else str(device)
    builder = BankBuilder(
        folder / FEATURES_FOLDER, detector, data, seed, preset.scenes, preset.held_out, where
    )
    with stopped_by_signals() as stop:
        limit = None if preset.minutes is None else 60 * BANK_SHARE * preset.minutes
        # A run that is training keeps its scenes.
        filled = state is not None or builder.fill(
            seconds=limit, workers=execution.workers, stop=stop, echo=execution.echo
        )
        if not filled:
            return MatcherResult(False, stop.number, folder, has_matcher=False)
        if preset.minutes is not None:
            left = preset.minutes - builder.record.seconds / 60
            preset = preset.with_budget(max(left, LEAST_TRAINING_SHARE * preset.minutes), None)
        info = {**_identity(detector, data), "origin": origin}
        config, first = RunConfig(preset, seed, info), None
        if initial is not None and state is None:
            first = _first_tensors(initial, old, detector, data, seed, execution.echo)
        finished = _Run(folder, detector, builder, config, execution).train(
            device, state, stop, first
        )
    return MatcherResult(finished, stop.number, folder, has_matcher=exists(folder / WEIGHTS_FILE))


def repeat_matcher(
    manifest: Path,
    folder: Path,
    *,
    checkpoint: str | None = None,
    photos: Sequence[str] = (),
    execution: Execution = HERE,
) -> MatcherResult:
    """Repeat the run of a manifest: same recipe, data, seed, scenes and steps.

    Args:
        manifest: `manifest.json` of a matcher, or the matcher's folder.
        checkpoint: The detector, if it is not where the manifest has it.
        photos: Folders that replace those in the manifest.

    Raises:
        TrainingError: Not the manifest of a finished run, or another detector; else as
            `train_matcher`.
    """
    path = manifest / MANIFEST_FILE if is_folder(manifest) else manifest
    try:
        values = read_json(path)
        preset = MatcherPreset.from_json(values["preset"])
        data = MatcherData.from_json(values["data"])
        steps = tuple(values["stage_steps"][stage.name] for stage in preset.stages)
        preset = replace(
            preset, minutes=None, steps=None, stage_steps=steps, scenes=values["scenes"]
        )
        named, seed = values["detector"], values["seed"]
        name, sha256 = checkpoint or named["checkpoint"], named["sha256"]
        if not values["finished"] or values["origin"] != RANDOM_WEIGHTS:
            raise TrainingError(
                f"{path}: started from {values['origin']}, finished: {values['finished']}; only "
                "finished runs that began with random weights can be repeated"
            )
        check_seed(seed)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise TrainingError(
            f"{path}: not the manifest of a run by tiepoint train-matcher "
            f"({type(error).__name__}: {error})"
        ) from error
    if (other := load_checkpoint(name).sha256) != sha256:
        raise TrainingError(
            f"checkpoint {name!r} has weights {other}, expected {sha256} by {path}; give the "
            "checkpoint that the matcher was trained on"
        )
    data = replace(data, photos=tuple(photos) or data.photos)
    return train_matcher(name, folder, preset, data, seed=seed, execution=execution)


class _Run:
    """The second part of a run: training on the features of the bank."""

    def __init__(
        self,
        folder: Path,
        detector: Checkpoint,
        builder: BankBuilder,
        config: RunConfig[MatcherPreset],
        execution: Execution,
    ) -> None:
        self._folder, self._detector, self._execution = folder, detector, execution
        features, scenes = builder.folder, builder.counted
        self._scenes: Scenes = open_scenes(features, builder.record.shards)
        self._validation = Validation(open_held_out(features))
        info = {**config.info, "scenes": scenes, "commit": commit()}
        self._config = replace(config, info=info)

    def train(
        self,
        device: Any,
        state: State[MatcherPreset] | None,
        stop: Event,
        first: Mapping[str, Tensor] | None,
    ) -> bool:
        """Train until the budget is spent or a signal comes; whether it is spent."""
        config, scenes = self._config, self._scenes
        if state is not None:
            config = replace(config, info=state.run.info)

        open_source = source_opener(scenes, config.preset, config.seed, device)
        if first is None:
            descriptors = sampled_descriptors(scenes)
            first = first_weights(config.preset.network, config.seed, descriptors)
        trainer = MatcherTrainer(config, open_source, self._folder, device, start=first)
        if state is not None:
            trainer.restore(state)
        make_folder(self._folder)
        log = Log(self._folder, trainer.progress.step)

        def record(values: LogRecord) -> None:
            log.add(values.to_json())
            self._execution.echo(values.terminal_line())

        def benchmark(run: MatcherTrainer) -> None:
            self._benchmark(run, log)

        trainer.hooks = Hooks(record, benchmark, lambda run: log.draw())
        self._report_yardstick()
        was_done = state is not None and trainer.done >= 1
        finished = trainer.run(stop)
        if finished and not (was_done and exists(self._folder / WEIGHTS_FILE)):
            self._benchmark(trainer, log)
        log.draw()
        return finished

    def _report_yardstick(self) -> None:
        nearest = flat_figures(self._validation.nearest_neighbours())
        shown = ", ".join(f"{name} {value:.3f}" for name, value in nearest.items())
        self._execution.echo(f"held-out, nearest neighbours: {shown or 'no pairs'}")

    def _benchmark(self, run: MatcherTrainer, log: Log) -> None:
        """Measure the averaged network, and write the matcher unless an earlier one is better."""
        figures = self._validation.measure(run.average, run.device)
        current, best = score(figures), _best_score(self._folder, run.progress.step)
        log.add({"step": run.progress.step, **flat_figures(figures), "score": round(current, 5)})
        for row, values in figures.items():
            shown = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
            self._execution.echo(f"held-out, {row}: {shown}")
        manifest = {
            **manifest_of(run.folder, run.config, run.progress),
            "detector": run.config.info["detector"],
        }
        if current >= best - TIE or not exists(self._folder / WEIGHTS_FILE):
            manifest |= {"chosen_step": run.progress.step, "held_out": figures}
            save_matcher(
                self._folder, run.preset.network, run.average.arrays(), self._detector,
                detector_tensors=False, half=True, manifest=manifest,
            )  # fmt: skip
        else:
            _update_manifest(self._folder / MANIFEST_FILE, manifest)


def source_opener(
    scenes: Scenes, recipe: MatcherPreset, seed: int, device: torch.device
) -> Callable[[MatcherStage, int], BankSource | DeviceSource]:
    """(stage, first step) -> batches; made on the device if its memory has room for the bank."""
    if fits(scenes, free_bytes(device)):
        bank = DeviceBank(scenes, device)
        return lambda stage, step: DeviceSource(bank, recipe, stage, seed, step)
    return lambda stage, step: BankSource(
        lambda number: pairs_of_step(scenes, recipe, stage, seed, number), step
    )


def _initial(start: str | PathLike[str], preset: MatcherPreset) -> MatcherCheckpoint:
    """The matcher that a run starts from; TrainingError if it has other sizes."""
    loaded, expected = load_matcher(matcher_folder(start)), preset.network
    if replace(loaded.config, descriptor_length=expected.descriptor_length) != expected:
        raise TrainingError(
            f"{start}: its network is {loaded.config}, expected {expected}; start from a matcher "
            "of the same sizes, or give its --width and --layers"
        )
    return loaded


def _other_detector(
    start: str | PathLike[str], initial: MatcherCheckpoint, detector: Checkpoint
) -> Checkpoint | None:
    """The detector of the first matcher, if it is another one than the run's.

    Raises:
        TrainingError: Another one that its manifest does not name, or that is no longer there.
    """
    sha256 = initial.detector_sha256
    if sha256 in (None, detector.sha256):
        return None
    path = matcher_folder(start) / MANIFEST_FILE
    try:
        other = load_checkpoint(read_json(path)["detector"]["checkpoint"])
        problem = None if other.sha256 == sha256 else f"there are weights {other.sha256} now"
    except (OSError, ValueError, LookupError, TypeError, CheckpointError) as error:
        problem = f"{type(error).__name__}: {error}"
    if problem is not None:
        raise TrainingError(
            f"{start}: trained for other weights, {sha256}, which {path} does not lead to "
            f"({problem}); start from a matcher with its manifest and detector, or without --start"
        )
    return other


def _first_tensors(
    initial: MatcherCheckpoint,
    old: Checkpoint | None,
    detector: Checkpoint,
    data: MatcherData,
    seed: int,
    echo: Callable[[str], None],
) -> Mapping[str, Tensor]:
    """The first weights of a run that starts from a matcher, of another detector if `old` is."""
    if old is None:
        return as_tensors(initial)
    tensors, explained = transferred(initial, old, detector, data, seed)
    echo(f"start: {explained:.0%} of the variance of {old.name}'s descriptors can be predicted")
    return tensors


def _stored_state(
    folder: Path,
    detector: Checkpoint,
    preset: MatcherPreset,
    data: MatcherData,
    seed: int,
    origin: str,
) -> State[MatcherPreset] | None:
    """The state of the run in a folder, which must be the same run; None without one."""
    if not exists(folder / STATE_FILE):
        return None
    state = read_state(folder, MatcherPreset)
    run, own, given = state.run, _plain(state.run.info), _plain(_identity(detector, data))
    try:
        same = own["data"] == given["data"]
        same &= own["detector"]["sha256"] == given["detector"]["sha256"]
        same &= own["origin"] == origin
    except (LookupError, TypeError):
        same = False
    if not same or run.seed != seed or not run.preset.same_recipe(preset):
        raise TrainingError(
            f"{folder}: has another run (other recipe, data, seed, start or detector); give the "
            "arguments of that run to resume it, or another folder"
        )
    return state


def _identity(detector: Checkpoint, data: MatcherData) -> dict[str, Any]:
    """Data and detector, for the manifest."""
    named = {"checkpoint": detector.name, "sha256": detector.sha256}
    return {"data": asdict(data), "detector": named}


def _plain(value: object) -> Any:
    """A value as JSON has it."""
    return json.loads(json.dumps(value))


def _best_score(folder: Path, before: int) -> float:
    """The best score in the log of a run, before a step."""
    scores = [
        float(line["score"])
        for line in read_log(folder / LOG_FILE)
        if "score" in line and line["step"] < before
    ]
    return max(scores, default=-math.inf)


def _update_manifest(path: Path, values: Mapping[str, Any]) -> None:
    """Record later progress next to weights of an earlier step."""
    try:
        before = read_json(path)
    except (OSError, ValueError):
        return
    write_files(path.parent, {MANIFEST_FILE: {**before, **values}})
