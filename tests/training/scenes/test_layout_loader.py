"""Chunks of layouts: the reference's pairs, in any worker, and errors that reach the caller."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from threading import Thread

import numpy as np
import pytest

from tiepoint.errors import FormatError, TiepointError
from tiepoint.training.scenes import composition, layout_loader, pairs, processes
from tiepoint.training.scenes.layout_loader import AHEAD, Chunk, LayoutLoader
from tiepoint.training.scenes.packed_exposures import pack_exposures
from tiepoint.training.scenes.photometry import draw_exposure
from tiepoint.training.scenes.settings import DataConfig
from tiepoint.training.scenes.stored import scene_dtype, store_scene

CONFIG = DataConfig(size_hw=(64, 72), mix=(("shapes", 0.6), ("boxes", 0.4)), bank=5, reuse=3)


def workers_alive() -> list:
    return [p for p in multiprocessing.active_children() if p.name.startswith("tiepoint-layouts")]


@pytest.fixture(autouse=True)
def no_worker_is_left():
    yield
    assert not workers_alive()


def rows(chunk: Chunk) -> dict[str, list[bytes]]:
    """All rows of its layouts, in an order that the shares of the workers do not change."""
    return {
        name: sorted(row.tobytes() for row in getattr(chunk.layouts, name))
        for name in ("planes", "edges", "ends", "names")
    }


def same_chunk(one: Chunk, other: Chunk) -> bool:
    return (
        (one.number, one.scenes) == (other.number, other.scenes)
        and rows(one) == rows(other)
        and one.exposures.tobytes() == other.exposures.tobytes()
    )


def same_scene(one, other) -> bool:
    """Whether all sheets are the same; the room for more may have an earlier scene's."""
    count = one["sheets"]
    return (
        count == other["sheets"]
        and np.array_equal(one["backdrop"], other["backdrop"])
        and all(
            np.array_equal(one[name][:count], other[name][:count])
            for name in ("atlases", "corners", "counts")
        )
    )


def edges_by_plane(chunk: Chunk) -> dict[tuple[int, int], bytes]:
    planes, edges = chunk.layouts.planes, chunk.layouts.edges
    each = np.split(edges, np.cumsum(planes["edges"])[:-1])
    return {
        (int(row["view"]), int(row["name"])): own.tobytes()
        for row, own in zip(planes, each, strict=True)
    }


def test_workers_and_the_first_chunk_change_nothing() -> None:
    alone, crew = LayoutLoader(CONFIG, 3, 4), LayoutLoader(CONFIG, 3, 4, first=2, workers=2)
    try:
        chunks = [next(alone) for _ in range(2 + AHEAD + 3)]
        scenes = {number: stored.copy() for chunk in chunks for number, stored in chunk.new}
        for expected in chunks[2:]:
            chunk = next(crew)
            assert same_chunk(chunk, expected)
            assert edges_by_plane(chunk) == edges_by_plane(expected)
            for number, stored in chunk.new:
                assert same_scene(stored, scenes[number])
    finally:
        crew.close()


def test_each_scene_comes_once_with_its_first_pair() -> None:
    """Even in chunks of more pairs than the bank has scenes."""
    for count in (2, 7):
        loader, known = LayoutLoader(CONFIG, 0, count), set()
        for _ in range(30 // count):
            chunk = next(loader)
            new = [number for number, _ in chunk.new]
            assert not known & set(new)
            known |= set(new)
            assert set(chunk.scenes) <= known
            first = chunk.number * count
            assert chunk.scenes == [
                composition.scene_number(CONFIG, first + n) for n in range(count)
            ]


def test_scenes_cameras_and_light_are_those_of_the_pair() -> None:
    chunk = next(LayoutLoader(CONFIG, 9, 5))
    for position in range(5):
        scene = composition.scene(CONFIG, 9, position)
        stored = np.zeros(1, scene_dtype(CONFIG.size_hw))[0]
        store_scene(scene, stored, CONFIG.size_hw)
        [mine] = [row for number, row in chunk.new if number == chunk.scenes[position]]
        assert mine.tobytes() == stored.tobytes()
        rng = np.random.default_rng([9, position, 1])
        pair = composition.view_pair(scene, CONFIG, rng)
        exposures = [draw_exposure(rng, CONFIG.size_hw, CONFIG.photometry) for _ in range(2)]
        packed = pack_exposures(exposures)
        for side, view in enumerate((position, 5 + position)):
            assert chunk.exposures[view].tobytes() == packed[side].tobytes()
            planes = chunk.layouts.planes
            for row in planes[planes["view"] == view]:
                matrix = pair.to_views[side][row["name"] - 1]
                np.testing.assert_allclose(row["to_view"], matrix, rtol=1e-6)


def test_an_accepted_pair_of_the_reference_has_the_same_exposures(monkeypatch) -> None:
    """The reference draws exposures after the cameras, from the same generator."""
    seen = []

    def noting(*arguments):
        seen.append(draw_exposure(*arguments))
        return seen[-1]

    monkeypatch.setattr(pairs, "draw_exposure", noting)
    chunk = next(LayoutLoader(CONFIG, 2, 3))
    for index in range(3):
        pairs.training_pair(CONFIG, 2, index)
    packed = pack_exposures(seen)
    same = [chunk.exposures[n].tobytes() == packed[2 * n].tobytes() for n in range(3)]
    assert sum(same) >= 2  # the others drew other cameras


def test_memory_of_scenes_is_used_again_only_after_the_next_call() -> None:
    crew = LayoutLoader(CONFIG, 0, 2, workers=1)
    try:
        for _ in range(AHEAD + 4):
            chunk = next(crew)
            copies = [stored.copy() for _, stored in chunk.new]
            time.sleep(0.02)
            for (_, stored), copy in zip(chunk.new, copies, strict=True):
                assert stored.tobytes() == copy.tobytes()
    finally:
        crew.close()


def test_what_goes_wrong_in_a_worker_is_raised_here(tmp_path) -> None:
    missing = DataConfig(size_hw=(64, 64), photos=(str(tmp_path / "none"),), photo_share=1, bank=4)
    crew = LayoutLoader(missing, 0, 2, workers=1)
    try:
        with pytest.raises(FormatError, match="no such folder"):
            next(crew)
    finally:
        crew.close()


def test_a_worker_that_dies_is_reported() -> None:
    crew = LayoutLoader(CONFIG, 0, 4, workers=2)
    try:
        next(crew)
        worker = workers_alive()[1]
        worker.kill()
        worker.join(5)
        with pytest.raises(TiepointError, match=r"a worker that draws scenes died"):
            for _ in range(3 * AHEAD):
                next(crew)
    finally:
        crew.close()


def test_workers_that_hang_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "POLL_S", 0.05)
    monkeypatch.setattr(processes, "PATIENCE_S", 0.3)
    monkeypatch.setattr(processes, "END_S", 0.3)
    crew = LayoutLoader(CONFIG, 0, 2, workers=1)
    os.kill(workers_alive()[0].pid, signal.SIGSTOP)
    try:
        with pytest.raises(TiepointError, match="no pair from any worker for 0 s"):
            for _ in range(10):
                next(crew)
    finally:
        crew.close()


class UnexpectedError(Exception):
    pass


def test_an_unexpected_error_of_a_worker_keeps_its_traceback(monkeypatch) -> None:
    def fails(*arguments):
        raise UnexpectedError("no room")

    monkeypatch.setattr(layout_loader, "draw_part", fails)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    ours, theirs = multiprocessing.Pipe()
    ours.send((0, [(7, -1)]))
    layout_loader.run_layout_worker(theirs, CONFIG, 0, 1, bytes(scene_dtype((64, 72)).itemsize))
    assert ours.poll(1)
    error = ours.recv()
    assert isinstance(error, TiepointError)
    assert "a pair from 7 on" in str(error) and "UnexpectedError: no room" in str(error)


def test_a_worker_draws_all_requests_though_nobody_reads(monkeypatch) -> None:
    """More than the buffer of a pipe takes; and it ends when the reader leaves the rest unread."""
    drawn = []

    def large_part(config, seed, count, wanted, stored) -> bytes:
        drawn.append(wanted[0][0])
        return bytes(200_000)

    monkeypatch.setattr(layout_loader, "draw_part", large_part)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    ours, theirs = multiprocessing.Pipe()
    arguments = theirs, CONFIG, 0, 1, bytes(scene_dtype((64, 72)).itemsize)
    worker = Thread(target=layout_loader.run_layout_worker, args=arguments, daemon=True)
    worker.start()
    for number in range(AHEAD):
        ours.send((number, [(number, -1)]))
    start = time.monotonic()
    while len(drawn) < AHEAD and time.monotonic() - start < 10:
        time.sleep(0.01)
    assert drawn == list(range(AHEAD))
    assert [ours.recv()[0] for _ in range(AHEAD // 2)] == drawn[: AHEAD // 2]
    ours.close()
    worker.join(10)
    assert not worker.is_alive()


def test_drawing_layouts_needs_no_torch() -> None:
    code = "import sys, tiepoint.training.scenes.layout_loader; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
