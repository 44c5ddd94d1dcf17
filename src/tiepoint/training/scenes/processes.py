"""Worker processes that draw scenes, each with a pipe of its own. The parent's death ends them."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.util import Finalize
from typing import Any, cast

from tiepoint.errors import TiepointError

logger = logging.getLogger(__name__)

CONTEXT = multiprocessing.get_context("spawn")
"""Not forked: the caller may have a GPU and threads, which a fork would break."""
END_S = 5.0
"""Longest wait for a killed worker."""
PATIENCE_S = 600.0  # longest silence of all workers before they count as hung
POLL_S = 10.0  # longest single wait for a worker


class Workers:
    """Started processes.

    Args:
        main: Main function of a worker: `main(pipe, *arguments)`. It calls `set_up_worker` first.
        arguments: A few KB: no signal ends the wait for a worker to read more than a pipe's buffer.
        name: Prefix of the processes' names.

    Attributes:
        pipes: Our end of the pipe of each worker.
    """

    def __init__(
        self, main: Callable[..., None], arguments: tuple[Any, ...], count: int, name: str
    ) -> None:
        self.pipes: list[Connection] = []
        self.processes: list[Any] = []
        # Also at the exit of Python, which would wait for workers that ignore its SIGTERM.
        self._end = Finalize(self, _end, (self.processes,), exitpriority=0)
        for number in range(count):
            ours, theirs = CONTEXT.Pipe()
            process = CONTEXT.Process(
                target=main, args=(theirs, *arguments), name=f"{name}-{number}", daemon=True
            )
            with _signals_blocked():
                process.start()
            theirs.close()
            self.processes.append(process)
            self.pipes.append(ours)

    def messages(self) -> list[Any]:
        """The next message of each worker that has one; waits until there is any.

        Raises:
            TiepointError: A worker died or sent an error, or all of them hang.
        """
        start = time.monotonic()
        while not (ready := wait(self.pipes, timeout=POLL_S)):
            silent_s = time.monotonic() - start
            if silent_s > PATIENCE_S:
                raise TiepointError(
                    f"no pair from any worker for {PATIENCE_S:.0f} s; use fewer workers"
                )
            logger.debug("no pair from any worker for %.0f s", silent_s)
        return [received(cast("Connection", pipe)) for pipe in ready]

    def close(self) -> None:
        """End the workers."""
        self._end()
        for pipe in self.pipes:
            pipe.close()
        self.processes, self.pipes = [], []


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block SIGINT and SIGTERM here for a moment, and in a process that is started here for good.

    A signal to all processes of a run would end a worker that has not reached `set_up_worker`.
    """
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # starting it unblocks both signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(processes: list[Any]) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.join(timeout=END_S)


def set_up_worker() -> None:
    """Leave Ctrl-C and SIGTERM to the parent, which ends its workers, and use one core."""
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cv2.setNumThreads(1)  # there is one process per core already


def received(pipe: Connection) -> Any:
    """The next message of a worker.

    Raises:
        TiepointError: The worker died, or the message is an error.
    """
    try:
        message = pipe.recv()
    except (EOFError, OSError) as error:  # OSError: it died within a message
        raise TiepointError(
            "a worker that draws scenes died, perhaps for lack of memory: use fewer workers"
        ) from error
    if isinstance(message, BaseException):
        raise message
    return message


def send(pipe: Connection, message: object) -> None:
    """Send a message to a worker.

    Raises:
        TiepointError: The worker died or sent an error.
    """
    try:
        pipe.send(message)
    except ConnectionError:
        while True:
            received(pipe)  # its last results, then its error or its end


def portable(error: Exception, what: str) -> TiepointError:
    """An error that can be pickled to the other process."""
    if isinstance(error, TiepointError):
        return error
    trace = "".join(traceback.format_exception(error))
    return TiepointError(f"{what} could not be drawn:\n{trace}")
