"""OpenVINO: imported without its telemetry, and refused in a process forked after its first use.

`import openvino` also imports its model converter, which reports the import to an analytics server
and stores an id in the home folder. The converter has a stub for installations without the package
that sends, so that package is hidden during the import. Afterwards everything is as before: the
caller's own conversions work, and in this process they send nothing either. If the caller imported
OpenVINO first, nothing is hidden.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

from tiepoint.errors import EngineError, MissingExtraError
from tiepoint.network.signal_stack import own_signal_stack

TELEMETRY = "openvino_telemetry"
"""The package that sends; a sub-module that is loaded already cannot be imported either."""


@contextmanager
def _telemetry_hidden() -> Iterator[None]:
    loaded: ModuleType | None = sys.modules.get(TELEMETRY)
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # makes its import fail
    try:
        yield
    finally:
        if loaded is None:
            del sys.modules[TELEMETRY]
        else:
            sys.modules[TELEMETRY] = loaded


try:
    with _telemetry_hidden():
        import openvino as ov
        from openvino import opset13 as ops
except ModuleNotFoundError as error:
    raise MissingExtraError("the engine 'openvino'", "openvino") from error

__all__ = [
    "capabilities",
    "compiled_model",
    "keep_in_child",
    "new_core",
    "ops",
    "ov",
    "refuse_after_fork",
]

_is_started = False
"""Whether OpenVINO may have threads in this process."""

_is_forked = False
"""Whether it had some in a process that this one was forked from."""

_alive: weakref.WeakSet[Any] = weakref.WeakSet()
"""Engines with networks."""

_asking = threading.RLock()
"""Held while OpenVINO is asked for facts, and during a fork: a child must not inherit its locks."""


def new_core() -> ov.Core:
    """OpenVINO's entry point, to compile networks with.

    Raises:
        EngineError: This process was forked from one that had called this.
    """
    global _is_started  # noqa: PLW0603
    refuse_after_fork()
    _is_started = True
    return ov.Core()


def compiled_model(core: ov.Core, model: ov.Model, options: dict[str, Any]) -> ov.CompiledModel:
    """A network compiled for the CPU."""
    with own_signal_stack():
        return core.compile_model(model, "CPU", options)


def refuse_after_fork() -> None:
    """Raise in a process forked from one that had compiled a network.

    A fork copies none of OpenVINO's threads, but their locks and queues as they were; sooner or
    later the child would wait for them forever.

    Raises:
        EngineError: Such a process.
    """
    if _is_forked:
        raise EngineError(
            "this process was forked from one in which OpenVINO had run, and a fork does not copy "
            "its threads: start processes by multiprocessing.get_context('spawn'), or fork before "
            "the first image"
        )


@cache
def capabilities() -> list[str]:
    """OpenVINO's names of the arithmetic that this processor has. No thread is started."""
    with _asking:
        refuse_after_fork()
        return list(ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def keep_in_child(engine: object) -> None:
    """In a forked child, never destroy the networks of an engine of the parent.

    Their destructors would wait forever for threads that a fork does not copy.
    """
    _alive.add(engine)


def _note_fork() -> None:
    global _is_forked  # noqa: PLW0603
    _asking.release()
    _is_forked = _is_forked or _is_started
    for engine in _alive:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_asking.acquire, after_in_parent=_asking.release, after_in_child=_note_fork
    )
