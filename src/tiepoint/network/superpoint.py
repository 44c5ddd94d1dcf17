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

from tiepoint.architecture import CELL_PX, Layer, NetworkConfig
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
            _add_by_path(self, layer.name, _convolution(layer))

    def forward(
        self, pixels: Tensor, inside: Tensor | None = None, *, descriptors: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """Run the network; see `dense`."""
        return self.dense(pixels, inside, descriptors=descriptors)

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
        config = self.network_config
        encoded = self.encode(pixels, inside, hidden_states)  # B C h w
        logits = self.head(encoded, config.keypoint_layers())  # B 65 h w
        if not descriptors:
            return logits, None
        return logits, self.head(encoded, config.descriptor_layers())  # B D h w

    def encode(
        self,
        pixels: Tensor,
        inside: Tensor | None = None,
        hidden_states: list[Tensor] | None = None,
    ) -> Tensor:
        """B 1 H W -> B C h w; see `dense`."""
        features = pixels if inside is None else pixels * _at_size(inside, pixels)
        for layer in self.network_config.encoder_layers():
            features = self._convolve(layer, features)
            if inside is not None:
                features = features * _at_size(inside, features)
            if layer.pool:
                features = functional.max_pool2d(features, 2)
            if hidden_states is not None and layer.name.endswith("conv_b"):  # a block ends here
                hidden_states.append(features)
        return features

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


def _convolution(layer: Layer) -> nn.Conv2d:
    return nn.Conv2d(
        layer.in_channels, layer.out_channels, layer.kernel_px, padding=layer.kernel_px // 2
    )


def _add_by_path(root: nn.Module, path: str, leaf: nn.Module) -> None:
    *parents, name = path.split(".")
    module = root
    for parent in parents:
        if not hasattr(module, parent):
            module.add_module(parent, nn.Module())
        module = module.get_submodule(parent)
    module.add_module(name, leaf)


def cells_to_heatmap(logits: Tensor) -> Tensor:
    """Soft-max over the 65 channels, the first 64 laid out as pixels: B 65 h w -> B H W."""
    # Cell by cell along memory, so that equal cells come out equal to the last bit.
    cells = torch.softmax(logits.float().movedim(1, -1), dim=-1)[..., :-1]  # B h w 64
    B, h, w, _ = cells.shape
    rows = cells.reshape(B, h, w, CELL_PX, CELL_PX).transpose(2, 3)  # B h row w column
    return rows.reshape(B, h * CELL_PX, w * CELL_PX)  # B H W
