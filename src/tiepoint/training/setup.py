"""Set up the process and the machine for training: threads, memory, device, workers, signals.

Importing this module loads no torch.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tiepoint.errors import ConfigError, MissingExtraError, is_installed, reason_of
from tiepoint.network.cores import usable_cores

if TYPE_CHECKING:
    import torch

COMPILE_FROM_MINUTES = 10.0
"""Minimum budget that repays the minute per stage of torch.compile."""

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # from glibc's malloc.h


@dataclass(frozen=True)
class Execution:
    """How a run uses the machine. It changes speed and messages, never the recipe.

    Attributes:
        workers: Number of processes that draw pairs; 0 draws them in this one.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        compiled: Whether the network runs through torch.compile.
        echo: Called with each line for the terminal.
    """

    workers: int = 0
    device: str = "auto"
    compiled: bool = False
    echo: Callable[[str], None] = print


def set_up_torch(threads: int | None) -> None:
    """Import torch and tune this process for training.

    Torch's threads wait for one another in every layer. While they wait they must sleep, because
    spinning takes the core from a data worker or from the thread they wait for. Without `threads`
    each core gets one. Raises MissingExtraError if torch is not installed.
    """
    if not is_installed("torch"):
        raise MissingExtraError("Training", "torch")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is first imported
    import torch

    torch.set_num_threads(threads or usable_cores())
    torch.backends.cudnn.benchmark = True  # image sizes are constant within a stage
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for the next step; elsewhere do nothing.

    Mapping and unmapping every large tensor costs a fifth of a training step on a CPU.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 2**28)):
            mallopt(option, value)


def should_compile(requested: bool | None, *, minutes: float | None) -> bool:
    """Whether to run the network through torch.compile.

    Args:
        requested: The user's choice. None compiles on a CPU with a C++ compiler, for budgets of at
            least `COMPILE_FROM_MINUTES`.
        minutes: Budget in minutes; None when it is in steps.
    """
    if requested is not None:
        return requested
    import torch

    has_compiler = any(shutil.which(name) for name in ("g++", "clang++", "c++"))
    is_long = minutes is not None and minutes >= COMPILE_FROM_MINUTES
    return has_compiler and is_long and not torch.cuda.is_available()


def default_workers() -> int:
    """All cores but one, which trains; at least 1."""
    return max(1, usable_cores() - 1)


def find_device(name: str) -> torch.device:
    """Resolve a device name; `auto` takes a CUDA GPU if there is one, else the CPU.

    Raises ConfigError for a device that this machine does not have.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"device {name!r} cannot be used ({reason_of(error)}); expected auto, cpu, "
            "cuda, cuda:N or mps"
        ) from error
    return device


class Stop(threading.Event):
    """Event set by a signal; `number` is the signal's."""

    number: int | None = None


@contextmanager
def stopped_by_signals() -> Iterator[Stop]:
    """Set an event on SIGINT and SIGTERM, so that a run saves after its current step.

    A second signal has its usual effect.
    """
    stop = Stop()
    handlers: dict[int, Any] = {}

    def note(number: int, _: object) -> None:
        stop.number = number
        stop.set()
        signal.signal(number, handlers[number])

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            handlers[number] = signal.signal(number, note)
    try:
        yield stop
    finally:
        for handled, handler in handlers.items():
            signal.signal(handled, handler)
