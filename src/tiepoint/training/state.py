"""A run's state on disk: what is needed to go on as if it had never stopped.

`state.pt` holds the weights and everything small; the optimiser's state lies in a file of its own
that it names. Each is written whole or not at all, the optimiser's first, so a run that is killed
while writing goes on from the state before.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tiepoint.errors import TrainingError
from tiepoint.files import write_bytes

STATE_FILE = "state.pt"
OPTIMISER_FILES = "optimiser-{step}.pt"
STATE_VERSION = 1


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        step: Optimiser steps tried, skipped ones included; also the next step's number.
        stage: Number of the stage that the last step belonged to.
        stage_step: Steps tried in it.
        stage_steps: Name of the stage -> steps tried in it so far.
        seconds: Spent on training so far, benchmarks apart.
        waited: Of these, spent waiting for data.
        images: Seen so far.
        skipped: Steps left out because of NaN or infinity.
        streak: The last so many steps were all skipped.
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
class State:
    """Attributes:
    run: Preset, seed, data and origin as plain values; see `trainer.RunConfig`.
    progress: How far it is.
    network, average: State dicts.
    optimiser: Its state dict.
    recent: Running means that decide whether a run is hopeless.
    """

    run: dict[str, Any]
    progress: Progress
    network: dict[str, Tensor]
    average: dict[str, Tensor]
    optimiser: dict[str, Any]
    recent: dict[str, float] = field(default_factory=dict)


def save_state(folder: Path, state: State) -> None:
    """Write a state; the one before stays valid until the new one is whole.

    Raises:
        FormatError: The folder cannot be written to.
    """
    optimiser = OPTIMISER_FILES.format(step=state.progress.step)
    values = {
        "version": STATE_VERSION,
        "run": state.run,
        "progress": vars(state.progress),
        "network": state.network,
        "average": state.average,
        "recent": state.recent,
        "optimiser_file": optimiser,
    }
    write_bytes(folder / optimiser, _packed(state.optimiser))
    write_bytes(folder / STATE_FILE, _packed(values))
    for old in folder.glob(OPTIMISER_FILES.format(step="*")):
        if old.name != optimiser:
            old.unlink(missing_ok=True)


def load_state(folder: Path, *, optimiser: bool = True) -> State:
    """Read what `save_state` wrote, executing nothing.

    Args:
        optimiser: False leaves its file alone, which need not be there: all but resuming does
            without.

    Raises:
        TrainingError: No state there, a damaged one, or one of another version.
    """
    values = _unpacked(folder / STATE_FILE)
    if values.get("version") != STATE_VERSION:
        raise TrainingError(
            f"{folder / STATE_FILE}: state of version {values.get('version')!r}, this tiepoint "
            f"knows version {STATE_VERSION}; go on with the version that wrote it"
        )
    return State(
        run=values["run"],
        progress=Progress(**values["progress"]),
        network=values["network"],
        average=values["average"],
        optimiser=_unpacked(folder / values["optimiser_file"]) if optimiser else {},
        recent=values["recent"],
    )


def _packed(values: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(values, buffer)
    return buffer.getvalue()


def _unpacked(path: Path) -> dict[str, Any]:
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise TrainingError(
            f"{path}: missing; expected the folder of a run that has been saved"
        ) from error
    except Exception as error:  # torch names a dozen kinds of damage by as many types
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise TrainingError(
            f"{path}: not a whole training state ({reason}); copy it again or start anew"
        ) from error
    if not isinstance(values, dict):
        raise TrainingError(f"{path}: holds a {type(values).__name__}, not a training state")
    return values
