"""The SuperPoint network on a CPU, an NVIDIA or an Apple GPU by torch."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tiepoint.config import DescriptorSampling, DetectionConfig
from tiepoint.errors import ConfigError
from tiepoint.geometry import Placement
from tiepoint.keypoints import postprocess, postprocess_torch
from tiepoint.keypoints.result import Keypoints, Masks
from tiepoint.network.dense_maps import DenseMaps
from tiepoint.network.superpoint import SuperPoint, cell_mask
from tiepoint.weights.checkpoint import Checkpoint

Float32 = NDArray[np.float32]
NARROW = {"bf16": torch.bfloat16, "f16": torch.float16}


_is_forked = False


def _note_fork() -> None:
    global _is_forked  # noqa: PLW0603
    _is_forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


class TorchRuntime:
    """Network and post-processing on one device; safe to call from several threads."""

    engine = "torch"
    at_once = 1  # of several images it takes a batch

    def __init__(
        self, checkpoint: Checkpoint, device: str, precision: str, compiled: bool = False
    ) -> None:
        self.device = device
        self.precision = precision
        self.batch_size = 1 if device == "cpu" else 8
        self._device = _usable(device)
        if _is_forked and device == "cpu":
            # OpenMP would wait for ever for the threads of the parent, which a fork does not copy.
            torch.set_num_threads(1)
        network = SuperPoint(checkpoint.network).load(checkpoint.tensors).eval()
        network.requires_grad_(False)
        if precision in NARROW:
            # Pixels are finer than 8 bits, and logits of 8 bits often tie.
            shape = checkpoint.network
            for layer in (shape.encoder_layers()[0], shape.keypoint_layers()[-1]):
                parent, _, name = layer.name.rpartition(".")
                whole = _InFloat32(network.get_submodule(layer.name))
                network.get_submodule(parent).add_module(name, whole)
        network = network.to(self._device)
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._network: torch.nn.Module = network
        if compiled:
            self._network = torch.compile(network, dynamic=True)  # type: ignore[assignment]

    def __call__(
        self, pixels: Float32, placements: Sequence[Placement], descriptors: bool
    ) -> DenseMaps[Tensor]:
        """Run the network on B 1 H W float32 in 0..1; images of different sizes are masked."""
        height, width = pixels.shape[2:]
        inside = cell_mask([placement.padded_hw for placement in placements], (height, width))
        batch = torch.from_numpy(pixels)  # B 1 H W
        if self._device.type == "cuda":  # pinned, so that the copy waits for nothing
            batch = batch.pin_memory().to(self._device, non_blocking=True)
        else:
            batch = batch.to(self._device)
        if inside is not None:
            inside = inside.to(self._device)  # B 1 h w
        narrow = NARROW.get(self.precision)
        with (
            torch.inference_mode(),
            torch.autocast(self._device.type, dtype=narrow, enabled=narrow is not None),
        ):
            logits, dense = self._network(batch, inside, descriptors)  # B 65 h w, B D h w
            heatmap = postprocess_torch.cells_to_heatmap(logits)  # B H W
        return DenseMaps(heatmap, None if dense is None else dense.float(), batch)

    def extract(
        self,
        maps: DenseMaps[Tensor],
        placements: Sequence[Placement],
        config: DetectionConfig,
        sampling: DescriptorSampling,
        masks: Masks = None,
    ) -> list[Keypoints[Float32]]:
        """Dense maps to keypoints: on a GPU there, so that only the keypoints leave it."""
        if self._device.type == "cpu":  # OpenCV's maximum filter is far quicker there than torch's
            dense, pixels = (
                None if part is None else part.numpy() for part in (maps.descriptors, maps.pixels)
            )
            arrays = DenseMaps(maps.heatmap.numpy(), dense, pixels)
            return postprocess.extract(arrays, placements, config, sampling, masks)
        with torch.inference_mode():
            flat = postprocess_torch.extract_flat(maps, placements, config, sampling, masks)
        return _split(flat, len(placements))


def _split(flat: postprocess_torch.FlatKeypoints, images: int) -> list[Keypoints[Float32]]:
    """Off the device as whole arrays, then image by image."""
    ends = np.cumsum(np.bincount(flat.image.cpu().numpy(), minlength=images))[:-1]
    parts = (flat.xy, flat.scores, flat.descriptors, flat.covariance)
    # Copied: one image's keypoints must not keep those of its whole batch in memory.
    split = [
        [None] * images
        if part is None
        else [one.copy() for one in np.split(part.cpu().numpy(), ends)]
        for part in parts
    ]
    return [Keypoints(*of_image) for of_image in zip(*split, strict=True)]


class _InFloat32(torch.nn.Module):
    """A layer that autocast leaves in float32."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            found: Tensor = self.layer(features.float())
        return found


def _usable(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"device is {name!r}, which this torch ({torch.__version__}) cannot use: {error}"
        ) from error
    return device
