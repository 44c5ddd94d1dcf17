"""The folder of a training run, or of a checkpoint, as a section."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tiepoint.errors import FormatError
from tiepoint.files.paths import is_file
from tiepoint.files.reading import read_json
from tiepoint.reports.pieces import Chart, Facts, Note, Piece, Section, Table, Verdict
from tiepoint.reports.plain import flat, number, text
from tiepoint.reports.words import Words
from tiepoint.training.log import CURVES, LOG_FILE, read_log
from tiepoint.weights.folder import MANIFEST_FILE

CHECKPOINT_FOLDER = "checkpoint"
"""Folder of a run with the exported network; `training.lineage` loads torch."""
HELD_OUT = ("within_3px", "repeatability", "precision")
SHOWN = {
    "note": "note", "steps": "steps", "images": "images", "hours": "hours",
    "skipped_steps": "skipped steps", "seed": "seed", "origin": "origin", "commit": "commit",
}  # fmt: skip
"""Entries of a manifest -> their names."""


def is_run(folder: Path) -> bool:
    """Whether a folder has the log or the manifest of a run."""
    return is_file(folder / LOG_FILE) or _manifest_file(folder) is not None


def run_section(folder: Path, file_date: str, words: Words) -> Section:
    """The section of one run.

    Raises:
        FormatError: A damaged manifest.
        TrainingError: A damaged log.
    """
    file = _manifest_file(folder)
    manifest = {} if file is None else _manifest(file)
    records = read_log(folder / LOG_FILE)
    pieces: list[Piece] = []
    held_out = _held_out(records, words)
    if held_out is not None:
        pieces.append(held_out)
    charts = _charts(records, words)
    pieces += charts or [Note(words("The run has no log yet."))]
    pieces.insert(0, Facts(words("What was run"), _made(folder, manifest, file_date, words)))
    settings = {name: manifest[name] for name in ("preset", "data", "teacher") if name in manifest}
    if settings:
        pieces.append(Facts(words("Settings"), flat(settings), folded=True))
    name = text(manifest.get("name", folder.resolve().name))
    finished = manifest.get("finished")
    verdict = Verdict(words("state unknown"))
    if isinstance(finished, bool):
        verdict = (
            Verdict(words("finished"), "good")
            if finished
            else Verdict(words("not finished"), "bad")
        )
    last = records[-1]["step"] if records else manifest.get("steps", 0)
    summary = words("step {step}, {records} records", step=last, records=len(records))
    return Section(f"{words('Training run')}: {name}", pieces, verdict, summary)


def _manifest_file(folder: Path) -> Path | None:
    places = (folder / CHECKPOINT_FOLDER / MANIFEST_FILE, folder / MANIFEST_FILE)
    return next((place for place in places if is_file(place)), None)


def _manifest(file: Path) -> Mapping[str, Any]:
    try:
        values = read_json(file)
    except (OSError, ValueError) as error:
        raise FormatError(
            f"{file}: not the manifest of a run ({error}); copy the run again"
        ) from error
    if not isinstance(values, dict):
        raise FormatError(f"{file}: not the manifest of a run, expected a JSON object")
    return values


def _made(
    folder: Path, manifest: Mapping[str, Any], file_date: str, words: Words
) -> list[tuple[str, str]]:
    preset, machine = manifest.get("preset"), manifest.get("machine")
    rows = [(words("file"), str(folder))]
    if isinstance(preset, Mapping):
        rows.append((words("preset"), text(preset.get("name"))))
    rows.append(("SHA-256", text(manifest.get("sha256", words("not recorded")))))
    rows += [
        (words(name), text(manifest[entry])) for entry, name in SHOWN.items() if entry in manifest
    ]
    if isinstance(machine, Mapping):
        rows.append((words("version"), text(machine.get("tiepoint"))))
        rows.append((words("machine"), "; ".join(f"{k} {text(v)}" for k, v in machine.items())))
    rows.append((words("date of the file"), file_date))
    return rows


def _charts(records: Sequence[Mapping[str, Any]], words: Words) -> list[Piece]:
    charts: list[Piece] = []
    for title, names in CURVES:
        curves = {}
        for name in names:
            points = [
                (float(record["step"]), float(record[name]))
                for record in records
                if name in record and math.isfinite(record[name])
            ]
            if len(points) > 1:
                curves[name] = np.array(points)  # N 2
        if curves:
            charts.append(Chart(words(title), words("step"), curves))
    return charts


def _held_out(records: Sequence[Mapping[str, Any]], words: Words) -> Table | None:
    """The figures of the last benchmark, with those of SIFT and ORB on the same pairs."""
    last = next((one for one in reversed(records) if isinstance(one.get("benchmark"), dict)), None)
    if last is None:
        return None
    rows = [
        (str(name), *(number(figures.get(entry)) for entry in HELD_OUT))
        for name, figures in last["benchmark"].items()
        if isinstance(figures, Mapping)
    ]
    title = words("Held-out pairs at step {step}", step=last["step"])
    return Table(
        title,
        [words(name) for name in ("method", "within 3 px", "repeatability", "precision")],
        rows,
    )
