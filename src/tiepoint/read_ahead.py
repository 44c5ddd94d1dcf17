"""Work on some items while others are asked for: reading ahead, or several at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Done = TypeVar("Done")

READ_AHEAD = 4
"""Items done before they are asked for, beside those that are in work."""


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
