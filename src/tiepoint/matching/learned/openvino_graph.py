"""The matcher's network as an OpenVINO graph, built from the tensors without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tiepoint.matching.learned.architecture import (
    NORM_EPSILON,
    Block,
    MatcherConfig,
    MatcherLayer,
)
from tiepoint.matching.learned.folded import Affine, Maps
from tiepoint.network.runtime import ops, ov
from tiepoint.weights.checkpoint import Tensors


class _Rotation(NamedTuple):
    """Cosine and sine of each channel's angle, N C each."""

    cosine: ov.Output
    sine: ov.Output


def build_model(config: MatcherConfig, tensors: Tensors, layers: int) -> ov.Model:
    """The first layers of a matcher and the head of the last of them.

    Args:
        layers: Number of layers to run, 1 to `config.layers`.

    Returns:
        A model from, for A and then for B, descriptors N D and the cosine and the sine of the
        angles N C/2/heads, to N C+1 of A and of B. The last channel is the matchability, the others
        are `MatcherOutput.projected`. Both counts of keypoints are dynamic.
    """
    return _Graph(config, tensors).model(config.matcher_layers()[:layers])


class _Graph:
    """Turns the table into nodes."""

    def __init__(self, config: MatcherConfig, tensors: Tensors) -> None:
        self._config, self._maps = config, Maps(config, tensors)

    def model(self, layers: Sequence[MatcherLayer]) -> ov.Model:
        config = self._config
        parameters, states, rotations = list[ov.Node](), list[ov.Output](), list[_Rotation]()
        for side in "ab":
            descriptors = ops.parameter([-1, config.descriptor_length], np.float32, f"d_{side}")
            cosine = ops.parameter([-1, config.head_width // 2], np.float32, f"cos_{side}")
            sine = ops.parameter([-1, config.head_width // 2], np.float32, f"sin_{side}")
            parameters += [descriptors, cosine, sine]
            first = self._maps.first()
            node = descriptors.output(0)
            states.append(node if first is None else _affine(node, first))
            rotations.append(_Rotation(self._each(cosine), self._each(sine)))
        for layer in layers:
            states = [
                self._self_attention(state, rotation, layer.self_block)
                for state, rotation in zip(states, rotations, strict=True)
            ]
            states = self._cross_attention(states[0], states[1], layer.cross_block)
        head = self._maps.head(layers[-1])
        return ov.Model([_affine(state, head) for state in states], parameters, "matcher")

    def _self_attention(self, state: ov.Output, rotation: _Rotation, block: Block) -> ov.Output:
        """Attention inside an image; queries and keys are rotated by their positions."""
        projected = ops.split(_affine(state, self._maps.self_attention(block)), 1, 5)  # N C each
        q, q_turned, k, k_turned, v = (projected.output(i) for i in range(5))
        attended = self._attention(
            _rotated(q, q_turned, rotation), _rotated(k, k_turned, rotation), v
        )
        return self._mlp(state, attended, block)

    def _cross_attention(self, a: ov.Output, b: ov.Output, block: Block) -> list[ov.Output]:
        """Attention of each image to the other, both from the states before."""
        maps = self._maps.attention(block)
        q_a, k_a, v_a = (_affine(a, one) for one in maps)
        q_b, k_b, v_b = (_affine(b, one) for one in maps)
        return [
            self._mlp(a, self._attention(q_a, k_b, v_b), block),
            self._mlp(b, self._attention(q_b, k_a, v_a), block),
        ]

    def _attention(self, query: ov.Output, key: ov.Output, value: ov.Output) -> ov.Output:
        """N C, M C, M C -> N C; OpenVINO keeps no more than a few rows of N M at a time."""
        heads = [self._heads(one) for one in (query, key, value)]  # 1 heads N C/heads
        attended = ops.scaled_dot_product_attention(*heads)
        rows = ops.transpose(attended, np.array([0, 2, 1, 3]))
        return ops.reshape(rows, np.array([-1, self._config.width]), False).output(0)

    def _heads(self, node: ov.Output) -> ov.Output:
        shape = np.array([1, -1, self._config.heads, self._config.head_width])
        return ops.transpose(ops.reshape(node, shape, False), np.array([0, 2, 1, 3])).output(0)

    def _mlp(self, state: ov.Output, attended: ov.Output, block: Block) -> ov.Output:
        """Add to the states what the MLP makes of them and the attention's result."""
        mlp = self._maps.mlp(block)
        node = _affine(ops.concat([state, attended], 1).output(0), mlp.expand)  # N 2C
        node = ops.mvn(node, np.array([1]), True, NORM_EPSILON, "inside_sqrt").output(0)
        node = ops.multiply(node, ops.constant(mlp.scale[None], np.float32)).output(0)
        node = ops.add(node, ops.constant(mlp.shift[None], np.float32)).output(0)
        node = _affine(ops.gelu(node, "erf").output(0), mlp.contract)  # N C
        return ops.add(state, node).output(0)

    def _each(self, node: ov.Node) -> ov.Output:
        """The angles of one head's pairs -> those of all channels, N C."""
        return ops.gather(node, self._maps.channels(), 1).output(0)


def _affine(node: ov.Output, affine: Affine) -> ov.Output:
    weight = ops.constant(affine.weight.astype(np.float32), np.float32)
    bias = ops.constant(affine.bias[None].astype(np.float32), np.float32)
    return ops.add(ops.matmul(node, weight, False, True), bias).output(0)


def _rotated(node: ov.Output, turned: ov.Output, rotation: _Rotation) -> ov.Output:
    """Each pair of channels turned by its angle."""
    along, across = ops.multiply(node, rotation.cosine), ops.multiply(turned, rotation.sine)
    return ops.add(along, across).output(0)
