"""The layers of a SuperPoint network of any widths, as a table that every engine reads.

Source: SuperPoint (DeTone et al. 2018), section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tiepoint.errors import ConfigError

MAX_WEIGHTS = 25_000_000
"""Weights of the largest network, 19 times that of the paper."""

CELL_PX = 8
"""Side of a cell in pixels: three 2x2 poolings (SuperPoint, section 3.1)."""

PHASES: Mapping[int, tuple[tuple[int, int], ...]] = {
    1: ((0, 0),),
    2: ((0, 0), (4, 4)),
    4: ((0, 0), (4, 4), (0, 4), (4, 0)),
}
"""Number of phases -> (y, x) shift of each grid of cells to the top and left, px.

A shifted grid has one more row (column) of cells, because those at both ends are half outside. The
answers of several phases are averaged: with one, they depend on where in its cell a point is. Half
a cell is a whole pixel before the last pooling, so all layers up to there are shared.
"""


@dataclass(frozen=True)
class Layer:
    """One convolution of the network, named as in the state dict."""

    name: str
    in_channels: int
    out_channels: int
    kernel_px: int
    relu: bool
    pool: bool

    def weight_count(self) -> int:
        """Number of weights, biases not counted."""
        return self.in_channels * self.out_channels * self.kernel_px**2


@dataclass(frozen=True)
class NetworkConfig:
    """Widths of a SuperPoint network. Defaults are the paper's (section 3).

    Attributes:
        encoder_hidden_sizes: Channels of the four encoder blocks.
        decoder_hidden_size: Channels between the two layers of each head.
        keypoint_decoder_dim: 64 in-cell positions and "no keypoint"; always 65.
        descriptor_decoder_dim: Descriptor length D.
    """

    encoder_hidden_sizes: tuple[int, ...] = (64, 64, 128, 128)
    decoder_hidden_size: int = 256
    keypoint_decoder_dim: int = CELL_PX * CELL_PX + 1
    descriptor_decoder_dim: int = 256

    def __post_init__(self) -> None:
        if len(self.encoder_hidden_sizes) != 4:
            raise ConfigError(
                f"encoder_hidden_sizes has {len(self.encoder_hidden_sizes)} entries, expected 4: "
                "one per encoder block"
            )
        if self.keypoint_decoder_dim != CELL_PX * CELL_PX + 1:
            raise ConfigError(
                f"keypoint_decoder_dim is {self.keypoint_decoder_dim}, expected 65: "
                "64 positions in an 8x8 cell and 'no keypoint'"
            )
        widths = (*self.encoder_hidden_sizes, self.decoder_hidden_size, self.descriptor_decoder_dim)
        if any(isinstance(w, bool) or not isinstance(w, int) or w < 1 for w in widths):
            raise ConfigError(f"network widths must be whole numbers of at least 1, got {widths}")
        if self.weight_count() > MAX_WEIGHTS:
            raise ConfigError(
                f"network widths are {widths}, {self.weight_count():.2g} weights; expected at most "
                f"{MAX_WEIGHTS:,}"
            )

    def encoder_layers(self) -> tuple[Layer, ...]:
        """The eight 3x3 layers of the encoder, a 2x2 pooling after the 2nd, 4th and 6th."""
        layers = []
        channels = 1
        for block, width in enumerate(self.encoder_hidden_sizes):
            prefix = f"encoder.conv_blocks.{block}"
            layers.append(Layer(f"{prefix}.conv_a", channels, width, 3, relu=True, pool=False))
            pool = block < len(self.encoder_hidden_sizes) - 1
            layers.append(Layer(f"{prefix}.conv_b", width, width, 3, relu=True, pool=pool))
            channels = width
        return tuple(layers)

    def trunk_layers(self) -> tuple[Layer, ...]:
        """The encoder's layers that all phases share; the last one is not pooled yet."""
        *shared, last = self.encoder_layers()[:6]
        return (*shared, replace(last, pool=False))

    def cell_layers(self) -> tuple[Layer, ...]:
        """The encoder's layers on cells, after the last pooling."""
        return self.encoder_layers()[6:]

    def keypoint_layers(self) -> tuple[Layer, ...]:
        """Encoder output to the 65 logits of each cell."""
        return self._head("keypoint_decoder.conv_score", self.keypoint_decoder_dim)

    def descriptor_layers(self) -> tuple[Layer, ...]:
        """Encoder output to one descriptor per cell, not yet of unit length."""
        return self._head("descriptor_decoder.conv_descriptor", self.descriptor_decoder_dim)

    def layers(self) -> tuple[Layer, ...]:
        """All twelve layers: encoder, keypoint head, descriptor head."""
        return (*self.encoder_layers(), *self.keypoint_layers(), *self.descriptor_layers())

    def weight_count(self) -> int:
        """Number of weights of the convolutions, biases not counted."""
        return sum(layer.weight_count() for layer in self.layers())

    def multiply_adds(self, size_hw: tuple[int, int], phases: int = 1) -> int:
        """Multiply-accumulates for one image of `size_hw` (multiples of 8), at one scale.

        Inference time is roughly proportional to them.
        """
        height, width = size_hw
        total, pixels = 0, height * width
        for layer in self.trunk_layers():
            total += pixels * layer.weight_count()
            pixels //= 4 if layer.pool else 1
        on_cells = (*self.cell_layers(), *self.keypoint_layers(), *self.descriptor_layers())
        a_cell = sum(layer.weight_count() for layer in on_cells)
        for down, right in PHASES[phases]:
            total += (height // CELL_PX + (down > 0)) * (width // CELL_PX + (right > 0)) * a_cell
        return total

    def _head(self, prefix: str, out_channels: int) -> tuple[Layer, ...]:
        encoded, hidden = self.encoder_hidden_sizes[-1], self.decoder_hidden_size
        return (
            Layer(f"{prefix}_a", encoded, hidden, 3, relu=True, pool=False),
            Layer(f"{prefix}_b", hidden, out_channels, 1, relu=False, pool=False),
        )
