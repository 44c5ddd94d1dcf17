"""Learned matchers of random weights, and a slow twin of their network in the plainest NumPy."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from support.checkpoints import random_checkpoint
from support.provenance import made
from tiepoint.features import Features
from tiepoint.matching.learned.architecture import MatcherConfig
from tiepoint.matching.learned.folder import save_matcher
from tiepoint.matching.learned.inputs import (
    MatcherEngine,
    MatcherInput,
    MatcherOutput,
    normalised,
)
from tiepoint.weights.checkpoint import Checkpoint

SIZE_HW = (120, 160)


def random_tensors(
    config: MatcherConfig, seed: int = 0, *, tied: bool = True
) -> dict[str, np.ndarray]:
    """Weights that make clear matches of equal descriptors."""
    random = np.random.default_rng(seed)
    tensors = {}
    for name, shape in config.tensor_shapes().items():
        fan_in = shape[-1]
        values = random.normal(0, 0.7 / math.sqrt(fan_in), shape)
        if name.endswith("layer_norm.weight"):
            values = random.uniform(0.5, 1.5, shape)
        elif name.endswith("projector.weight"):
            values = random.normal(0, 2, shape)
        elif "final_projection.weight" in name:
            values *= 5
        tensors[name] = values.astype(np.float32)
    for layer in config.matcher_layers() if tied else ():
        for part in ("weight", "bias"):
            query, key = layer.cross_block.query, layer.cross_block.key
            tensors[f"{key.name}.{part}"] = tensors[f"{query.name}.{part}"]
    return tensors


def random_features(count: int, length: int, seed: int = 0, **provenance: str) -> Features:
    random = np.random.default_rng(seed)
    height, width = SIZE_HW
    xy = random.uniform(0, [width - 1, height - 1], (count, 2)).astype(np.float32)
    descriptors = random.normal(size=(count, length))
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    scores = np.sort(random.uniform(size=count))[::-1].astype(np.float32)
    return Features(
        xy, scores, descriptors.astype(np.float32), SIZE_HW, provenance=made(**provenance)
    )


def related_features(count: int, length: int, seed: int = 0) -> tuple[Features, Features]:
    """The same points in two images: the second has a third fewer, in another order and noisy."""
    a = random_features(count, length, seed)
    random = np.random.default_rng(seed + 1)
    order = random.permutation(count)[: count - count // 3]
    assert a.descriptors is not None
    noisy = a.descriptors[order] + random.normal(0, 0.02, (len(order), length))
    b = Features(
        (a.xy[order] * 0.9 + 5).astype(np.float32), a.scores[order], noisy.astype(np.float32),
        SIZE_HW, provenance=made(),
    )  # fmt: skip
    return a, b


def matcher_input(features: Features) -> MatcherInput:
    assert features.descriptors is not None
    return MatcherInput(normalised(features.xy, features.size_hw), features.descriptors)


class SlowOutput(NamedTuple):
    log_assignment: np.ndarray
    matchability_a: np.ndarray
    matchability_b: np.ndarray


def slow_matcher(
    config: MatcherConfig,
    tensors: dict[str, np.ndarray],
    a: MatcherInput,
    b: MatcherInput,
    layers: int,
) -> SlowOutput:
    """Each formula of the paper in turn, in float64."""

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        y = x @ tensors[f"{name}.weight"].astype(np.float64).T
        return y + tensors[f"{name}.bias"] if f"{name}.bias" in tensors else y

    def rotated(x: np.ndarray, xy: np.ndarray) -> np.ndarray:
        result = np.empty_like(x)
        for row, angles in enumerate(linear("positional_encoder.projector", xy)):
            for pair, angle in enumerate(angles):
                u, v = x[row, 2 * pair], x[row, 2 * pair + 1]
                result[row, 2 * pair] = u * math.cos(angle) - v * math.sin(angle)
                result[row, 2 * pair + 1] = u * math.sin(angle) + v * math.cos(angle)
        return result

    def attention(prefix: str, x: np.ndarray, other: np.ndarray, xy=None) -> np.ndarray:
        q, k, v = (
            linear(f"{prefix}_attention.{part}_proj", side)
            for part, side in (("q", x), ("k", other), ("v", other))
        )
        width, results = config.width // config.heads, []
        for head in range(config.heads):
            part = slice(head * width, (head + 1) * width)
            query, key = q[:, part], k[:, part]
            if xy is not None:
                query, key = rotated(query, xy), rotated(key, xy)
            powers = np.exp(query @ key.T / math.sqrt(width))
            results.append(powers / powers.sum(axis=1, keepdims=True) @ v[:, part])
        message = linear(f"{prefix}_attention.o_proj", np.concatenate(results, axis=1))
        hidden = linear(f"{prefix}_mlp.fc1", np.concatenate([x, message], axis=1))
        hidden = hidden - hidden.mean(axis=1, keepdims=True)
        hidden /= np.sqrt((hidden**2).mean(axis=1, keepdims=True) + 1e-5)
        norm = f"{prefix}_mlp.layer_norm"
        hidden = hidden * tensors[f"{norm}.weight"] + tensors[f"{norm}.bias"]
        erf = np.vectorize(math.erf)
        hidden = hidden * (1 + erf(hidden / math.sqrt(2))) / 2
        return x + linear(f"{prefix}_mlp.fc2", hidden)

    xy_a, xy_b = a.xy.astype(np.float64), b.xy.astype(np.float64)
    x_a, x_b = a.descriptors.astype(np.float64), b.descriptors.astype(np.float64)
    if config.descriptor_length != config.width:
        x_a, x_b = linear("input_projection", x_a), linear("input_projection", x_b)
    for index in range(layers):
        prefix = f"transformer_layers.{index}"
        x_a = attention(f"{prefix}.self", x_a, x_a, xy_a)
        x_b = attention(f"{prefix}.self", x_b, x_b, xy_b)
        x_a, x_b = attention(f"{prefix}.cross", x_a, x_b), attention(f"{prefix}.cross", x_b, x_a)
    head = f"match_assignment_layers.{layers - 1}"
    sides = [linear(f"{head}.final_projection", x) / config.width**0.25 for x in (x_a, x_b)]
    similarity = sides[0] @ sides[1].T
    shares = [np.exp(similarity) / np.exp(similarity).sum(axis=i, keepdims=True) for i in (0, 1)]
    chances = [1 / (1 + np.exp(-linear(f"{head}.matchability", x)[:, 0])) for x in (x_a, x_b)]
    log_p = np.log(shares[0] * shares[1] * chances[0][:, None] * chances[1])
    return SlowOutput(log_p, *chances)


def slow_matches(log_p: np.ndarray, threshold: float) -> list[tuple[int, int, float]]:
    """Mutual maxima above a threshold, best first."""
    matches = []
    for i, row in enumerate(log_p):
        j = int(row.argmax())
        if int(log_p[:, j].argmax()) == i and math.exp(row[j]) > threshold:
            matches.append((i, j, math.exp(row[j])))
    return sorted(matches, key=lambda match: (-match[2], match[0]))


def nearest_tensors(config: MatcherConfig, temperature: float = 0.05) -> dict[str, np.ndarray]:
    """Weights that compare descriptors only: the assignment is a dual soft-max of the cosines.

    Attention adds nothing to the states, and every keypoint has a match by .99995.
    """
    assert config.descriptor_length == config.width, "descriptors are the states"
    tensors = {name: np.zeros(shape, np.float32) for name, shape in config.tensor_shapes().items()}
    scale = math.sqrt(math.sqrt(config.width) / temperature)
    for name, values in tensors.items():
        if name.endswith("layer_norm.weight"):
            values[:] = 1
        elif name.endswith("final_projection.weight"):
            np.fill_diagonal(values, scale)
        elif name.endswith("matchability.bias"):
            values[:] = 10
    return tensors


def saved(
    folder: Path,
    detector: Checkpoint | None = None,
    *,
    layers: int = 2,
    threshold: float = 0.1,
    temperature: float = 0.05,
) -> Path:
    """A matcher's folder with `nearest_tensors`, by default for features with `made()`."""
    detector = detector or random_checkpoint()
    length = detector.network.descriptor_decoder_dim
    config = MatcherConfig(length, length, heads=2, layers=layers)
    tensors = nearest_tensors(config, temperature)
    save_matcher(folder, config, tensors, detector, threshold=threshold, detector_tensors=False)
    return folder


class Recorder:
    """An engine that keeps the inputs of its last run."""

    def __init__(self, engine: MatcherEngine) -> None:
        self._engine = engine
        self.inputs: list[MatcherInput] = []

    def run(self, a: MatcherInput, b: MatcherInput) -> tuple[MatcherOutput, MatcherOutput]:
        self.inputs = [a, b]
        return self._engine.run(a, b)
