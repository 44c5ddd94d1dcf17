"""What a command may print: results unless `--quiet`, log messages from `--verbose` on."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

STDOUT = Path("-")
"""The value of `-o` that writes to stdout."""

_quiet: ContextVar[bool] = ContextVar("quiet", default=False)
_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)


@contextmanager
def verbosity(*, quiet: bool, verbose: int) -> Iterator[None]:
    """Apply `--quiet` and `--verbose` while a command runs."""
    level = logging.ERROR if quiet else _LEVELS[min(verbose, len(_LEVELS) - 1)]
    logger, handler = logging.getLogger("tiepoint"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("tiepoint: %(message)s"))
    before, token = logger.level, _quiet.set(quiet)
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        _quiet.reset(token)


def is_quiet() -> bool:
    """Whether `--quiet` was given: no results in words, no progress, no summary."""
    return _quiet.get()


def write_stdout(content: bytes) -> None:
    """Write a file to stdout, for `-o -`."""
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def show(text: str, *, on_stderr: bool = False) -> None:
    """Print a result in words."""
    if not is_quiet():
        print(text, file=sys.stderr if on_stderr else sys.stdout, flush=True)
