"""Scenes from worker processes, in order. The parent's death ends the workers."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from threading import Event

from tiepoint.detector import Detector
from tiepoint.training.matcher.drawing import (
    DrawnScene,
    SceneFeatures,
    detected,
    draw_views,
    scene_features,
)
from tiepoint.training.matcher.settings import MatcherData
from tiepoint.training.scenes.processes import (
    Workers,
    portable,
    received,
    send,
    set_up_worker,
)
from tiepoint.weights.checkpoint import Checkpoint

POLL_S = 0.5
"""Longest wait before a stop is noticed."""
AHEAD = 2
"""Scenes per worker that may wait for an earlier one."""


@dataclass(frozen=True)
class Drawing:
    """What decides the scenes of a bank, and where their keypoints are detected.

    Attributes:
        device: Device of torch on which the parent detects, in the views that workers draw; None
            detects in the workers, on the CPU.
    """

    checkpoint: Checkpoint
    data: MatcherData
    seed: int
    device: str | None = None

    def detector(self, threads: int | None) -> Detector:
        """A detector with the checkpoint's own settings; `threads` are those of a CPU."""
        if self.device is not None:
            return Detector(self.checkpoint, engine="torch", device=self.device)  # type: ignore[arg-type]
        return Detector(self.checkpoint, engine="openvino", device="cpu", threads=threads)

    def work(self, detector: Detector | None, index: int) -> SceneFeatures | DrawnScene:
        """A scene's features; without a detector its views."""
        if detector is None:
            return draw_views(self.data, self.seed, index)
        return scene_features(detector, self.data, self.seed, index)


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
    processes = Workers(run_worker, (), min(workers, max(1, len(indices))), "tiepoint-scenes")
    try:
        for pipe in processes.pipes:
            send(pipe, drawing)
        here = None if drawing.device is None else drawing.detector(None)
        scenes = _in_order(processes.pipes, indices, stop)
        for index, scene in zip(indices, scenes, strict=False):  # fewer scenes after a stop
            if isinstance(scene, DrawnScene):
                assert here is not None
                yield detected(here, scene, drawing.data, drawing.seed, index)
            else:
                yield scene
    finally:
        processes.close()


def _in_order(
    pipes: list[Connection], indices: range, stop: Event
) -> Iterator[SceneFeatures | DrawnScene]:
    """What workers make of the scenes, in order."""
    done: dict[int, SceneFeatures | DrawnScene] = {}
    waiting, next_index = iter(indices), indices.start
    idle = list(pipes)
    limit = AHEAD * len(pipes)
    while next_index < indices.stop and not stop.is_set():
        busy = [pipe for pipe in pipes if pipe not in idle]
        for pipe in wait(busy, timeout=POLL_S if busy and next_index not in done else 0):
            assert isinstance(pipe, Connection)
            index, scene = received(pipe)
            done[index] = scene
            idle.append(pipe)
        while idle and len(done) < limit and (index := next(waiting, None)) is not None:
            send(idle.pop(), index)
        if next_index in done:  # one, then the workers again: the caller may take long
            yield done.pop(next_index)
            next_index += 1


def run_worker(pipe: Connection) -> None:
    """Main function of a worker: get a `Drawing`, then draw the requested scenes until the pipe
    closes, and detect in them unless the parent does."""
    set_up_worker()
    with contextlib.suppress(EOFError, ConnectionError):
        drawing: Drawing = pipe.recv()
        detector: Detector | None = None
        while True:
            index = pipe.recv()
            try:
                if drawing.device is None:
                    detector = detector or drawing.detector(1)
                scene = drawing.work(detector, index)
            except Exception as error:  # noqa: BLE001 - the parent must raise it
                pipe.send(portable(error, f"scene {index}"))
                return
            pipe.send((index, scene))
