"""Many images, a few in memory at a time: decoding and detection overlap, results keep their order.

A CPU works on several images at once, each on a thread that decodes it, runs the network on a part
of the cores and picks the keypoints. A GPU takes batches, whose next images are decoded meanwhile.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from tiepoint.errors import EngineError, ImageError, TiepointError
from tiepoint.features import Features
from tiepoint.images.arrays import ChannelOrder
from tiepoint.images.masks import MaskSource, mask_of, read_masked
from tiepoint.images.reading import SourceImage

PLAIN = (str, bytes, os.PathLike, np.ndarray)
"""Sources and masks that several threads may read at once; others have a state of their own."""

Detect = Callable[[Sequence[SourceImage]], list[Features]]
"""A batch of images -> the features of each, or an `EngineError`."""

BATCH_READERS = 4
"""Threads that decode for a GPU, which takes images faster than one core decodes them."""


Item = TypeVar("Item")
Done = TypeVar("Done")

READ_AHEAD = 4
"""Items done before they are asked for, beside those that are in work."""


class Reader:
    """Reads images and their masks, from any number of threads.

    Args:
        masks: See `masks.mask_of`.
        channel_order: "rgb" or "bgr", of arrays.
    """

    def __init__(self, masks: MaskSource, channel_order: ChannelOrder) -> None:
        self._masks, self._channel_order = masks, channel_order
        self._lock = threading.Lock()

    def __call__(self, item: tuple[int, Any]) -> SourceImage | TiepointError:
        """(number, source) -> the image, or why there is none."""
        index, source = item
        is_plain = isinstance(source, PLAIN) and not callable(self._masks)
        mask = mask_of(self._masks, source, index) if is_plain else None
        is_plain = is_plain and (mask is None or isinstance(mask, PLAIN))
        try:
            if is_plain:
                return read_masked(source, mask, self._channel_order)
            with self._lock:
                mask = mask_of(self._masks, source, index)
                return read_masked(source, mask, self._channel_order)
        except ImageError as error:
            return error


def several_at_once(
    sources: Iterable[Any],
    read: Reader,
    detect: Callable[[SourceImage], Features],
    workers: int,
) -> Iterator[tuple[Any, Features | TiepointError]]:
    """Each image the whole way on one of so many threads."""

    def work(item: tuple[int, Any]) -> Features | TiepointError:
        image = read(item)
        if isinstance(image, TiepointError):
            return image
        try:
            return detect(image)
        except EngineError as error:
            return error

    for (_, source), result in read_ahead(enumerate(sources), work, workers):
        yield source, result


def in_batches(
    sources: Iterable[Any], read: Reader, detect: Detect, batch_size: int
) -> Iterator[tuple[Any, Features | TiepointError]]:
    """Images in batches of so many, the next ones decoded meanwhile."""
    group: list[tuple[Any, SourceImage | TiepointError]] = []
    readers = 1 if batch_size == 1 else BATCH_READERS
    for (_, source), image in read_ahead(enumerate(sources), read, readers):
        group.append((source, image))
        if len(group) == batch_size:
            yield from _finished(group, detect)
            group = []
    yield from _finished(group, detect)


def _finished(
    group: Sequence[tuple[Any, SourceImage | TiepointError]], detect: Detect
) -> Iterator[tuple[Any, Features | TiepointError]]:
    images = [image for _, image in group if isinstance(image, SourceImage)]
    found = iter(_attempt(images, detect) if images else [])
    for source, image in group:
        yield source, next(found) if isinstance(image, SourceImage) else image


def _attempt(images: Sequence[SourceImage], detect: Detect) -> list[Features | EngineError]:
    """Detect in a batch; if that fails, in one image at a time."""
    try:
        return [*detect(images)]
    except EngineError as error:
        if len(images) == 1:
            return [error]
    return [found for image in images for found in _attempt([image], detect)]


def what_failed(images: Sequence[SourceImage], max_side: int | None, error: Exception) -> str:
    """The message of an `EngineError`: which images, why, and what to do."""
    names = ", ".join(f"{i.name} ({i.size_hw[1]}x{i.size_hw[0]} px)" for i in images)
    reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
    return (
        f"{names}: the engine failed at max_side={max_side} ({reason[0]}); "
        "if memory ran out, lower max_side"
    )


def read_ahead(
    items: Iterable[Item], work: Callable[[Item], Done], workers: int = 1
) -> Iterator[tuple[Item, Done]]:
    """Work on threads of its own, some items before they are asked for, in order.

    Args:
        items: May be endless.
        work: What it raises is raised where the item would have come.
        workers: Threads, and so how many items are in work at once.
    """
    waiting: deque[tuple[Item, Future[Done]]] = deque()
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="tiepoint-ahead") as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(work, item)))
                if len(waiting) >= READ_AHEAD + workers:
                    first, done = waiting.popleft()
                    yield first, done.result()
            while waiting:
                first, done = waiting.popleft()
                yield first, done.result()
        finally:
            for _, left in waiting:
                left.cancel()
