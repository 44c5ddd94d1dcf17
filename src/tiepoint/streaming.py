"""Streams of images: decoding and detection overlap, few are in memory, results keep their order.

A CPU processes several images at once, each on a thread that decodes it, runs the network on a
share of the cores and extracts the keypoints. A GPU takes batches of images of similar size, two at
a time; the next images are decoded and uploaded while it runs.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from tiepoint.errors import ConfigError, EngineError, ImageError, TiepointError
from tiepoint.features import Features
from tiepoint.images.arrays import ChannelOrder
from tiepoint.images.masks import MaskSource, check_masks, mask_of, read_masked
from tiepoint.images.reading import SourceImage

PLAIN = (str, bytes, os.PathLike, np.ndarray)
"""Sources and masks that several threads may read at once; others have a state of their own."""

Detect = Callable[[Sequence[SourceImage]], list[Features]]
"""A batch of images -> the features of each, or an `EngineError`."""

BATCH_READERS = 4
"""Threads that decode for a GPU, which takes images faster than one core decodes them."""

READ_AHEAD = 4
"""Items processed ahead of the consumer, in addition to those that are being processed."""

BATCHES_IN_FLIGHT = 2
"""The device works on one while the host takes up the keypoints of the one before."""

AHEAD_OF_BATCHES = 64
"""Images read ahead for a GPU: the next two batches."""

MOST_WAITING = 256
"""Images in memory, at most, whose keypoints the consumer has not had yet."""

Made = TypeVar("Made")
Started = TypeVar("Started")
Item = TypeVar("Item")
Done = TypeVar("Done")
Value = TypeVar("Value")

logger = logging.getLogger(__name__)


class Detection(NamedTuple):
    """One image of a stream: its features, or the error that prevented them.

    Attributes:
        source: The item of the stream.
        features: None if the image failed.
        error: None if it did not.
    """

    source: Any
    features: Features | None
    error: TiepointError | None

    def require(self) -> Features:
        """The features; raises the error if there is one."""
        if self.error is not None:
            raise self.error
        assert self.features is not None
        return self.features


def check_stream(sources: Iterable[Any], masks: MaskSource) -> None:
    """Raise ConfigError for one image instead of several, or for another number of masks."""
    if isinstance(sources, str | bytes | os.PathLike):
        kind = type(sources).__name__
        raise ConfigError(f"stream takes a list or iterator of images, got one {kind}; wrap it")
    check_masks(masks, len(sources) if isinstance(sources, Sized) else None)


def require_all(detections: Iterable[Detection], count: int) -> list[Features]:
    """The features of all `count` images; raises the first error, with the index of its image."""
    features = []
    for index, detection in enumerate(detections):
        error = detection.error
        if error is not None:
            raise type(error)(f"item {index} of {count}: {error}") from error
        features.append(detection.require())
    return features


class Reader:
    """Reads images and their masks, from any number of threads.

    Args:
        masks: See `masks.mask_of`.
        channel_order: Order of the channels of arrays.
        nominal: Refuse values outside the nominal range; see `ranges.check_nominal`.
    """

    def __init__(
        self, masks: MaskSource, channel_order: ChannelOrder, *, nominal: bool = False
    ) -> None:
        self._masks, self._channel_order, self._nominal = masks, channel_order, nominal
        self._lock = threading.Lock()

    def __call__(self, item: tuple[int, Any]) -> SourceImage | TiepointError:
        """(index, source) -> the image, or the reason why there is none."""
        index, source = item
        by_function = callable(self._masks)
        mask = None if by_function else mask_of(self._masks, source, index)
        is_plain = isinstance(source, PLAIN) and (mask is None or isinstance(mask, PLAIN))
        try:
            with nullcontext() if is_plain and not by_function else self._lock:
                if by_function:
                    mask = mask_of(self._masks, source, index)
                return read_masked(source, mask, self._channel_order, nominal=self._nominal)
        except ImageError as error:
            return error


def concurrently(
    sources: Iterable[Any], read: Reader, detect: Callable[[SourceImage], Features], workers: int
) -> Iterator[Detection]:
    """Read and detect each image on one of several threads."""

    def work(item: tuple[int, Any]) -> Features | TiepointError:
        image = read(item)
        if isinstance(image, TiepointError):
            return image
        try:
            return detect(image)
        except EngineError as error:
            return error

    for (_, source), result in read_ahead(enumerate(sources), work, workers):
        yield _detection(source, result)


def in_batches(
    sources: Iterable[Any], read: Reader, detect: Detect, batch_size: int
) -> Iterator[Detection]:
    """Detect in batches of images; the next ones are decoded at the same time."""
    batch: list[tuple[Any, SourceImage | TiepointError]] = []
    readers = 1 if batch_size == 1 else BATCH_READERS
    for (_, source), image in read_ahead(enumerate(sources), read, readers):
        batch.append((source, image))
        if len(batch) == batch_size:
            yield from _finish(batch, detect)
            batch = []
    yield from _finish(batch, detect)


class Batches(Protocol[Made, Started]):
    """The steps of images that pass a device in batches; each may raise an `EngineError`."""

    def prepare(self, image: SourceImage) -> Made:
        """One image, from any thread."""

    def bucket(self, image: Made) -> Hashable:
        """Images with the same one may share a batch."""

    def capacity(self, image: Made) -> int:
        """Number of images of this size in a batch."""

    def start(self, images: Sequence[Made]) -> Started:
        """Start a batch, without waiting for it."""

    def finish(self, started: Started) -> list[Features]:
        """Wait for a batch."""


def in_buckets(
    sources: Iterable[Any], read: Reader, batches: Batches[Made, Started], readers: int
) -> Iterator[Detection]:
    """Detect in batches of images of similar size, `BATCHES_IN_FLIGHT` at a time, in order.

    Args:
        readers: Threads that read and prepare images.
    """

    def work(item: tuple[int, Any]) -> Made | TiepointError:
        image = read(item)
        try:
            return image if isinstance(image, TiepointError) else batches.prepare(image)
        except EngineError as error:
            return error

    flight = Flight(batches)
    for (_, source), made in read_ahead(enumerate(sources), work, readers, AHEAD_OF_BATCHES):
        flight.add(source, made)
        yield from flight.landed()
    flight.start_all()
    yield from flight.landed(everything=True)


@dataclass(eq=False)
class _Seat(Generic[Made]):
    """The place of one image in the order of a stream."""

    source: Any
    image: Made | None
    result: Features | TiepointError | None = None


class Flight(Generic[Made, Started]):
    """Images that wait for a batch, batches that a device works on, and results in order."""

    def __init__(self, batches: Batches[Made, Started]) -> None:
        self._batches = batches
        self._order: deque[_Seat[Made]] = deque()
        self._waiting: dict[Hashable, list[_Seat[Made]]] = {}
        self._started: deque[tuple[list[_Seat[Made]], Started]] = deque()

    def add(self, source: Any, image: Made | TiepointError) -> None:
        """Take the next image of the stream; start its batch if that is full."""
        if isinstance(image, TiepointError):
            self._order.append(_Seat(source, None, image))
            return
        seat, bucket = _Seat(source, image), self._batches.bucket(image)
        self._order.append(seat)
        seats = self._waiting.setdefault(bucket, [])
        seats.append(seat)
        if len(seats) >= self._batches.capacity(image):
            self._start(bucket)

    def landed(self, *, everything: bool = False) -> Iterator[Detection]:
        """The results that are next in order; waits for them if `everything`, or if many wait."""
        while self._order:
            if self._order[0].result is None:
                if not everything and len(self._order) < MOST_WAITING:
                    return
                self._advance(self._order[0])
            else:
                seat = self._order.popleft()
                assert seat.result is not None
                yield _detection(seat.source, seat.result)

    def start_all(self) -> None:
        """Start all batches that are not full."""
        for bucket in [*self._waiting]:
            self._start(bucket)

    def _advance(self, seat: _Seat[Made]) -> None:
        """Come one step closer to the result of an image."""
        if seat.image is not None and seat in self._waiting.get(
            bucket := self._batches.bucket(seat.image), ()
        ):
            self._start(bucket)
        else:
            self._land()

    def _start(self, bucket: Hashable) -> None:
        seats = self._waiting.pop(bucket)
        if len(self._started) >= BATCHES_IN_FLIGHT:
            self._land()
        try:
            self._started.append((seats, self._batches.start(_images(seats))))
        except EngineError as error:
            self._one_by_one(seats, error)

    def _land(self) -> None:
        """Wait for the batch that was started first."""
        seats, started = self._started.popleft()
        try:
            results = self._batches.finish(started)
        except EngineError as error:
            self._one_by_one(seats, error)
            return
        for seat, result in zip(seats, results, strict=True):
            seat.image, seat.result = None, result

    def _one_by_one(self, seats: Sequence[_Seat[Made]], error: EngineError) -> None:
        """Do the images of a batch that failed again, each by itself."""
        if len(seats) > 1:
            logger.warning("%s; trying again one image at a time", error)
        for seat in seats:
            result: Features | TiepointError = error
            if len(seats) > 1:
                try:
                    [result] = self._batches.finish(self._batches.start(_images([seat])))
                except EngineError as own_error:
                    result = own_error
            seat.image, seat.result = None, result


def _images(seats: Sequence[_Seat[Made]]) -> list[Made]:
    return [seat.image for seat in seats if seat.image is not None]


def _finish(
    batch: Sequence[tuple[Any, SourceImage | TiepointError]], detect: Detect
) -> Iterator[Detection]:
    images = [image for _, image in batch if isinstance(image, SourceImage)]
    results = iter(_attempt(images, detect) if images else [])
    for source, image in batch:
        yield _detection(source, next(results) if isinstance(image, SourceImage) else image)


def _attempt(images: Sequence[SourceImage], detect: Detect) -> list[Features | EngineError]:
    """Detect in a batch; if that fails, in one image at a time."""
    try:
        return [*detect(images)]
    except EngineError as error:
        if len(images) == 1:
            return [error]
        logger.warning("%s; trying again one image at a time", error)
    return [result for image in images for result in _attempt([image], detect)]


def _detection(source: Any, result: Features | TiepointError) -> Detection:
    if isinstance(result, TiepointError):
        return Detection(source, None, result)
    return Detection(source, result, None)


def read_ahead(
    items: Iterable[Item],
    work: Callable[[Item], Done],
    workers: int = 1,
    ahead: int = READ_AHEAD,
) -> Iterator[tuple[Item, Done]]:
    """Map `work` over items on a thread pool, a few items ahead of the consumer, in order.

    Args:
        items: May be endless.
        work: An exception is raised at its item.
        workers: Threads, and so the number of items processed at once.
        ahead: Items beyond them that are done before the consumer asks.

    Raises:
        EngineError: The process was forked after the first item; its threads are the parent's.
    """
    process = os.getpid()
    waiting: deque[tuple[Item, Future[Done]]] = deque()
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="tiepoint-ahead")
    try:
        for item in items:
            waiting.append((item, pool.submit(work, item)))
            if len(waiting) >= ahead + workers:
                first, done = waiting.popleft()
                yield first, done.result()
                _require_process(process)
        while waiting:
            first, done = waiting.popleft()
            yield first, done.result()
            _require_process(process)
    finally:
        if os.getpid() == process:  # after a fork even ending them would wait
            pool.shutdown(cancel_futures=True)


def _require_process(process: int) -> None:
    if os.getpid() != process:
        raise EngineError(
            "the stream was started before this process was forked, and a fork does not copy its "
            "threads: start the stream in the child"
        )
