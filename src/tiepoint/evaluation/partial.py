"""What an evaluation has measured so far, on disk: one that was stopped goes on from there.

A file of JSON lines beside the report: the first says what decides the figures, each further one
holds the figures of a pair. A line cut off by a crash is measured again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from tiepoint.files import make_folder, write_bytes

ENDING = ".partial"
Measured = TypeVar("Measured")


class Partial:
    """The pairs that are done.

    Args:
        path: The file; one that was made with other settings is begun anew.
        about: Everything that decides the figures, as plain values.

    Attributes:
        done: (group, name) of a pair -> the figures of each method, in order.
        put_aside: Where a file that was made with other settings lies now; None without one.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.path = path
        self.done: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self.put_aside: Path | None = None
        make_folder(path.parent)
        head = json.dumps(about, default=str)
        kept = [head, *self._read(head)]
        write_bytes(path, "".join(line + "\n" for line in kept).encode())

    def add(self, group: str, name: str, figures: Sequence[object]) -> None:
        """Note a pair.

        Args:
            figures: A dataclass for each method.
        """
        values = [asdict(one) for one in figures if is_dataclass(one) and not isinstance(one, type)]
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([group, name, values]) + "\n")

    def finish(self) -> None:
        """Remove the file: the report holds everything."""
        self.path.unlink(missing_ok=True)

    def _read(self, head: str) -> list[str]:
        """The whole lines of a file that was made with the same settings."""
        try:
            first, *lines = self.path.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):  # no file, an empty one, or not text
            return []
        if first != head and lines:
            self.put_aside = self.path.replace(self.path.with_name(self.path.name + ".old"))
        kept = []
        for line in lines if first == head else []:
            try:
                group, name, values = json.loads(line)
            except ValueError:
                continue
            self.done[group, name] = values
            kept.append(line)
        return kept


def fingerprint(pairs: Sequence[object]) -> str:
    """What tells a list of pairs from another: their names and their truth."""
    found = hashlib.sha256()
    for pair in pairs:
        values = vars(pair) if hasattr(pair, "__dict__") else {}
        found.update(repr(sorted((k, str(v)) for k, v in values.items())).encode())
    return found.hexdigest()[:16]


def restored(kind: type[Measured], values: Mapping[str, Any]) -> Measured:
    """Figures as they were before they went through a file."""
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
