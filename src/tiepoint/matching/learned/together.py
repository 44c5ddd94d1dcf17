"""Calls of several threads, done together: a GPU takes many small tasks as fast as one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

Item = TypeVar("Item")
Done = TypeVar("Done")


class Together(Generic[Item, Done]):
    """A function of many items, to be called with one item from each of several threads.

    While one thread works, the items of the others gather, and are the next call. A thread that is
    alone does not wait for others.

    Args:
        work: Items -> one result each, in order.
        most: Maximum number of items of a call.
    """

    def __init__(self, work: Callable[[Sequence[Item]], Sequence[Done]], most: int) -> None:
        self._work, self._most = work, most
        self._waiting: deque[tuple[Item, Future[Done]]] = deque()
        self._turn = threading.Lock()

    def __call__(self, item: Item) -> Done:
        """The result of one item; what `work` raised if it failed."""
        result: Future[Done] = Future()
        self._waiting.append((item, result))
        while not result.done():
            with self._turn:
                if not result.done():
                    self._do_next()
        return result.result()

    def _do_next(self) -> None:
        """Do the next items. They stay in the queue until their results are set.

        So an interrupt at any point costs only the thread that it reaches: others do what is left.
        """
        while self._waiting[0][1].done():  # left by an interrupt; ends at the caller's own item
            self._waiting.popleft()
        batch = [self._waiting[place] for place in range(min(self._most, len(self._waiting)))]
        try:
            results = self._work([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001 # raised in every thread that waits for it
            for _, future in batch:
                future.set_exception(error)
        else:
            for (_, future), result in zip(batch, results, strict=True):
                future.set_result(result)
        for _ in batch:
            self._waiting.popleft()
