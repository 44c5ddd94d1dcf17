"""The matcher's network in torch: batches with padding, and every layer's head, for training.

The layers come from `MatcherConfig`; the OpenVINO graph has the same ones without torch.

Source: LightGlue (Lindenberger et al. 2023), section 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tiepoint.matching.learned.architecture import (
    NORM_EPSILON,
    Block,
    Linear,
    MatcherConfig,
    MatcherLayer,
)
from tiepoint.network.superpoint import add_by_path

PADDING_LOGIT = -1e9
"""Similarity of padding: its probability is 0, and sums of such values are finite."""


class Points(NamedTuple):
    """Keypoints of one image of each pair.

    Attributes:
        xy: B N 2 float32, normalised by `inputs.normalised`.
        descriptors: B N D.
        valid: B N bool, False for padding; None if there is none. Padding changes nothing in the
            results of valid keypoints.
    """

    xy: Tensor
    descriptors: Tensor
    valid: Tensor | None = None


class Head(NamedTuple):
    """The head of one layer.

    Attributes:
        projected_a, projected_b: B N C of each image; see `inputs.MatcherOutput`.
        matchability_a, matchability_b: B N, logits.
        valid_a, valid_b: B N bool or None, as in `Points`.
    """

    projected_a: Tensor
    projected_b: Tensor
    matchability_a: Tensor
    matchability_b: Tensor
    valid_a: Tensor | None
    valid_b: Tensor | None


class LogAssignment(NamedTuple):
    """Log probabilities, float32; padding has finite values without a meaning.

    Attributes:
        matched: B N_A N_B, that i and j match.
        unmatched_a: B N_A, that a keypoint has no match.
        unmatched_b: B N_B.
    """

    matched: Tensor
    unmatched_a: Tensor
    unmatched_b: Tensor


class MatcherNetwork(nn.Module):
    """LightGlue's layers.

    Its state dict has transformers' tensor names without the detector's. Weights start as torch
    sets them.

    Args:
        tied: Whether queries and keys of the cross-attention are one map, as in the paper: the
            similarity of i and j is then the same in both directions.
    """

    def __init__(self, config: MatcherConfig, *, tied: bool = True) -> None:
        super().__init__()
        self.matcher_config = config
        for linear in config.linears():
            leaf = nn.Linear(linear.in_channels, linear.out_channels, bias=linear.bias)
            add_by_path(self, linear.name, leaf)
        for norm in config.norms():
            add_by_path(self, norm, nn.LayerNorm(2 * config.width, eps=NORM_EPSILON))
        nn.init.normal_(self.get_parameter(f"{config.positions().name}.weight"))
        if tied:
            for layer in config.matcher_layers():
                shared = self.get_submodule(layer.cross_block.query.name)
                add_by_path(self, layer.cross_block.key.name, shared)

    @classmethod
    def of(
        cls, config: MatcherConfig, tensors: Mapping[str, NDArray[np.float32]]
    ) -> MatcherNetwork:
        """The network with the tensors of a checkpoint; every name must be there, and no other."""
        network = cls(config, tied=is_tied(config, tensors))
        network.load_state_dict({name: torch.from_numpy(a.copy()) for name, a in tensors.items()})
        return network

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """The state dict as arrays, to be stored."""
        state = self.state_dict()
        return {name: state[name].detach().float().cpu().numpy().copy() for name in state}

    def forward(self, a: Points, b: Points, *, layers: int | None = None) -> list[Head]:
        """Run the network on a batch of pairs.

        Args:
            a, b: Keypoints of the first and of the second image of each pair; the counts N differ.
            layers: Number of layers to run; None runs all.

        Returns:
            The head of each layer that ran; `log_assignment` makes probabilities of it.
        """
        return [self._head(*after, a, b) for after in self._layers(a, b, layers)]

    def last_head(self, a: Points, b: Points, *, layers: int | None = None) -> Head:
        """The last of `forward`'s heads; the others are not computed."""
        *_, after = self._layers(a, b, layers)
        return self._head(*after, a, b)

    def _layers(
        self, a: Points, b: Points, layers: int | None
    ) -> Iterator[tuple[MatcherLayer, tuple[Tensor, Tensor]]]:
        """Each layer, and the states of both images after it, B N C."""
        states = self._states(a), self._states(b)
        rotations = self._rotation(a.xy), self._rotation(b.xy)
        for layer in self.matcher_config.matcher_layers()[:layers]:
            after_a = self._self_attention(states[0], rotations[0], a.valid, layer.self_block)
            after_b = self._self_attention(states[1], rotations[1], b.valid, layer.self_block)
            states = (
                self._cross_attention(after_a, after_b, b.valid, layer.cross_block),
                self._cross_attention(after_b, after_a, a.valid, layer.cross_block),
            )
            yield layer, states

    def _states(self, points: Points) -> Tensor:
        first = self.matcher_config.input_projection()
        return points.descriptors if first is None else self._map(first, points.descriptors)

    def _rotation(self, xy: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine of each pair's angle, B 1 N C/2/heads each, in float32."""
        weight = self.get_parameter(f"{self.matcher_config.positions().name}.weight").float()
        xy = xy.float()
        angles = xy[..., :1] * weight[:, 0] + xy[..., 1:] * weight[:, 1]  # B N C/2/heads
        return torch.cos(angles)[:, None], torch.sin(angles)[:, None]

    def _self_attention(
        self,
        states: Tensor,
        rotation: tuple[Tensor, Tensor],
        valid: Tensor | None,
        block: Block,
    ) -> Tensor:
        query, key = (self._heads(self._map(one, states)) for one in (block.query, block.key))
        value = self._heads(self._map(block.value, states))
        attended = _attention(_rotated(query, rotation), _rotated(key, rotation), value, valid)
        return self._mlp(states, attended, block)

    def _cross_attention(
        self, states: Tensor, others: Tensor, valid_others: Tensor | None, block: Block
    ) -> Tensor:
        query = self._heads(self._map(block.query, states))
        key, value = (self._heads(self._map(one, others)) for one in (block.key, block.value))
        return self._mlp(states, _attention(query, key, value, valid_others), block)

    def _mlp(self, states: Tensor, attended: Tensor, block: Block) -> Tensor:
        message = self._map(block.output, attended.transpose(1, 2).flatten(2))  # B N C
        hidden = self._map(block.expand, torch.cat([states, message], dim=-1))  # B N 2C
        hidden = functional.gelu(self.get_submodule(block.norm)(hidden))
        return states + self._map(block.contract, hidden)  # B N C

    def _head(
        self, layer: MatcherLayer, states: tuple[Tensor, Tensor], a: Points, b: Points
    ) -> Head:
        scale = self.matcher_config.width**-0.25  # of each image; of the product it is C^-1/2
        projected = [self._map(layer.projection, one) * scale for one in states]
        logits = [self._map(layer.matchability, one)[..., 0] for one in states]
        return Head(projected[0], projected[1], logits[0], logits[1], a.valid, b.valid)

    def _heads(self, states: Tensor) -> Tensor:
        """B N C -> B heads N C/heads."""
        B, N, _ = states.shape
        return states.reshape(B, N, self.matcher_config.heads, -1).transpose(1, 2)

    def _map(self, linear: Linear, states: Tensor) -> Tensor:
        mapped: Tensor = self.get_submodule(linear.name)(states)
        return mapped


def log_assignment(head: Head) -> LogAssignment:
    """Log probabilities of a head, in float32 also under autocast.

    Source: LightGlue (Lindenberger et al. 2023), equations 7 and 8.
    """
    with torch.autocast(head.projected_a.device.type, enabled=False):
        a, b = head.projected_a.float(), head.projected_b.float()
        logits_a, logits_b = head.matchability_a.float(), head.matchability_b.float()
        similarity = a @ b.transpose(-1, -2)  # B N_A N_B
        for valid, axis in ((head.valid_a, -1), (head.valid_b, -2)):
            if valid is not None:
                similarity = similarity.masked_fill(~valid.unsqueeze(axis), PADDING_LOGIT)
        matched = (
            functional.log_softmax(similarity, dim=-1)
            + functional.log_softmax(similarity, dim=-2)
            + functional.logsigmoid(logits_a)[..., None]
            + functional.logsigmoid(logits_b)[..., None, :]
        )
        return LogAssignment(
            matched, functional.logsigmoid(-logits_a), functional.logsigmoid(-logits_b)
        )


def is_tied(config: MatcherConfig, tensors: Mapping[str, NDArray[np.float32]]) -> bool:
    """Whether queries and keys of all cross-attentions have equal tensors."""
    blocks = [layer.cross_block for layer in config.matcher_layers()]
    return all(
        np.array_equal(tensors[f"{b.query.name}.{part}"], tensors[f"{b.key.name}.{part}"])
        for b in blocks
        for part in ("weight", "bias")
    )


def _attention(query: Tensor, key: Tensor, value: Tensor, valid: Tensor | None) -> Tensor:
    """Queries B heads N C/heads, keys and values B heads M C/heads, valid B M -> as the queries.

    The soft-max is computed in float32. Without valid keys the result is 0.
    """
    if valid is None:
        return _products(query, key, value, None)
    any_valid = valid.any(dim=-1, keepdim=True)  # B 1
    mask = (valid | ~any_valid)[:, None, None]  # B 1 1 M; a soft-max over nothing would be NaN
    return _products(query, key, value, mask) * any_valid[:, None, None]


def _products(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Attention without a special case. In training on a CPU, torch's own takes three times as long
    for a few hundred keypoints; without gradients it is used, because it needs no N x M weights.
    """
    if query.device.type != "cpu" or not query.requires_grad:
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    with torch.autocast("cpu", enabled=False):
        logits = query @ (key * key.shape[-1] ** -0.5).transpose(-1, -2)  # B heads N M
        if mask is not None:
            logits = logits + torch.zeros_like(mask, dtype=logits.dtype).masked_fill_(~mask, -1e9)
        return torch.softmax(logits, dim=-1) @ value  # bfloat16 is summed in float32 inside


def _rotated(states: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Each pair of channels turned by its angle, in float32: B heads N C/heads."""
    cosine, sine = rotation
    x, y = states[..., 0::2].float(), states[..., 1::2].float()  # B heads N C/2/heads
    turned = torch.stack([x * cosine - y * sine, y * cosine + x * sine], dim=-1)
    return turned.flatten(-2).to(states.dtype)
