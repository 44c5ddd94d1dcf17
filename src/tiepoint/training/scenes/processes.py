"""Worker processes that draw scenes, each with a pipe of its own. The parent's death ends them."""

from __future__ import annotations

import logging
import multiprocessing
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any, cast

from tiepoint.errors import TiepointError

logger = logging.getLogger(__name__)

CONTEXT = multiprocessing.get_context("spawn")
"""Not forked: the caller may have a GPU and threads, which a fork would break."""
END_S = 5.0
"""Longest wait for a worker to end; then it is killed."""
PATIENCE_S = 600.0  # longest silence of all workers before they count as hung
POLL_S = 10.0  # longest single wait for a worker


class Workers:
    """Started processes.

    Args:
        main: Main function of a worker: `main(pipe, *arguments)`. It calls `set_up_worker` first.
        name: Prefix of the processes' names.

    Attributes:
        pipes: Our end of the pipe of each worker.
    """

    def __init__(
        self, main: Callable[..., None], arguments: tuple[Any, ...], count: int, name: str
    ) -> None:
        self.pipes: list[Connection] = []
        self.processes: list[Any] = []
        for number in range(count):
            ours, theirs = CONTEXT.Pipe()
            process = CONTEXT.Process(
                target=main, args=(theirs, *arguments), name=f"{name}-{number}", daemon=True
            )
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
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.join(timeout=END_S)
            if process.exitcode is None:
                logger.warning("%s does not end by itself and is killed", process.name)
                process.kill()
                process.join(timeout=END_S)
        for pipe in self.pipes:
            pipe.close()
        self.processes, self.pipes = [], []


def set_up_worker() -> None:
    """Leave Ctrl-C to the parent, end on SIGTERM, and use one core."""
    import signal

    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
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
