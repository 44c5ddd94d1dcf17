"""Choose and build engines. OpenVINO needs no torch; torch also runs on CUDA and MPS."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from typing import Any, NamedTuple, get_args

from tiepoint.checks import check_choice, check_whole
from tiepoint.config import DeviceName, EngineName, Precision
from tiepoint.errors import ConfigError, MissingExtraError, is_installed
from tiepoint.network.cores import cpu_quota, usable_cores
from tiepoint.network.engine import Engine, Workload
from tiepoint.weights.checkpoint import Checkpoint

ENGINES: tuple[EngineName, ...] = ("openvino", "torch")
PRECISIONS: tuple[Precision, ...] = ("f32", "bf16", "f16", "int8")

MAX_STREAMS = 4
"""Upper bound on concurrent inference requests; each needs its own buffers, and one request uses
several cores well."""


class EngineChoice(NamedTuple):
    """An engine, device and precision without any "auto"."""

    engine: str
    device: str
    precision: str


def resolve_engine(engine: str, device: str, precision: str) -> EngineChoice:
    """Replace every "auto".

    An NVIDIA or Apple GPU with torch installed comes first, else OpenVINO on the CPU: in bfloat16
    if the processor or NVIDIA's GPU computes in it, else in float32. Without OpenVINO torch runs on
    the CPU too, in float32.

    Raises:
        ConfigError: An unknown engine or precision, or a device the engine does not run on.
        MissingExtraError: The engine is not installed.
    """
    check_choice("engine", engine, get_args(EngineName))
    check_choice("precision", precision, get_args(Precision))
    device = str(device)  # of a torch.device too; a bare number is refused by name
    kind = device.split(":", maxsplit=1)[0]
    if kind not in ("auto", "cpu", "cuda", "mps"):
        raise ConfigError(f"device is {device!r}, expected auto, cpu, cuda, cuda:N or mps")
    if engine == "openvino" and kind not in ("auto", "cpu"):
        raise ConfigError(f"engine 'openvino' runs on the CPU here, not on {device!r}")
    if precision == "int8" and (engine, device) == ("auto", "auto"):
        engine = "openvino"  # the only one that has it
    if device == "auto":
        device = "cpu" if engine == "openvino" else _find_gpu() or "cpu"
    if engine == "auto":
        has_openvino = is_installed("openvino") or not is_installed("torch")
        engine = "openvino" if device == "cpu" and has_openvino else "torch"
    if engine == "torch" and precision == "int8":
        raise ConfigError(
            "precision 'int8' is for engine 'openvino' on device 'cpu'; with torch use 'bf16' or "
            "'f16'"
        )
    if not is_installed(engine):
        raise MissingExtraError(f"engine {engine!r} on device {device!r}", engine)
    if precision == "auto":
        has_bf16 = _cpu_has_bf16() if engine == "openvino" else gpu_has_bf16(device)
        precision = "bf16" if has_bf16 else "f32"
    return EngineChoice(engine, device, precision)


class EnginePool:
    """The engines of one detector, one for each workload. Thread-safe, picklable.

    An engine is built on first use in each process, because its threads do not survive a fork.

    Args:
        engine: A name, or an engine that serves every workload.
        device, precision: See `resolve_engine`; of no use with an engine.
        compiled, threads: See `build_engine`.

    Attributes:
        choice: What was resolved; of a given engine the name of its class.
        exclusive: Lock of inputs that are processed with no other in flight.
        helper: One thread for work beside a single image; None on one core.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        engine: EngineName | Engine,
        device: DeviceName,
        precision: Precision,
        *,
        compiled: bool,
        threads: int | None,
    ) -> None:
        self._checkpoint, self._compiled, self._threads = checkpoint, compiled, threads
        self._given = None if isinstance(engine, str) else engine
        if isinstance(engine, str):
            self.choice = resolve_engine(engine, device, precision)
            check_threads(self.choice.engine, threads)
        elif not all(hasattr(engine, name) for name in ("run", "batch_size", "in_flight")):
            raise ConfigError(
                f"engine is {engine!r}, expected {', '.join(get_args(EngineName))}, or an object "
                "with run, batch_size and in_flight"
            )
        else:
            self.choice = EngineChoice(type(engine).__name__, "own", "own")
        self._set_up()

    def get(self, workload: Workload) -> Engine:
        """The engine for a workload."""
        if self._pid != os.getpid():
            self._set_up()
        if self._given is not None:
            return self._given
        if self.choice.engine == "torch":  # which takes batches instead of streams
            workload = "single"
        with self._lock:
            if workload not in self._engines:
                self._engines[workload] = build_engine(
                    self._checkpoint,
                    self.choice,
                    workload,
                    compiled=self._compiled,
                    threads=self._threads,
                )
            return self._engines[workload]

    def with_threads(self, threads: int) -> EnginePool:
        """Engines of the same kind on at most this number of cores; see `check_threads`."""
        check_threads(self.choice.engine, threads)
        other = copy(self)
        other._threads = threads
        other._set_up()
        return other

    def _set_up(self) -> None:
        self._pid = os.getpid()
        self._engines: dict[Workload, Engine] = {}
        self._lock, self.exclusive = threading.Lock(), threading.Lock()
        several = usable_cores(self._threads) > 1
        # The thread starts on first use.
        self.helper = ThreadPoolExecutor(1, "tiepoint-helper") if several else None

    def __getstate__(self) -> dict[str, Any]:
        own = ("_pid", "_engines", "_lock", "exclusive", "helper")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._set_up()


def build_engine(
    checkpoint: Checkpoint,
    choice: EngineChoice,
    workload: Workload = "single",
    *,
    compiled: bool = False,
    threads: int | None = None,
) -> Engine:
    """Make a checkpoint's network ready to run.

    Args:
        choice: From `resolve_engine`.
        compiled: Through torch.compile; or by OpenVINO for each size of images.
        threads: Maximum number of cores; None takes all; see `check_threads`.
    """
    if choice.engine == "torch":
        from tiepoint.network.torch_engine import TorchEngine

        return TorchEngine(checkpoint, choice.device, choice.precision, compiled=compiled)
    from tiepoint.network.openvino_engine import OpenVinoEngine

    if threads is None and cpu_quota() is not None:  # which OpenVINO does not know
        threads = usable_cores()
    if workload == "single":
        return OpenVinoEngine(checkpoint, choice.precision, threads=threads, compiled=compiled)
    cores = usable_cores(threads)
    streams = max(n for n in range(1, MAX_STREAMS + 1) if cores % n == 0)
    # One more than there are cores fills the gaps in which a thread waits for Python.
    in_flight = 1 if cores == 1 else min(2 * streams, cores + 1)
    return OpenVinoEngine(
        checkpoint,
        choice.precision,
        streams=streams,
        threads=threads,
        in_flight=in_flight,
        compiled=compiled,
    )


def check_threads(engine: str, threads: int | None) -> None:
    """Refuse a number of threads that a resolved engine cannot take.

    Raises:
        ConfigError: Fewer than one; or torch, which has one number for the whole process.
    """
    if threads is None:
        return
    check_whole("threads", threads, minimum=1, unit="threads, or None for all cores")
    if engine != "openvino":
        raise ConfigError("threads is for engine='openvino'; for torch call torch.set_num_threads")


def gpu_has_bf16(device: str) -> bool:
    """Whether an NVIDIA GPU multiplies bfloat16 numbers: from compute capability 8 on (Ampere)."""
    if not device.startswith("cuda"):
        return False
    import torch

    try:
        major, _ = torch.cuda.get_device_capability(device)
    except (RuntimeError, AssertionError):  # no such GPU: building the engine gives the reason
        return False
    return major >= 8


def _cpu_has_bf16() -> bool:
    from tiepoint.network.openvino_engine import has_bf16

    return has_bf16()


def _find_gpu() -> str | None:
    """A GPU that torch could use; the driver is asked first: importing torch takes seconds."""
    if not is_installed("torch"):
        return None
    if sys.platform == "darwin":
        return "mps" if platform.machine() == "arm64" else None
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(library)
        count = ctypes.c_int(0)
        found = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    except (OSError, AttributeError):
        return None
    if not found or count.value == 0:
        return None
    import torch  # a driver alone is not enough: torch may be a CPU build

    return "cuda" if torch.cuda.is_available() else None
