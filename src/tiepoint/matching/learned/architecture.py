"""The layers of a learned matcher of any size, as a table that every engine reads.

The layout is that of LightGlue, so transformers loads the weights as they are: each layer has
self-attention with rotary positions, cross-attention, and a head of its own.

Source: LightGlue (Lindenberger et al. 2023), section 3.
"""

from __future__ import annotations

from dataclasses import dataclass

from tiepoint.architecture import MAX_WEIGHTS
from tiepoint.checks import check_whole
from tiepoint.errors import ConfigError

MAX_LAYERS, MAX_SIDE = 64, 4096
"""Maximum number of layers, and of channels and heads."""

NORM_EPSILON = 1e-5
"""Added to the variance in layer normalisation."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Linear:
    """One linear map, named as in the state dict."""

    name: str
    in_channels: int
    out_channels: int
    bias: bool = True

    def tensor_shapes(self) -> dict[str, Shape]:
        """Name -> shape of its tensors."""
        shapes: dict[str, Shape] = {f"{self.name}.weight": (self.out_channels, self.in_channels)}
        if self.bias:
            shapes[f"{self.name}.bias"] = (self.out_channels,)
        return shapes


@dataclass(frozen=True)
class Block:
    """Attention and the MLP that adds its result to the states.

    Attributes:
        query, key, value, output: Projections of the attention. `output` is after the heads.
        expand, contract: The two maps of the MLP; its input is [states, attention] side by side.
        norm: Name of the layer normalisation between them, before the GELU.
    """

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    expand: Linear
    contract: Linear
    norm: str

    def linears(self) -> tuple[Linear, ...]:
        """All linear maps, in the order in which they run."""
        return (self.query, self.key, self.value, self.output, self.expand, self.contract)


@dataclass(frozen=True)
class MatcherLayer:
    """One layer: self-attention, cross-attention, and the head that ends a matcher here.

    Attributes:
        projection: States to the vectors whose products are the similarities.
        matchability: States to the logit of having a match in the other image.
        confidence: States to the logit of LightGlue's early stopping, which tiepoint does not use.
            None in the last layer.
    """

    self_block: Block
    cross_block: Block
    projection: Linear
    matchability: Linear
    confidence: Linear | None


@dataclass(frozen=True)
class MatcherConfig:
    """Sizes of a learned matcher.

    Attributes:
        descriptor_length: Length D of the detector's descriptors.
        width: Channels C of the states.
        heads: Attention heads; each has `width / heads` channels, an even number.
        layers: Number of layers.
    """

    descriptor_length: int = 128
    width: int = 96
    heads: int = 2
    layers: int = 5

    def __post_init__(self) -> None:
        for name, unit in (("descriptor_length", "values"), ("width", "channels")):
            check_whole(name, getattr(self, name), minimum=1, maximum=MAX_SIDE, unit=unit)
        check_whole("heads", self.heads, minimum=1, maximum=MAX_SIDE, unit="attention heads")
        check_whole("layers", self.layers, minimum=1, maximum=MAX_LAYERS, unit="layers")
        if self.width % (2 * self.heads):
            raise ConfigError(
                f"width is {self.width} with {self.heads} heads, expected a multiple of "
                f"{2 * self.heads}: rotary positions turn pairs of channels in each head"
            )
        if self.weight_count() > MAX_WEIGHTS:
            raise ConfigError(
                f"{self} has {self.weight_count():.2g} weights; expected at most {MAX_WEIGHTS:,}"
            )

    @property
    def head_width(self) -> int:
        """Channels of one attention head."""
        return self.width // self.heads

    def input_projection(self) -> Linear | None:
        """Descriptors to states; None if both have one size, and then they are the same."""
        if self.descriptor_length == self.width:
            return None
        return Linear("input_projection", self.descriptor_length, self.width)

    def positions(self) -> Linear:
        """Normalised (x, y) to the angles of one head's pairs of channels; all heads share it."""
        return Linear("positional_encoder.projector", 2, self.head_width // 2, bias=False)

    def matcher_layers(self) -> tuple[MatcherLayer, ...]:
        """The layers, first to last."""
        return tuple(self._layer(index) for index in range(self.layers))

    def linears(self) -> tuple[Linear, ...]:
        """All linear maps."""
        first = self.input_projection()
        maps = [self.positions()] if first is None else [first, self.positions()]
        for layer in self.matcher_layers():
            maps += [*layer.self_block.linears(), *layer.cross_block.linears()]
            maps += [layer.projection, layer.matchability]
            maps += [] if layer.confidence is None else [layer.confidence]
        return tuple(maps)

    def norms(self) -> tuple[str, ...]:
        """Names of all layer normalisations; each has `2 * width` channels."""
        layers = self.matcher_layers()
        return tuple(b.norm for one in layers for b in (one.self_block, one.cross_block))

    def tensor_shapes(self) -> dict[str, Shape]:
        """Name -> shape of all tensors in the state dict."""
        shapes: dict[str, Shape] = {}
        for linear in self.linears():
            shapes |= linear.tensor_shapes()
        for norm in self.norms():
            shapes |= {f"{norm}.weight": (2 * self.width,), f"{norm}.bias": (2 * self.width,)}
        return shapes

    def weight_count(self) -> int:
        """Number of weights; biases, normalisations and `confidence` are not counted."""
        C, D = self.width, self.descriptor_length
        block = 4 * C * C + 2 * C * 2 * C + 2 * C * C
        return D * C + self.head_width + self.layers * (2 * block + C * C + C)

    def _layer(self, index: int) -> MatcherLayer:
        layer, head = f"transformer_layers.{index}", f"match_assignment_layers.{index}"
        is_last = index == self.layers - 1
        return MatcherLayer(
            self._block(f"{layer}.self"),
            self._block(f"{layer}.cross"),
            Linear(f"{head}.final_projection", self.width, self.width),
            Linear(f"{head}.matchability", self.width, 1),
            None if is_last else Linear(f"token_confidence.{index}.token", self.width, 1),
        )

    def _block(self, prefix: str) -> Block:
        C, attention, mlp = self.width, f"{prefix}_attention", f"{prefix}_mlp"
        return Block(
            query=Linear(f"{attention}.q_proj", C, C),
            key=Linear(f"{attention}.k_proj", C, C),
            value=Linear(f"{attention}.v_proj", C, C),
            output=Linear(f"{attention}.o_proj", C, C),
            expand=Linear(f"{mlp}.fc1", 2 * C, 2 * C),
            contract=Linear(f"{mlp}.fc2", 2 * C, C),
            norm=f"{mlp}.layer_norm",
        )
