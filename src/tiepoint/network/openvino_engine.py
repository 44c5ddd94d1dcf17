"""The SuperPoint network on a CPU by OpenVINO, built from the tensors without torch."""

from __future__ import annotations

import ctypes
import math
import os
import queue
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from platform import machine

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from tiepoint.architecture import CELL_PX
from tiepoint.config import DescriptorSampling, DetectionConfig
from tiepoint.errors import ConfigError
from tiepoint.geometry import Placement
from tiepoint.keypoints import postprocess
from tiepoint.keypoints.result import Keypoints, Masks
from tiepoint.network.dense_maps import DenseMaps
from tiepoint.network.openvino_graph import build_model, heatmap_model, pixel_bytes
from tiepoint.weights.checkpoint import Checkpoint

Float32 = NDArray[np.float32]
SizeBhw = tuple[int, int, int]

X86 = ("x86_64", "AMD64")
"""What `platform.machine` calls such processors."""

NEEDED = {"bf16": "BF16", "f16": "FP16", "int8": "INT8"}
"""OpenVINO's names of what a processor must be able to do."""

KEPT_NETWORKS, KEPT_PX = 8, 2**22
"""Compiled for one size each, and px of all their inputs: each has the memory of one image. An
image that is looked at in two sizes takes two."""

COMPILED_PX = KEPT_PX // 2
"""Larger inputs have one network for all sizes: the graph for one would take long to compile."""

FREED_ONCE = 31 * 2**20
"""Bytes; glibc learns from arrays below 32 MiB."""


@dataclass(frozen=True)
class _Network:
    """A compiled model and its requests that wait for work."""

    model: ov.CompiledModel
    idle: queue.SimpleQueue[ov.InferRequest] = field(default_factory=queue.SimpleQueue)


class OpenVinoRuntime:
    """One network for all image sizes, or one for each; safe to call from several threads.

    Args:
        streams: Calls that run at once, each on its part of the cores; one takes them all.
        threads: Most cores to take; None takes all that the process may use.
        at_once: Images that the caller shall have in work, more than run at once in the network:
            the others are decoded, or their keypoints picked.
        beside: Have a second thread share the work behind the network, where cores are left.
        compiled: Compile for each size that comes, up to 2 megapixels, which takes a few tenths of
            a second and makes the network quicker; it keeps the last few.
    """

    engine = "openvino"
    device = "cpu"
    batch_size = 1  # several images in one call gain nothing on a CPU

    def __init__(
        self,
        checkpoint: Checkpoint,
        precision: str,
        streams: int = 1,
        threads: int | None = None,
        at_once: int = 1,
        beside: bool = False,
        compiled: bool = False,
    ) -> None:
        core = ov.Core()
        needed = NEEDED.get(precision)
        if needed and needed not in _capabilities():
            raise ConfigError(
                f"precision {precision!r}: this processor has no arithmetic for it; use 'f32'"
            )
        if precision == "int8" and checkpoint.activation_maxima is None:
            raise ConfigError(
                f"precision 'int8': checkpoint {checkpoint.name!r} has no whole quantization.json "
                "for its weights; run tiepoint quantize on its folder"
            )
        if precision == "int8" and not checkpoint.activation_maxima:
            raise ConfigError(
                f"precision 'int8': {checkpoint.name!r} is too narrow a network for 8 bits to gain "
                "anything; use 'bf16' or 'f32'"
            )
        _alive.add(self)
        _keep_freed_memory()
        self.precision, self.at_once = precision, at_once
        # OpenVINO's own default is bf16 where the processor has it: always say which.
        others = "bf16" if has_bf16() else "f32"  # layers that 8 bits do not suffice for
        hint = others if precision == "int8" else precision
        self._in_bytes = hint == "bf16"
        options = {
            "INFERENCE_PRECISION_HINT": hint,
            **({"PERFORMANCE_HINT": "LATENCY"} if streams == 1 else {"NUM_STREAMS": streams}),
        }
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        self._core, self._options, self._checkpoint = core, options, checkpoint
        self._heatmap_apart: ov.CompiledModel | None = None
        if precision == "f16":  # which OpenVINO keeps to the very end, unlike bf16
            wide = {**options, "INFERENCE_PRECISION_HINT": "f32"}
            self._heatmap_apart = core.compile_model(heatmap_model(), "CPU", wide)
        # Its thread starts when it is first asked for.
        self._beside = ThreadPoolExecutor(1, "tiepoint-beside") if beside else None
        self._lock = threading.Lock()
        self._each_size = compiled
        # On ARM OpenVINO's own convolutions save products.
        self._fewer_products = compiled and precision == "f32" and machine() in X86
        self._networks: dict[tuple[bool, SizeBhw | None], _Network] = {}
        if not compiled:
            self._network(descriptors=True, size_bhw=None)

    def __call__(
        self, pixels: Float32, placements: Sequence[Placement], descriptors: bool
    ) -> DenseMaps[Float32]:
        """Run the network on B 1 H W float32 in 0..1.

        Images of different sizes run one by one on their own fields, so that no padding can
        leak into them.
        """
        fields = [placement.padded_hw for placement in placements]
        if all(field == pixels.shape[2:] for field in fields):
            return DenseMaps(*self._infer(pixels, descriptors), pixels)
        singles = [
            self._infer(np.ascontiguousarray(pixels[i : i + 1, :, :height, :width]), descriptors)
            for i, (height, width) in enumerate(fields)
        ]
        H, W = pixels.shape[2:]
        described = [dense for _, dense in singles if dense is not None]
        return DenseMaps(
            _stack([heatmap for heatmap, _ in singles], (H, W)),  # B H W
            _stack(described, (H // CELL_PX, W // CELL_PX)) if described else None,  # B D h w
            pixels,
        )

    def extract(
        self,
        maps: DenseMaps[Float32],
        placements: Sequence[Placement],
        config: DetectionConfig,
        sampling: DescriptorSampling,
        masks: Masks = None,
    ) -> list[Keypoints[Float32]]:
        """Dense maps to keypoints, in NumPy and OpenCV."""
        return postprocess.extract(maps, placements, config, sampling, masks, self._beside)

    def _infer(self, pixels: Float32, descriptors: bool) -> tuple[Float32, Float32 | None]:
        """B 1 H W -> B H W and, if asked for, B D h w."""
        given = pixel_bytes(pixels) if self._in_bytes else pixels
        B, _, H, W = pixels.shape
        fitted = self._each_size and B * H * W <= COMPILED_PX
        network = self._network(descriptors=descriptors, size_bhw=(B, H, W) if fitted else None)
        try:
            request = network.idle.get_nowait()
        except queue.Empty:
            request = network.model.create_infer_request()
        try:
            tensor = ov.Tensor(given, shared_memory=True)
            shared = request.infer({0: tensor}, share_outputs=True)  # or it would copy them, too
            outputs = [shared[index].copy() for index in range(1 + descriptors)]
        finally:
            network.idle.put(request)
        if self._heatmap_apart is not None:
            logits = ov.Tensor(outputs[0], shared_memory=True)
            outputs[0] = self._heatmap_apart.create_infer_request().infer({0: logits})[0]
        heatmap = outputs[0].reshape(B, H, W)
        if not descriptors:
            return heatmap, None
        # Each cell's values lie side by side, which is how they are read.
        cells = outputs[1].reshape(B, H // CELL_PX, W // CELL_PX, -1)
        return heatmap, np.moveaxis(cells, -1, 1)  # B D h w

    def _network(self, *, descriptors: bool, size_bhw: SizeBhw | None) -> _Network:
        wanted = (descriptors, size_bhw)
        with self._lock:  # or threads that start together compile one each
            network = self._networks.pop(wanted, None)
            if network is None:
                model = build_model(
                    self._checkpoint, descriptors=descriptors, in_bytes=self._in_bytes,
                    quantized=self.precision == "int8", logits=self._heatmap_apart is not None,
                    size_bhw=size_bhw, fewer_products=self._fewer_products and size_bhw is not None,
                )  # fmt: skip
                network = _Network(self._core.compile_model(model, "CPU", self._options))
            self._networks[wanted] = network  # the last one asked for comes last
            self._forget_oldest()
            return network

    def _forget_oldest(self) -> None:
        """Let networks go that are for one size, above what may be kept; never the last one."""
        sizes = {key: math.prod(key[1]) for key in self._networks if key[1] is not None}
        for key in list(sizes)[:-1]:
            if len(sizes) <= KEPT_NETWORKS and sum(sizes.values()) <= KEPT_PX:
                return
            del self._networks[key], sizes[key]


def has_bf16() -> bool:
    """Whether this processor has arithmetic for bfloat16."""
    return NEEDED["bf16"] in _capabilities()


@cache
def _capabilities() -> list[str]:
    return list(ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def _keep_freed_memory() -> None:
    """Have the maps of one image lie where those of the last one lay.

    glibc gives freed memory back to the system above a threshold, and then every image pays for
    fresh pages. The threshold rises to twice the largest array below 32 MiB that was ever freed;
    this one is never touched. Other C libraries don't mind.
    """
    np.empty(FREED_ONCE, np.uint8)


_alive: weakref.WeakSet[OpenVinoRuntime] = weakref.WeakSet()


def _keep_in_child() -> None:
    """In a forked child, never let go of the parent's networks.

    Their destructors wait for threads that a fork does not copy, for ever.
    """
    for network in _alive:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(network))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_in_child)


def _stack(singles: Sequence[Float32], size_hw: tuple[int, int]) -> Float32:
    """1 ... h' w' each -> B ... h w, zero outside."""
    batch = np.zeros((len(singles), *singles[0].shape[1:-2], *size_hw), dtype=np.float32)
    for image, single in zip(batch, singles, strict=True):
        image[..., : single.shape[-2], : single.shape[-1]] = single[0]
    return batch
