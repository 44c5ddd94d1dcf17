"""Scenes and layouts of pairs from worker processes, for a device that makes the pairs.

A chunk is all pairs of a few steps. Its pairs are the same as `PairLoader`'s: the same scenes by
the same cameras in the same light. Workers copy each scene once into shared memory, and send
layouts through their pipes. A thread of each worker sends, so drawing never waits for the reader.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiepoint.training.scenes import composition
from tiepoint.training.scenes.composition import scene_number
from tiepoint.training.scenes.layouts import Layouts, joined, layouts_of
from tiepoint.training.scenes.packed_exposures import PackedExposures, pack_exposures
from tiepoint.training.scenes.photometry import draw_exposure
from tiepoint.training.scenes.processes import CONTEXT, Workers, portable, send, set_up_worker
from tiepoint.training.scenes.settings import DataConfig
from tiepoint.training.scenes.stored import scene_dtype, store_scene

AHEAD = 12
"""Chunks in flight beyond the requested one. A new scene takes a worker as long as the layouts of
70 pairs, so the time for a chunk varies with its new scenes."""
NOWHERE = -1
"""In place of a place in memory: the scene is stored already."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """The pairs of a few steps.

    Attributes:
        number: Its first pair is `number * pairs`.
        scenes: Numbers of the scenes that the pairs show, one for each pair.
        layouts: Pair n has the views n and `pairs + n`.
        exposures: 2P, of the views in their order.
        new: (number of the scene, its stored form), those that no earlier chunk had.
    """

    number: int
    scenes: list[int]
    layouts: Layouts
    exposures: PackedExposures
    new: list[tuple[int, Any]]


Part = tuple[list[int], Layouts, PackedExposures]
"""Indices of pairs, and what `Chunk` has of them."""


@dataclass
class _Requested:
    """A chunk that the workers draw.

    Attributes:
        places: Number of each new scene -> its place in the shared memory.
    """

    scenes: list[int]
    places: dict[int, int]
    parts: list[Part] = field(default_factory=list)

    @property
    def arrived(self) -> int:
        """Number of its pairs that are drawn."""
        return sum(len(indices) for indices, _, _ in self.parts)


class LayoutLoader:
    """An endless iterator over chunks. The new scenes of a chunk are valid until the next one.

    Args:
        pairs: Number of pairs of a chunk.
        first: Number of the first chunk.
        workers: Number of processes; 0 draws each chunk in this process on request.
    """

    def __init__(
        self, config: DataConfig, seed: int, pairs: int, first: int = 0, workers: int = 0
    ) -> None:
        self.config, self.seed, self.pairs = config, seed, pairs
        self._next = self._ahead = first  # numbers of the next chunk, and of the next request
        self._newest: dict[int, int] = {}  # slot of the bank -> number of its newest scene
        self._requested: dict[int, _Requested] = {}
        self._free = list(range(pairs))  # places in the shared memory
        self._held: list[int] = []
        self._workers: Workers | None = None
        if workers:
            kind = scene_dtype(config.size_hw)
            memory = CONTEXT.RawArray("B", len(self._free) * kind.itemsize)
            self._stored = np.frombuffer(memory, kind)
            arguments = config, seed, pairs, memory
            self._workers = Workers(run_layout_worker, arguments, workers, "tiepoint-layouts")
            self._request(self._workers)

    def __iter__(self) -> LayoutLoader:
        return self

    def __next__(self) -> Chunk:
        """The next chunk.

        Raises:
            TiepointError: Drawing failed, here or in a worker, or a worker died or hangs.
        """
        number, self._next = self._next, self._next + 1
        if self._workers is None:
            return self._drawn_here(number)
        self._free += self._held
        self._request(self._workers)
        chunk = self._requested[number]
        while chunk.arrived < self.pairs:
            for of, part in self._workers.messages():
                self._requested[of].parts.append(part)
        del self._requested[number]
        self._held = list(chunk.places.values())
        new = [(scene, self._stored[place]) for scene, place in chunk.places.items()]
        return self._chunk(number, chunk.scenes, chunk.parts, new)

    def close(self) -> None:
        """End the workers."""
        if self._workers is not None:
            self._workers.close()

    def _request(self, workers: Workers) -> None:
        """Request the chunks ahead for which there is memory."""
        while self._ahead <= self._next + AHEAD:
            number = self._ahead
            scenes, new = self._scenes(number)
            if len(new) > len(self._free):
                return
            places = {scene: self._free.pop() for scene in new}
            self._newest |= {scene % self.config.bank: scene for scene in scenes}
            shares: list[list[tuple[int, int]]] = [[] for _ in workers.pipes]
            firsts = {index: places[scene] for scene, index in new.items()}
            for index in self._indices(number):
                share = shares[index % self.config.bank % len(shares)]
                share.append((index, firsts.get(index, NOWHERE)))
            for pipe, share in zip(workers.pipes, shares, strict=True):
                if share:
                    send(pipe, (number, share))
            self._requested[number] = _Requested(scenes, places)
            self._ahead += 1

    def _drawn_here(self, number: int) -> Chunk:
        scenes, new = self._scenes(number)
        self._newest |= {scene % self.config.bank: scene for scene in scenes}
        stored = np.zeros(len(new), scene_dtype(self.config.size_hw))
        firsts = {index: place for place, index in enumerate(new.values())}
        wanted = [(index, firsts.get(index, NOWHERE)) for index in self._indices(number)]
        part = draw_part(self.config, self.seed, self.pairs, wanted, stored)
        return self._chunk(number, scenes, [part], list(zip(new, stored, strict=True)))

    def _indices(self, number: int) -> range:
        return range(number * self.pairs, (number + 1) * self.pairs)

    def _scenes(self, number: int) -> tuple[list[int], dict[int, int]]:
        """Numbers of a chunk's scenes, and the first index of each that was in none before."""
        scenes, new, newest = [], {}, dict(self._newest)
        for index in self._indices(number):
            scene, slot = scene_number(self.config, index), index % self.config.bank
            if newest.get(slot) != scene:
                new[scene] = index
            newest[slot] = scene
            scenes.append(scene)
        return scenes, new

    def _chunk(
        self, number: int, scenes: list[int], parts: Sequence[Part], new: list[tuple[int, Any]]
    ) -> Chunk:
        views = [view_numbers(indices, self.pairs).ravel() for indices, _, _ in parts]
        rows = np.concatenate([exposures for _, _, exposures in parts])
        exposures = np.empty_like(rows)
        exposures[np.concatenate(views)] = rows
        return Chunk(number, scenes, joined([part for _, part, _ in parts]), exposures, new)


def view_numbers(indices: Sequence[int], pairs: int) -> NDArray[np.int64]:
    """2 N: numbers of views A and B of pairs in their chunk of `pairs` pairs."""
    positions = np.asarray(indices, np.int64) % pairs
    return np.stack([positions, pairs + positions])


def draw_part(
    config: DataConfig, seed: int, pairs: int, wanted: Sequence[tuple[int, int]], stored: Any
) -> Part:
    """Draw pairs, and store their new scenes.

    Args:
        pairs: Number of pairs of the chunk.
        wanted: (index, place of its scene in `stored`, or `NOWHERE`), at least one.
    """
    drawn, exposures = [], []
    for index, place in wanted:
        scene = composition.scene(config, seed, index)
        if place != NOWHERE:
            store_scene(scene, stored[place], config.size_hw)
        rng = np.random.default_rng([seed, index, 1])  # as `training_pair` has it
        drawn.append((scene, composition.view_pair(scene, config, rng)))
        exposures += [draw_exposure(rng, config.size_hw, config.photometry) for _ in "AB"]
    indices = [index for index, _ in wanted]
    layouts = layouts_of(drawn, view_numbers(indices, pairs), config.size_hw)
    return indices, layouts, pack_exposures(exposures[::2] + exposures[1::2])


def run_layout_worker(
    pipe: Connection, config: DataConfig, seed: int, pairs: int, memory: Any
) -> None:
    """Main function of a worker: draw the requested parts until the pipe closes."""
    set_up_worker()
    stored = np.frombuffer(memory, scene_dtype(config.size_hw))
    drawn: SimpleQueue[object] = SimpleQueue()
    sender = Thread(target=_send_all, args=(drawn, pipe), daemon=True)
    sender.start()
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            number, wanted = pipe.recv()
            try:
                drawn.put((number, draw_part(config, seed, pairs, wanted, stored)))
            except Exception as error:  # noqa: BLE001 - the trainer must raise it
                drawn.put(portable(error, f"a pair from {wanted[0][0]} on"))
                break
    drawn.put(None)
    sender.join()


def _send_all(drawn: SimpleQueue[object], pipe: Connection) -> None:
    """Send what a worker has drawn, as far as its reader takes it, until a None."""
    with contextlib.suppress(ConnectionError):
        for message in iter(drawn.get, None):
            pipe.send(message)
