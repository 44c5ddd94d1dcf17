"""The network as graph nodes: pixels -> heat map and descriptors of each cell phase."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from tiepoint.architecture import CELL_PX, PHASES, Layer
from tiepoint.export.graph import Value
from tiepoint.weights.checkpoint import Checkpoint, Tensors


class Maps(NamedTuple):
    """Dense maps of a batch.

    Attributes:
        heatmap: B 1 H W, probability.
        descriptors: B D h w of each phase.
    """

    heatmap: Value
    descriptors: list[Value]


@dataclass(frozen=True)
class Network:
    """Adds layers to a graph.

    Attributes:
        tensors: Weights by name.
    """

    tensors: Tensors

    def chain(self, value: Value, layers: Iterable[Layer]) -> Value:
        """Convolutions with bias, ReLU and pool."""
        for layer in layers:
            weights = [self.tensors[f"{layer.name}.{kind}"] for kind in ("weight", "bias")]
            side = layer.kernel_px
            with value.graph.scope(layer.name):
                value = value.graph.node(
                    "Conv", value, *weights, kernel_shape=[side] * 2, pads=[side // 2] * 4
                )
                if layer.relu:
                    value = value.graph.node("Relu", value)
                if layer.pool:
                    value = _pooled(value, (0, 0))
        return value


def dense_maps(pixels: Value, checkpoint: Checkpoint, phases: int) -> Maps:
    """Run the network on pixels B 1 H W; H and W multiples of 8."""
    config, network = checkpoint.network, Network(checkpoint.tensors)
    trunk = network.chain(pixels, config.trunk_layers())  # B C H/4 W/4
    heatmaps, descriptors = [], []
    for shift in PHASES[phases]:
        cells = network.chain(_pooled(trunk, shift), config.cell_layers())  # B C h w
        heatmaps.append(_heatmap(network.chain(cells, config.keypoint_layers()), shift))
        descriptors.append(network.chain(cells, config.descriptor_layers()))  # B D h w
    mean = heatmaps[0]
    for heatmap in heatmaps[1:]:
        mean = mean + heatmap
    return Maps(mean if phases == 1 else mean * (1 / phases), descriptors)


def _heatmap(logits: Value, shift: tuple[int, int]) -> Value:
    """Logits B 65 h w -> B 1 H W; a shifted grid is cropped to the image."""
    graph = logits.graph
    probabilities = graph.node("Softmax", logits, axis=1)  # B 65 h w
    cells = probabilities.slice(1, 0, CELL_PX**2)  # B 64 h w
    heatmap = graph.node("DepthToSpace", cells, blocksize=CELL_PX)  # B 1 8h 8w
    for axis, side in zip((2, 3), shift, strict=True):
        if side:
            heatmap = heatmap.slice(axis, side, -side)
    return heatmap


def _pooled(value: Value, shift: tuple[int, int]) -> Value:
    """Maxima of 2x2, on a grid of cells that is shifted by half a cell or not at all."""
    ends = [int(side > 0) for side in shift]
    return value.graph.node(
        "MaxPool", value, kernel_shape=[2, 2], strides=[2, 2], pads=[*ends, *ends]
    )
