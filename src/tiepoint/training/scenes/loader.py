"""Batches of pairs from worker processes, in an order that only seed and step decide.

Pair `step * batch_size + place` belongs to the worker `index % bank % workers`, so each scene is
drawn by one worker alone. Workers write arrays into shared memory and send a few numbers by pipe,
so a worker never waits for a reader.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import ConfigError, TiepointError
from tiepoint.geometry import SizeHW
from tiepoint.training.scenes.pairs import DataConfig, TrainingPair, TrainingView, training_pair

AHEAD = 3
"""Batches under way or finished beyond the one that was asked for."""
PATIENCE_S = 600.0
"""A worker that is silent for so long has hung."""


class PairLoader:
    """An endless iterator over batches: lists of `TrainingPair`.

    Batch number s holds the pairs `s * batch_size ... (s + 1) * batch_size - 1` of the seed,
    whatever the workers: a run that starts at step s sees what a longer run saw there.

    Attributes:
        waiting_s: Seconds spent in `next` so far, waiting for pairs or drawing them.
        step: Number of the next batch.
    """

    def __init__(
        self,
        config: DataConfig,
        seed: int,
        batch_size: int,
        start_step: int = 0,
        workers: int = 0,
    ) -> None:
        """Start the workers.

        Args:
            seed: At least 0.
            batch_size: Pairs per batch, at most `config.bank`.
            start_step: Number of the first batch.
            workers: Processes; 0 draws in this one, when asked.

        Raises:
            ConfigError: A number out of range.
        """
        for name, value, least in (
            ("seed", seed, 0),
            ("batch_size", batch_size, 1),
            ("start_step", start_step, 0),
            ("workers", workers, 0),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"{name} is {value!r}, expected a whole number >= {least}")
        if batch_size > config.bank:
            raise ConfigError(
                f"batch_size is {batch_size} with a bank of {config.bank} scenes: two pairs of a "
                "batch would show one scene; enlarge bank or make the batch smaller"
            )
        self.config, self.seed, self.batch_size = config, seed, batch_size
        self.step = start_step
        self.waiting_s = 0.0
        self._closed = False
        self._crew = _Crew(config, seed, batch_size, start_step, workers) if workers else None

    def __iter__(self) -> Iterator[list[TrainingPair]]:
        return self

    def __next__(self) -> list[TrainingPair]:
        """The next batch.

        Raises:
            TiepointError: What drawing a pair raised, in a worker too, or a worker that died.
        """
        if self._closed:
            raise StopIteration
        began = time.perf_counter()
        try:
            if self._crew is None:
                first = self.step * self.batch_size
                batch = [
                    training_pair(self.config, self.seed, first + place)
                    for place in range(self.batch_size)
                ]
            else:
                batch = self._crew.take(self.step)
        except BaseException:
            self.close()
            raise
        self.waiting_s += time.perf_counter() - began
        self.step += 1
        return batch

    def __enter__(self) -> PairLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; asking for another batch then stops the iteration."""
        self._closed = True
        if self._crew is not None:
            self._crew.close()


@dataclass(frozen=True)
class _Fields:
    """How one pair lies in shared memory."""

    size_hw: SizeHW

    @property
    def corners(self) -> int:
        """Room per view: points keep some px from one another, drawn corners and texture each."""
        return self.size_hw[0] * self.size_hw[1] // 5

    @property
    def nbytes(self) -> int:
        """Two flows, two lists of corners, two images, two masks."""
        pixels = self.size_hw[0] * self.size_hw[1]
        return 16 * pixels + 16 * self.corners + 4 * pixels

    def views(self, memory: Any, place: int) -> list[NDArray[Any]]:
        """Arrays on the memory itself: image, mask, flow, corners of A; likewise of B."""
        height, width = self.size_hw
        pixels, start = height * width, place * self.nbytes
        floats = np.frombuffer(memory, np.float32, 4 * (pixels + self.corners), start)
        flows = floats[: 4 * pixels].reshape(2, height, width, 2)
        corners = floats[4 * pixels :].reshape(2, self.corners, 2)
        rest = np.frombuffer(memory, np.uint8, 4 * pixels, start + floats.nbytes)
        images = rest.reshape(4, height, width)
        masks = images[2:].view(np.bool_)
        return [
            images[0],
            masks[0],
            flows[0],
            corners[0],
            images[1],
            masks[1],
            flows[1],
            corners[1],
        ]


class _Crew:
    """Worker processes and the shared memory that they fill."""

    def __init__(
        self, config: DataConfig, seed: int, batch_size: int, start_step: int, workers: int
    ) -> None:
        # Not forked: the caller may hold a GPU and threads, which a fork would break.
        context = multiprocessing.get_context("spawn")
        self._config, self._batch_size = config, batch_size
        self._fields = _Fields(config.size_hw)
        self._slots = AHEAD + 1
        self._memory = context.RawArray("B", self._slots * batch_size * self._fields.nbytes)
        self._done: dict[int, dict[int, tuple[Any, ...]]] = {}
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []
        for number in range(workers):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_work,
                args=(theirs, config, seed, batch_size, self._memory),
                name=f"tiepoint-pairs-{number}",
                daemon=True,
            )
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        self._asked = start_step
        self._ask(start_step)

    def _ask(self, step: int) -> None:
        """Have all batches up to `AHEAD` beyond this one drawn."""
        while self._asked <= step + AHEAD:
            shares: list[list[int]] = [[] for _ in self._pipes]
            for place in range(self._batch_size):
                index = self._asked * self._batch_size + place
                shares[index % self._config.bank % len(shares)].append(index)
            for pipe, share in zip(self._pipes, shares, strict=True):
                if share:
                    pipe.send((self._asked % self._slots, share))
            self._done[self._asked] = {}
            self._asked += 1

    def take(self, step: int) -> list[TrainingPair]:
        """The pairs of a step, copied out of the shared memory."""
        waited = time.monotonic()
        while len(self._done[step]) < self._batch_size:
            ready = wait(self._pipes, timeout=10.0)
            for pipe in ready:
                self._receive(pipe)
            if ready:
                waited = time.monotonic()
            elif time.monotonic() - waited > PATIENCE_S:
                raise TiepointError(
                    f"no pair from any worker for {PATIENCE_S:.0f} s; fewer workers may help"
                )
        done = self._done.pop(step)
        slot = step % self._slots
        batch = []
        for place in range(self._batch_size):
            count_a, count_b, kind = done[place]
            arrays = self._fields.views(self._memory, slot * self._batch_size + place)
            arrays[3], arrays[7] = arrays[3][:count_a], arrays[7][:count_b]
            image_a, mask_a, a_to_b, xy_a, image_b, mask_b, b_to_a, xy_b = map(np.copy, arrays)
            view_a = TrainingView(image_a, xy_a, mask_a)
            view_b = TrainingView(image_b, xy_b, mask_b)
            batch.append(TrainingPair(view_a, view_b, a_to_b, b_to_a, kind))
        self._ask(step + 1)  # its slot is free now
        return batch

    def _receive(self, pipe: Any) -> None:
        try:
            message = pipe.recv()
        except (EOFError, ConnectionError) as error:
            raise TiepointError(
                "a worker that draws pairs died, perhaps for want of memory: "
                "use fewer workers or a smaller bank"
            ) from error
        if isinstance(message, BaseException):
            raise message
        index, found = message
        step, place = divmod(index, self._batch_size)
        self._done[step][place] = found

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join(timeout=5)
        for pipe in self._pipes:
            pipe.close()
        self._processes, self._pipes = [], []


def _work(pipe: Connection, config: DataConfig, seed: int, batch_size: int, memory: Any) -> None:
    """A worker's life: take indices, draw pairs, say so."""
    import signal

    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the trainer's to answer
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    cv2.setNumThreads(1)  # one process per core already
    fields = _Fields(config.size_hw)
    with contextlib.suppress(EOFError, ConnectionError, BrokenPipeError):
        while True:
            slot, share = pipe.recv()
            for index in share:
                try:
                    pair = training_pair(config, seed, index)
                except Exception as error:  # noqa: BLE001 - the trainer must hear of it
                    pipe.send(_portable(error, index))
                    return
                place = slot * batch_size + index % batch_size
                _store(fields.views(memory, place), pair)
                counts = len(pair.a.corners_xy), len(pair.b.corners_xy)
                pipe.send((index, (*counts, pair.kind)))


def _store(arrays: Sequence[NDArray[Any]], pair: TrainingPair) -> None:
    views = ((pair.a, pair.a_to_b), (pair.b, pair.b_to_a))
    for number, (view, flow) in enumerate(views):
        image, mask, there, corners = arrays[4 * number : 4 * number + 4]
        image[...], mask[...], there[...] = view.image, view.ignore, flow
        corners[: len(view.corners_xy)] = view.corners_xy


def _portable(error: Exception, index: int) -> TiepointError:
    """An error that survives the way to the other process."""
    if isinstance(error, TiepointError):
        return error
    trace = "".join(traceback.format_exception(error))
    return TiepointError(f"pair {index} could not be drawn:\n{trace}")
