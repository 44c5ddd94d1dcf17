"""Signals after OpenVINO: each thread keeps the stack that it had for them.

A network that OpenVINO compiles gives the thread another stack for signals, and its end brings back
the one before. Networks that end in the order of their creation leave a stack whose memory is
freed. The next signal, such as Ctrl-C, then ends the process with a segmentation fault (OpenVINO
2026.4, Linux).
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache


class _Stack(ctypes.Structure):
    """`stack_t` of Linux; see sigaltstack(2)."""

    _fields_ = (
        ("start", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("size", ctypes.c_size_t),
    )


@contextmanager
def own_signal_stack() -> Iterator[None]:
    """Within it OpenVINO may run; afterwards signals of this thread use the same stack as before.

    Other systems than Linux have no such stack.
    """
    if sys.platform != "linux":
        yield
        return
    before = _signal_stack()
    try:
        yield
    finally:
        if _signal_stack().start != before.start:
            _set(ctypes.byref(before), None)


def _signal_stack() -> _Stack:
    """The stack for signals of this thread; its start is None if they use the usual one."""
    stack = _Stack()
    _set(None, ctypes.byref(stack))
    return stack


def _set(new: object, old: object) -> None:
    _c_library().sigaltstack(new, old)


@cache
def _c_library() -> ctypes.CDLL:
    return ctypes.CDLL(None)
