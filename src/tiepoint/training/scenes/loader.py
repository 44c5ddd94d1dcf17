"""Batches of pairs from worker processes, in an order that only seed and step decide.

Pair `step * batch_size + position` belongs to worker `index % bank % workers`, so that each scene
is drawn by one worker only. Workers write arrays into shared memory and send a few numbers through
a pipe, so a worker never waits for its reader.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from tiepoint.checks import check_whole
from tiepoint.errors import ConfigError
from tiepoint.geometry import SizeHW
from tiepoint.training.scenes.pairs import TrainingPair, TrainingView, training_pair
from tiepoint.training.scenes.processes import (
    CONTEXT,
    Workers,
    portable,
    send,
    set_up_worker,
)
from tiepoint.training.scenes.settings import DataConfig

AHEAD = 3  # batches in flight beyond the requested one


class PairLoader:
    """An endless iterator over batches: lists of `TrainingPair`.

    Batch number s has the pairs `s * batch_size ... (s + 1) * batch_size - 1` of the seed,
    whatever the number of workers. A run that starts at step s therefore gets the same batches as
    a longer run from there on.

    Attributes:
        step: Number of the next batch.
    """

    def __init__(
        self, config: DataConfig, seed: int, batch_size: int, start_step: int = 0, workers: int = 0
    ) -> None:
        """Start the workers.

        Args:
            batch_size: Pairs per batch, at most `config.bank`.
            start_step: Number of the first batch.
            workers: Number of processes; 0 draws each batch in this process on request.

        Raises:
            ConfigError: A number out of range.
        """
        check_batches(config, seed, batch_size, start_step, workers)
        self.config, self.seed, self.batch_size = config, seed, batch_size
        self.step = self._requested = start_step
        self._closed = False
        self._done: dict[int, dict[int, tuple[int, int, str]]] = {}
        """Step -> position -> (corners of A, corners of B, kind)."""
        self._workers: Workers | None = None
        if workers:
            self._start(workers)
            self._request(start_step)

    def __iter__(self) -> Iterator[list[TrainingPair]]:
        return self

    def __next__(self) -> list[TrainingPair]:
        """The next batch.

        Raises:
            TiepointError: Drawing a pair failed, here or in a worker, or a worker died or hangs.
        """
        if self._closed:
            raise StopIteration
        first = self.step * self.batch_size
        indices = range(first, first + self.batch_size)
        try:
            if self._workers is not None:
                batch = self._take(self.step)
            else:
                batch = [training_pair(self.config, self.seed, index) for index in indices]
        except BaseException:
            self.close()
            raise
        self.step += 1
        return batch

    def __enter__(self) -> PairLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; the iteration then stops."""
        self._closed = True
        if self._workers is not None:
            self._workers.close()

    def _start(self, workers: int) -> None:
        """Start worker processes and the shared memory that they fill."""
        self._slots = AHEAD + 1
        dtype = _view_dtype(self.config.size_hw)
        memory = CONTEXT.RawArray("B", self._slots * self.batch_size * 2 * dtype.itemsize)
        self._views = np.frombuffer(memory, dtype).reshape(-1, 2)
        arguments = self.config, self.seed, self.batch_size, memory
        self._workers = Workers(run_worker, arguments, workers, "tiepoint-pairs")

    def _request(self, step: int) -> None:
        """Request all batches up to `AHEAD` beyond a step from the workers."""
        assert self._workers is not None
        pipes = self._workers.pipes
        while self._requested <= step + AHEAD:
            shares: list[list[int]] = [[] for _ in pipes]
            first = self._requested * self.batch_size
            for index in range(first, first + self.batch_size):
                shares[index % self.config.bank % len(shares)].append(index)
            for pipe, share in zip(pipes, shares, strict=True):
                if share:
                    send(pipe, (self._requested % self._slots, share))
            self._done[self._requested] = {}
            self._requested += 1

    def _take(self, step: int) -> list[TrainingPair]:
        """The pairs of a step, copied from the shared memory."""
        assert self._workers is not None
        while len(self._done[step]) < self.batch_size:
            for index, numbers in self._workers.messages():
                drawn_step, position = divmod(index, self.batch_size)
                self._done[drawn_step][position] = numbers
        done, first = self._done.pop(step), step % self._slots * self.batch_size
        batch = [self._load(first + n, *done[n]) for n in range(self.batch_size)]
        self._request(step + 1)  # its slot is free now
        return batch

    def _load(self, number: int, corners_a: int, corners_b: int, kind: str) -> TrainingPair:
        """A copy of a pair in shared memory."""
        pair = self._views[number]
        a, b = (
            TrainingView(v["image"].copy(), v["corners_xy"][:corners].copy(), v["ignore"].copy())
            for v, corners in zip(pair, (corners_a, corners_b), strict=True)
        )
        a_to_b, b_to_a = pair["flow"].copy()
        return TrainingPair(a, b, a_to_b, b_to_a, kind)


def check_batches(
    config: DataConfig, seed: int, batch_size: int, start_step: int, workers: int
) -> None:
    """Raise ConfigError for numbers that describe no batches."""
    check_whole("seed", seed, minimum=0, unit="of the pairs")
    check_whole("batch_size", batch_size, minimum=1, unit="pairs")
    check_whole("start_step", start_step, minimum=0, unit="batches")
    check_whole("workers", workers, minimum=0, unit="processes")
    if batch_size > config.bank:
        raise ConfigError(
            f"batch_size is {batch_size} with a bank of {config.bank} scenes: two pairs of a "
            "batch would show one scene; enlarge bank or reduce batch_size"
        )


def _view_dtype(size_hw: SizeHW) -> np.dtype[Any]:
    """The fields of a view in shared memory."""
    most_corners = math.prod(size_hw) // 5  # above any real number: points keep a least distance
    flow = "flow", np.float32, (*size_hw, 2)
    corners = "corners_xy", np.float32, (most_corners, 2)
    return np.dtype([flow, corners, ("image", np.uint8, size_hw), ("ignore", np.bool_, size_hw)])


def run_worker(
    pipe: Connection, config: DataConfig, seed: int, batch_size: int, memory: Any
) -> None:
    """Main function of a worker: draw the requested pairs until the pipe closes."""
    set_up_worker()
    views = np.frombuffer(memory, _view_dtype(config.size_hw)).reshape(-1, 2)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            slot, indices = pipe.recv()
            for index in indices:
                try:
                    pair = training_pair(config, seed, index)
                except Exception as error:  # noqa: BLE001 - the trainer must raise it
                    pipe.send(portable(error, f"pair {index}"))
                    return
                number = slot * batch_size + index % batch_size
                views["flow"][number] = pair.a_to_b, pair.b_to_a
                for n, view in enumerate((pair.a, pair.b)):
                    views["image"][number, n], views["ignore"][number, n] = view.image, view.ignore
                    views["corners_xy"][number, n, : len(view.corners_xy)] = view.corners_xy
                numbers = len(pair.a.corners_xy), len(pair.b.corners_xy), pair.kind
                pipe.send((index, numbers))
