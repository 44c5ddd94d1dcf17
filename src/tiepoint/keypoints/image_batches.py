"""Images -> features in batches on a GPU: what `streaming.in_buckets` drives."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import cv2

from tiepoint.config import DescriptorSampling
from tiepoint.errors import EngineError
from tiepoint.features import Features
from tiepoint.images.reading import SourceImage
from tiepoint.keypoints.device_batches import DeviceBatches, Prepared, Started
from tiepoint.keypoints.request import Request, failure_message


class StartedImages(NamedTuple):
    """A batch that a device works on, and its images."""

    images: Sequence[Prepared]
    started: Started


class ImageBatches:
    """The steps of `streaming.Batches`, with the settings of one call.

    Args:
        engine: A `TorchEngine` with `batched`.
        request: Settings of the call.
        sampling: Rule of the checkpoint.
    """

    def __init__(self, engine: Any, request: Request, sampling: DescriptorSampling) -> None:
        self._request = request
        self._batches = DeviceBatches(engine, request.processor, request.detection, sampling)

    def prepare(self, image: SourceImage) -> Prepared:
        """Reduce an image to `max_side` and start its upload."""
        with self._named([image]):
            return self._batches.prepare(image)

    def bucket(self, image: Prepared) -> Hashable:
        """Images with the same one may share a batch."""
        return image.bucket

    def capacity(self, image: Prepared) -> int:
        """Number of images of this size in a batch."""
        return self._batches.capacity(image)

    def start(self, images: Sequence[Prepared]) -> StartedImages:
        """Start a batch, without waiting for it."""
        with self._named([image.image for image in images]):
            return StartedImages(images, self._batches.start(images))

    def finish(self, started: StartedImages) -> list[Features]:
        """Wait for a batch."""
        images = started.images
        with self._named([image.image for image in images]):
            keypoints = self._batches.finish(started.started)
            return [
                self._request.features(image.image, image.value_range, own)
                for image, own in zip(images, keypoints, strict=True)
            ]

    @contextmanager
    def _named(self, images: Sequence[SourceImage]) -> Iterator[None]:
        """Failures of the device with the names of the images."""
        try:
            yield
        except (MemoryError, RuntimeError, cv2.error) as error:
            max_side = self._request.processor.max_side
            raise EngineError(failure_message(images, max_side, error)) from error
