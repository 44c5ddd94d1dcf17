"""Files and folders of results -> one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path

from tiepoint._version import __version__
from tiepoint.errors import FormatError, TiepointError
from tiepoint.files.paths import exists, is_folder
from tiepoint.files.reading import parse_json, read_bounded
from tiepoint.registration.record import is_record, read_record
from tiepoint.reports import html
from tiepoint.reports.comparisons import comparison_section
from tiepoint.reports.evaluations import evaluation_section
from tiepoint.reports.pieces import Message, Note, Section, Table
from tiepoint.reports.registrations import RegisteredPair, registrations_section
from tiepoint.reports.runs import is_run, run_section
from tiepoint.reports.stores import is_features_store, store_section
from tiepoint.reports.words import Language, Words

MOST_SOURCES = 200
"""Sources of one report; further ones are named in a note."""
MOST_FAILURES = 500
MOST_FILE_BYTES = 100_000_000
_DAMAGED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


@dataclass(frozen=True)
class Report:
    """A page, and what is not in it.

    Attributes:
        page: The HTML file, UTF-8.
        sections: Number of sections of results.
        failures: (source, reason) of each that could not be read; they are in the page too.
    """

    page: bytes
    sections: int
    failures: tuple[tuple[str, str], ...]


def make_report(
    sources: Sequence[str | PathLike[str]],
    *,
    title: str | None = None,
    language: Language = "en",
    pictures: bool = True,
) -> Report:
    """Read results and make a page of them that needs no other file and no network.

    Args:
        sources: Files of `tiepoint register --json` (one or several lines), `tiepoint compare
            --json` and `tiepoint evaluate -o`; folders of `tiepoint train`, of checkpoints, and
            stores of `tiepoint detect`.
        title: Heading of the page; None takes one in the language.
        language: "en" or "ko".
        pictures: Draw the images of registrations, which are read where they were.

    Raises:
        ConfigError: An unknown language.
    """
    words = Words(language)
    sections: list[Section] = []
    pairs: list[RegisteredPair] = []
    failures: list[tuple[str, str]] = []
    for source in sources[:MOST_SOURCES]:
        path = Path(source)
        try:
            if is_folder(path):
                sections.append(_of_folder(path, words))
            else:
                reasons = _of_file(path, words, sections, pairs)
                failures += [(str(source), reason) for reason in reasons]
        except TiepointError as error:
            failures.append((str(source), str(error)))
        except _DAMAGED as error:
            failures.append((str(source), f"{source}: {_damaged(error)}"))
    if pairs:
        sections.insert(0, registrations_section(pairs, words, pictures=pictures))
    count = len(sections)
    sections += _notes(failures, max(0, len(sources) - MOST_SOURCES), words)
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    byline = words("Made by tiepoint {version} on {date}.", version=__version__, date=now)
    page = html.page(title or words("Report of tiepoint"), byline, sections, words)
    return Report(page, count, tuple(failures))


def _notes(failures: Sequence[tuple[str, str]], left_out: int, words: Words) -> list[Section]:
    if not failures and not left_out:
        return []
    pieces: list[Table | Note] = []
    if failures:
        rows = [(source, Message(reason)) for source, reason in failures[:MOST_FAILURES]]
        headings, hidden = [words("source"), words("reason")], len(failures) - len(rows)
        pieces.append(Table(words("Failures"), headings, rows, left_out=hidden))
    if left_out:
        text = "{count} more sources are left out, because a report has at most {limit}."
        pieces.append(Note(words(text, count=left_out, limit=MOST_SOURCES)))
    return [Section(words("Sources that could not be read"), pieces)]


def _of_folder(path: Path, words: Words) -> Section:
    if is_features_store(path):
        return store_section(path, words)
    if is_run(path):
        return run_section(path, _date(path), words)
    raise FormatError(
        f"{path}: neither a run of tiepoint train, nor a checkpoint, nor a store; expected a "
        "log.jsonl or a manifest.json in it"
    )


def _of_file(
    path: Path, words: Words, sections: list[Section], pairs: list[RegisteredPair]
) -> list[str]:
    """Add the section of an evaluation or comparison, or the registrations of a file.

    Returns:
        Why objects of the file are left out, one reason each.

    Raises:
        FormatError: The file cannot be read, or has no JSON.
    """
    if not exists(path):
        raise FormatError(f"{path}: no such file or folder")
    date, reasons = _date(path), list[str]()
    for number, values in enumerate(_values(path), start=1):
        try:
            if is_record(values):
                pairs.append(RegisteredPair(read_record(values), path, date))
            elif isinstance(values, dict) and values.get("kind") == "comparison":
                sections.append(comparison_section(values, path, date, words))
            elif isinstance(values, dict) and {"rows", "methods", "pairs"} <= set(values):
                sections.append(evaluation_section(values, path, date, words))
            else:
                raise FormatError(
                    "expected the output of tiepoint register --json, compare --json or evaluate -o"
                )
        except FormatError as error:
            reasons.append(f"{path}: object {number}: {error}")
        except _DAMAGED as error:
            reasons.append(f"{path}: object {number}: {_damaged(error)}")
    return reasons


def _damaged(error: Exception) -> str:
    return f"damaged ({type(error).__name__}: {error}); write it again"


def _values(path: Path) -> list[object]:
    """The JSON objects of a file: one, or one per line."""
    try:
        text = read_bounded(path, MOST_FILE_BYTES).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: cannot be read ({error}); expected JSON in UTF-8") from error
    try:
        return [parse_json(text)]
    except ValueError as error:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) < 2:
            raise FormatError(f"{path}: not JSON ({error}); expected a file of results") from error
    try:
        return [parse_json(line) for line in lines]
    except ValueError as error:
        raise FormatError(f"{path}: not JSON line by line ({error})") from error


def _date(path: Path) -> str:
    try:
        written = path.stat().st_mtime
    except OSError:
        return "–"
    return datetime.fromtimestamp(written, UTC).strftime("%Y-%m-%d %H:%M UTC")
