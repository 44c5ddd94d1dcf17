"""The SuperPoint network by torch: on a CPU, an NVIDIA or an Apple GPU."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tiepoint.errors import ConfigError, EngineError
from tiepoint.geometry import Placement
from tiepoint.network.dense_maps import DenseMaps
from tiepoint.network.superpoint import SuperPoint, cell_mask, mean_heatmap
from tiepoint.weights.checkpoint import Checkpoint

Float32 = NDArray[np.float32]
NARROW = {"bf16": torch.bfloat16, "f16": torch.float16}


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
        compiled: Through torch.compile.

    Raises:
        ConfigError: A device that this torch cannot use.
        EngineError: This process was forked while torch ran on another thread.
    """

    in_flight = 1  # it takes batches instead

    def __init__(
        self, checkpoint: Checkpoint, device: str, precision: str, *, compiled: bool = False
    ) -> None:
        self.device = device
        self.precision = precision
        self.batch_size = 1 if device == "cpu" else 8
        with _noted():
            self._device = _usable(device)
            network = self._loaded(checkpoint)
        self._network: torch.nn.Module = network
        if compiled:
            self._network = torch.compile(network, dynamic=True)  # type: ignore[assignment]

    def _loaded(self, checkpoint: Checkpoint) -> SuperPoint:
        if _is_forked and self.device == "cpu":
            # OpenMP would wait forever for the parent's threads, which a fork does not copy.
            torch.set_num_threads(1)
        network = SuperPoint(checkpoint.network).load(checkpoint.tensors).eval()
        network.requires_grad_(False)
        if self.precision in NARROW:
            # Inputs are finer than bf16's 8 bits, and logits of 8 bits often tie.
            shape = checkpoint.network
            for layer in (shape.encoder_layers()[0], shape.keypoint_layers()[-1]):
                parent, _, name = layer.name.rpartition(".")
                wide = _InFloat32(network.get_submodule(layer.name))
                network.get_submodule(parent).add_module(name, wide)
        network = network.to(self._device)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network

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
        batch = torch.from_numpy(inputs)  # B 1 H W
        if self._device.type == "cuda":  # pinned, so that the copy is asynchronous
            batch = batch.pin_memory().to(self._device, non_blocking=True)
        else:
            batch = batch.to(self._device)
        if inside is not None:
            inside = inside.to(self._device)  # B 1 h w
        narrow = NARROW.get(self.precision)
        with (
            _noted(),
            torch.inference_mode(),
            torch.autocast(self._device.type, dtype=narrow, enabled=narrow is not None),
        ):
            maps = self._network(batch, inside, descriptors=descriptors, phases=phases)
            heatmap = mean_heatmap([logits for logits, _ in maps])  # B H W
        dense = tuple(one.float() for _, one in maps if one is not None)  # B D h w each
        if self._device.type == "cpu":  # OpenCV's maximum filter is far faster there than torch's
            arrays = tuple(one.numpy() for one in dense)
            return DenseMaps(heatmap.numpy(), arrays or None)
        return DenseMaps(heatmap, dense or None)


class _InFloat32(torch.nn.Module):
    """A layer that stays in float32 under autocast."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            output: Tensor = self.layer(features.float())
        return output


def _usable(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"device is {name!r}, which this torch ({torch.__version__}) cannot use: {error}"
        ) from error
    return device
