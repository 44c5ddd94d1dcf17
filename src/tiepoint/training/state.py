"""The state of a run on disk, from which it resumes bit for bit.

`state.pt` has the weights and everything small, and names a second file with the optimiser's state.
Each file is written atomically, the optimiser's first, so a run that is killed while it saves
resumes from the previous state.
"""

from __future__ import annotations

import io
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from tiepoint.checks import check_whole, check_within, is_number, shown
from tiepoint.errors import TiepointError, TrainingError, reason_of
from tiepoint.files.writing import write_bytes
from tiepoint.training.presets import Preset
from tiepoint.training.schedule import Schedule
from tiepoint.weights import torch_files

STATE_FILE = "state.pt"
OPTIMISER_FILES = "optimiser-{step}.pt"
STATE_VERSION = 1

_OPTIMISER_NAME = re.compile(OPTIMISER_FILES.format(step=r"\d{1,20}").replace(".", r"\."))


P = TypeVar("P", bound=Schedule)


@dataclass(frozen=True)
class RunConfig(Generic[P]):
    """Everything that determines a run; `info` is for the manifest (`lineage.run_info`)."""

    preset: P
    seed: int
    info: dict[str, Any] = field(default_factory=dict)


@dataclass
class Progress:
    """Progress of a run.

    Attributes:
        step: Number of optimiser steps tried, skipped ones included; also the next step's index.
        stage, stage_step: Index of the last step's stage, and number of steps tried in it.
        stage_steps: Name of each stage -> number of steps tried in it.
        seconds, waited: Training time without benchmarks, and the part spent waiting for data.
        images: Number of images seen.
        skipped: Number of steps skipped because of NaN or infinity.
        streak: Number of steps skipped in a row up to now.
    """

    step: int = 0
    stage: int = 0
    stage_step: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    images: int = 0
    skipped: int = 0
    streak: int = 0
    stage_steps: dict[str, int] = field(default_factory=dict)


@dataclass
class State(Generic[P]):
    """State of a run.

    Attributes:
        network, average: State dicts of the network and of its moving average.
        optimiser: State dict of the optimiser; empty when it was not read.
        recent: Running means that decide whether a run is hopeless.
    """

    run: RunConfig[P]
    progress: Progress
    network: dict[str, Tensor]
    average: dict[str, Tensor]
    optimiser: dict[str, Any]
    recent: dict[str, float] = field(default_factory=dict)

    @property
    def is_finished(self) -> bool:
        """Whether the run's budget is spent."""
        return self.run.preset.done(self.progress.step, self.progress.seconds) >= 1


def save_state(folder: Path, state: State[P]) -> None:
    """Write a state, or raise OutputError; the previous one stays valid until it is complete."""
    optimiser = OPTIMISER_FILES.format(step=state.progress.step)
    run = state.run
    values = {
        "version": STATE_VERSION,
        "run": {"preset": asdict(run.preset), "seed": run.seed, "about": run.info},
        "progress": vars(state.progress),
        "network": state.network,
        "average": state.average,
        "recent": state.recent,
        "optimiser_file": optimiser,
    }
    write_bytes(folder / optimiser, _pack(state.optimiser))
    write_bytes(folder / STATE_FILE, _pack(values))
    for old in folder.glob(OPTIMISER_FILES.format(step="*")):
        if old.name != optimiser:
            old.unlink(missing_ok=True)


def load_state(folder: Path, *, optimiser: bool = True) -> State[Preset]:
    """Read the state of a detector's run; see `read_state`."""
    return read_state(folder, Preset, optimiser=optimiser)


def read_state(folder: Path, recipe: type[P], *, optimiser: bool = True) -> State[P]:
    """Read a state written by `save_state`, without executing anything.

    Args:
        folder: Folder of the run.
        recipe: Class of the run's recipe.
        optimiser: Whether to read the optimiser's state, which only resuming needs.

    Raises:
        TrainingError: No state, a damaged one, or one of another version.
    """
    path = folder / STATE_FILE
    values = _unpack(path)
    if values.get("version") != STATE_VERSION:
        raise TrainingError(
            f"{path}: state of version {values.get('version')!r}, expected version "
            f"{STATE_VERSION}; resume with the tiepoint that wrote it"
        )
    try:
        run, optimiser_file = values["run"], values["optimiser_file"]
        if not _OPTIMISER_NAME.fullmatch(optimiser_file):
            raise ValueError(f"optimiser_file is {shown(optimiser_file)}")
        state = State(
            RunConfig(recipe.from_json(run["preset"]), run["seed"], run["about"]),
            Progress(**values["progress"]), values["network"], values["average"],
            _unpack(folder / optimiser_file) if optimiser else {}, values["recent"],
        )  # fmt: skip
        _check(state)
        return state
    except TiepointError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        raise TrainingError(
            f"{path}: not a training state ({type(error).__name__}: {error}); expected state.pt of "
            "tiepoint train"
        ) from error


def _check(state: State[P]) -> None:
    """Raise for progress and other values of the wrong type or out of range."""
    progress = state.progress
    for name in ("step", "stage", "stage_step", "images", "skipped", "streak"):
        check_whole(name, getattr(progress, name), minimum=0, maximum=2**62, unit="a count")
    for name in ("seconds", "waited"):
        check_within(name, getattr(progress, name), 0, 1e12, "seconds")
    check_whole("seed", state.run.seed, minimum=0, maximum=2**63 - 1, unit="a seed")
    stages = [stage.name for stage in state.run.preset.parts]
    if progress.stage >= len(stages) or not set(progress.stage_steps) <= set(stages):
        raise ValueError(f"progress in stage {progress.stage} of {len(stages)}")
    for steps in progress.stage_steps.values():
        check_whole("stage_steps", steps, minimum=0, maximum=2**62, unit="steps")
    if not isinstance(state.run.info, dict):
        raise TypeError(f"about is a {type(state.run.info).__name__}")
    if not all(map(is_number, state.recent.values())):
        raise TypeError("recent holds other values than numbers")
    for tensors in (state.network, state.average):
        if not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
            raise TypeError("a network holds other values than tensors")


def _pack(values: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(values, buffer)
    return buffer.getvalue()


def _unpack(path: Path) -> dict[str, Any]:
    try:
        values = torch_files.load(path)
    except FileNotFoundError as error:
        raise TrainingError(f"{path}: missing; expected the folder of a saved run") from error
    except Exception as error:  # torch raises a dozen types for as many kinds of damage
        reason = reason_of(error)
        raise TrainingError(
            f"{path}: not a whole training state ({reason}); copy it again or start over"
        ) from error
    if not isinstance(values, dict):
        raise TrainingError(f"{path}: holds a {type(values).__name__}, expected a training state")
    return values
