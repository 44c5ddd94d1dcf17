"""The SuperPoint network on a CPU by OpenVINO, built from the tensors without torch."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from platform import machine
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiepoint.architecture import PHASES
from tiepoint.errors import ConfigError
from tiepoint.geometry import Placement, grid_hw
from tiepoint.network.dense_maps import DenseMaps
from tiepoint.network.openvino_graph import build_model, heatmap_model
from tiepoint.network.pixel_bytes import pixel_bytes
from tiepoint.network.runtime import (
    capabilities,
    compiled_model,
    keep_in_child,
    new_core,
    ov,
    refuse_after_fork,
)
from tiepoint.network.signal_stack import own_signal_stack
from tiepoint.weights.checkpoint import Checkpoint

Float32 = NDArray[np.float32]
SizeBhw = tuple[int, int, int]

X86 = ("x86_64", "AMD64")
"""Names that `platform.machine` has for x86 processors."""

NEEDED = {"bf16": "BF16", "f16": "FP16", "int8": "INT8"}
"""OpenVINO's name of the capability that each precision needs."""

KEPT_NETWORKS, KEPT_PX = 8, 2**22
"""Maximum number of networks compiled for one size, and px of all their inputs. Each takes the
memory of one image; an image at two scales needs two networks."""

COMPILED_PX = KEPT_PX // 2
"""Larger inputs share one network for all sizes, because a graph of one size compiles slowly."""

FREED_ONCE = 31 * 2**20
"""Bytes; glibc adapts to arrays below 32 MiB."""


class _Key(NamedTuple):
    """What a network is compiled for; see `build_model`."""

    descriptors: bool
    phases: int
    size_bhw: SizeBhw | None


@dataclass(frozen=True)
class _Network:
    """A compiled model, one of its heat map if that is apart, and its idle requests."""

    model: ov.CompiledModel
    heatmap: ov.CompiledModel | None
    idle: queue.SimpleQueue[ov.InferRequest] = field(default_factory=queue.SimpleQueue)


class OpenVinoEngine:
    """One network for all image sizes, or one per size; safe to call from several threads.

    Args:
        streams: Concurrent inference requests, each on its share of the cores; one takes all.
        threads: Maximum number of cores; None takes all that the process may use.
        in_flight: Images to keep in flight; more than `streams`, so that decoding and selection
            overlap with inference.
        compiled: Compile for each size of images, up to 2 megapixels: a few tenths of a second
            once, then faster. The last few networks are kept.

    Raises:
        ConfigError: A precision that this processor or this checkpoint does not support.
        EngineError: A process forked from one that had an engine; see `runtime.refuse_after_fork`.
    """

    batch_size = 1  # several images per call gain nothing on a CPU

    def __init__(
        self,
        checkpoint: Checkpoint,
        precision: str,
        *,
        streams: int = 1,
        threads: int | None = None,
        in_flight: int = 1,
        compiled: bool = False,
    ) -> None:
        _check_precision(checkpoint, precision)
        keep_in_child(self)
        _keep_freed_memory()
        self.precision, self.in_flight = precision, in_flight
        # OpenVINO's own default is bf16 if the processor has it, so the precision is always set.
        wide_layers = "bf16" if has_bf16() else "f32"  # layers that int8 is not enough for
        hint = wide_layers if precision == "int8" else precision
        self._in_bytes = hint == "bf16"
        options = {
            "INFERENCE_PRECISION_HINT": hint,
            **({"PERFORMANCE_HINT": "LATENCY"} if streams == 1 else {"NUM_STREAMS": streams}),
        }
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        self._core, self._options, self._checkpoint = new_core(), options, checkpoint
        self._lock = threading.Lock()
        self._per_size = compiled
        # On ARM OpenVINO's own convolutions save products.
        self._use_winograd = compiled and precision == "f32" and machine() in X86
        self._networks: dict[_Key, _Network] = {}
        if not compiled:
            self._network(_Key(descriptors=True, phases=checkpoint.detection.phases, size_bhw=None))

    def run(
        self,
        inputs: Float32,
        placements: Sequence[Placement],
        *,
        descriptors: bool,
        phases: int = 1,
    ) -> DenseMaps[Float32]:
        """See `Engine.run`. Images of different sizes run one by one, so no padding leaks in."""
        refuse_after_fork()
        areas = [placement.padded_hw for placement in placements]
        if all(area == inputs.shape[2:] for area in areas):
            heatmap, dense = self._infer(inputs, descriptors=descriptors, phases=phases)
            return DenseMaps(heatmap, dense or None)
        singles = [
            self._infer(
                np.ascontiguousarray(inputs[i : i + 1, :, :height, :width]),
                descriptors=descriptors,
                phases=phases,
            )
            for i, (height, width) in enumerate(areas)
        ]
        H, W = inputs.shape[2:]
        cells = [grid_hw((H, W), shift) for shift in PHASES[phases]]
        dense = tuple(
            _stack(each, hw)  # B D h w
            for each, hw in zip(zip(*(one for _, one in singles), strict=True), cells, strict=False)
        )
        return DenseMaps(_stack([heatmap for heatmap, _ in singles], (H, W)), dense or None)

    def _infer(
        self, inputs: Float32, *, descriptors: bool, phases: int
    ) -> tuple[Float32, tuple[Float32, ...]]:
        """B 1 H W -> B H W and, if requested, B D h w of each phase."""
        values = pixel_bytes(inputs) if self._in_bytes else inputs
        B, _, H, W = inputs.shape
        own_size = self._per_size and B * H * W <= COMPILED_PX
        size_bhw = (B, H, W) if own_size else None
        network = self._network(_Key(descriptors, phases, size_bhw))
        try:
            request = network.idle.get_nowait()
        except queue.Empty:
            request = network.model.create_infer_request()
        try:
            tensor = ov.Tensor(values, shared_memory=True)
            with own_signal_stack():
                shared = request.infer({0: tensor}, share_outputs=True)  # without a second copy
            outputs = [output.copy() for output in shared.values()]
        finally:
            network.idle.put(request)
        if network.heatmap is not None:
            logits = {i: ov.Tensor(outputs[i], shared_memory=True) for i in range(phases)}
            with own_signal_stack():
                outputs[:phases] = [network.heatmap.create_infer_request().infer(logits)[0]]
        # Each cell's values are contiguous, as `describe` reads them.
        dense = tuple(
            np.moveaxis(output.reshape(B, *grid_hw((H, W), shift), -1), -1, 1)  # B D h w
            for output, shift in zip(outputs[1:], PHASES[phases], strict=False)
        )
        return outputs[0].reshape(B, H, W), dense

    def _network(self, wanted: _Key) -> _Network:
        with self._lock:  # threads that start together compile one network, not one each
            network = self._networks.pop(wanted, None) or self._compiled(wanted)
            self._networks[wanted] = network  # most recently used last
            self._forget_oldest()
            return network

    def _compiled(self, wanted: _Key) -> _Network:
        is_f16 = self.precision == "f16"  # which OpenVINO keeps to the very end, unlike bf16
        model = build_model(
            self._checkpoint, descriptors=wanted.descriptors, in_bytes=self._in_bytes,
            quantized=self.precision == "int8", logits=is_f16, phases=wanted.phases,
            size_bhw=wanted.size_bhw,
            use_winograd=self._use_winograd and wanted.size_bhw is not None,
        )  # fmt: skip
        heatmap = None
        if is_f16:
            wide = {**self._options, "INFERENCE_PRECISION_HINT": "f32"}
            heatmap = compiled_model(self._core, heatmap_model(wanted.phases), wide)
        return _Network(compiled_model(self._core, model, self._options), heatmap)

    def _forget_oldest(self) -> None:
        """Drop the least recently used networks of one size beyond the limits; keep the last."""
        sizes = {key: math.prod(key.size_bhw) for key in self._networks if key.size_bhw is not None}
        for key in list(sizes)[:-1]:
            if len(sizes) <= KEPT_NETWORKS and sum(sizes.values()) <= KEPT_PX:
                return
            del self._networks[key], sizes[key]


def _check_precision(checkpoint: Checkpoint, precision: str) -> None:
    needed = NEEDED.get(precision)
    if needed and needed not in capabilities():
        raise ConfigError(
            f"precision {precision!r}: this processor does not compute in it; use 'f32'"
        )
    if precision == "int8" and checkpoint.activation_maxima is None:
        raise ConfigError(
            f"precision 'int8': checkpoint {checkpoint.name!r} has no complete quantization.json "
            "for its weights; run tiepoint quantize on its folder"
        )
    if precision == "int8" and not checkpoint.activation_maxima:
        raise ConfigError(
            f"precision 'int8': {checkpoint.name!r} is too narrow a network to gain anything from "
            "8 bits; use 'bf16' or 'f32'"
        )


def has_bf16() -> bool:
    """Whether this processor computes in bfloat16."""
    return NEEDED["bf16"] in capabilities()


def _keep_freed_memory() -> None:
    """Have the C library reuse the memory of the last image's maps.

    glibc returns freed memory to the system above a threshold, and then every image pays for
    fresh pages. The threshold rises to twice the largest array below 32 MiB that was ever freed;
    this one is never written to. Other C libraries are not affected.
    """
    np.empty(FREED_ONCE, np.uint8)


def _stack(singles: Sequence[Float32], size_hw: tuple[int, int]) -> Float32:
    """1 ... h' w' each -> B ... h w, zero outside."""
    batch = np.zeros((len(singles), *singles[0].shape[1:-2], *size_hw), dtype=np.float32)
    for image, single in zip(batch, singles, strict=True):
        image[..., : single.shape[-2], : single.shape[-1]] = single[0]
    return batch
