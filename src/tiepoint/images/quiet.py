"""Keeps messages of C libraries about damaged files off stderr.

libtiff, inside Pillow, and OpenCV print their messages. They go to logging at level DEBUG instead,
because an `ImageError` already states what is wrong with the file.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import secrets
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

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
_BLOCK_BYTES = 1 << 16
_MOST_KEPT_BYTES = 1 << 20
"""Size of the temporary file above which it is emptied."""


class _Stderr:
    """File descriptor 2 while libtiff runs: its lines are kept, those of others pass through.

    They are written to a temporary file, which takes any amount at once and needs no reader. A pipe
    would block or refuse the writes of other threads and child processes while it is full. At the
    end of each redirection the lines go to the original stderr. A child process that outlives the
    redirection keeps the file. Its lines appear at the end of the next redirection or process.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.original = -1
        self._file = -1
        self._done = 0  # bytes of the file that have been read
        self._rest = b""  # a line that has no end yet
        self._messages: list[str] = []

    def enter(self) -> bool:
        """Begin a redirection; False if there is no stderr, or no room for the file."""
        with self.lock:
            if self.users == 0 and not self._redirect():
                return False
            self.users += 1
            return True

    def leave(self) -> list[str]:
        """End a redirection; returns libtiff's messages so far."""
        with self.lock:
            self.users -= 1
            if self.users == 0:
                os.dup2(self.original, _STDERR)
            self._pass_on()
            messages, self._messages = self._messages, []
            return messages

    def flush(self) -> None:
        """Pass on what child processes have written since the last redirection."""
        with self.lock:
            if self._file >= 0:
                self._pass_on()

    def _redirect(self) -> bool:
        if not _is_stderr():
            return False
        original = os.dup(_STDERR)
        if self.original >= 0:
            os.close(self.original)
        self.original = original
        if self._file < 0:
            try:
                self._file = _temporary_file()
            except OSError:
                return False
        os.dup2(self._file, _STDERR)
        return True

    def _pass_on(self) -> None:
        while True:
            os.lseek(self._file, self._done, os.SEEK_SET)  # writes append, wherever this is
            chunk = os.read(self._file, _BLOCK_BYTES)
            self._done += len(chunk)
            lines = (self._rest + chunk).splitlines(keepends=True)
            # libtiff writes a message in pieces, so that others may have a part of one here.
            is_open = bool(lines) and not lines[-1].endswith((b"\n", b"\r"))
            self._rest = lines.pop() if is_open and (chunk or self.users) else b""
            _write(self.original, b"".join(line for line in lines if not self._is_kept(line)))
            if not chunk:
                break
        if not self.users and self._done > _MOST_KEPT_BYTES:
            os.ftruncate(self._file, 0)
            self._done = 0

    def _is_kept(self, line: bytes) -> bool:
        is_libtiff = _LIBTIFF_LINE.match(line) is not None
        if is_libtiff and len(self._messages) < _MOST_MESSAGES:
            self._messages.append(line.decode(errors="replace").strip())
        return is_libtiff


_FLAGS_OF_SYSTEMS = ("O_NOFOLLOW", "O_TEMPORARY", "O_BINARY", "O_NOINHERIT")


def _temporary_file() -> int:
    """A file descriptor that appends to a file without a name."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND
    for name in _FLAGS_OF_SYSTEMS:
        flags |= getattr(os, name, 0)
    path = Path(tempfile.gettempdir(), f"tiepoint-{os.getpid()}-{secrets.token_hex(8)}")
    file = os.open(path, flags, 0o600)
    if not hasattr(os, "O_TEMPORARY"):  # Windows removes it when it is closed, and no earlier
        path.unlink()
    return file


def _write(file: int, data: bytes) -> None:
    rest = memoryview(data)
    with suppress(OSError):
        while rest:
            rest = rest[os.write(file, rest) :]


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


def _flush() -> None:
    _stderr.flush()


def _after_fork() -> None:
    """A child gets its own stderr back; other threads of the parent do not exist in it."""
    global _stderr, _opencv_lock
    if _stderr.users:
        os.dup2(_stderr.original, _STDERR)
    _stderr, _opencv_lock = _Stderr(), threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_flush)


@contextmanager
def libtiff_quiet() -> Iterator[None]:
    """Keep libtiff's messages off stderr."""
    stderr = _stderr
    has_entered = stderr.enter()
    try:
        yield
    finally:
        for message in stderr.leave() if has_entered else ():
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
