"""A learned matcher as one ONNX graph, from keypoints of two images to their matches.

Source: LightGlue (Lindenberger et al. 2023), section 3.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tiepoint._version import __version__
from tiepoint.export.graph import Graph, Value, concatenate
from tiepoint.export.model import Profile, Shapes
from tiepoint.matching.learned.architecture import NORM_EPSILON, Block
from tiepoint.matching.learned.folded import Affine, Maps
from tiepoint.matching.learned.folder import MatcherCheckpoint


class _Side(NamedTuple):
    """Keypoints of one image.

    Attributes:
        states: 1 N C.
        cosine, sine: 1 N C, of each channel's angle.
    """

    states: Value
    cosine: Value
    sine: Value


def build_matcher_model(
    checkpoint: MatcherCheckpoint, layers: int, threshold: float, profile: Profile
) -> Any:
    """The graph of a matcher as `onnx.ModelProto`.

    Args:
        layers: Number of layers that run, 1 to `checkpoint.config.layers`.
        threshold: Least probability of a match, written into the file.
    """
    graph = Graph()
    outputs = _Builder(graph, checkpoint).outputs(layers, threshold, profile)
    notes = {
        "tiepoint": __version__,
        "profile": profile,
        "matcher": checkpoint.name,
        "weights_sha256": checkpoint.sha256,
        "detector_sha256": checkpoint.detector_sha256 or "",
        "layers": str(layers),
        "threshold": str(threshold),
    }
    return graph.model(outputs, notes)


class _Builder:
    """Turns the table into nodes."""

    def __init__(self, graph: Graph, checkpoint: MatcherCheckpoint) -> None:
        self._graph, self._config = graph, checkpoint.config
        self._maps = Maps(checkpoint.config, checkpoint.tensors)

    def outputs(self, layers: int, threshold: float, profile: Profile) -> Shapes:
        a, b = self._sides(profile)
        table = self._config.matcher_layers()[:layers]
        for number, layer in enumerate(table):
            with self._graph.scope(f"layer_{number}"):
                after = [self._self_attention(side, layer.self_block) for side in (a, b)]
                maps = self._maps.attention(layer.cross_block)
                projected = [[_affine(one, part) for part in maps] for one in after]
                crossed = [
                    self._attention(own[0], other[1], other[2])
                    for own, other in (projected, projected[::-1])
                ]
                a, b = (
                    side._replace(states=self._mlp(state, attended, layer.cross_block))
                    for side, state, attended in zip((a, b), after, crossed, strict=True)
                )
        with self._graph.scope("assignment"):
            head = self._maps.head(table[-1])
            index, score = self._matches(_affine(a.states, head), _affine(b.states, head))
            is_match = index.above(-1) & score.above(threshold)
            index, score = index.where(is_match, -1), score.where(is_match)
        if profile != "opencv":
            return {"matches0": (index, ("count0",)), "mscores0": (score, ("count0",))}
        rows = [self._graph.arange(index.size(0)).reshape(-1, 1), index.reshape(-1, 1)]
        pairs = concatenate(rows, axis=1)  # N 2
        return {"matches0": (pairs, ("count0", 2)), "mscores0": (score, ("count0",))}

    def _sides(self, profile: Profile) -> list[_Side]:
        """The inputs of both images, in the order of the contract."""
        graph, length = self._graph, self._config.descriptor_length
        names = [f"count{number}" for number in range(2)]
        xy = [graph.input(f"kpts{i}", "float", (1, name, 2)) for i, name in enumerate(names)]
        descriptors = [
            graph.input(f"desc{i}", "float", (1, name, length)) for i, name in enumerate(names)
        ]
        if profile != "opencv":  # else the caller has normalised them
            sizes = [graph.input(f"image_size{i}", "float", (1, 2)) for i in range(2)]
            xy = [_normalised(*one) for one in zip(xy, sizes, strict=True)]
        return [self._side(*one) for one in zip(xy, descriptors, strict=True)]

    def _side(self, xy: Value, descriptors: Value) -> _Side:
        first, weight = self._maps.first(), self._maps.angles()
        states = descriptors if first is None else _affine(descriptors, first)
        # Not a product of matrices, which some runtimes round to bfloat16 or TF32.
        turns = xy.slice(2, 0, 1) * weight[:, 0] + xy.slice(2, 1, 2) * weight[:, 1]
        each = self._graph.constant(self._maps.channels())
        cosine, sine = (self._graph.node(op, turns).take(each, axis=2) for op in ("Cos", "Sin"))
        return _Side(states, cosine, sine)

    def _self_attention(self, side: _Side, block: Block) -> Value:
        C = self._config.width
        projected = _affine(side.states, self._maps.self_attention(block))  # 1 N 5C
        q, q_turned, k, k_turned, v = (projected.slice(2, i * C, (i + 1) * C) for i in range(5))
        attended = self._attention(
            q * side.cosine + q_turned * side.sine, k * side.cosine + k_turned * side.sine, v
        )
        return self._mlp(side.states, attended, block)

    def _attention(self, query: Value, key: Value, value: Value) -> Value:
        """1 N C, 1 M C, 1 M C -> 1 N C."""
        heads, width = self._config.heads, self._config.head_width
        q, k, v = (one.reshape(1, -1, heads, width) for one in (query, key, value))
        logits = self._product(q.transpose(0, 2, 1, 3), k.transpose(0, 2, 3, 1)) * width**-0.5
        weights = self._graph.node("Softmax", logits, axis=3)  # 1 heads N M
        rows = self._product(weights, v.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3)
        return rows.reshape(1, -1, self._config.width)

    def _mlp(self, states: Value, attended: Value, block: Block) -> Value:
        """Add to the states what the MLP makes of them and the attention's result."""
        mlp, C = self._maps.mlp(block), self._config.width
        hidden = _affine(concatenate([states, attended], axis=2), mlp.expand)  # 1 N 2C
        hidden = hidden - hidden.sum(2, keep=True) / (2 * C)
        variance = (hidden * hidden).sum(2, keep=True) / (2 * C)
        hidden = hidden / self._graph.node("Sqrt", variance + NORM_EPSILON)
        hidden = hidden * mlp.scale + mlp.shift
        gelu = hidden * (self._graph.node("Erf", hidden * 2**-0.5) + 1) * 0.5
        return states + _affine(gelu, mlp.contract)

    def _matches(self, head_a: Value, head_b: Value) -> tuple[Value, Value]:
        """Heads 1 N C+1 -> index in B of each keypoint of A, -1 for none, and probabilities, N."""
        graph, C = self._graph, self._config.width
        a, b = (head.slice(2, 0, C) for head in (head_a, head_b))
        logits_a, logits_b = (head.slice(2, C, C + 1) for head in (head_a, head_b))  # 1 N 1
        similarity = self._product(a, b.transpose(0, 2, 1))  # 1 N M
        chance = graph.node("LogSoftmax", similarity, axis=2)
        chance = chance + graph.node("LogSoftmax", similarity, axis=1)
        chance = chance + _log_sigmoid(logits_a) + _log_sigmoid(logits_b).transpose(0, 2, 1)
        chance = chance.reshape(similarity.size(1), -1)  # N M
        best_of_a = graph.node("ArgMax", chance, axis=1, keepdims=0, kind="int")  # N
        best_of_b = graph.node("ArgMax", chance, axis=0, keepdims=0, kind="int")  # M
        mutual = best_of_b.take(best_of_a, axis=0).equals(graph.arange(best_of_a.size(0)))
        score = graph.node("Exp", graph.node("ReduceMax", chance, axes=[1], keepdims=0))
        return best_of_a.where(mutual, -1), score

    def _product(self, a: Value, b: Value) -> Value:
        return self._graph.node("MatMul", a, b)


def _normalised(xy: Value, size_wh: Value) -> Value:
    """1 N 2 px and 1 2 (width, height) -> as by `matching.learned.inputs.normalised`."""
    half = size_wh.reshape(1, 1, 2) * 0.5
    longer = half.slice(2, 0, 1).maximum(half.slice(2, 1, 2))  # 1 1 1
    return (xy - half) / longer


def _affine(value: Value, affine: Affine) -> Value:
    weight = np.ascontiguousarray(affine.weight.T.astype(np.float32))
    return value.graph.node("MatMul", value, weight) + affine.bias.astype(np.float32)


def _log_sigmoid(logits: Value) -> Value:
    """log(1 / (1 + exp(-x))) without overflow."""
    graph = logits.graph
    faint = graph.node("Exp", graph.node("Neg", graph.node("Abs", logits)))  # 0..1
    return logits.minimum(0) - graph.node("Log", faint + 1)
