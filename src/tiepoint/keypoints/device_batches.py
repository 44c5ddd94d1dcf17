"""Images of the host -> batches on a device -> keypoints of the host: what is around `on_device`.

Threads prepare images: decoded, reduced to `max_side` and uploaded as they are stored. A batch has
images of similar size. Its keypoints are downloaded in one piece.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tiepoint.architecture import PHASES
from tiepoint.config import DescriptorSampling, DetectionConfig, ProcessorConfig
from tiepoint.geometry import Placement, SizeHW, whole_cells, with_longer_side
from tiepoint.images.masks import Mask, in_input
from tiepoint.images.ranges import Range, keeps_nominal
from tiepoint.images.reading import SourceImage
from tiepoint.keypoints.on_device import Batch, Found, Plan, find
from tiepoint.keypoints.result import Keypoints
from tiepoint.network.inputs import as_grey, pad_to, resize, size_of
from tiepoint.network.torch_device import (
    Compiled,
    Download,
    Upload,
    sizes_on,
    upload_stream,
    uploaded,
)
from tiepoint.network.torch_engine import TorchEngine
from tiepoint.network.torch_inference import InferenceNetwork

Float32 = NDArray[np.float32]

PLACES = 2048
"""Keypoints of an image for which a batch has places at first, if their number has no limit."""

BUCKET_PX = 128
"""Images whose sides are in the same steps of this share a batch, padded to the largest."""


class Prepared(NamedTuple):
    """One image on its way to the device.

    Attributes:
        image: The image, without its pixels.
        value_range: See `GreyImage`.
        base_hw: (height, width) at scale 1, px.
        base: Its values there, n or n 3 uint8, or n float32 grey.
        placements: At each scale.
        made: Inputs that are made from more than `base`, H W each, or None.
        masks: Where keypoints are allowed at each scale, or None.
        bucket: Images with the same one may share a batch.
    """

    image: SourceImage
    value_range: Range | None
    base_hw: SizeHW
    base: Upload
    placements: tuple[Placement, ...]
    made: tuple[Float32 | None, ...]
    masks: tuple[Mask | None, ...]
    bucket: tuple[object, ...]


class Shared:
    """What all calls of one engine share.

    Attributes:
        stream: Stream of the uploads.
        compiled: `find` through torch.compile, or None.
        lock: Held from a compiled call until its results are copied.
        places: Places of an image, if the number of keypoints has no limit.
    """

    def __init__(self, engine: TorchEngine) -> None:
        self.stream = upload_stream(engine.place)
        self.compiled = Compiled(find, engine.place, graphs=True) if engine.compiled else None
        self.lock, self.places = threading.Lock(), PLACES


_shared: WeakKeyDictionary[TorchEngine, Shared] = WeakKeyDictionary()
_making = threading.Lock()


def shared_of(engine: TorchEngine) -> Shared:
    """The one of an engine, made at its first call."""
    with _making:
        if engine not in _shared:
            _shared[engine] = Shared(engine)
        return _shared[engine]


class DeviceBatches:
    """Batches of one engine, with the settings of one call. Threads may prepare; one starts.

    Args:
        engine: With `batched`.
        processor, detection, sampling: Settings; `detection` without `spread`.
    """

    def __init__(
        self,
        engine: TorchEngine,
        processor: ProcessorConfig,
        detection: DetectionConfig,
        sampling: DescriptorSampling,
    ) -> None:
        self._engine, self._processor = engine, processor
        self._detection, self._sampling = detection, sampling
        self._shared = shared_of(engine)

    def prepare(self, image: SourceImage) -> Prepared:
        """Reduce an image to `max_side` and start its upload."""
        scales, pixels = self._detection.scales, image.pixels
        is_plain = (
            pixels.dtype == np.uint8
            and image.valid is None
            and keeps_nominal(self._processor.contrast, eight_bit=True)
            and max(scales) <= 1
        )
        grey = None if is_plain else as_grey(pixels, self._processor, image.valid)
        base = resize(pixels, self._processor.max_side) if grey is None else grey.grey
        base_hw, longer = size_of(base), max(base.shape[:2])
        sizes = [
            base_hw if s == 1 else with_longer_side(image.size_hw, max(1, round(longer * s)))
            for s in scales
        ]
        placements = tuple(Placement(image.size_hw, size) for size in sizes)
        made = tuple(None if grey is None or s <= 1 else grey.at(s) for s in scales)
        values = torch.from_numpy(
            np.require(base.reshape(-1, *base.shape[2:]), requirements=("C", "W"))
        )
        step = 1 if self._engine.compiled else BUCKET_PX  # each size is compiled
        # The pixels have done their work, and a stream holds many images: their shape is enough.
        shape_only = np.broadcast_to(np.zeros((), pixels.dtype), pixels.shape)
        return Prepared(
            replace(image, pixels=shape_only, mask=None, valid=None),
            None if grey is None else grey.value_range,
            base_hw,
            Upload(values, self._engine.place, self._shared.stream),
            placements,
            made,
            tuple(in_input(image, placement) for placement in placements),
            (base.dtype.str, base.ndim, *(-(-side // step) for side in base_hw)),
        )

    def capacity(self, prepared: Prepared) -> int:
        """Number of images of this size in a batch."""
        height, width = whole_cells(prepared.base_hw)
        largest = max(1.0, *self._detection.scales) ** 2 * height * width
        return max(1, min(self._engine.batch_size, int(self._engine.batch_px / largest)))

    def start(self, images: Sequence[Prepared]) -> Started:
        """Start a batch of images of one bucket; the host does not wait for it."""
        padding = 0
        if self._engine.compiled and len(images) > 1:  # one shape for the last batch, too
            padding = self.capacity(images[0]) - len(images)
        plan = self._plan(images)
        with self._engine.at_work() as network:
            batch = self._batch([*images, *[images[-1]] * padding], plan)
            return self._started(network, batch, len(images), plan)

    def finish(self, started: Started) -> list[Keypoints[Float32]]:
        """Wait for a batch; its keypoints, in px of the original images."""
        while True:
            counts, keypoints = started.wait()
            most = int(counts.sum(axis=0).max())
            if self._detection.max_keypoints is not None or most <= started.plan.places:
                return keypoints
            while self._shared.places < most:  # and so for all batches to come
                self._shared.places *= 2
            plan = started.plan.with_places(self._shared.places)
            with self._engine.at_work() as network:
                started = self._started(network, started.batch, len(keypoints), plan)

    def _started(self, network: InferenceNetwork, batch: Batch, images: int, plan: Plan) -> Started:
        compiled = self._shared.compiled
        if compiled is None:
            return Started(find(network, plan, batch), batch, images, plan)
        with self._shared.lock:  # until the copy of the results is on its way
            found = compiled((plan, batch.shapes()), network, plan, batch)
            return Started(found, batch, images, plan)

    def _plan(self, images: Sequence[Prepared]) -> Plan:
        base_hw = _largest([whole_cells(image.base_hw) for image in images])
        levels = list(zip(*(image.placements for image in images), strict=True))
        levels_hw = tuple(_largest([one.padded_hw for one in level]) for level in levels)
        mixed = any(
            one.padded_hw != size_hw
            for level, size_hw in zip(levels, levels_hw, strict=True)
            for one in level
        )
        taps = []
        for scale, level in zip(self._detection.scales, levels, strict=True):
            ratios = [
                -(-old // new)
                for image, one in zip(images, level, strict=True)
                for old, new in zip(image.base_hw, one.resized_hw, strict=True)
            ]
            taps.append(max(ratios) + 1 if scale < 1 else 0)
        places = self._detection.max_keypoints or self._shared.places
        return Plan(self._detection, self._sampling, base_hw, levels_hw, tuple(taps), places, mixed)

    def _batch(self, images: Sequence[Prepared], plan: Plan) -> Batch:
        place = self._engine.place
        pixels = [height * width for height, width in (image.base_hw for image in images)]
        rows = [
            (start, *image.image.size_hw, *image.base_hw,
             *(side for one in image.placements for side in one.resized_hw))
            for start, image in zip(np.cumsum([0, *pixels]).tolist(), images, strict=False)
        ]  # fmt: skip
        numbers = sizes_on(rows, place)  # B 5+2L: one upload
        return Batch(
            torch.cat([image.base.take() for image in images]),
            numbers[:, 0],
            numbers[:, 1:3],
            numbers[:, 3:5],
            numbers[:, 5:].reshape(len(images), -1, 2).transpose(0, 1),
            sizes_on(PHASES[self._detection.phases], place),
            tuple(
                _made([image.made[level] for image in images], size_hw, place)
                for level, size_hw in enumerate(plan.levels_hw)
            ),
            _allowed([image.masks for image in images], plan.levels_hw, place),
        )


class Started:
    """A batch that a device works on.

    Args:
        found: Its keypoints, in K places an image.
        batch, plan: What it was made from, to do it again with more places.
        images: Number of images; others at the end only fill the batch.
    """

    def __init__(self, found: Found, batch: Batch, images: int, plan: Plan) -> None:
        self.batch, self.plan, self._images = batch, plan, images
        parts = [None if part is None else part.float() for part in found]
        self._shapes = [None if part is None else tuple(part.shape) for part in parts]
        flat = [part.flatten() for part in parts if part is not None]
        self._download = Download(torch.cat(flat))

    def wait(self) -> tuple[NDArray[np.int64], list[Keypoints[Float32]]]:
        """Candidates L B of each scale, and the keypoints of each image."""
        values, parts, start = self._download.wait().numpy(), [], 0
        for shape in self._shapes:
            length = 0 if shape is None else int(np.prod(shape))
            parts.append(None if shape is None else values[start : start + length].reshape(shape))
            start += length
        counts, total, *fields = parts
        assert counts is not None and total is not None
        keypoints = []
        for index, count in enumerate(total[: self._images].astype(int).tolist()):
            # Copied: one image's keypoints must not keep those of its whole batch in memory.
            own = [None if field is None else field[index, :count].copy() for field in fields]
            xy, scores, scales_px, covariance, descriptors = own
            assert xy is not None and scores is not None
            keypoints.append(Keypoints(xy, scores, descriptors, covariance, scales_px))
        return counts.astype(np.int64), keypoints


def _largest(sizes_hw: Sequence[SizeHW]) -> SizeHW:
    height, width = (max(sides) for sides in zip(*sizes_hw, strict=True))
    return height, width


def _made(inputs: Sequence[Float32 | None], size_hw: SizeHW, place: torch.device) -> Tensor | None:
    """Inputs of one scale as a batch, B H W; None if the device makes them."""
    together = np.zeros((len(inputs), *size_hw), np.float32)
    for one, field in zip(together, inputs, strict=True):
        if field is None:
            return None
        height, width = whole_cells(size_of(field))
        one[:height, :width] = pad_to(field, (height, width))
    return uploaded(torch.from_numpy(together), place)


def _allowed(
    masks: Sequence[tuple[Mask | None, ...]], levels_hw: Sequence[SizeHW], place: torch.device
) -> Tensor | None:
    """The masks of a batch, L B H W bool of the largest scale's size; None if there are none."""
    if all(mask is None for each in masks for mask in each):
        return None
    together = np.ones((len(levels_hw), len(masks), *_largest(levels_hw)), np.bool_)
    for image, each in enumerate(masks):
        for level, mask in enumerate(each):
            if mask is not None:
                together[level, image, : mask.shape[0], : mask.shape[1]] = mask
    return uploaded(torch.from_numpy(together), place)
