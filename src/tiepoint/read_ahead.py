"""Reading while something else works."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Done = TypeVar("Done")

READ_AHEAD = 4
"""Items read before they are asked for."""


def read_ahead(items: Iterable[Item], read: Callable[[Item], Done]) -> Iterator[tuple[Item, Done]]:
    """Read on a thread of its own, `READ_AHEAD` items before they are asked for, in order.

    Args:
        items: May be endless.
        read: What it raises is raised where the item would have come.
    """
    waiting: deque[tuple[Item, Future[Done]]] = deque()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="tiepoint-read") as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(read, item)))
                if len(waiting) > READ_AHEAD:
                    first, done = waiting.popleft()
                    yield first, done.result()
            while waiting:
                first, done = waiting.popleft()
                yield first, done.result()
        finally:
            for _, left in waiting:
                left.cancel()
