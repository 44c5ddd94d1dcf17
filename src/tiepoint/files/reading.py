"""Reading files of others: regular files only, in bounded memory, JSON without surprises."""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

MAX_SETTINGS_BYTES = 2_000_000
"""Most bytes of a JSON file of settings; those of checkpoints and runs have a few thousand."""
MAX_LIST_BYTES = 256_000_000
"""Most bytes of a text file with one entry a line, such as a list of pairs."""
MAX_LINE = 100_000
"""Most characters of such a line."""

JSON_BYTES, JSON_GROWTH = 400_000_000, 6
"""JSON is parsed if it needs at most this much memory, or this many times its own size. Numbers in
full precision need four times their text; empty objects need a hundred times."""
JSON_DEPTH, MAX_DIGITS = 64, 4300
_WHOLE = range(-(2**63), 2**64)
"""Whole numbers in settings; arithmetic with longer ones overflows."""


def open_regular(path: str | PathLike[str]) -> BinaryIO:
    """Open a regular file for reading. A FIFO or device is refused, never waited for.

    Raises:
        OSError: No such file, no permission, a folder, or no regular file.
    """
    try:
        mode = Path(path).stat().st_mode  # before it is opened, because that can act on a device
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        # Without O_NONBLOCK a FIFO put there in between would wait for its writer.
        file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115 - Path has no opener
    except ValueError as error:
        raise OSError(errno.EINVAL, f"{error} in the path", os.fspath(path)) from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    return file


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_bounded(path: str | PathLike[str], most_bytes: int) -> bytes:
    """The bytes of a regular file; OSError as `open_regular`, and for a file above the limit."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most_bytes:
            raise OSError(errno.EFBIG, f"{size} bytes, the limit is {most_bytes}", os.fspath(path))
        return file.read(most_bytes)


def text_lines(path: str | PathLike[str]) -> Iterator[str]:
    """The lines of a UTF-8 file without their ends, one at a time; a byte order mark is dropped.

    Raises:
        OSError: As `read_bounded`, with the limit `MAX_LIST_BYTES`.
        ValueError: Not UTF-8, or a line longer than `MAX_LINE`.
    """
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > MAX_LIST_BYTES:
            raise OSError(errno.EFBIG, f"more than {MAX_LIST_BYTES} bytes", os.fspath(path))
        number = 0
        while line := file.readline(MAX_LINE + 1):
            number += 1
            if len(line) > MAX_LINE:
                raise ValueError(f"line {number} is longer than {MAX_LINE} bytes")
            yield line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")


def read_json(
    path: str | PathLike[str], *, most_bytes: int = MAX_SETTINGS_BYTES, finite: bool = True
) -> Any:
    """The value of a JSON file in UTF-8; see `parse_json`.

    Raises:
        OSError: As `read_bounded`.
        ValueError: Not UTF-8, or as `parse_json`.
    """
    data = read_bounded(path, most_bytes)
    if b"\0" in data:  # checked on the bytes, because text may need four times as much
        raise ValueError("NUL bytes, expected JSON in UTF-8")
    text = data.decode("utf-8-sig")
    del data
    value = parse_json(text, finite=False)
    if finite:
        check_json(value, whole=_WHOLE)
    return value


def parse_json(text: str, *, finite: bool = True) -> Any:
    """The value of a JSON text of others, which is parsed only if it needs little memory.

    Args:
        finite: Check the value as `check_json` does; a reader of arrays checks the rest itself.

    Raises:
        ValueError: Not JSON, NaN or infinity, too deep, or above `JSON_BYTES` of memory.
    """
    check_growth(memory_bytes(text), len(text))
    try:
        value = json.loads(
            text, parse_int=_whole_number, parse_constant=_not_finite if finite else None
        )
    except RecursionError as error:
        raise ValueError(f"nested more than {JSON_DEPTH} deep") from error
    if finite:
        check_json(value)
    return value


def check_growth(needed_bytes: int, text_bytes: int) -> None:
    """Raise ValueError for JSON whose values need many times the memory of its text."""
    limit = max(JSON_BYTES, JSON_GROWTH * text_bytes)
    if needed_bytes > limit:
        raise ValueError(
            f"needs {needed_bytes / 1e6:.0f} MB of memory, the limit is {limit / 1e6:.0f} MB"
        )


def memory_bytes(text: str) -> int:
    """Memory that a JSON text and its values need, bytes."""
    bytes_of_text = len(text) * (1 if text.isascii() else 4)
    return bytes_of_text + sum(
        bytes_each * text.count(sign)
        for sign, bytes_each in (("{", 240), ("[", 96), (",", 32), ('"', 40))
    )


def check_json(value: Any, whole: range | None = None) -> None:
    """Raise ValueError for values of JSON that make trouble later on.

    These are NaN and infinity (1e400 is one), whole numbers outside `whole`, and lists and objects
    nested more than `JSON_DEPTH` deep.
    """
    level = [value]
    for _ in range(JSON_DEPTH + 1):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner += item.values()
            elif isinstance(item, list):
                inner += item
            elif isinstance(item, float) and not math.isfinite(item):
                _not_finite(str(item))
            elif whole is not None and isinstance(item, int) and item not in whole:
                raise ValueError("a whole number beyond 64 bits")
        if not inner:
            return
        level = inner
    raise ValueError(f"nested more than {JSON_DEPTH} deep")


def _whole_number(text: str) -> int:
    if len(text) > MAX_DIGITS:  # Python's advice would be to raise its limit
        raise ValueError(f"a number of {len(text)} digits, the limit is {MAX_DIGITS}")
    return int(text)


def _not_finite(name: str) -> NoReturn:
    raise ValueError(f"a number that is {name}, expected finite ones")
