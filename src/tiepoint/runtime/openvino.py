"""The SuperPoint network on a CPU by OpenVINO, built from the tensors without torch."""

from __future__ import annotations

import ctypes
import os
import queue
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops

from tiepoint import postprocess
from tiepoint.config import CELL_PX, DescriptorSampling, DetectionConfig, Layer
from tiepoint.errors import ConfigError
from tiepoint.geometry import Placement
from tiepoint.maps import DenseMaps, Keypoints, Masks
from tiepoint.quantization import Ranges, weight_ranges
from tiepoint.weights import Checkpoint, Tensors

Float32 = NDArray[np.float32]

NEEDED = {"bf16": "BF16", "f16": "FP16", "int8": "INT8"}
"""OpenVINO's names of what a processor must be able to do."""

WHITE = 65535
"""Steps in which a pixel is told by two bytes."""

KEPT, HALF = np.uint32(0xFFFF0000), np.uint32(0x8000)
"""The bits of a float32 that make a bfloat16, and half of the last one's worth."""

FREED_ONCE = 31 * 2**20
"""Bytes; glibc learns from arrays below 32 MiB."""

INPUT_LEVELS, WEIGHT_LEVELS = 256, 255
"""Steps of 8 bits: from 0 on, and even on both sides of 0."""


class OpenVinoRuntime:
    """Compiled once for every image size; safe to call from several threads.

    Args:
        streams: Calls that run at once, each on its part of the cores; one takes them all.
        threads: Most cores to take; None takes all that the process may use.
        at_once: Images that the caller shall have in work, more than run at once in the network:
            the others are decoded, or their keypoints picked.
        beside: Have a second thread share the work behind the network, where cores are left.
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
    ) -> None:
        core = ov.Core()
        needed = NEEDED.get(precision)
        if needed and needed not in _capabilities():
            raise ConfigError(
                f"precision {precision!r}: this processor has no arithmetic for it; use 'f32'"
            )
        if precision == "int8" and checkpoint.ranges is None:
            raise ConfigError(
                f"precision 'int8': checkpoint {checkpoint.name!r} has no whole quantization.json "
                "for its weights; run tiepoint quantize on its folder"
            )
        if precision == "int8" and not checkpoint.ranges:
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
        self._models: dict[bool, ov.CompiledModel] = {}
        self._compiled(True)
        self._idle: dict[bool, queue.SimpleQueue[ov.InferRequest]] = {
            True: queue.SimpleQueue(),
            False: queue.SimpleQueue(),
        }

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
        try:
            request = self._idle[descriptors].get_nowait()
        except queue.Empty:
            request = self._compiled(descriptors).create_infer_request()
        try:
            tensor = ov.Tensor(given, shared_memory=True)
            shared = request.infer({0: tensor}, share_outputs=True)  # or it would copy them, too
            outputs = [shared[index].copy() for index in range(1 + descriptors)]
        finally:
            self._idle[descriptors].put(request)
        if self._heatmap_apart is not None:
            logits = ov.Tensor(outputs[0], shared_memory=True)
            outputs[0] = self._heatmap_apart.create_infer_request().infer({0: logits})[0]
        B, _, H, W = pixels.shape
        heatmap = outputs[0].reshape(B, H, W)
        if not descriptors:
            return heatmap, None
        # Each cell's values lie side by side, which is how they are read.
        cells = outputs[1].reshape(B, H // CELL_PX, W // CELL_PX, -1)
        return heatmap, np.moveaxis(cells, -1, 1)  # B D h w

    def _build(self, checkpoint: Checkpoint, *, descriptors: bool) -> ov.Model:
        return build_model(
            checkpoint, descriptors=descriptors, quantized=self.precision == "int8",
            in_bytes=self._in_bytes, logits=self._heatmap_apart is not None,
        )  # fmt: skip

    def _compiled(self, descriptors: bool) -> ov.CompiledModel:
        with self._lock:  # or threads that start together compile one each
            if descriptors not in self._models:
                model = self._build(self._checkpoint, descriptors=descriptors)
                self._models[descriptors] = self._core.compile_model(model, "CPU", self._options)
            return self._models[descriptors]


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


def pixel_bytes(pixels: Float32) -> NDArray[np.uint8]:
    """B 1 H W in 0..1 -> B H W 2: each pixel's low and high byte, in steps of 1/65535.

    bfloat16 has 8 bits: near white it rounds pixels to whole grey levels. Bytes it takes as they
    are. What lies between two steps is cut off. `benchmarks/precision.py` prints how many keypoints
    stay.
    """
    B, _, H, W = pixels.shape
    words = np.empty((B, H, W), "<u2")
    np.multiply(pixels[:, 0], np.float32(WHITE), out=words, casting="unsafe")
    return words.view(np.uint8).reshape(B, H, W, 2)


def build_model(
    checkpoint: Checkpoint,
    *,
    descriptors: bool,
    quantized: bool = False,
    in_bytes: bool = False,
    logits: bool = False,
) -> ov.Model:
    """The network of a checkpoint as an OpenVINO model.

    Args:
        descriptors: False leaves the descriptor head out.
        quantized: Round weights and inputs of the layers in `checkpoint.ranges` to 8 bits.
        in_bytes: Take pixels as `pixel_bytes` gives them.
        logits: Give B 65 h w, of which `heatmap_model` makes the heat map.

    Returns:
        A model from pixels B 1 H W (B H W 2 in bytes) to the heat map B 1 H W and, if asked for,
        descriptors B h*w D.
    """
    config, tensors = checkpoint.network, checkpoint.tensors
    ranges = checkpoint.ranges if quantized else None
    if in_bytes:
        pixels = ops.parameter([-1, -1, -1, 2], np.uint8, name="pixels")
        node = ops.convert(ops.transpose(pixels, np.array([0, 3, 1, 2])), "f32").output(0)
        first = f"{config.encoder_layers()[0].name}.weight"
        tensors = {**tensors, first: byte_weights(tensors[first])}
    else:
        pixels = ops.parameter([-1, 1, -1, -1], np.float32, name="pixels")
        node = pixels.output(0)
    encoded = _chain(node, config.encoder_layers(), tensors, ranges)  # B C h w
    said = _chain(encoded, config.keypoint_layers(), tensors, ranges)  # B 65 h w
    outputs = [said if logits else _heatmap(said)]
    if descriptors:
        dense = _chain(encoded, config.descriptor_layers(), tensors, ranges)  # B D h w
        # In three dimensions OpenVINO turns them at half the price of four.
        cells = ops.reshape(dense, np.array([0, config.descriptor_decoder_dim, -1]), True)
        outputs.append(ops.transpose(cells, np.array([0, 2, 1])).output(0))  # B h*w D
    return ov.Model(outputs, [pixels], "superpoint")


def heatmap_model() -> ov.Model:
    """The heat map by itself: B 65 h w, channel 8 row + column of the cell and channel 64 "no
    keypoint", to the probabilities B 1 H W."""
    logits = ops.parameter([-1, CELL_PX**2 + 1, -1, -1], np.float32, name="logits")
    return ov.Model([_heatmap(logits.output(0))], [logits], "heat map")


def _heatmap(logits: ov.Output) -> ov.Output:
    """Soft-max over the 65 channels of each cell, the first 64 laid out as pixels.

    Within the network's model it takes all cores, and float32 even where the hint is bf16:
    behind the last convolution OpenVINO stays with it.
    """
    probabilities = ops.softmax(logits, 1)  # B 65 h w
    pixels = ops.slice(probabilities, [0], [CELL_PX**2], [1], [1])  # B 64 h w
    return ops.depth_to_space(pixels, "blocks_first", CELL_PX).output(0)


def byte_weights(weight: Float32) -> Float32:
    """O 1 3 3 -> O 2 3 3, for a pixel's low and high byte, none of which bfloat16 rounds.

    Where a filter takes differences its weights add up to little; rounded one by one they would
    add up to something else, and answer to brightness. So each takes over what the last one lost,
    the largest first, whose steps are the coarsest.
    """
    exact = weight.reshape(len(weight), -1) * np.float32((WHITE + 1) / WHITE)  # O 9
    rounded, lost = np.empty_like(exact), np.zeros(len(exact), np.float32)
    for taps in np.argsort(-np.abs(exact), axis=1).T[..., None]:  # O 1
        wanted = np.take_along_axis(exact, taps, 1) + lost[:, None]
        nearest = ((wanted.view(np.uint32) + HALF) & KEPT).view(np.float32)
        np.put_along_axis(rounded, taps, nearest, 1)
        lost = (wanted - nearest)[:, 0]
    high = rounded.reshape(weight.shape) / np.float32((WHITE + 1) / 256)
    return np.concatenate([high / 256, high], axis=1)


def highest_inputs(checkpoint: Checkpoint, images: Iterable[Float32]) -> Iterator[dict[str, float]]:
    """For each image the highest input of each layer, by the layer's name.

    Args:
        images: `H W` in 0..1, sides multiples of 8.
    """
    config, inputs = checkpoint.network, list[ov.Output]()
    pixels = ops.parameter([-1, 1, -1, -1], np.float32, name="pixels")
    node = pixels.output(0)
    for layer in config.encoder_layers():
        inputs.append(node)
        node = _chain(node, [layer], checkpoint.tensors, None)
    for layers in (config.keypoint_layers(), config.descriptor_layers()):
        deeper = node
        for layer in layers:
            inputs.append(deeper)
            deeper = _chain(deeper, [layer], checkpoint.tensors, None)
    axes = ops.constant(np.array([0, 1, 2, 3]))
    highest = [ops.reduce_max(one, axes, False).output(0) for one in inputs]
    model = ov.Core().compile_model(
        ov.Model(highest, [pixels], "highest inputs"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    names = [layer.name for layer in config.layers()]
    for image in images:
        found = model({0: image[None, None]})
        yield {name: float(found[index]) for index, name in enumerate(names)}


def _chain(
    node: ov.Output, layers: Sequence[Layer], tensors: Tensors, ranges: Ranges | None
) -> ov.Output:
    ranges = ranges or {}
    node = _rounded(node, layers[0], ranges)
    for layer, following in zip(layers, [*layers[1:], None], strict=True):
        pad = [layer.kernel_px // 2] * 2
        weight = ops.constant(tensors[f"{layer.name}.weight"], np.float32)
        if layer.name in ranges:
            high = weight_ranges(tensors[f"{layer.name}.weight"])  # O 1 1 1
            weight = ops.fake_quantize(weight, -high, high, -high, high, WEIGHT_LEVELS)
        bias = ops.constant(tensors[f"{layer.name}.bias"].reshape(1, -1, 1, 1), np.float32)
        node = ops.convolution(node, weight, [1, 1], pad, pad, [1, 1]).output(0)
        node = ops.add(node, bias).output(0)
        if layer.relu:
            node = ops.relu(node).output(0)
        if following is not None:
            # Before the pool, which then takes bytes; the highest value is the same one.
            node = _rounded(node, following, ranges)
        if layer.pool:
            node = ops.max_pool(node, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)
    return node


def _rounded(node: ov.Output, layer: Layer, ranges: Ranges) -> ov.Output:
    """The input of a layer in steps of 8 bits, where it takes such."""
    if layer.name not in ranges:
        return node
    least, most = np.float32(0), np.float32(ranges[layer.name])
    return ops.fake_quantize(node, least, most, least, most, INPUT_LEVELS).output(0)


def _stack(singles: Sequence[Float32], size_hw: tuple[int, int]) -> Float32:
    """1 ... h' w' each -> B ... h w, zero outside."""
    batch = np.zeros((len(singles), *singles[0].shape[1:-2], *size_hw), dtype=np.float32)
    for image, single in zip(batch, singles, strict=True):
        image[..., : single.shape[-2], : single.shape[-1]] = single[0]
    return batch
