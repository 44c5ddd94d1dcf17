"""Scenes from worker processes, in order. The parent's death ends the workers."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import traceback
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from threading import Event
from typing import Any

from tiepoint.detector import Detector
from tiepoint.errors import TiepointError
from tiepoint.training.matcher.drawing import SceneFeatures, scene_features
from tiepoint.training.matcher.settings import MatcherData
from tiepoint.weights.checkpoint import Checkpoint

logger = logging.getLogger(__name__)

POLL_S = 0.5
"""Longest wait before a stop is noticed."""
END_S = 5.0
"""Longest wait for a worker to end; then it is killed."""
AHEAD = 2
"""Scenes per worker that may wait for an earlier one."""


@dataclass(frozen=True)
class Drawing:
    """What decides the scenes of a bank."""

    checkpoint: Checkpoint
    data: MatcherData
    seed: int

    def detector(self, threads: int | None) -> Detector:
        """A detector on the CPU with the checkpoint's own settings."""
        return Detector(self.checkpoint, engine="openvino", device="cpu", threads=threads)


def drawn_scenes(
    drawing: Drawing, indices: range, workers: int, stop: Event
) -> Generator[SceneFeatures, None, None]:
    """The scenes of some indices, in order; ends early, without an error, when `stop` is set.

    Args:
        workers: Number of processes; 0 draws in this one.

    Raises:
        TiepointError: A scene could not be drawn, or a worker died.
    """
    if workers == 0:
        detector = drawing.detector(None)
        for index in indices:
            if stop.is_set():
                return
            yield scene_features(detector, drawing.data, drawing.seed, index)
        return
    pool = _Pool(drawing, min(workers, max(1, len(indices))))
    try:
        yield from pool.run(indices, stop)
    finally:
        pool.close()


class _Pool:
    """Worker processes, each with a pipe of its own."""

    def __init__(self, drawing: Drawing, count: int) -> None:
        # Not forked: the caller may have a GPU and threads, which a fork would break.
        context = multiprocessing.get_context("spawn")
        self._processes: list[Any] = []
        self._pipes: list[Connection] = []
        for number in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=run_worker, args=(theirs, drawing), name=f"tiepoint-scenes-{number}",
                daemon=True,
            )  # fmt: skip
            process.start()
            theirs.close()
            self._processes.append(process)
            self._pipes.append(ours)

    def run(self, indices: range, stop: Event) -> Iterator[SceneFeatures]:
        """The scenes in order."""
        done: dict[int, SceneFeatures] = {}
        waiting, next_index = iter(indices), indices.start
        idle = list(self._pipes)
        limit = AHEAD * len(self._pipes)
        while next_index < indices.stop and not stop.is_set():
            while idle and len(done) < limit and (index := next(waiting, None)) is not None:
                idle.pop().send(index)
            for pipe in wait([p for p in self._pipes if p not in idle], timeout=POLL_S):
                assert isinstance(pipe, Connection)
                index, scene = _received(pipe)
                done[index] = scene
                idle.append(pipe)
            while next_index in done:
                yield done.pop(next_index)
                next_index += 1

    def close(self) -> None:
        """End the workers."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join(timeout=END_S)
            if process.exitcode is None:
                logger.warning("%s does not end by itself and is killed", process.name)
                process.kill()
                process.join(timeout=END_S)
        for pipe in self._pipes:
            pipe.close()


def run_worker(pipe: Connection, drawing: Drawing) -> None:
    """Main function of a worker: draw the requested scenes until the pipe closes."""
    import signal

    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    cv2.setNumThreads(1)  # there is one process per core already
    with contextlib.suppress(EOFError, ConnectionError):
        detector: Detector | None = None
        while True:
            index = pipe.recv()
            try:
                detector = detector or drawing.detector(1)
                scene = scene_features(detector, drawing.data, drawing.seed, index)
            except Exception as error:  # noqa: BLE001 - the parent must raise it
                pipe.send(_portable(error, index))
                return
            pipe.send((index, scene))


def _received(pipe: Connection) -> tuple[int, SceneFeatures]:
    try:
        message = pipe.recv()
    except (EOFError, ConnectionError) as error:
        raise TiepointError(
            "a worker that draws scenes died, perhaps for lack of memory: use fewer workers"
        ) from error
    if isinstance(message, BaseException):
        raise message
    index, scene = message
    return int(index), scene


def _portable(error: Exception, index: int) -> TiepointError:
    """An error that can be pickled to the other process."""
    if isinstance(error, TiepointError):
        return error
    trace = "".join(traceback.format_exception(error))
    return TiepointError(f"scene {index} could not be drawn:\n{trace}")
