"""A comparison of methods, as `tiepoint compare --json` prints it, as a section."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiepoint.reports.pieces import Facts, Message, Piece, Section, Table, Verdict
from tiepoint.reports.plain import UNKNOWN, flat, listed, number
from tiepoint.reports.words import Words

MOST_METHODS = 100
VERDICTS = ("registered", "not registered", "failed")
TIMES = ("detection, ms", "matching, ms", "fit, ms")


def comparison_section(
    values: Mapping[str, Any], file: Path, file_date: str, words: Words
) -> Section:
    """The section of one comparison.

    Raises:
        LookupError, TypeError, ValueError, AttributeError: Damaged values.
    """
    methods = values["methods"][:MOST_METHODS]
    timed = any(one["times_ms"] for one in methods)
    names = ["method", "verdict", "keypoints", "matches", "inliers", "from the others, px"]
    names += ["consensus", *(TIMES if timed else ())]
    rows = [_row(one, words, timed=timed) for one in methods]
    note, left_out = Message(values["conclusion"]), max(0, len(values["methods"]) - MOST_METHODS)
    tables: list[Piece] = [Table(words("Methods"), list(map(words, names)), rows, note, left_out)]
    reasons = [(str(one["name"]), Message(one["reason"])) for one in methods if not one["success"]]
    if reasons:
        headings = [words("method"), words("reason")]
        tables.append(Table(words("Failures"), headings, reasons))
    threads = values["threads"]
    made = [
        (words("image A"), str(values["a"])),
        (words("image B"), str(values["b"])),
        (words("versions"), listed(values["versions"])),
        (words("CPU threads"), listed(threads)),
        (words("date of the file"), file_date),
        (words("file"), str(file)),
    ]
    known = {one["name"]: one["settings"] for one in methods}
    for name, settings in known.items():
        if "weights_sha256" in settings:
            made.append((f"{name}: SHA-256", str(settings["weights_sha256"])))
    pieces = [
        *tables,
        Facts(words("What was run"), made),
        Facts(words("Settings"), flat({**values["settings"], "methods": known}), folded=True),
    ]
    title = f"{words('Comparison of methods')}: {Path(values['a']).name} → {Path(values['b']).name}"
    summary = words(
        "{count} methods, consensus of {agreeing}",
        count=len(methods),
        agreeing=len(values["consensus"]),
    )
    return Section(title, pieces, summary=summary)


def _row(one: Mapping[str, Any], words: Words, *, timed: bool) -> list[str | Verdict]:
    agrees = {True: words("yes"), False: words("no")}.get(one["in_consensus"], UNKNOWN)
    good = one["verdict"] == "registered"
    times = one["times_ms"] or {}
    return [
        str(one["name"]),
        Verdict(words(_known(one["verdict"])), "good" if good else "bad"),
        " / ".join(map(str, one.get("keypoints", ()))) or UNKNOWN,
        number(one.get("matches"), 0),
        number(one.get("inliers"), 0),
        number(one["from_others_px"]),
        agrees,
        *(number(times.get(name), 1) for name in ("detect", "match", "fit") if timed),
    ]


def _known(verdict: object) -> str:
    if verdict not in VERDICTS:
        raise ValueError(f"a verdict is {verdict!r}, expected one of {', '.join(VERDICTS)}")
    return str(verdict)
