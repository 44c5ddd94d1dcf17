"""Places for requests, and the threads that run them: memory is bounded by the number of places.

A thread cannot be stopped. `anyio.CapacityLimiter` releases an abandoned thread's token at once;
here a thread keeps its place until it ends, so that timeouts never add threads.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from starlette.types import Receive

from tiepoint.service.problems import ClientGoneError, ProblemError
from tiepoint.service.settings import LimitConfig

Result = TypeVar("Result")

_NEWEST = 0.2
"""Weight of the newest duration in the running mean."""


class Work:
    """The requests that are in the service. For one event loop.

    Attributes:
        limits: Bounds of memory and of time.
        stopping: Whether new requests are refused.
        large: Lock of inputs that are processed with no other large one beside them.
    """

    def __init__(self, limits: LimitConfig) -> None:
        self.limits = limits
        self._threads = ThreadPoolExecutor(limits.running, "tiepoint-request")
        self._requests, self._orphans = 0, 0
        self._running = 0
        self._counting = threading.Lock()
        self._mean_seconds = 0.5
        self.stopping = False
        self._abandoned = asyncio.Event()
        self.large = threading.Lock()

    @property
    def taken(self) -> int:
        """Number of places that are taken: by requests, and by threads that outlived theirs."""
        return self._requests + self._orphans

    @property
    def running(self) -> int:
        """Number of threads that work."""
        return self._running

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take a place, from before the body is read until the answer is sent.

        Raises:
            ProblemError: The service stops (503), or all places are taken (429).
        """
        if self.stopping:
            raise stopping()
        most = self.limits.running + self.limits.queue
        if self.taken >= most:
            seconds = self._retry_seconds()
            raise ProblemError(
                429,
                "queue_full",
                f"{most} requests are in the service already; ask again in {seconds} s",
                headers={"Retry-After": str(seconds)},
                retry_after_seconds=seconds,
            )
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1

    async def run(self, function: Callable[[], Result], receive: Receive) -> Result:
        """Run a function in a thread.

        Args:
            function: Returns the answer; its exceptions are raised here.
            receive: The request's, all of whose body was received; it notices a lost client.

        Raises:
            ProblemError: Too late: still waiting (503), or running (504).
            ClientGoneError: Nobody waits for the answer any more.
        """
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        future = self._threads.submit(context.run, self._counted, function)
        ended = asyncio.wrap_future(future)
        gone = asyncio.ensure_future(_disconnected(receive))
        abandoned = asyncio.ensure_future(self._abandoned.wait())
        started = loop.time()
        try:
            waited_for: set[asyncio.Future[Any]] = {ended, gone, abandoned}
            await asyncio.wait(
                waited_for,
                timeout=self.limits.timeout_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if ended.done():
                self._mean_seconds += _NEWEST * (loop.time() - started - self._mean_seconds)
                return ended.result()
            waited = future.cancel()
            if gone.done():
                raise ClientGoneError
            if abandoned.done():
                raise stopping()
            raise self._too_late(waited=waited)
        finally:
            abandoned.cancel()
            gone.cancel()
            with suppress(asyncio.CancelledError):
                await gone
            ended.add_done_callback(_retrieved)
            if not future.cancel() and not future.done():
                self._adopt(future, loop)

    def abandon(self) -> None:
        """Answer the requests that wait or run with 503, because the process ends now."""
        self._abandoned.set()

    def stop(self) -> None:
        """Forget what waits; threads that run are not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _counted(self, function: Callable[[], Result]) -> Result:
        with self._counting:
            self._running += 1
        try:
            return function()
        finally:
            with self._counting:
                self._running -= 1

    def _adopt(self, future: Future[Result], loop: asyncio.AbstractEventLoop) -> None:
        """Keep a place until a thread ends whose request has ended."""

        def release() -> None:
            self._orphans -= 1

        def at_end(_: Future[Result]) -> None:
            with suppress(RuntimeError):  # the loop is closed: the process ends
                loop.call_soon_threadsafe(release)

        self._orphans += 1
        future.add_done_callback(at_end)

    def _too_late(self, *, waited: bool) -> ProblemError:
        limit = self.limits.timeout_seconds
        if waited:
            seconds = self._retry_seconds()
            return ProblemError(
                503,
                "waited_too_long",
                f"no worker was free within {limit} s; ask again in {seconds} s",
                headers={"Retry-After": str(seconds)},
                limit_seconds=limit,
                retry_after_seconds=seconds,
            )
        return ProblemError(
            504,
            "too_slow",
            f"no answer within {limit} s; give a smaller max_side, fewer scales or keypoints",
            limit_seconds=limit,
        )

    def _retry_seconds(self) -> int:
        """Time until a place is free, by the mean duration of the last requests."""
        return max(1, math.ceil(self._mean_seconds / self.limits.running))


def stopping() -> ProblemError:
    """The answer to requests that a stop leaves without a result."""
    message = "the service is stopping; ask again later"
    return ProblemError(503, "stopping", message, headers={"Retry-After": "5"})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _retrieved(future: asyncio.Future[Any]) -> None:
    """Take an exception that nobody waits for, or asyncio would log it."""
    if not future.cancelled():
        future.exception()
