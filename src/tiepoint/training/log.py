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
from tiepoint.plotting import curves_panel
from tiepoint.training.trainer import Record

LOG_FILE = "log.jsonl"
CURVES_FILE = "curves.png"

CURVES = (
    ("detector loss (nats per cell)", ("detector", "cross_entropy", "blind")),
    ("descriptor loss (nats)", ("descriptor",)),
    ("match accuracy, cosines", ("accuracy", "positive", "hardest_negative")),
    ("repeatability loss", ("repeat",)),
    ("images per second, waiting x 100", ("images_per_s", "waiting_percent")),
    ("held-out pairs within 3 px, repeatability", ("within_3px", "repeatability")),
)


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
        done, packed = cv2.imencode(".png", curves(read_log(self.path))[:, :, ::-1])
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
    """All curves that the records have, one panel above the other: H W 3, RGB."""
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
            panels.append(curves_panel(title, lines))
    if not panels:
        panels.append(curves_panel("nothing recorded yet", {}))
    return np.concatenate(panels)


def _line(values: Mapping[str, Any]) -> str:
    return json.dumps(values) + "\n"
