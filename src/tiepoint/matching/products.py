"""Small matrix products on one core: there, more threads cost time.

A product of 1,000 x 1,000 descriptors takes about 3 ms on one core. On two it is a millisecond
faster, but OpenBLAS's threads then spin for a tenth of a second, which takes a core from the
network. `register` of two images of 640x480 after one another takes 58 ms instead of 76 with
`small`, and 170 instead of 215 with `base`; of their features, 1 to 2 ms more (two cores, bf16).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from threadpoolctl import ThreadpoolController

SMALL = 2048 * 2048
"""Largest product of two numbers of keypoints that one core computes."""

_owned = threading.Lock()
"""Held by the thread whose limit holds: only the one that set it can take it back."""


@contextmanager
def on_one_core(count_a: int, count_b: int) -> Iterator[None]:
    """Limit BLAS to one thread inside, unless there are many keypoints.

    The limit holds for the whole process, so that products of other threads take longer. Of several
    calls at a time, the first one sets it, and takes it back at its own end.
    """
    if count_a * count_b > SMALL or not _owned.acquire(blocking=False):
        yield
        return
    try:
        with _blas().limit(limits=1):
            yield
    finally:
        _owned.release()


@lru_cache(maxsize=1)
def _blas() -> ThreadpoolController:
    """The BLAS libraries of this process; looking for them takes milliseconds."""
    return ThreadpoolController().select(user_api="blas")
