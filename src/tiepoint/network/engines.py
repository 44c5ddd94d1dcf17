"""Engines: pixels -> dense maps. OpenVINO needs no torch; torch also runs on CUDA and MPS."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from tiepoint.config import DescriptorSampling, DetectionConfig
from tiepoint.errors import ConfigError, MissingExtraError, is_installed
from tiepoint.geometry import Placement
from tiepoint.keypoints.result import Keypoints, Masks
from tiepoint.network.dense_maps import DenseMaps
from tiepoint.weights.checkpoint import Checkpoint

Engine = Literal["auto", "openvino", "torch"]
Precision = Literal["auto", "f32", "bf16", "f16", "int8"]
ENGINES = ("openvino", "torch")
PRECISIONS = ("f32", "bf16", "f16", "int8")

MOST_STREAMS = 4
"""Images in the network at once: each needs memory of its own, and a few cores share one well."""


class Runtime(Protocol):
    """A network made ready to run.

    Attributes:
        engine, device, precision: What runs, for `meta`.
        batch_size: How many images in one call suit it.
        at_once: How many calls at once suit it, from as many threads.
    """

    engine: str
    device: str
    precision: str
    batch_size: int
    at_once: int

    def __call__(
        self, pixels: NDArray[np.float32], placements: Sequence[Placement], descriptors: bool
    ) -> DenseMaps[Any]:
        """Run the network on B 1 H W float32 in 0..1."""

    def extract(
        self,
        maps: DenseMaps[Any],
        placements: Sequence[Placement],
        config: DetectionConfig,
        sampling: DescriptorSampling,
        masks: Masks = None,
    ) -> list[Keypoints[NDArray[np.float32]]]:
        """Dense maps, where they lie, to keypoints as NumPy arrays."""


def choose(engine: str, device: str, precision: str) -> tuple[str, str, str]:
    """Settle every "auto".

    An NVIDIA or Apple GPU with torch installed is taken first, else OpenVINO on the CPU: there in
    bfloat16 where the processor has arithmetic for it, else in float32. torch takes float32 unless
    told: in bfloat16 its keypoints depend a little on the batch they come in.

    Raises:
        ConfigError: An unknown engine or precision, or a device the engine does not run on.
        MissingExtraError: torch was asked for and is not installed.
    """
    if engine not in ("auto", *ENGINES):
        raise ConfigError(f"engine is {engine!r}, expected one of auto, {', '.join(ENGINES)}")
    if precision not in ("auto", *PRECISIONS):
        raise ConfigError(
            f"precision is {precision!r}, expected one of auto, {', '.join(PRECISIONS)}"
        )
    device = str(device)  # a torch.device says its name; a bare number is refused by name
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
        engine = "openvino" if device == "cpu" else "torch"
    if engine == "torch" and precision == "int8":
        raise ConfigError(
            "precision 'int8' is for engine 'openvino' on device 'cpu'; with torch use 'bf16' or "
            "'f16'"
        )
    if engine == "torch" and not is_installed("torch"):
        raise MissingExtraError(f"engine 'torch' on device {device!r}", "torch")
    if precision == "auto":
        precision = "bf16" if engine == "openvino" and _cpu_has_bf16() else "f32"
    return engine, device, precision


def build(
    checkpoint: Checkpoint,
    engine: str,
    device: str,
    precision: str,
    *,
    many: bool = False,
    compiled: bool = False,
    threads: int | None = None,
) -> Runtime:
    """The network of a checkpoint on a settled engine, device and precision.

    Args:
        many: For many images rather than for the least time of one.
        compiled: Through torch.compile; or by OpenVINO anew for each size of images.
        threads: Most cores to take; None takes all; see `check_threads`.
    """
    if engine == "torch":
        from tiepoint.network.torch_engine import TorchRuntime

        return TorchRuntime(checkpoint, device, precision, compiled)
    from tiepoint.network.openvino_engine import OpenVinoRuntime

    cores = min(threads or _cores(), _cores())
    if not many:
        return OpenVinoRuntime(
            checkpoint, precision, threads=threads, beside=cores > 1, compiled=compiled
        )
    streams = max(n for n in range(1, MOST_STREAMS + 1) if cores % n == 0)
    # One more than there are cores fills the gaps in which a thread waits for Python.
    at_once = 1 if cores == 1 else min(2 * streams, cores + 1)
    return OpenVinoRuntime(checkpoint, precision, streams, threads, at_once, compiled=compiled)


def check_threads(engine: str, threads: int | None) -> None:
    """Refuse a number of threads that a settled engine cannot take.

    Raises:
        ConfigError: Fewer than one; or torch, whose number is one for the whole process.
    """
    if threads is None:
        return
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise ConfigError(f"threads is {threads!r}, expected a whole number of at least 1, or None")
    if engine != "openvino":
        raise ConfigError(
            "threads goes with engine='openvino'; of torch set them by torch.set_num_threads"
        )


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # what this process may use
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_has_bf16() -> bool:
    from tiepoint.network.openvino_engine import has_bf16

    return has_bf16()


def _find_gpu() -> str | None:
    """A GPU that torch could use, asked of the driver, since importing torch takes seconds."""
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
