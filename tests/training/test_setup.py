"""Set-up of the process: torch's threads, compile policy, workers, device, signals."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading

import pytest
import torch

from tiepoint.errors import ConfigError, MissingExtraError
from tiepoint.training import setup
from tiepoint.training.setup import (
    COMPILE_FROM_MINUTES,
    default_workers,
    find_device,
    keep_freed_memory,
    set_up_torch,
    should_compile,
    stopped_by_signals,
)


def test_the_module_loads_no_torch() -> None:
    code = "import sys; import tiepoint.training.setup; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "False"


def test_torch_gets_the_asked_number_of_threads_and_they_sleep_while_they_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    before = torch.get_num_threads()
    try:
        set_up_torch(3)
        assert torch.get_num_threads() == 3
        assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
        monkeypatch.setattr(os, "cpu_count", lambda: 2)
        monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
        set_up_torch(None)
        assert torch.get_num_threads() == 2
        assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE", "the user's own policy is kept"
    finally:
        torch.set_num_threads(before)


def test_without_torch_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "is_installed", lambda name: False)
    with pytest.raises(MissingExtraError, match=r"tiepoint\[torch\]"):
        set_up_torch(None)


def test_keeping_freed_memory_is_harmless_and_repeatable() -> None:
    for _ in range(2):
        keep_freed_memory()
        assert torch.ones(10**6).sum() == 10**6


def test_elsewhere_than_on_linux_memory_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: object) -> None:
        raise AssertionError("no C library there")

    monkeypatch.setattr(setup.sys, "platform", "darwin")
    monkeypatch.setattr(setup.ctypes, "CDLL", refuse)
    keep_freed_memory()


@pytest.fixture
def with_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU machine with a C++ compiler, whatever this one has."""
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("with_compiler")
def test_long_budgets_are_compiled_and_short_ones_are_not() -> None:
    assert should_compile(None, minutes=COMPILE_FROM_MINUTES)
    assert not should_compile(None, minutes=COMPILE_FROM_MINUTES - 0.1)
    assert not should_compile(None, minutes=None)


@pytest.mark.usefixtures("with_compiler")
def test_a_gpu_or_a_missing_compiler_turns_compiling_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert not should_compile(None, minutes=100)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert not should_compile(None, minutes=100)


@pytest.mark.parametrize("requested", [True, False])
@pytest.mark.parametrize("minutes", [None, 0.1, 1000])
def test_the_users_choice_decides_about_compiling(requested: bool, minutes: float | None) -> None:
    assert should_compile(requested, minutes=minutes) is requested


@pytest.mark.parametrize(("cores", "workers"), [(1, 1), (2, 1), (16, 15)])
def test_one_core_is_left_for_training(
    monkeypatch: pytest.MonkeyPatch, cores: int, workers: int
) -> None:
    monkeypatch.setattr("tiepoint.training.setup.usable_cores", lambda: cores)
    assert default_workers() == workers


def test_auto_takes_the_cpu_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device("auto") == torch.device("cpu")
    assert find_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["abacus", "", "cpu:x"])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"device '{name}' cannot be used .* expected auto, cpu"):
        find_device(name)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_sets_the_event_and_the_handlers_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stopped_by_signals() as stop:
        assert not stop.is_set() and stop.number is None
        signal.raise_signal(number)
        assert stop.is_set() and stop.number == number
        assert signal.getsignal(number) == before  # so that a second one has its usual effect
    assert signal.getsignal(number) == before


def test_a_second_signal_has_its_usual_effect() -> None:
    with pytest.raises(KeyboardInterrupt), stopped_by_signals():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    def work() -> None:
        with stopped_by_signals() as stop:
            seen.extend([stop.is_set(), signal.getsignal(signal.SIGTERM)])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False, before]
