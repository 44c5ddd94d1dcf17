"""The SuperPoint network in torch: pixels -> dense maps.

Source: SuperPoint (DeTone et al. 2018), section 3. The layers come from `NetworkConfig`, the
OpenVINO engine builds the same ones without torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tiepoint.architecture import CELL_PX, PHASES, Layer, NetworkConfig
from tiepoint.geometry import SizeHW, whole_cells


class SuperPoint(nn.Module):
    """Shared encoder with a keypoint head and a descriptor head.

    Its state dict has transformers' 24 tensor names. Convolution weights start as torch sets
    them: load a checkpoint's tensors to detect anything.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.network_config = config
        for layer in config.layers():
            add_by_path(self, layer.name, _convolution(layer))

    def forward(
        self,
        pixels: Tensor,
        inside: Tensor | None = None,
        *,
        descriptors: bool = True,
        phases: int = 1,
    ) -> list[tuple[Tensor, Tensor | None]]:
        """Run the network; the results of `dense` for each shift of `architecture.PHASES`."""
        trunk = self.trunk(pixels, inside)
        encoded = [self.cells(trunk, inside, shift) for shift in PHASES[phases]]
        return [self._heads(one, descriptors=descriptors) for one in encoded]

    def dense(
        self,
        pixels: Tensor,
        inside: Tensor | None = None,
        *,
        descriptors: bool = True,
        hidden_states: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Pixels to dense maps: everything that needs no decision, so it compiles as one graph.

        Args:
            pixels: B 1 H W in 0..1; H and W multiples of 8.
            inside: B 1 h w, 1 for an image's own cells and 0 for padding, in the type of pixels;
                None if there is no padding. With it, padding changes nothing inside.
            descriptors: False skips the descriptor head.
            hidden_states: A list that receives the output of each encoder block.

        Returns:
            logits: B 65 h w.
            descriptors: B D h w, not of unit length, or None.
        """
        return self._heads(self.encode(pixels, inside, hidden_states), descriptors=descriptors)

    def encode(
        self,
        pixels: Tensor,
        inside: Tensor | None = None,
        hidden_states: list[Tensor] | None = None,
    ) -> Tensor:
        """B 1 H W -> B C h w; see `dense`."""
        trunk = self.trunk(pixels, inside, hidden_states)
        if hidden_states is not None:
            hidden_states.append(functional.max_pool2d(trunk, 2))
        encoded = self.cells(trunk, inside)
        if hidden_states is not None:
            hidden_states.append(encoded)
        return encoded

    def trunk(
        self,
        pixels: Tensor,
        inside: Tensor | None = None,
        hidden_states: list[Tensor] | None = None,
    ) -> Tensor:
        """What all phases share, before the last pooling: B 1 H W -> B C H/4 W/4; see `dense`."""
        features = pixels if inside is None else pixels * _at_size(inside, pixels)
        for layer in self.network_config.trunk_layers():
            features = self._convolve(layer, features)
            if inside is not None:
                features = features * _at_size(inside, features)
            if layer.pool:
                features = functional.max_pool2d(features, 2)
                if hidden_states is not None:  # a block ends here
                    hidden_states.append(features)
        return features

    def cells(
        self, trunk: Tensor, inside: Tensor | None = None, shift: tuple[int, int] = (0, 0)
    ) -> Tensor:
        """The encoder's output on one grid of cells.

        Args:
            trunk: B C H/4 W/4.
            inside: B 1 h w; see `dense`.
            shift: One of `architecture.PHASES`.

        Returns:
            B C' h w, with one more row or column if the grid is shifted.
        """
        features = _pooled(trunk, shift)
        if inside is not None:
            inside = _pooled(_at_size(inside, trunk), shift)
        for layer in self.network_config.cell_layers():
            features = self._convolve(layer, features)
            if inside is not None:
                features = features * inside
        return features

    def _heads(self, encoded: Tensor, *, descriptors: bool) -> tuple[Tensor, Tensor | None]:
        config = self.network_config
        logits = self.head(encoded, config.keypoint_layers())  # B 65 h w
        if not descriptors:
            return logits, None
        return logits, self.head(encoded, config.descriptor_layers())  # B D h w

    def head(self, encoded: Tensor, layers: Iterable[Layer]) -> Tensor:
        """Apply the layers of one head: B C h w -> B out h w."""
        for layer in layers:
            encoded = self._convolve(layer, encoded)
        return encoded

    def load(self, tensors: Mapping[str, NDArray[np.float32]]) -> SuperPoint:
        """Take over a checkpoint's tensors; every name must be there, and no other."""
        self.load_state_dict({name: torch.from_numpy(a.copy()) for name, a in tensors.items()})
        return self

    def _convolve(self, layer: Layer, features: Tensor) -> Tensor:
        convolved: Tensor = self.get_submodule(layer.name)(features)
        return functional.relu(convolved) if layer.relu else convolved


def cell_mask(fields_hw: Sequence[SizeHW], batch_hw: SizeHW) -> Tensor | None:
    """Which cells of a batch belong to its images.

    Args:
        fields_hw: (height, width) of each image in the batch, px.
        batch_hw: (height, width) of the batch, px, multiples of 8.

    Returns:
        B 1 h w float32 of 1 and 0, or None when every image fills the batch.
    """
    fields = [whole_cells(size) for size in fields_hw]
    if all(field == tuple(batch_hw) for field in fields):
        return None
    mask = torch.zeros(len(fields), 1, batch_hw[0] // CELL_PX, batch_hw[1] // CELL_PX)
    for image_mask, (height, width) in zip(mask, fields, strict=True):
        image_mask[0, : height // CELL_PX, : width // CELL_PX] = 1
    return mask  # B 1 h w


def _at_size(mask: Tensor, features: Tensor) -> Tensor:
    """B 1 h w -> B 1 H' W', each cell repeated."""
    if mask.shape[-2:] == features.shape[-2:]:
        return mask
    return functional.interpolate(mask, size=features.shape[-2:], mode="nearest")


def _pooled(features: Tensor, shift: tuple[int, int]) -> Tensor:
    """The last pooling, on a grid of cells that is shifted by half a cell or not at all."""
    down, right = (int(side > 0) for side in shift)
    return functional.max_pool2d(features, 2, padding=(down, right))


def _convolution(layer: Layer) -> nn.Conv2d:
    return nn.Conv2d(
        layer.in_channels, layer.out_channels, layer.kernel_px, padding=layer.kernel_px // 2
    )


def add_by_path(root: nn.Module, path: str, leaf: nn.Module) -> None:
    """Add a module under a dotted name, as `state_dict` has it."""
    *parents, name = path.split(".")
    module = root
    for parent in parents:
        if not hasattr(module, parent):
            module.add_module(parent, nn.Module())
        module = module.get_submodule(parent)
    module.add_module(name, leaf)


def mean_heatmap(logits: Sequence[Tensor]) -> Tensor:
    """The heat map B H W, averaged over the logits of each phase; see `heatmaps_of`."""
    each = heatmaps_of(logits)
    return each[0] if len(each) == 1 else torch.stack(each).mean(dim=0)


def heatmaps_of(logits: Sequence[Tensor]) -> list[Tensor]:
    """Heat maps B H W of each phase, from logits B 65 h w."""
    heatmaps = []
    for one, (down, right) in zip(logits, PHASES[len(logits)], strict=True):
        heatmap = cells_to_heatmap(one)
        height, width = heatmap.shape[1] - 2 * down, heatmap.shape[2] - 2 * right
        heatmaps.append(heatmap[:, down : down + height, right : right + width])
    return heatmaps


def cells_to_heatmap(logits: Tensor) -> Tensor:
    """Soft-max over the 65 channels, the first 64 laid out as pixels: B 65 h w -> B H W."""
    # Cell by cell along memory, so that equal cells come out equal to the last bit.
    cells = torch.softmax(logits.float().movedim(1, -1), dim=-1)[..., :-1]  # B h w 64
    return functional.pixel_shuffle(cells.movedim(-1, 1), CELL_PX)[:, 0]  # B H W
