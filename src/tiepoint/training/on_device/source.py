"""Batches of pairs that are made on the device, from scenes and layouts that workers draw.

The pairs are `scenes.pairs.training_pair`'s: the same scenes by the same cameras in the same light.
Only what differs from px to px, such as noise, is drawn on the device. A pair whose bodies hide too
much, which `training_pair` draws again, takes no part in the loss: 2 to 7 % of the pairs.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tiepoint.training.detector.batch import Batch
from tiepoint.training.on_device.arrangement import arranged
from tiepoint.training.on_device.bank import SheetBank
from tiepoint.training.on_device.exposure import expose_batch
from tiepoint.training.on_device.exposures import exposures_on
from tiepoint.training.on_device.labels import label_batch
from tiepoint.training.on_device.rasters import OUTSIDE_PX
from tiepoint.training.on_device.rendering import render_views
from tiepoint.training.scenes.layout_loader import Chunk, LayoutLoader
from tiepoint.training.scenes.loader import check_batches
from tiepoint.training.scenes.pairs import VISIBLE_SHARE
from tiepoint.training.scenes.settings import DataConfig

CHUNK_PX, CHUNK_STEPS = 160 * 160 * 160, 4
"""Most px of the views A of a chunk, which take 2.5 GB of memory, and its most steps. Kernels of
several steps are started as one."""


def makes_pairs(place: torch.device) -> bool:
    """Whether pairs of a run on this device are made there; on a CPU workers make them whole."""
    return place.type != "cpu"


class Made(NamedTuple):
    """P pairs on the device: V = 2P views, all A before all B.

    Attributes:
        pixels: V H W float32 in 0..1.
        corners_xy: V M 2 float32 px; `OUTSIDE_PX` in unused rows.
        ignore, flow: See `Batch`.
    """

    pixels: Tensor
    corners_xy: Tensor
    ignore: Tensor
    flow: Tensor


class DevicePairs:
    """An endless iterator over steps, as `PairLoader` is one over lists of pairs.

    Args:
        config, seed, batch_size, start_step, workers: See `PairLoader`.
        place: Device on which the pairs are made.

    Attributes:
        step: Number of the next batch.
        chunk_steps: Number of steps that are made at once.

    Raises:
        ConfigError: A number out of range.
    """

    def __init__(
        self,
        config: DataConfig,
        seed: int,
        batch_size: int,
        start_step: int = 0,
        workers: int = 0,
        *,
        place: torch.device,
    ) -> None:
        check_batches(config, seed, batch_size, start_step, workers)
        self.config, self.seed, self.batch_size, self.step = config, seed, batch_size, start_step
        height, width = config.size_hw
        self._place, self._closed = place, False
        self.chunk_steps = min(max(1, CHUNK_PX // (batch_size * height * width)), CHUNK_STEPS)
        pairs = self.chunk_steps * batch_size
        self._bank = SheetBank(config.size_hw, pairs, place)
        self._newest: dict[int, int] = {}  # slot of the bank -> number of its newest scene
        self._chunk: Chunk | None = None
        self._made: Made | None = None
        self._loader = LayoutLoader(config, seed, pairs, start_step // self.chunk_steps, workers)

    def __iter__(self) -> DevicePairs:
        return self

    def __next__(self) -> DeviceStep:
        """The next step, once its layouts are there.

        Raises:
            TiepointError: Drawing failed, here or in a worker, or a worker died or hangs.
        """
        if self._closed:
            raise StopIteration
        if self._chunk is None or self.step // self.chunk_steps != self._chunk.number:
            try:
                self._take()
            except BaseException:
                self.close()
                raise
        self.step += 1
        return DeviceStep(self, self.step - 1)

    def __enter__(self) -> DevicePairs:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; the iteration then stops."""
        self._closed = True
        self._loader.close()

    def batch(self, step: int) -> Batch:
        """The batch of a step of the latest chunk."""
        assert self._chunk is not None and step // self.chunk_steps == self._chunk.number
        if self._made is None:
            self._made = make_pairs(self._chunk, self._bank, self.config, self.seed, self._place)
        first, pairs = step % self.chunk_steps * self.batch_size, self.chunk_steps * self.batch_size
        pixels, corners_xy, ignore, flow = (
            _views(values, first, self.batch_size, pairs) for values in self._made
        )
        number = corners_xy.shape[1]
        return Batch(
            pixels[:, None], _image_numbers(len(pixels), number, self._place),
            corners_xy.flatten(0, 1), ignore, flow,
        )  # fmt: skip

    def _take(self) -> None:
        """Take the next chunk, and put its scenes in the place of those that are shown no more."""
        self._made = None
        self._chunk = next(self._loader)
        self._bank.keep(self._newest.values())
        self._bank.add(self._chunk.new)
        self._newest |= {scene % self.config.bank: scene for scene in self._chunk.scenes}


class DeviceStep(NamedTuple):
    """A step whose batch can be made until the source is asked for a later one."""

    source: DevicePairs
    step: int

    def batch(self) -> Batch:
        """Start the making of the batch; the host does not wait for the device."""
        return self.source.batch(self.step)


@torch.no_grad()
def make_pairs(
    chunk: Chunk, bank: SheetBank, config: DataConfig, seed: int, place: torch.device
) -> Made:
    """Render, expose and label the pairs of a chunk, whose scenes are in the bank.

    Args:
        seed: Seed of the noise, with the number of the chunk.
    """
    pairs = len(chunk.scenes)
    views = render_views(bank, arranged(chunk, bank, place), config.size_hw, config.cover_px)
    generator = torch.Generator(place)
    state = np.random.SeedSequence([seed, chunk.number, 2]).generate_state(1, np.uint64)
    generator.manual_seed(int(state[0]) >> 1)
    exposed = expose_batch(views.images, exposures_on(chunk.exposures, place), generator)
    shown = views.flows[..., 0].isfinite().float().mean(dim=(1, 2))  # V
    common = torch.maximum(shown[:pairs], shown[pairs:])
    kept = common >= VISIBLE_SHARE * config.geometry.min_overlap  # P
    labels = label_batch(exposed, views.corners, views.flows, config.min_contrast)
    kept = kept.repeat(2)[:, None, None]  # V 1 1
    return Made(
        exposed.image,
        torch.where(kept, labels.corners_xy, OUTSIDE_PX),
        labels.ignore | ~kept,
        torch.where(kept[..., None], labels.flows, torch.nan),
    )


def _views(values: Tensor, first: int, count: int, pairs: int) -> Tensor:
    """The views A and then B of `count` of the pairs from `first` on."""
    if count == pairs:
        return values
    b = pairs + first
    return torch.cat([values[first : first + count], values[b : b + count]])


@lru_cache(maxsize=8)
def _image_numbers(images: int, corners: int, place: torch.device) -> Tensor:
    """The image of each of the corners of all images."""
    numbers = torch.arange(images, device=place)[:, None]
    return numbers.expand(images, corners).flatten()
