"""The trainable twin of `network.SuperPoint`: convolution -> batch norm -> ReLU.

This network hardly trains without batch norm. Export folds each norm into the convolution before
it, which is exact, so checkpoints have the plain network.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from tiepoint.architecture import CELL_PX, Layer, NetworkConfig
from tiepoint.errors import ConfigError
from tiepoint.network.superpoint import SuperPoint

EMPTY_CELLS = 0.95
"""Fraction of cells for which an untrained network predicts no keypoint. Starting from a uniform
prediction (ln 65) would spend the first hundred steps on learning this prior."""


class TrainableSuperPoint(SuperPoint):
    """SuperPoint with a batch norm after each convolution that has a ReLU.

    Args:
        batch_norm: Whether there are batch norms; False fine-tunes a folded checkpoint.
        frozen_blocks: Number of encoder blocks, from the first, that are not trained, norms
            included. On large images they take most of a step's time.
    """

    def __init__(
        self, config: NetworkConfig, *, batch_norm: bool = True, frozen_blocks: int = 0
    ) -> None:
        super().__init__(config)
        self.norms = nn.ModuleDict()
        for layer in config.layers():
            convolution = self.get_submodule(layer.name)
            _initialise(convolution, layer)
            if batch_norm and layer.relu:
                self.norms[_key(layer)] = nn.BatchNorm2d(layer.out_channels)
                # The norm subtracts any bias of the convolution and adds its own.
                convolution.register_parameter("bias", None)
        frozen = config.encoder_layers()[: 2 * frozen_blocks]
        self._frozen = [self.get_submodule(layer.name) for layer in frozen]
        self._frozen += [self.norms[_key(layer)] for layer in frozen if batch_norm]
        for module in self._frozen:
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> TrainableSuperPoint:
        """Set the training mode; frozen norms keep using their running statistics."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def trunk(
        self,
        pixels: Tensor,
        inside: Tensor | None = None,
        hidden_states: list[Tensor] | None = None,
    ) -> Tensor:
        """B 1 H W -> B C H/4 W/4. A training batch has one image size, so there is no mask."""
        assert inside is None and hidden_states is None
        features = pixels
        for layer in self.network_config.trunk_layers():
            features = self._normalised(layer, features)
            if layer.pool:  # before the ReLU: same result, a quarter of the ReLU's work
                features = functional.max_pool2d(features, 2)
            features = functional.relu(features, inplace=True)
        return features

    def _convolve(self, layer: Layer, features: Tensor) -> Tensor:
        convolved = self._normalised(layer, features)
        return functional.relu(convolved, inplace=True) if layer.relu else convolved

    def _normalised(self, layer: Layer, features: Tensor) -> Tensor:
        convolved: Tensor = self.get_submodule(layer.name)(features)
        if _key(layer) in self.norms:
            convolved = self.norms[_key(layer)](convolved)
        return convolved


def fold(state: Mapping[str, Tensor], config: NetworkConfig) -> dict[str, Tensor]:
    """Fold every batch norm into its convolution.

    Args:
        state, config: State dict and widths of a `TrainableSuperPoint`, with norms or without.

    Returns:
        The plain network's 24 tensors, float32 on the CPU, by the names of `SuperPoint`. The
        computation is in float64 up to the final rounding.
    """
    folded = {}
    for layer in config.layers():
        weight = state[f"{layer.name}.weight"].double().cpu()  # out in k k
        norm = f"norms.{_key(layer)}"
        if f"{norm}.weight" not in state:
            bias = state[f"{layer.name}.bias"].double().cpu()  # out
        else:
            mean, var, gamma, beta = (
                state[f"{norm}.{name}"].double().cpu()
                for name in ("running_mean", "running_var", "weight", "bias")
            )
            gain = gamma / torch.sqrt(var + nn.BatchNorm2d(1).eps)  # out
            weight, bias = weight * gain[:, None, None, None], beta - mean * gain
        folded[f"{layer.name}.weight"] = weight.float().contiguous()
        folded[f"{layer.name}.bias"] = bias.float()
    return folded


def widen(
    state: Mapping[str, Tensor], config: NetworkConfig, wider: TrainableSuperPoint
) -> dict[str, Tensor]:
    """Embed a trained network in a wider one with the same outputs.

    New channels start with the wider network's random weights, and old channels ignore them at
    first.

    Args:
        state, config: State dict and widths of a `TrainableSuperPoint`.
        wider: Network with at least these widths, the same descriptor size, and norms if `state`
            has norms. The result is a state dict for it.

    Raises:
        ConfigError: It is narrower in some layer, or its descriptors have another size.

    Source:
        Net2Net: Chen et al., ICLR 2016; new channels are random here instead of copied.
    """
    after = wider.network_config
    widths = [(*each.encoder_hidden_sizes, each.decoder_hidden_size) for each in (config, after)]
    same_length = config.descriptor_decoder_dim == after.descriptor_decoder_dim
    if not same_length or any(old > new for old, new in zip(*widths, strict=True)):
        raise ConfigError(
            f"a network of {config} does not fit into one of {after}; expected at least the same "
            "width in every layer and descriptors of the same length"
        )
    result = {name: value.clone() for name, value in wider.state_dict().items()}
    for name, value in state.items():
        if value.ndim == 4:
            out_channels, in_channels = value.shape[:2]
            result[name][:out_channels, in_channels:] = 0
            result[name][:out_channels, :in_channels] = value
        elif value.ndim == 1:
            result[name][: len(value)] = value
        else:
            result[name] = value.clone()
    return result


def _initialise(convolution: nn.Module, layer: Layer) -> None:
    """Initial weights that preserve the variance of the signal: He et al., ICCV 2015."""
    assert isinstance(convolution, nn.Conv2d)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu" if layer.relu else "linear")
    assert convolution.bias is not None
    nn.init.zeros_(convolution.bias)
    if layer.name.endswith("score_b"):
        with torch.no_grad():
            convolution.weight.mul_(0.1)  # the bias dominates at first
            odds = EMPTY_CELLS / (1 - EMPTY_CELLS) * CELL_PX * CELL_PX
            convolution.bias[-1] = torch.log(torch.tensor(odds))


def _key(layer: Layer) -> str:
    """A layer's name without dots, which module names cannot contain."""
    return layer.name.replace(".", "_")
