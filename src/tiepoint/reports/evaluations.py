"""An evaluation, as `tiepoint evaluate -o` writes it, as a section."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tiepoint.reports.pieces import Chart, Facts, Message, Piece, Section, Table
from tiepoint.reports.plain import flat, listed, mean, number, text
from tiepoint.reports.words import Words

ERRORS = {"error_px": (10.0, "px"), "error_deg": (20.0, "degrees")}
"""Errors of pairs -> upper end of the axis, and unit."""
MAIN = {
    "within": (2, "within"), "repeatability": (2, "repeatability"), "matches": (0, "matches"),
    "correct": (0, "correct"), "precision": (2, "precision"), "median_ms": (1, "median, ms"),
    "low_ms": (1, "10 %, ms"), "high_ms": (1, "90 %, ms"), "times": (2, "times the first"),
}  # fmt: skip
"""Entries of a row, with decimals and heading; one with limits has a column for each."""
MORE = {
    "auc": (2, "AUC"), "matching_score": (2, "matching score"),
    "localisation_px": (2, "localisation, px"),
}  # fmt: skip
"""The same of a second table."""
UNITS = {"pose": "°"}
"""Units of the limits by kind; px for others."""
MOST_ROWS, MOST_FAILURES, WORST = 300, 300, 8
STEPS = 200
MOST_CURVES = 6


def evaluation_section(
    values: Mapping[str, Any], file: Path, file_date: str, words: Words
) -> Section:
    """The section of one evaluation.

    Raises:
        LookupError, TypeError, ValueError, AttributeError: Damaged values.
    """
    rows, pairs, failures = values["rows"], values["pairs"], values["failures"]
    methods: Mapping[str, Mapping[str, Any]] = values["methods"]
    unit = UNITS.get(str(values.get("kind")), "px")
    main, more = (_table(rows, entries, unit, words) for entries in (MAIN, MORE))
    pieces: list[Piece] = [table for table in (main, more) if table is not None]
    names = ("error_px", "error_deg")
    error = next((name for name in names if pairs and name in pairs[0]), None)
    if error is not None:
        pieces += [_chart(pairs, list(methods)[:MOST_CURVES], error, words)]
        pieces += [_worst(pairs, method, error, words) for method in list(methods)[:MOST_CURVES]]
    if failures:
        pieces.append(_failures(failures, words))
    pieces += _made(values, methods, file, file_date, words)
    kind = str(values.get("kind", ""))
    counts = {(pair.get("group"), pair["pair"]) for pair in pairs}
    summary = words(
        "{pairs} pairs, {methods} methods, failures: {failures}",
        pairs=len(counts) if pairs else max((row.get("images", 0) for row in rows), default=0),
        methods=len(methods), failures=len(failures),
    )  # fmt: skip
    return Section(f"{words('Evaluation')}: {kind}", pieces, summary=summary)


def _table(
    rows: Sequence[Mapping[str, Any]],
    entries: Mapping[str, tuple[int, str]],
    unit: str,
    words: Words,
) -> Table | None:
    """The means of some entries; None if the rows have none of them."""
    grouped = any("group" in row for row in rows)
    columns = [
        (heading, entry, limit, digits)
        for entry, (digits, heading) in entries.items()
        if rows and entry in rows[0]
        for heading, limit in _limits(words(heading), rows[0][entry], unit)
    ]
    if not columns:
        return None
    headings = [words("method"), *([words("set")] if grouped else []), words("points")]
    headings += [heading for heading, *_ in columns]
    cells = []
    for row in rows[:MOST_ROWS]:
        line = [str(row["method"]), *([str(row["group"])] if grouped else [])]
        line.append(number(row["keypoints"], 0))
        for _, entry, limit, digits in columns:
            value = row[entry] if limit is None else row[entry][limit]
            line.append(mean(value, digits))
        cells.append(line)
    title = words("Means over pairs, with 95 % intervals")
    return Table(title, headings, cells, left_out=max(0, len(rows) - MOST_ROWS))


def _limits(heading: str, value: Any, unit: str) -> list[tuple[str, str | None]]:
    """A heading for each limit of an entry that has several."""
    if isinstance(value, Mapping) and "mean" not in value:
        return [(f"{heading} {limit} {unit}", str(limit)) for limit in value]
    return [(heading, None)]


def _errors(pairs: Sequence[Mapping[str, Any]], method: str, error: str) -> list[tuple[float, str]]:
    """Error and name of each pair; infinite where there is no estimate."""
    return [
        (math.inf if pair[error] is None else float(pair[error]), str(pair["pair"]))
        for pair in pairs
        if pair["method"] == method
    ]


def _chart(
    pairs: Sequence[Mapping[str, Any]], methods: Sequence[str], error: str, words: Words
) -> Chart:
    up_to, unit = ERRORS[error]
    x = np.linspace(0, up_to, STEPS + 1)
    curves, count = {}, 0
    for method in methods:
        errors = np.array([value for value, _ in _errors(pairs, method, error)])  # N
        if len(errors):
            count = len(errors)
            curves[method] = np.stack([x, (errors[:, None] <= x).mean(axis=0)], axis=1)
    title = words("Share of {count} pairs within an error", count=count)
    return Chart(title, words("error, {unit}", unit=words(unit)), curves, (0.0, 1.0))


def _worst(pairs: Sequence[Mapping[str, Any]], method: str, error: str, words: Words) -> Table:
    errors = sorted(_errors(pairs, method, error), key=lambda one: -one[0])[:WORST]
    rows = [(name, "∞" if math.isinf(value) else number(value)) for value, name in errors]
    unit = words(ERRORS[error][1])
    title = words("Largest errors of {method}", method=method)
    return Table(title, [words("pair"), words("error, {unit}", unit=unit)], rows)


def _failures(failures: Sequence[Mapping[str, Any]], words: Words) -> Table:
    rows = [
        (str(one["name"]), str(one["group"]), Message(one["message"]))
        for one in failures[:MOST_FAILURES]
    ]
    headings = [words("name"), words("set"), words("reason")]
    return Table(words("Failures"), headings, rows, left_out=max(0, len(failures) - MOST_FAILURES))


def _made(
    values: Mapping[str, Any],
    methods: Mapping[str, Mapping[str, Any]],
    file: Path,
    file_date: str,
    words: Words,
) -> list[Piece]:
    rows = [(words(name), text(values[name])) for name in ("kind", "profile") if name in values]
    rows += [(words("versions"), listed(values["versions"]))]
    for name, settings in methods.items():
        if "weights_sha256" in settings:
            rows.append((f"{name}: SHA-256", str(settings["weights_sha256"])))
    rows += [(words("date of the file"), file_date), (words("file"), str(file))]
    all_settings = flat({**values["settings"], "methods": methods})
    return [
        Facts(words("What was run"), rows),
        Facts(words("Settings"), all_settings, folded=True),
    ]
