"""What only a GPU needs: uploads and downloads that wait for nothing, exact float32, compiling.

On a CPU everything here is a plain copy or a plain call. Copies of CUDA start from pinned memory
and return at once. torch's allocator keeps the pinned memory until the copy is done.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

MAX_COMPILED = 8
"""Shapes that are compiled, each for a minute; others run as they are."""

MAX_BATCH_PX = 32 * 480 * 640
"""Larger batches are no faster: the host starts the next one while the device is busy."""

_flags = threading.RLock()
"""Held while torch's flags are changed: they are those of the process, and are put back after."""


def uploaded(values: Tensor, place: torch.device) -> Tensor:
    """A tensor of the CPU on a device; the host does not wait."""
    if place.type != "cuda":
        return values.to(place, non_blocking=True)
    return values.pin_memory().to(place, non_blocking=True)


def sizes_on(sizes: Sequence[Sequence[int]], place: torch.device) -> Tensor:
    """Numbers of each image, such as (height, width), as int64 on a device."""
    return uploaded(torch.tensor(sizes), place)


class Download:
    """A copy to the CPU that has been started.

    Args:
        values: On any device; must not change before `wait` returns.
    """

    def __init__(self, values: Tensor) -> None:
        self._done = None
        if values.device.type != "cuda":
            self._values = values.cpu()
            return
        self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        self._values.copy_(values, non_blocking=True)
        self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._done.record(torch.cuda.current_stream(values.device))

    def wait(self) -> Tensor:
        """The values, once they are there: the only time that the host waits for a batch."""
        if self._done is not None:
            self._done.synchronize()
        return self._values


@contextmanager
def exact_float32(place: torch.device, *, tuned: bool = False) -> Iterator[None]:
    """Convolutions in float32 keep all bits, unless `torch.set_float32_matmul_precision` allows 10.

    torch allows cuDNN the 10 bits of TF32 by default.

    Args:
        tuned: Whether cuDNN may try its algorithms for each new shape and keep the fastest.
    """
    if place.type != "cuda":
        yield
        return
    rounded = torch.get_float32_matmul_precision() != "highest"
    benchmark = True if tuned else None  # None leaves what is set
    with _flags, torch.backends.cudnn.flags(
        enabled=None, benchmark=benchmark, benchmark_limit=None, deterministic=None,
        allow_tf32=rounded,
    ):  # fmt: skip
        yield


class Compiled:
    """A function through torch.compile, for each of the first shapes.

    Args:
        function: Takes tensors.
        graphs: On a GPU, whether the kernels are recorded and replayed as one: a call's results
            must be used up before the next, which writes to the same memory.
    """

    def __init__(
        self, function: Callable[..., Any], place: torch.device, *, graphs: bool = False
    ) -> None:
        self._function = function
        mode = "reduce-overhead" if graphs and place.type == "cuda" else "default"
        self._compiled = torch.compile(function, dynamic=False, mode=mode)
        self._shapes: set[Hashable] = set()
        self._lock = threading.Lock()

    def __call__(self, shape: Hashable, *tensors: Any, **settings: Any) -> Any:
        """Call the function.

        Args:
            shape: What decides which one is compiled.
        """
        with self._lock:
            if len(self._shapes) < MAX_COMPILED:
                self._shapes.add(shape)
            is_compiled = shape in self._shapes
        return (self._compiled if is_compiled else self._function)(*tensors, **settings)


class Upload:
    """A copy to a device that has been started beside what the device computes.

    Args:
        values: Tensor of the CPU.
        stream: Result of `upload_stream`.
    """

    def __init__(self, values: Tensor, place: torch.device, stream: Any) -> None:
        self._place, self._arrived = place, None
        if stream is None:
            self._values = uploaded(values, place)
            return
        with torch.cuda.stream(stream):
            self._values = uploaded(values, place)
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record()

    def take(self) -> Tensor:
        """The values; what this thread asks the device for from now on waits for them there."""
        if self._arrived is not None:
            stream = torch.cuda.current_stream(self._place)
            stream.wait_event(self._arrived)
            self._values.record_stream(stream)  # so that their memory is not reused before
        return self._values


def upload_stream(place: torch.device) -> Any:
    """A stream for `Upload`; None where there are no streams."""
    if place.type != "cuda":
        return None
    return torch.cuda.Stream(place)  # type: ignore[no-untyped-call]


def batch_px(place: torch.device, bytes_per_px: int) -> int:
    """Pixels in a batch that take at most half of the memory that is free now."""
    if place.type != "cuda":
        return MAX_BATCH_PX
    free, _ = torch.cuda.mem_get_info(place)
    return min(MAX_BATCH_PX, int(free) // 2 // bytes_per_px)
