"""The SuperPoint network as a GPU runs it fastest; `superpoint` is its slow twin.

Weights have the type in which the network computes, so that no call converts them. Memory is
channels last. ReLU is part of a convolution where cuDNN offers that, and else comes after the
pooling, which leaves a quarter of its work and the same result. All phases run as one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from tiepoint.architecture import CELL_PX, PHASES, Layer
from tiepoint.network.pixel_bytes import WHITE, byte_weights
from tiepoint.network.superpoint import cells_to_heatmap
from tiepoint.weights.checkpoint import Checkpoint

NARROW = {"bf16": torch.bfloat16, "f16": torch.float16}


class Grids(NamedTuple):
    """Dense maps of a batch, with the grids of all phases in one tensor.

    Attributes:
        heatmap: B H W float32, probability of a keypoint at each pixel.
        dense: P*B D h w, phase by phase, not of unit length, in the type of the network; a grid
            smaller than the largest is in its top left. None if not requested.
    """

    heatmap: Tensor
    dense: Tensor | None

    def by_phase(self) -> tuple[Tensor, ...] | None:
        """B D h w float32 of each phase, as `DenseMaps.descriptors`."""
        if self.dense is None:
            return None
        B, H, W = self.heatmap.shape
        shifts = PHASES[len(self.dense) // B]
        each = self.dense.float().chunk(len(shifts))
        return tuple(
            one[:, :, : H // CELL_PX + (down > 0), : W // CELL_PX + (right > 0)]
            for one, (down, right) in zip(each, shifts, strict=True)
        )


class InferenceNetwork(nn.Module):
    """Pixels -> dense maps, without gradients.

    Args:
        precision: "f32", "bf16" or "f16". The logits are float32 in each; in "bf16" a pixel enters
            as two bytes.
        fused: Whether ReLU may be part of a convolution; see `can_fuse`.
    """

    def __init__(self, checkpoint: Checkpoint, precision: str, *, fused: bool = False) -> None:
        super().__init__()
        config, tensors = checkpoint.network, checkpoint.tensors
        self._as_bytes = precision == "bf16"
        first, last = config.encoder_layers()[0], config.keypoint_layers()[-1]
        self._dtype = dtype = NARROW.get(precision, torch.float32)

        def chain(layers: Sequence[Layer]) -> nn.ModuleList:
            modules = nn.ModuleList()
            for layer in layers:
                weight, bias = tensors[f"{layer.name}.weight"], tensors[f"{layer.name}.bias"]
                if layer.name == first.name and self._as_bytes:
                    weight = byte_weights(weight)
                kind = torch.float32 if layer.name == last.name else dtype
                pair = (torch.from_numpy(one).to(kind) for one in (weight, bias))
                modules.append(_Convolution(layer, *pair, fused=fused))
            return modules

        self.trunk, self.cells = chain(config.trunk_layers()), chain(config.cell_layers())
        self.keypoints = chain(config.keypoint_layers())
        self.descriptors = chain(config.descriptor_layers())
        self.requires_grad_(False)

    def forward(
        self, pixels: Tensor, inside: Tensor | None = None, *, descriptors: bool, phases: int = 1
    ) -> Grids:
        """Run the network.

        Args:
            pixels: B 1 H W float32 in 0..1; H and W multiples of 8.
            inside: B 1 h w float32, 1 for an image's own cells and 0 for padding; None if there is
                no padding.
            descriptors: False skips the descriptor head.
            phases: See `architecture.PHASES`.
        """
        H, W = pixels.shape[2:]
        features = self._entered(pixels)  # B 1 H W, or B 2 H W
        masks = None if inside is None else _at_all_sizes(inside.to(features.dtype))
        if masks is not None:
            features = features * masks[H]
        for layer in self.trunk:
            features = layer(features)
            if masks is not None:
                features = features * masks[features.shape[2]]
        inside = None if masks is None else masks[H // 4]
        features, inside = _all_phases(features, inside, PHASES[phases])
        for layer in self.cells:
            features = layer(features)  # P*B C h w
            if inside is not None:
                features = features * inside
        logits = self._head(self.keypoints, features)  # P*B 65 h w
        heatmap = _mean_heatmap(logits, (H, W), PHASES[phases])
        return Grids(heatmap, self._head(self.descriptors, features) if descriptors else None)

    def _entered(self, pixels: Tensor) -> Tensor:
        """Pixels in the type of the network; see `pixel_bytes.pixel_bytes`."""
        if not self._as_bytes:
            return pixels.to(self._dtype)
        words = (pixels * WHITE).int()
        both = torch.cat([words & 255, words >> 8], dim=1)  # B 2 H W
        return both.to(torch.bfloat16, memory_format=torch.channels_last)

    @staticmethod
    def _head(layers: nn.ModuleList, features: Tensor) -> Tensor:
        for layer in layers:
            features = layer(features)
        return features


class _Convolution(nn.Module):
    """One layer: convolution, pooling if it has one, ReLU if it has one."""

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: Layer, weight: Tensor, bias: Tensor, *, fused: bool) -> None:
        super().__init__()
        self.register_buffer("weight", weight.to(memory_format=torch.channels_last))
        self.register_buffer("bias", bias)
        self._padding, self._pool = layer.kernel_px // 2, layer.pool
        self._relu, self._fused = layer.relu, fused and layer.relu and not layer.pool

    def forward(self, features: Tensor) -> Tensor:
        features = features.to(self.weight.dtype)
        if self._fused:
            return convolved_with_relu(features, self.weight, self.bias, self._padding)
        output = functional.conv2d(features, self.weight, self.bias, padding=self._padding)
        if self._pool:
            output = functional.max_pool2d(output, 2)
        return output.relu_() if self._relu else output


def convolved_with_relu(features: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
    """Convolution, bias and ReLU in one kernel of cuDNN: the map is written once."""
    both = (padding, padding)
    output: Tensor = torch.cudnn_convolution_relu(features, weight, bias, (1, 1), both, (1, 1), 1)
    return output


def can_fuse(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether `convolved_with_relu` works on a device and gives what the two steps give."""
    if device.type != "cuda":
        return False
    random = torch.Generator().manual_seed(0)
    shapes = ((2, 32, 16, 24), (48, 32, 3, 3), (48,))
    features, weight, bias = (
        torch.randn(shape, generator=random).to(device, dtype) for shape in shapes
    )
    features, weight = (
        one.contiguous(memory_format=torch.channels_last) for one in (features, weight)
    )
    try:
        fused = convolved_with_relu(features, weight, bias, 1)
    except RuntimeError:
        return False
    apart = functional.conv2d(features, weight, bias, padding=1).relu()
    return torch.allclose(fused.float(), apart.float(), rtol=0.02, atol=0.02)


def _at_all_sizes(inside: Tensor) -> dict[int, Tensor]:
    """B 1 h w -> the mask at the sizes of the maps, by their heights."""
    return {
        inside.shape[2] * factor: inside
        if factor == 1
        else functional.interpolate(inside, scale_factor=factor, mode="nearest")
        for factor in (1, 2, 4, 8)
    }


def _all_phases(
    trunk: Tensor, inside: Tensor | None, shifts: Sequence[tuple[int, int]]
) -> tuple[Tensor, Tensor | None]:
    """The last pooling on each grid of cells, and the masks of the grids.

    Args:
        trunk: B C H/4 W/4.
        inside: B 1 H/4 W/4, or None.

    Returns:
        P*B C h w, 0 where a grid is smaller than the largest; and P*B 1 h w, or None if all cells
        of all grids count.
    """
    if len(shifts) == 1:
        pooled = functional.max_pool2d(trunk, 2)
        return pooled, None if inside is None else functional.max_pool2d(inside, 2)
    if inside is None:
        inside = trunk.new_ones(1, 1, *trunk.shape[2:])
    grids, masks = ([_pooled(one, shift) for shift in shifts] for one in (trunk, inside))
    each = [mask.expand(len(trunk), -1, -1, -1) for mask in masks]
    return torch.cat(grids), torch.cat(each)


def _pooled(features: Tensor, shift: tuple[int, int]) -> Tensor:
    """One grid of cells, with a row and a column of 0 below and right where it is smaller."""
    down, right = (int(side > 0) for side in shift)
    pooled = functional.max_pool2d(features, 2, padding=(down, right))
    return functional.pad(pooled, (0, 1 - right, 0, 1 - down))


def _mean_heatmap(
    logits: Tensor, size_hw: tuple[int, int], shifts: Sequence[tuple[int, int]]
) -> Tensor:
    """P*B 65 h w -> B H W, the mean of the phases."""
    height, width = size_hw
    heatmaps = cells_to_heatmap(logits).chunk(len(shifts))
    each = [
        one[:, down : down + height, right : right + width]
        for one, (down, right) in zip(heatmaps, shifts, strict=True)
    ]
    return each[0] if len(each) == 1 else torch.stack(each).mean(dim=0)
