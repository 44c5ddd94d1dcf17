"""The SuperPoint network as an OpenVINO graph, built from the tensors without torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiepoint.architecture import CELL_PX, PHASES, Layer
from tiepoint.network import winograd
from tiepoint.network.pixel_bytes import byte_weights
from tiepoint.network.runtime import compiled_model, ops, ov
from tiepoint.network.signal_stack import own_signal_stack
from tiepoint.weights.activation_maxima import ActivationMaxima, weight_maxima
from tiepoint.weights.checkpoint import Checkpoint, Tensors

Float32 = NDArray[np.float32]

INPUT_LEVELS, WEIGHT_LEVELS = 256, 255
"""Quantisation levels of 8 bits: from 0, and symmetric around 0."""

STRIP_BYTES = 2**23
"""Maximum size of a map in the first block, about what fits in the cache."""


def build_model(
    checkpoint: Checkpoint,
    *,
    descriptors: bool,
    quantized: bool = False,
    in_bytes: bool = False,
    logits: bool = False,
    phases: int = 1,
    size_bhw: tuple[int, int, int] | None = None,
    use_winograd: bool = False,
) -> ov.Model:
    """The network of a checkpoint as an OpenVINO model.

    Args:
        descriptors: False leaves the descriptor head out.
        quantized: Quantise weights and inputs of the layers in `checkpoint.activation_maxima`.
        in_bytes: Take pixels as `pixel_bytes` returns them.
        logits: Return B 65 h w of each phase, the inputs of `heatmap_model`, not the heat map.
        phases: Number of cell phases.
        size_bhw: Size of all inputs; None takes any.
        use_winograd: Save multiplications in wide layers, with other round-off in float32. Only
            with a size, because dynamic shapes would cost more than it saves.

    Returns:
        A model from pixels B 1 H W (B H W 2 in bytes) to the heat map B 1 H W and, if requested,
        descriptors B h*w D of each phase.
    """
    config, tensors = checkpoint.network, checkpoint.tensors
    B, H, W = size_bhw or (-1, -1, -1)
    if in_bytes:
        pixels = ops.parameter([B, H, W, 2], np.uint8, name="pixels")
        node = ops.convert(ops.transpose(pixels, np.array([0, 3, 1, 2])), "f32").output(0)
        first = f"{config.encoder_layers()[0].name}.weight"
        tensors = {**tensors, first: byte_weights(tensors[first])}
    else:
        pixels = ops.parameter([B, 1, H, W], np.float32, name="pixels")
        node = pixels.output(0)
    graph = _Graph(tensors, (quantized and checkpoint.activation_maxima) or {}, use_winograd)
    encoder = config.encoder_layers()
    rounded = size_bhw is not None
    if size_bhw is not None:
        widest = B * H * W * encoder[0].out_channels * (2 if in_bytes else 4)  # bytes
        node = graph.strips(node, encoder[:2], encoder[2], min(widest // STRIP_BYTES, H // CELL_PX))
        encoder = encoder[2:]
    encoded = graph.phases(node, encoder, phases, rounded=rounded)  # B C h w each
    cell_logits = [graph.chain(one, config.keypoint_layers()) for one in encoded]  # B 65 h w
    outputs = cell_logits if logits else [_mean_heatmap(cell_logits)]
    if descriptors:
        for one in encoded:
            dense = graph.chain(one, config.descriptor_layers())  # B D h w
            # OpenVINO transposes three dimensions in half the time of four.
            cells = ops.reshape(dense, np.array([0, config.descriptor_decoder_dim, -1]), True)
            outputs.append(ops.transpose(cells, np.array([0, 2, 1])).output(0))  # B h*w D
    return ov.Model(outputs, [pixels], "superpoint")


@dataclass(frozen=True)
class _Graph:
    """Turns layers into nodes.

    Attributes:
        tensors: Weights by name.
        ranges: Activation maxima of the layers that are quantised to 8 bits.
        use_winograd: See `build_model`.
    """

    tensors: Tensors
    ranges: ActivationMaxima
    use_winograd: bool = False

    def chain(
        self,
        node: ov.Output,
        layers: Sequence[Layer],
        *,
        rounded: bool = False,
        following: Layer | None = None,
    ) -> ov.Output:
        """A sequence of layers.

        Args:
            rounded: The input is already quantised for the first one.
            following: Layer for which the output is quantised; None leaves it.
        """
        if not rounded:
            node = self._rounded(node, layers[0])
        for layer, after in zip(layers, [*layers[1:], following], strict=True):
            weight = self.tensors[f"{layer.name}.weight"]
            if self.use_winograd and winograd.suits(weight):
                bias = self.tensors[f"{layer.name}.bias"]
                node = winograd.convolution(node, weight, bias, relu=layer.relu, pool=layer.pool)
            else:
                node = self._layer(node, layer, after)
        return node

    def phases(
        self, node: ov.Output, encoder: Sequence[Layer], count: int, *, rounded: bool
    ) -> list[ov.Output]:
        """The encoder's output on each grid of cells; what is before the last pool runs once."""
        if count == 1:
            return [self.chain(node, encoder, rounded=rounded)]
        *shared, last = encoder[:-2]
        unpooled = (*shared, replace(last, pool=False))
        trunk = self.chain(node, unpooled, rounded=rounded, following=encoder[-2])  # B C H/4 W/4
        cells = [_pooled(trunk, shift) for shift in PHASES[count]]
        return [self.chain(one, encoder[-2:], rounded=True) for one in cells]

    def strips(
        self, node: ov.Output, layers: Sequence[Layer], following: Layer, count: int
    ) -> ov.Output:
        """The first 3x3 layers and their pool, computed in horizontal strips.

        The results equal those of `_layer` after `_layer`, but each layer's output is still in the
        cache when the next one reads it. Sizes must be known.
        """
        height = node.get_shape()[2]
        cuts = [2 * round(height * i / (2 * count)) for i in range(count + 1)] if count else []
        strips = []
        for top, bottom in pairwise(cuts or [0, height]):
            # Each layer reads one row beyond, which is padding at the image's top and bottom.
            above, below = min(len(layers), top), min(len(layers), height - bottom)
            rows = node
            if count > 1:
                rows = ops.slice(node, [top - above], [bottom + below], [1], [2]).output(0)
            for layer, after in zip(layers, [*layers[1:], following], strict=True):
                rows = self._layer(rows, layer, after, (int(above == 0), int(below == 0)))
            strips.append(rows)
        return ops.concat(strips, 2).output(0)

    def _layer(
        self,
        node: ov.Output,
        layer: Layer,
        following: Layer | None,
        ends_px: tuple[int, int] | None = None,
    ) -> ov.Output:
        """A convolution, bias, ReLU and pool; `ends_px`: padding above and below."""
        side = layer.kernel_px // 2
        above, below = ends_px or (side, side)
        weight = ops.constant(self.tensors[f"{layer.name}.weight"], np.float32)
        if layer.name in self.ranges:
            high = weight_maxima(self.tensors[f"{layer.name}.weight"])  # O 1 1 1
            weight = ops.fake_quantize(weight, -high, high, -high, high, WEIGHT_LEVELS)
        bias = self.tensors[f"{layer.name}.bias"].reshape(1, -1, 1, 1)
        node = ops.convolution(node, weight, [1, 1], [above, side], [below, side], [1, 1]).output(0)
        node = ops.add(node, ops.constant(bias, np.float32)).output(0)
        if layer.relu:
            node = ops.relu(node).output(0)
        if following is not None:
            # Before the pool, which then reads bytes; the maximum is the same.
            node = self._rounded(node, following)
        if layer.pool:
            node = ops.max_pool(node, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)
        return node

    def _rounded(self, node: ov.Output, layer: Layer) -> ov.Output:
        """The input of a layer, quantised to 8 bits if the layer is."""
        if layer.name not in self.ranges:
            return node
        least, most = np.float32(0), np.float32(self.ranges[layer.name])
        return ops.fake_quantize(node, least, most, least, most, INPUT_LEVELS).output(0)


def heatmap_model(phases: int = 1) -> ov.Model:
    """The heat map alone: logits B 65 h w (channel 8 row + column, 64 "no keypoint") -> B 1 H W.

    It has an input for each of `phases`.
    """
    logits = [
        ops.parameter([-1, CELL_PX**2 + 1, -1, -1], np.float32, name=f"logits {index}")
        for index in range(phases)
    ]
    return ov.Model([_mean_heatmap([one.output(0) for one in logits])], logits, "heat map")


def _pooled(node: ov.Output, shift: tuple[int, int]) -> ov.Output:
    """The last pool, on a grid of cells that is shifted by half a cell or not at all."""
    ends = [int(side > 0) for side in shift]
    return ops.max_pool(node, [2, 2], [1, 1], ends, ends, [2, 2]).output(0)


def _mean_heatmap(logits: Sequence[ov.Output]) -> ov.Output:
    """B 1 H W, averaged over the logits of each phase; shifted grids are cropped to the image."""
    heatmaps = []
    for one, shift in zip(logits, PHASES[len(logits)], strict=True):
        heatmap = _heatmap(one)
        for axis, side in zip((2, 3), shift, strict=True):
            if side:
                heatmap = ops.slice(heatmap, [side], [-side], [1], [axis]).output(0)
        heatmaps.append(heatmap)
    if len(heatmaps) == 1:
        return heatmaps[0]
    total = heatmaps[0]
    for heatmap in heatmaps[1:]:
        total = ops.add(total, heatmap).output(0)
    return ops.multiply(total, np.float32(1 / len(heatmaps))).output(0)


def _heatmap(logits: ov.Output) -> ov.Output:
    """Soft-max over the 65 channels of each cell, the first 64 laid out as pixels.

    In the network's model it uses all cores, and float32 even if the hint is bf16, because
    OpenVINO keeps float32 after the last convolution.
    """
    probabilities = ops.softmax(logits, 1)  # B 65 h w
    pixels = ops.slice(probabilities, [0], [CELL_PX**2], [1], [1])  # B 64 h w
    return ops.depth_to_space(pixels, "blocks_first", CELL_PX).output(0)


def measure_activation_maxima(
    checkpoint: Checkpoint, images: Iterable[Float32], *, threads: int | None = None
) -> Iterator[dict[str, float]]:
    """Measure the largest input of each layer on each image; yields layer name -> maximum.

    Args:
        images: `H W` in 0..1, sides multiples of 8.
        threads: Maximum number of cores; None takes all.
    """
    config, inputs = checkpoint.network, list[ov.Output]()
    pixels = ops.parameter([-1, 1, -1, -1], np.float32, name="pixels")
    node = pixels.output(0)
    graph = _Graph(checkpoint.tensors, {})
    for layer in config.encoder_layers():
        inputs.append(node)
        node = graph.chain(node, [layer])
    for layers in (config.keypoint_layers(), config.descriptor_layers()):
        deeper = node
        for layer in layers:
            inputs.append(deeper)
            deeper = graph.chain(deeper, [layer])
    axes = ops.constant(np.array([0, 1, 2, 3]))
    highest = [ops.reduce_max(one, axes, False).output(0) for one in inputs]
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    model = compiled_model(ov.Core(), ov.Model(highest, [pixels], "highest inputs"), options)
    names = [layer.name for layer in config.layers()]
    for image in images:
        with own_signal_stack():
            maxima = model({0: image[None, None]})
        yield {name: float(maxima[index]) for index, name in enumerate(names)}
