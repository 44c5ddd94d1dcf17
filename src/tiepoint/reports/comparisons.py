"""A comparison of methods, as `tiepoint compare --json` prints it, as a section."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiepoint.reports.pieces import Facts, Message, Piece, Section, Table, Verdict
from tiepoint.reports.plain import UNKNOWN, flat, number, text
from tiepoint.reports.words import Words

MOST_METHODS = 100


def comparison_section(
    values: Mapping[str, Any], file: Path, file_date: str, words: Words
) -> Section:
    """The section of one comparison.

    Raises:
        LookupError, TypeError, ValueError, AttributeError: Damaged values.
    """
    methods = values["methods"]
    headings = [
        words(name)
        for name in (
            "method", "verdict", "keypoints", "matches", "inliers", "from the others, px",
            "consensus", "detection, ms", "matching, ms", "fit, ms", "reason",
        )
    ]  # fmt: skip
    rows = [_row(one, words) for one in methods[:MOST_METHODS]]
    table = Table(
        words("Methods"),
        headings,
        rows,
        str(values["conclusion"]),
        max(0, len(methods) - MOST_METHODS),
    )
    threads = values["threads"]
    made = [
        (words("image A"), str(values["a"])),
        (words("image B"), str(values["b"])),
        (words("versions"), text(values["versions"])),
        (
            words("machine"),
            words(
                "CPU threads: network {network}, OpenCV {opencv}",
                network=threads["network"],
                opencv=threads["opencv"],
            ),
        ),
        (words("date of the file"), file_date),
        (words("file"), str(file)),
    ]
    made += [
        (f"{one['name']}: SHA-256", str(one["settings"]["weights_sha256"]))
        for one in methods
        if "weights_sha256" in one["settings"]
    ]
    settings = flat(
        {**values["settings"], "methods": {one["name"]: one["settings"] for one in methods}}
    )
    pieces: list[Piece] = [
        table,
        Facts(words("What was run"), made),
        Facts(words("Settings"), settings, folded=True),
    ]
    title = f"{words('Comparison of methods')}: {Path(values['a']).name} → {Path(values['b']).name}"
    summary = words(
        "{count} methods, consensus of {agreeing}",
        count=len(methods),
        agreeing=len(values["consensus"]),
    )
    return Section(title, pieces, summary=summary)


def _row(one: Mapping[str, Any], words: Words) -> list[str | Verdict]:
    times = one["times_ms"] or {}
    agrees = {True: words("yes"), False: words("no")}.get(one["in_consensus"], UNKNOWN)
    good = one["verdict"] == "registered"
    return [
        str(one["name"]),
        Verdict(words(one["verdict"]), "good" if good else "bad"),
        " / ".join(map(str, one.get("keypoints", ()))) or UNKNOWN,
        number(one.get("matches"), 0),
        number(one.get("inliers"), 0),
        number(one["from_others_px"]),
        agrees,
        *(number(times.get(name), 1) for name in ("detect", "match", "fit")),
        Message("" if good else str(one["reason"])),
    ]
