"""Keeps messages of C libraries about damaged files off stderr.

libtiff, inside Pillow, and OpenCV print their messages. They go to logging at level DEBUG instead,
because an `ImageError` already states what is wrong with the file.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import cv2

logger = logging.getLogger(__name__)

_STDERR = 2
_LIBTIFF_LINE = re.compile(
    rb"(Warning, )?(tempfile\.tif|filename|\w*(TIFF|Fax|LZW|ZIP|JPEG|[Pp]ack[Bb]its|LZMA|ZSTD|WebP"
    rb"|LERC|Log|Predict|Decode|Encode|Strip|Tile|Thunder|NeXT|Directory|Seek|Read|Fill)\w*): "
)
"""A message of libtiff: the name of one of its functions, or the name that Pillow gives the file,
and a colon."""

_MOST_MESSAGES = 20
_WAIT_S = 5.0


class _Stderr:
    """File descriptor 2 while libtiff runs: its lines are kept, those of others pass through.

    One pipe and one thread serve all redirections of the process, so that a program that another
    thread starts during one keeps a working stderr.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.original = -1
        self.messages: list[str] = []
        self._writing = self._reading = -1
        self._drained = threading.Event()
        self._mark = b"\0tiepoint %d\0" % id(self)

    def enter(self) -> None:
        with self.lock:
            if self.users == 0 and not self._redirect():
                return
            self.users += 1

    def leave(self) -> list[str]:
        """End a redirection; the last one returns libtiff's messages."""
        with self.lock:
            if self.users == 0:
                return []
            self.users -= 1
            if self.users:
                return []
            os.dup2(self.original, _STDERR)
            self._drain()
            messages, self.messages = self.messages, []
            return messages

    def _redirect(self) -> bool:
        if not _is_stderr():
            return False
        original = os.dup(_STDERR)
        if self.original >= 0:
            os.close(self.original)
        self.original = original
        if self._writing < 0:
            self._reading, self._writing = os.pipe()
            with suppress(OSError, AttributeError):  # a full pipe must not stop a thread
                os.set_blocking(self._writing, False)
            threading.Thread(target=self._pump, name="tiepoint-stderr", daemon=True).start()
        os.dup2(self._writing, _STDERR)
        return True

    def _drain(self) -> None:
        """Wait until the thread has read all that was written."""
        self._drained.clear()
        for _ in range(1000):
            with suppress(BlockingIOError):
                os.write(self._writing, self._mark)
                self._drained.wait(_WAIT_S)
                return
            self._drained.wait(0.001)  # full

    def _pump(self) -> None:
        rest = b""
        while chunk := os.read(self._reading, 1 << 16):
            rest += chunk
            before, mark, after = rest.partition(self._mark)
            if mark:
                for line in before.splitlines(keepends=True):
                    self._pass_on(line)
                rest = after
                self._drained.set()
            *lines, rest = rest.splitlines(keepends=True) if b"\n" in rest else [rest]
            if rest.endswith(b"\n"):
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._pass_on(line)

    def _pass_on(self, line: bytes) -> None:
        if not _LIBTIFF_LINE.match(line):
            with suppress(OSError):
                os.write(self.original, line)
        elif len(self.messages) < _MOST_MESSAGES:
            self.messages.append(line.decode(errors="replace").strip())


def _is_stderr() -> bool:
    """Whether file descriptor 2 is open for writing; else it may be a file that is being read."""
    if sys.__stderr__ is None:
        return False
    try:
        os.fstat(_STDERR)
        import fcntl
    except OSError:
        return False
    except ImportError:  # Windows
        return True
    return fcntl.fcntl(_STDERR, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY


_stderr = _Stderr()
_opencv_lock = threading.Lock()
_opencv_users = [0, 0]  # how many, and the level to restore


def _after_fork() -> None:
    """A child gets its own stderr back; no thread of the parent exists in it."""
    global _stderr, _opencv_lock
    if _stderr.users:
        os.dup2(_stderr.original, _STDERR)
    _stderr, _opencv_lock = _Stderr(), threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def libtiff_quiet() -> Iterator[None]:
    """Keep libtiff's messages off stderr."""
    stderr = _stderr
    stderr.enter()
    try:
        yield
    finally:
        for message in stderr.leave():
            logger.debug("libtiff: %s", message)


@contextmanager
def opencv_quiet() -> Iterator[None]:
    """Keep OpenCV's messages off stderr."""
    with _opencv_lock:
        if _opencv_users[0] == 0:
            _opencv_users[1] = cv2.utils.logging.getLogLevel()
            cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        _opencv_users[0] += 1
    try:
        yield
    finally:
        with _opencv_lock:
            _opencv_users[0] -= 1
            if _opencv_users[0] == 0:
                cv2.utils.logging.setLogLevel(_opencv_users[1])


class _ThreadSilence(logging.Filter):
    """Drops the records of one thread, for libraries that log each oddity of a damaged file."""

    def __init__(self) -> None:
        super().__init__()
        self.thread = threading.get_ident()
        self.errors: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        is_ours = record.thread == self.thread
        if is_ours and record.levelno >= logging.ERROR:
            self.errors.append(record.getMessage())
        return not is_ours


@contextmanager
def logger_quiet(name: str) -> Iterator[list[str]]:
    """Drop what this thread logs to the logger of another library.

    Returns:
        The errors among it, which grow inside the context.
    """
    silence = _ThreadSilence()
    library = logging.getLogger(name)
    library.addFilter(silence)
    try:
        yield silence.errors
    finally:
        library.removeFilter(silence)
