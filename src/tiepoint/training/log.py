"""What a run writes about itself: a JSONL file, curves, and a line for the terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.files import write_bytes
from tiepoint.training.trainer import Record

LOG_FILE = "log.jsonl"
CURVES_FILE = "curves.png"

PANEL_WH = (560, 220)
MARGIN = 44  # px, for the numbers of the axes
CURVES = (
    ("detector loss (nats per cell)", ("detector", "cross_entropy", "blind")),
    ("descriptor loss (nats)", ("descriptor",)),
    ("match accuracy, cosines", ("accuracy", "positive", "hardest_negative")),
    ("repeatability loss", ("repeat",)),
    ("images per second, waiting x 100", ("images_per_s", "waiting_percent")),
    ("held-out pairs within 3 px, repeatability", ("within_3px", "repeatability")),
)
COLOURS = ((180, 90, 20), (40, 120, 220), (60, 150, 60))  # B G R


class Log:
    """The log of one run; records are lines of JSON, each with a `step`.

    Args:
        folder: Where `log.jsonl` and `curves.png` lie.
        from_step: What the file holds beyond this step is dropped: a resumed run tells it again.
    """

    def __init__(self, folder: Path, from_step: int = 0) -> None:
        self.folder = folder
        self.path = folder / LOG_FILE
        kept = [line for line in read_log(self.path) if line["step"] <= from_step]
        write_bytes(self.path, "".join(_line(values) for values in kept).encode())

    def add(self, values: Mapping[str, Any]) -> None:
        """Append a record."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(values))

    def draw(self) -> None:
        """Draw the curves anew."""
        done, packed = cv2.imencode(".png", curves(read_log(self.path)))
        assert done
        write_bytes(self.folder / CURVES_FILE, packed.tobytes())


def flat(record: Record) -> dict[str, Any]:
    """A record as one level of plain values."""
    values = {
        "step": record.step,
        "stage": record.stage,
        "done": round(record.done, 5),
        "rate": record.rate,
        "images_per_s": round(record.images_per_s, 2),
        "waiting_percent": round(100 * record.waiting, 1),
        "skipped": record.skipped,
    }
    return values | {name: round(value, 5) for name, value in record.figures.items()}


def terminal_line(record: Record) -> str:
    """A record for the eye, under 120 columns."""
    figures = record.figures
    parts = [f"{record.done:4.0%} {record.stage:9s} step {record.step:6d}"]
    parts.append(f"detector {figures.get('detector', math.nan):.3f}")
    if "descriptor" in figures:
        parts.append(f"descriptor {figures['descriptor']:.2f} matched {figures['accuracy']:.0%}")
    if "repeat" in figures:
        parts.append(f"repeat {figures['repeat']:+.3f}")
    parts.append(f"{record.images_per_s:.0f} images/s, {record.waiting:.0%} waiting")
    if record.skipped:
        parts.append(f"{record.skipped} skipped")
    minutes, seconds = divmod(round(record.left_s), 60)
    parts.append(f"{minutes}:{seconds:02d} left")
    return "  ".join(parts)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a log file; a line cut off by a crash is left out."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return [record for record in records if isinstance(record, dict) and "step" in record]


def curves(records: Sequence[Mapping[str, Any]]) -> NDArray[np.uint8]:
    """All curves that the records have, one panel above the other: H W 3, B G R."""
    panels = []
    for title, names in CURVES:
        lines = {}
        for name in names:
            points = [
                (float(r["step"]), float(r[name]))
                for r in records
                if name in r and math.isfinite(r[name])
            ]
            if points:
                lines[name] = np.array(points)  # N 2
        if lines:
            panels.append(_panel(title, lines))
    if not panels:
        panels.append(_panel("nothing recorded yet", {}))
    return np.concatenate(panels)


def _panel(title: str, lines: Mapping[str, NDArray[np.float64]]) -> NDArray[np.uint8]:
    width, height = PANEL_WH
    panel = np.full((height, width, 3), 255, np.uint8)
    left, right, top, bottom = MARGIN, width - 12, 34, height - 24
    cv2.rectangle(panel, (left, top), (right, bottom), (210, 210, 210), 1)
    _text(panel, title, (left, 14), (0, 0, 0))
    if not lines:
        return panel
    every = np.concatenate(list(lines.values()))  # N 2
    (first, low), (last, high) = every.min(axis=0), every.max(axis=0)
    low, high = min(low, 0.0), max(high, low + 1e-6)
    span_x, span_y = max(last - first, 1.0), high - low
    for value, y in ((high, top + 8), (low, bottom)):
        _text(panel, f"{value:.3g}", (2, y), (120, 120, 120))
    _text(panel, f"{last:.0f}", (right - 50, height - 8), (120, 120, 120))
    place = left
    for (name, points), colour in zip(lines.items(), COLOURS, strict=False):
        x = left + (points[:, 0] - first) / span_x * (right - left)
        y = bottom - (points[:, 1] - low) / span_y * (bottom - top)
        drawn = np.rint(np.stack([x, y], axis=1)).astype(np.int32)
        cv2.polylines(panel, [drawn[:, None]], False, colour, 1, cv2.LINE_AA)
        _text(panel, name, (place, 28), colour)
        place += 10 + 8 * len(name)
    return panel


def _text(panel: NDArray[np.uint8], text: str, at: tuple[int, int], colour: Any) -> None:
    cv2.putText(panel, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1, cv2.LINE_AA)


def _line(values: Mapping[str, Any]) -> str:
    return json.dumps(values) + "\n"
