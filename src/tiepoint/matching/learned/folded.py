"""The table of a matcher with its weights, for graphs that are built without torch.

Maps that follow one another without a non-linearity are multiplied, in float64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiepoint.matching.learned.architecture import Block, Linear, MatcherConfig, MatcherLayer
from tiepoint.weights.checkpoint import Tensors

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


class Affine(NamedTuple):
    """A linear map whose weights may come from several of the table."""

    weight: Float64  # out in
    bias: Float64  # out


class Mlp(NamedTuple):
    """What becomes of the states and the attention's result, concatenated.

    Attributes:
        expand: To 2C; the attention's output projection is part of it.
        scale, shift: 2C of the normalisation after it, before the GELU.
        contract: To what is added to the states.
    """

    expand: Affine
    scale: Float32
    shift: Float32
    contract: Affine


class Maps:
    """The maps of a matcher, folded.

    Args:
        tensors: Name -> float32 array, exactly the ones that `config` names.
    """

    def __init__(self, config: MatcherConfig, tensors: Tensors) -> None:
        self.config, self._tensors = config, tensors

    def first(self) -> Affine | None:
        """Descriptors to states; None if they are the same."""
        first = self.config.input_projection()
        return None if first is None else self._map(first)

    def angles(self) -> Float32:
        """C/2/heads x 2: normalised positions to the angles of one head."""
        weight: Float32 = self._tensors[f"{self.config.positions().name}.weight"]
        return weight

    def channels(self) -> NDArray[np.int64]:
        """C: which of `angles` turns each channel."""
        pairs = np.repeat(np.arange(self.config.head_width // 2), 2)
        return np.tile(pairs, self.config.heads)

    def self_attention(self, block: Block) -> Affine:
        """To 5C: queries, queries a quarter turn on, keys, keys a quarter turn on, values.

        A quarter turn of each pair of channels is linear, so it is part of the weights.
        """
        query, key, value = self.attention(block)
        parts = (query, _quarter_turn(query), key, _quarter_turn(key), value)
        return Affine(
            np.concatenate([part.weight for part in parts]),
            np.concatenate([part.bias for part in parts]),
        )

    def attention(self, block: Block) -> tuple[Affine, Affine, Affine]:
        """Queries, keys and values."""
        return self._map(block.query), self._map(block.key), self._map(block.value)

    def mlp(self, block: Block) -> Mlp:
        """The MLP after the attention."""
        C = self.config.width
        expand, output = self._map(block.expand), self._map(block.output)
        after = expand.weight[:, C:]  # the part that reads the attention's result
        combined = Affine(
            np.concatenate([expand.weight[:, :C], after @ output.weight], axis=1),
            expand.bias + after @ output.bias,
        )
        scale, shift = (self._tensors[f"{block.norm}.{part}"] for part in ("weight", "bias"))
        return Mlp(combined, scale, shift, self._map(block.contract))

    def head(self, layer: MatcherLayer) -> Affine:
        """States to the projected vectors and the matchability, C + 1."""
        projection, matchability = self._map(layer.projection), self._map(layer.matchability)
        scale = self.config.width**-0.25  # of each image; of the product it is C^-1/2
        return Affine(
            np.concatenate([projection.weight * scale, matchability.weight]),
            np.concatenate([projection.bias * scale, matchability.bias]),
        )

    def _map(self, linear: Linear) -> Affine:
        weight, bias = (self._tensors[f"{linear.name}.{part}"] for part in ("weight", "bias"))
        return Affine(weight.astype(np.float64), bias.astype(np.float64))


def _quarter_turn(affine: Affine) -> Affine:
    """The map followed by (x, y) -> (-y, x) on each pair of output channels."""
    weight, bias = np.empty_like(affine.weight), np.empty_like(affine.bias)
    weight[0::2], weight[1::2] = -affine.weight[1::2], affine.weight[0::2]
    bias[0::2], bias[1::2] = -affine.bias[1::2], affine.bias[0::2]
    return Affine(weight, bias)
