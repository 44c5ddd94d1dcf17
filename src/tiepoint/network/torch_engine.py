"""The SuperPoint network by torch: on a CPU, an NVIDIA or an Apple GPU."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tiepoint.errors import ConfigError, EngineError
from tiepoint.geometry import Placement
from tiepoint.network.dense_maps import DenseMaps, as_numpy
from tiepoint.network.superpoint import cell_mask
from tiepoint.network.torch_device import Compiled, batch_px, exact_float32, uploaded
from tiepoint.network.torch_inference import NARROW, InferenceNetwork, can_fuse
from tiepoint.weights.checkpoint import Checkpoint

Float32 = NDArray[np.float32]

BATCH = 32
"""Images in a batch: the time in which the host starts a batch's kernels does not depend on it."""

_at_work: set[int] = set()
"""Threads inside torch, by their identifiers."""

_is_forked = False

_was_at_work = False
"""Whether other threads were inside torch at a fork: this process inherited their locks."""


def _note_fork() -> None:
    global _is_forked, _was_at_work  # noqa: PLW0603
    _is_forked = True
    _was_at_work = _was_at_work or bool(_at_work)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


@contextmanager
def _noted() -> Iterator[None]:
    """Note that this thread is inside torch, and refuse it where it would wait forever."""
    if _was_at_work:
        raise EngineError(
            "this process was forked while torch ran on another thread, whose locks it inherited: "
            "start processes by multiprocessing.get_context('spawn')"
        )
    thread = threading.get_ident()
    _at_work.add(thread)
    try:
        yield
    finally:
        _at_work.discard(thread)


class TorchEngine:
    """The network on one device; safe to call from several threads.

    Args:
        device: Any that torch knows.
        compiled: Through torch.compile, once for each of the first `MAX_COMPILED` shapes.
        batched: Whether whole batches stay on the device up to their keypoints; None: with CUDA.

    Attributes:
        place: The device.
        compiled: As given.
        batched: Whether batches stay on the device.
        batch_size, batch_px: Maximum number of images in a batch, and of their pixels.

    Raises:
        ConfigError: A device that this torch cannot use.
        EngineError: This process was forked while torch ran on another thread.
    """

    in_flight = 1  # it takes batches instead

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: str,
        precision: str,
        *,
        compiled: bool = False,
        batched: bool | None = None,
    ) -> None:
        self.device, self.precision, self.compiled = device, precision, compiled
        with _noted():
            self.place = _usable(device)
            self.batched = self.place.type == "cuda" if batched is None else batched
            self.batch_size = BATCH if self.batched else 1
            if _is_forked and self.place.type == "cpu":
                # OpenMP would wait forever for the parent's threads, which a fork does not copy.
                torch.set_num_threads(1)
            dtype = NARROW.get(precision, torch.float32)
            fused = not compiled and can_fuse(self.place, dtype)
            self._network = InferenceNetwork(checkpoint, precision, fused=fused).to(self.place)
        widest = max(checkpoint.network.encoder_hidden_sizes)
        self.batch_px = batch_px(self.place, 16 * widest)
        self._compiled = Compiled(self._network, self.place) if compiled else None

    def run(
        self,
        inputs: Float32,
        placements: Sequence[Placement],
        *,
        descriptors: bool,
        phases: int = 1,
    ) -> DenseMaps[Any]:
        """See `Engine.run`. The padding of smaller images is masked after every layer."""
        height, width = inputs.shape[2:]
        inside = cell_mask([placement.padded_hw for placement in placements], (height, width))
        with self.at_work():
            pixels = uploaded(torch.from_numpy(inputs), self.place)  # B 1 H W
            inside = None if inside is None else uploaded(inside, self.place)  # B 1 h w
            shape = (inputs.shape, inside is None, descriptors, phases)
            network = partial(self._compiled, shape) if self._compiled else self._network
            grids = network(pixels, inside, descriptors=descriptors, phases=phases)
            heatmap, dense = grids.heatmap, grids.by_phase()
        if self.place.type == "cuda":
            return DenseMaps(heatmap, dense)
        # OpenCV's maximum filter is far faster on a CPU, and Apple's GPUs lack float64.
        arrays = None if dense is None else tuple(as_numpy(dense))
        return DenseMaps(as_numpy([heatmap])[0], arrays)

    @contextmanager
    def at_work(self) -> Iterator[InferenceNetwork]:
        """The network, in a context in which this thread may use the device.

        Raises:
            EngineError: This process was forked while torch ran on another thread.
        """
        with _noted(), torch.inference_mode(), exact_float32(self.place, tuned=self.compiled):
            yield self._network


def _usable(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"device is {name!r}, which this torch ({torch.__version__}) cannot use: {error}"
        ) from error
    return device
