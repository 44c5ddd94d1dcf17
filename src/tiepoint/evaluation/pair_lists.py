"""Reading of pairs from folders: `pairs.txt` with one pair a line, for any task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from tiepoint.errors import FormatError, TiepointError
from tiepoint.evaluation.task import Failure, PairT, Task
from tiepoint.files.paths import is_file, is_folder
from tiepoint.files.reading import text_lines
from tiepoint.images import read

PAIRS_FILE = "pairs.txt"
MAX_FAILURES = 1000
"""A file with more lines that cannot be read is no list of pairs."""
_LONGEST_NAME = 600


@dataclass(frozen=True, eq=False)
class PairFiles:
    """Two image files; each task adds its ground truth.

    Attributes:
        names: Paths of the images relative to the set's folder, with `/`, as in a features file.
    """

    group: str
    name: str
    path_a: Path
    path_b: Path
    names: tuple[str, str]

    def read(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """The pixels of A and B, as from `images.read`; raises ImageError as it does."""
        return read(self.path_a).pixels, read(self.path_b).pixels


def files_of_line(
    folder: Path, group: str, fields: Sequence[str]
) -> tuple[str, str, Path, Path, tuple[str, str]]:
    """The arguments of `PairFiles` in a line that begins with `imgA imgB`."""
    name_a, name_b = fields[:2]
    return group, f"{name_a} {name_b}", folder / name_a, folder / name_b, (name_a, name_b)


def read_folders(
    task: Task[PairT, Any, Any, Any], folders: Sequence[Path]
) -> tuple[list[PairT], list[Failure]]:
    """The pairs of several folders, each its own group, and what could not be read, in order."""
    pairs: list[PairT] = []
    failures: list[Failure] = []
    for folder, group in zip(folders, group_names(folders), strict=True):
        try:
            folder_pairs, folder_failures = read_folder(task, folder, group)
            pairs += folder_pairs
            failures += folder_failures
        except TiepointError as error:
            failures.append(Failure(group, "", str(error)))
    return uniquely_named(pairs), failures


def read_folder(
    task: Task[PairT, Any, Any, Any], folder: Path, group: str
) -> tuple[list[PairT], list[Failure]]:
    """The pairs of one folder, and the lines that could not be read.

    Paths in `pairs.txt` are relative to it; empty lines and lines that start with `#` are skipped.

    Raises:
        FormatError: No such folder, or no pairs in it.
    """
    other = f", or {task.other_layout}" if task.other_layout else ""
    if not is_folder(folder):
        raise FormatError(f"{folder}: no such folder; expected one with {PAIRS_FILE}{other}")
    pairs: list[PairT] = []
    failures: list[Failure] = []
    path = folder / PAIRS_FILE
    if is_file(path):
        pairs, failures = _read_list(task, path, group)
    elif task.read_other is not None:
        pairs, failures = task.read_other(folder, group)
    if not pairs and not failures:
        raise FormatError(
            f"{folder}: no pairs; expected {PAIRS_FILE} with a line per pair ({task.line}){other}"
        )
    return pairs, failures


def _read_list(
    task: Task[PairT, Any, Any, Any], path: Path, group: str
) -> tuple[list[PairT], list[Failure]]:
    pairs: list[PairT] = []
    failures: list[Failure] = []
    try:
        for number, line in enumerate(text_lines(path), start=1):
            fields = line.split()
            if not fields or fields[0].startswith("#"):
                continue
            try:
                if len(fields) != task.field_count:
                    count = task.field_count
                    raise FormatError(f"{len(fields)} fields, expected {count}: {task.line}")
                pairs.append(task.parse_line(path.parent, group, fields))
            except FormatError as error:
                message = f"{path}, line {number}: {error}"
                failures.append(Failure(group, " ".join(fields[:2])[:_LONGEST_NAME], message))
            if len(failures) > MAX_FAILURES:
                raise ValueError(f"more than {MAX_FAILURES} lines are no pairs ({task.line})")
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    return pairs, failures


def uniquely_named(pairs: Sequence[PairT]) -> list[PairT]:
    """The pairs; the second and later ones of one name in a group get a number after it."""
    counts: Counter[tuple[str, str]] = Counter()
    named = []
    for pair in pairs:
        key = pair.group, pair.name
        counts[key] += 1
        name = f"{pair.name} #{counts[key]}"
        named.append(replace(pair, name=name) if counts[key] > 1 else pair)  # type: ignore[type-var]
    return named


def group_names(folders: Sequence[Path]) -> list[str]:
    """A name for each folder: its own, or its path where several folders share a name."""
    names = [folder.resolve().name for folder in folders]
    named = zip(folders, names, strict=True)
    return [name if names.count(name) == 1 else str(folder) for folder, name in named]
