"""The trainable twin of `network.SuperPoint`: convolution -> batch norm -> ReLU.

Without batch norm this network hardly trains. At export each norm is folded into the convolution
before it, which is exact, so what is shipped is the plain network.
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
"""Share of cells without a keypoint that an untrained network expects: a start at ln 65 would
spend its first hundred steps on learning just this."""


class TrainableSuperPoint(SuperPoint):
    """SuperPoint with a batch norm after each convolution that has a ReLU.

    Args:
        config: Widths.
        batch_norm: False gives the plain network: what fine-tuning a folded checkpoint needs.
        frozen_blocks: So many encoder blocks, from the first one, stay as they are loaded, norms
            included. Where images are large most of a step's time is theirs.
    """

    def __init__(
        self, config: NetworkConfig, batch_norm: bool = True, frozen_blocks: int = 0
    ) -> None:
        super().__init__(config)
        self._frozen = config.encoder_layers()[: 2 * frozen_blocks]
        for layer in config.layers():
            _start(self.get_submodule(layer.name), layer)
        self.norms = nn.ModuleDict()
        if batch_norm:
            for layer in config.layers():
                if layer.relu:
                    self.norms[_key(layer)] = nn.BatchNorm2d(layer.out_channels)
                    # The norm has a bias of its own and takes the convolution's away.
                    self.get_submodule(layer.name).register_parameter("bias", None)
        for module in self._frozen_modules():
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> TrainableSuperPoint:
        """As for any module, but what is frozen keeps normalising by what it learnt."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def _frozen_modules(self) -> list[nn.Module]:
        layers = [self.get_submodule(layer.name) for layer in self._frozen]
        names = [_key(layer) for layer in self._frozen]
        return layers + [self.norms[name] for name in names if name in self.norms]

    def encode(
        self,
        pixels: Tensor,
        inside: Tensor | None = None,
        hidden_states: list[Tensor] | None = None,
    ) -> Tensor:
        """B 1 H W -> B C h w; batches in training are of one size, so there is no mask."""
        assert inside is None and hidden_states is None
        features = pixels
        for layer in self.network_config.encoder_layers():
            features = self._normalised(layer, features)
            if layer.pool:  # before the ReLU: the same numbers for a quarter of its work
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
    """The plain network's 24 tensors: every batch norm multiplied into its convolution.

    Args:
        state: The state dict of a `TrainableSuperPoint` of these widths, with norms or without.

    Returns:
        Name -> float32 tensor on the CPU, as `SuperPoint` and checkpoints name them. In double
        precision until the last rounding, so nothing but that is lost.
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


def widened(
    state: Mapping[str, Tensor], config: NetworkConfig, wider: TrainableSuperPoint
) -> dict[str, Tensor]:
    """A trained network inside a wider one that answers the same.

    New channels begin with the wider network's own random weights; what was there before takes
    nothing from them yet. Source: Net2Net (Chen et al. 2016), without copying channels.

    Args:
        state: State dict of a `TrainableSuperPoint` of the widths in `config`.
        wider: At least as wide everywhere, descriptors as long, norms in both or in neither.

    Raises:
        ConfigError: It is narrower somewhere, or its descriptors have another length.
    """
    _check_wider(config, wider.network_config)
    found = {name: value.clone() for name, value in wider.state_dict().items()}
    for name, value in state.items():
        if value.ndim == 4:
            out_channels, in_channels = value.shape[:2]
            found[name][:out_channels, in_channels:] = 0
            found[name][:out_channels, :in_channels] = value
        elif value.ndim == 1:
            found[name][: len(value)] = value
        else:
            found[name] = value.clone()
    return found


def _check_wider(config: NetworkConfig, wider: NetworkConfig) -> None:
    before = (*config.encoder_hidden_sizes, config.decoder_hidden_size)
    after = (*wider.encoder_hidden_sizes, wider.decoder_hidden_size)
    same_length = config.descriptor_decoder_dim == wider.descriptor_decoder_dim
    if not same_length or any(a < b for a, b in zip(after, before, strict=True)):
        raise ConfigError(
            f"a network of {config} does not fit into one of {wider}: expected widths of at least "
            "as much everywhere and descriptors of the same length"
        )


def _start(convolution: nn.Module, layer: Layer) -> None:
    """Weights that keep the signal's size; see He et al. 2015 for the ReLU layers."""
    assert isinstance(convolution, nn.Conv2d)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu" if layer.relu else "linear")
    assert convolution.bias is not None
    nn.init.zeros_(convolution.bias)
    if layer.name.endswith("score_b"):
        with torch.no_grad():
            convolution.weight.mul_(0.1)  # so that the bias decides at first
            odds = EMPTY_CELLS / (1 - EMPTY_CELLS) * CELL_PX * CELL_PX
            convolution.bias[-1] = torch.log(torch.tensor(odds))


def _key(layer: Layer) -> str:
    """A layer's name without dots, which a module's name must not have."""
    return layer.name.replace(".", "_")
