"""Batches of pairs: one order, in any worker, and errors that reach the caller."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing.connection import wait

import numpy as np
import pytest

from support.scene_parts import same_pair
from tiepoint.errors import ConfigError, FormatError, TiepointError
from tiepoint.training.scenes import loader as loader_module
from tiepoint.training.scenes import processes
from tiepoint.training.scenes.loader import AHEAD, PairLoader
from tiepoint.training.scenes.pairs import training_pair
from tiepoint.training.scenes.settings import DataConfig

CONFIG = DataConfig(size_hw=(64, 72), mix=(("shapes", 0.5), ("repeats", 0.5)), bank=5, reuse=3)


def workers_alive() -> list:
    return [p for p in multiprocessing.active_children() if p.name.startswith("tiepoint-pairs")]


@pytest.fixture(autouse=True)
def no_worker_is_left():
    yield
    assert not workers_alive()


def test_workers_and_the_first_step_change_nothing() -> None:
    with PairLoader(CONFIG, 3, 4) as alone, PairLoader(CONFIG, 3, 4, 2, workers=2) as crew:
        batches = [next(alone) for _ in range(8)]
        for step in range(2, 8):  # more than are drawn ahead, so memory is used again
            batch = next(crew)
            assert len(batch) == 4
            assert all(same_pair(*pair) for pair in zip(batch, batches[step], strict=True))
        assert crew.step == alone.step == 8
    assert same_pair(batches[2][0], training_pair(CONFIG, 3, 8))
    with pytest.raises(StopIteration):
        next(crew)


def test_a_batch_keeps_its_arrays_while_later_ones_are_drawn() -> None:
    with PairLoader(CONFIG, 0, 2, workers=1) as crew:
        first = next(crew)
        copies = [pair.a.image.copy() for pair in first]
        for _ in range(AHEAD + 2):
            next(crew)
        assert all(
            np.array_equal(pair.a.image, copy) for pair, copy in zip(first, copies, strict=True)
        )


def test_arrays_of_workers_have_the_same_types_as_drawn_ones() -> None:
    with PairLoader(CONFIG, 0, 1, workers=1) as crew:
        pair = next(crew)[0]
    drawn = training_pair(CONFIG, 0, 0)
    for one, other in ((pair.a, drawn.a), (pair.b, drawn.b)):
        assert one.image.dtype == other.image.dtype and one.ignore.dtype == other.ignore.dtype
        assert one.corners_xy.dtype == other.corners_xy.dtype
    assert pair.a_to_b.dtype == drawn.a_to_b.dtype and pair.a.image.flags.writeable


def test_a_loader_without_workers_starts_no_process() -> None:
    with PairLoader(CONFIG, 0, 1) as alone:
        next(alone)
        assert not workers_alive()


def test_a_loader_is_its_own_iterator_and_stops_when_closed() -> None:
    alone = PairLoader(CONFIG, 0, 1)
    assert iter(alone) is alone
    alone.close()
    assert list(alone) == []
    alone.close()  # a second time does nothing


def test_as_many_workers_as_asked_start_and_end() -> None:
    with PairLoader(CONFIG, 0, 2, workers=2):
        assert len(workers_alive()) == 2
    assert not workers_alive()


def test_workers_that_have_nothing_to_do_do_no_harm() -> None:
    with PairLoader(CONFIG, 0, 1, workers=2) as crew:
        assert same_pair(next(crew)[0], training_pair(CONFIG, 0, 0))


def test_what_goes_wrong_in_a_worker_is_raised_here(tmp_path) -> None:
    missing = DataConfig(size_hw=(64, 64), photos=(str(tmp_path / "none"),), photo_share=1, bank=4)
    crew = PairLoader(missing, 0, 2, workers=1)
    with pytest.raises(FormatError, match="no such folder"):
        next(crew)
    with pytest.raises(StopIteration):  # closed after an error
        next(crew)


def test_what_goes_wrong_in_this_process_closes_the_loader(tmp_path) -> None:
    missing = DataConfig(size_hw=(64, 64), photos=(str(tmp_path / "none"),), photo_share=1, bank=4)
    alone = PairLoader(missing, 0, 2)
    with pytest.raises(FormatError, match="no such folder"):
        next(alone)
    assert list(alone) == []


def test_a_worker_that_dies_is_reported() -> None:
    crew = PairLoader(CONFIG, 0, 2, workers=1)
    next(crew)
    worker = workers_alive()[0]
    worker.kill()
    worker.join(5)
    with pytest.raises(TiepointError, match=r"a worker that draws scenes died.*use fewer workers"):
        for _ in range(10):
            next(crew)


def test_one_dead_worker_of_two_is_reported() -> None:
    crew = PairLoader(CONFIG, 0, 4, workers=2)
    next(crew)
    worker = workers_alive()[1]
    worker.kill()
    worker.join(5)
    with pytest.raises(TiepointError, match="died"):
        for _ in range(10):
            next(crew)


def test_a_slow_worker_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "POLL_S", 0.05)
    with PairLoader(CONFIG, 0, 1, workers=1) as crew:
        next(crew)
        worker = workers_alive()[0].pid
        os.kill(worker, signal.SIGSTOP)
        try:
            time.sleep(0.2)
        finally:
            os.kill(worker, signal.SIGCONT)
        for step in range(1, AHEAD + 3):
            assert same_pair(next(crew)[0], training_pair(CONFIG, 0, step))


def test_a_worker_that_hangs_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "POLL_S", 0.05)
    monkeypatch.setattr(processes, "PATIENCE_S", 0.3)
    monkeypatch.setattr(processes, "END_S", 0.3)
    crew = PairLoader(DataConfig(size_hw=(64, 64), bank=64), 0, 1, workers=1)
    worker = workers_alive()[0].pid
    os.kill(worker, signal.SIGSTOP)
    with pytest.raises(TiepointError, match="no pair from any worker for 0 s"):
        for _ in range(10):
            next(crew)
    assert not workers_alive()  # a stopped process ignores SIGTERM and is killed


@pytest.mark.skipif(os.name == "nt", reason="os.kill ends a process there")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_leave_signals_to_the_run(number: signal.Signals) -> None:
    """Before their imports too: a signal to all processes of a run ends it with a saved state."""
    with PairLoader(CONFIG, 0, 1, workers=1) as crew:
        os.kill(workers_alive()[0].pid, number)
        next(crew)
        os.kill(workers_alive()[0].pid, number)
        for _ in range(AHEAD + 2):
            next(crew)


@pytest.mark.skipif(os.name == "nt", reason="has no masks of signals")
def test_starting_workers_leaves_the_signals_of_this_process_alone() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        with PairLoader(CONFIG, 0, 1, workers=1):
            expected = before | {signal.SIGUSR1}
            assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == expected
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_a_program_that_closes_nothing_ends_with_its_workers(tmp_path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "from tiepoint.training.scenes.loader import PairLoader\n"
        "from tiepoint.training.scenes.settings import DataConfig\n"
        "if __name__ == '__main__':\n"
        "    loader = PairLoader(DataConfig(size_hw=(64, 64), bank=4), 0, 1, workers=1)\n"
        "    next(loader)\n"
        "    print(loader._workers.processes[0].pid)\n"
    )
    done = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, check=True, timeout=120
    )
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seed": -1}, "seed is -1, expected a whole number >= 0"),
        ({"seed": True}, "seed is True, expected a whole number"),
        ({"batch_size": 0}, "batch_size is 0, expected a whole number >= 1"),
        ({"batch_size": 1.5}, "batch_size is 1.5, expected a whole number >= 1"),
        ({"batch_size": 6}, "batch_size is 6 with a bank of 5 scenes"),
        ({"start_step": -2}, "start_step is -2, expected a whole number >= 0"),
        ({"workers": -1}, "workers is -1, expected a whole number >= 0"),
    ],
)
def test_numbers_out_of_range_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PairLoader(CONFIG, **({"seed": 0, "batch_size": 2} | wrong))


class UnexpectedError(Exception):
    pass


def test_an_unexpected_error_of_a_worker_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The worker's function, run here on a pipe, as it runs in its own process."""

    def fails(config: DataConfig, seed: int, index: int):
        raise UnexpectedError(f"index {index}")

    monkeypatch.setattr(loader_module, "training_pair", fails)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    ours, theirs = multiprocessing.Pipe()
    ours.send((0, [7]))
    loader_module.run_worker(theirs, CONFIG, 0, 1, b"")
    assert wait([ours], timeout=1)
    error = ours.recv()
    assert isinstance(error, TiepointError)
    assert "pair 7 could not be drawn" in str(error) and "UnexpectedError: index 7" in str(error)


def test_drawing_pairs_needs_no_torch() -> None:
    code = "import sys, tiepoint.training.scenes.loader; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
