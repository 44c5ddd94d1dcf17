"""A store of `tiepoint detect` as a section: counts, weights, settings, failures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tiepoint.files.reading import read_json
from tiepoint.formats.features_store import (
    MANIFEST,
    FailureRow,
    Manifest,
    read_manifest,
    records,
)
from tiepoint.reports.pieces import Chart, Facts, Message, Piece, Section, Table, Verdict
from tiepoint.reports.plain import UNKNOWN, flat, number, text
from tiepoint.reports.words import Words

MOST_FAILURES = 500
STEPS = 100


def is_features_store(folder: Path) -> bool:
    """Whether a folder has the manifest of a store; that of a run has the same name."""
    try:
        values = read_json(folder / MANIFEST)
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and "provenance" in values


def store_section(folder: Path, words: Words) -> Section:
    """The section of one store.

    Raises:
        FormatError: A damaged manifest or record.
    """
    manifest = read_manifest(folder)
    shards, size_bytes, failed = 0, 0, 0
    seconds = 0.0
    keypoints: list[int] = []
    failures: list[FailureRow] = []
    started: list[str] = []
    for record in records(folder, manifest.identity):
        shards += 1
        size_bytes += record.file_bytes
        seconds += record.seconds
        keypoints += [row.keypoints for row in record.images]
        failed += len(record.failures)
        failures += record.failures[: MOST_FAILURES - len(failures)]
        started += [record.started] if record.started else []
    counts = np.array(keypoints)
    figures = [
        (words("images with features"), f"{len(counts):,}"),
        (words("images that failed"), f"{failed:,}"),
        (words("keypoints"), f"{int(counts.sum()):,}"),
        (words("keypoints per image: median, 10 and 90 %"), _quantiles(counts)),
        (words("shards"), f"{shards:,} / {manifest.shards:,}"),
        (words("size, MB"), number(size_bytes / 1e6, 1)),
        (words("time, s"), number(seconds, 1)),
        (words("first shard started"), min(started, default=UNKNOWN)),
    ]
    pieces: list[Piece] = [Facts(words("Figures"), figures)]
    if len(counts) > 1:
        pieces.append(_chart(counts, words))
    if failures:
        pieces.append(_failures(failures, failed, words))
    pieces += _made(folder, manifest, words)
    verdict = (
        Verdict(words("with failures"), "bad") if failed else Verdict(words("complete"), "good")
    )
    summary = words("{images} images, failures: {failures}", images=len(counts), failures=failed)
    return Section(f"{words('Store of features')}: {folder.name}", pieces, verdict, summary)


def _quantiles(counts: np.ndarray) -> str:
    if not len(counts):
        return UNKNOWN
    median, low, high = np.percentile(counts, [50, 10, 90])
    return f"{median:,.0f}, {low:,.0f}, {high:,.0f}"


def _chart(counts: np.ndarray, words: Words) -> Chart:
    """Share of images with at most N keypoints, over N."""
    x = np.linspace(0, max(1, int(counts.max())), STEPS + 1)
    shares = np.searchsorted(np.sort(counts), x, side="right") / len(counts)
    name = words("share of images with at most N keypoints")
    title = words("Images by number of keypoints")
    return Chart(f"{title}: {name}", "N", {name: np.stack([x, shares], axis=1)}, (0.0, 1.0))


def _failures(failures: list[FailureRow], count: int, words: Words) -> Table:
    again = {True: words("at the next run"), False: words("only with --retry-failed")}
    rows = [(one.name, again[one.is_temporary], Message(one.reason)) for one in failures]
    headings = [words("image"), words("tried again"), words("reason")]
    return Table(words("Failures"), headings, rows, left_out=count - len(rows))


def _made(folder: Path, manifest: Manifest, words: Words) -> list[Piece]:
    made = manifest.provenance
    rows = [
        (words("checkpoint"), text(made.checkpoint)),
        ("SHA-256", text(made.weights_sha256)),
        (words("engine"), f"{made.engine}, {made.device}"),
        (words("precision of the network"), text(made.precision)),
        (words("version"), text(made.tiepoint_version)),
        (words("format"), text(manifest.format)),
        (words("file"), str(folder)),
    ]
    return [
        Facts(words("What was run"), rows),
        Facts(words("Settings"), flat(made.settings), folded=True),
    ]
