"""Resume file: the pairs that an evaluation has measured so far, so that it can be interrupted.

A file of JSON lines next to the report. The first line holds what decides the figures, each
further line the figures of one pair. A line that a crash has cut off is measured again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tiepoint.errors import FormatError
from tiepoint.files.reading import MAX_LIST_BYTES, parse_json, read_bounded
from tiepoint.files.writing import make_folder, unwritable, write_bytes

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ENDING = ".partial"
T = TypeVar("T")


class ResumeFile:
    """The pairs that are done.

    Args:
        path: The file; one that was made with other settings is moved to `<path>.old`.
        run_info: Everything that decides the figures, as plain values.

    Attributes:
        done: (group, name) of a pair -> the figures of each method, in order.
        moved_to: New path of a file that was moved; None without one.
    """

    def __init__(self, path: Path, run_info: Mapping[str, Any]) -> None:
        self.path = path
        self.done: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self.moved_to: Path | None = None
        make_folder(path.parent)
        head = json.dumps(run_info, default=str)
        write_bytes(path, "\n".join([head, *self._read(head), ""]).encode())

    def add(self, group: str, name: str, figures: Sequence[DataclassInstance]) -> None:
        """Append a pair with a dataclass of figures for each method.

        Raises:
            OutputError: It cannot be written.
        """
        line = json.dumps([group, name, [asdict(one) for one in figures]])
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise unwritable(self.path, error) from error

    def finish(self) -> None:
        """Remove the file, because the report holds everything."""
        self.path.unlink(missing_ok=True)

    def _read(self, head: str) -> list[str]:
        """The complete lines of a file that was made with the same settings."""
        try:
            first, *lines = read_bounded(self.path, MAX_LIST_BYTES).decode().splitlines()
        except (OSError, ValueError):  # no file, an empty one, or not text
            return []
        if first != head:
            if lines:
                self.moved_to = self.path.replace(self.path.with_name(self.path.name + ".old"))
            return []
        complete = []
        for line in lines:
            with suppress(ValueError, TypeError):
                group, name, figures = parse_json(line, finite=False)
                if not isinstance(group, str) or not isinstance(name, str):
                    continue
                self.done[group, name] = [dict(one) for one in figures]
                complete.append(line)
        return complete


def fingerprint(pairs: Sequence[object]) -> str:
    """Digest of a list of pairs: their names and their ground truth."""
    digest = hashlib.sha256()
    for pair in pairs:
        values = vars(pair) if hasattr(pair, "__dict__") else {}
        digest.update(repr(sorted((k, str(v)) for k, v in values.items())).encode())
    return digest.hexdigest()[:16]


def from_json(kind: type[T], values: Mapping[str, Any]) -> T:
    """A dataclass of plain values and tuples as it was before it was written as JSON.

    Raises:
        FormatError: Other names, or values that are no numbers.
    """
    plain = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    numbers = [one for v in plain.values() for one in (v if isinstance(v, tuple) else (v,))]
    try:
        if not all(one is None or isinstance(one, int | float) for one in numbers):
            raise TypeError("values that are no numbers")
        return kind(**plain)
    except TypeError as error:
        raise FormatError(
            f"the resume file holds other figures ({error}); delete it and measure again"
        ) from error
