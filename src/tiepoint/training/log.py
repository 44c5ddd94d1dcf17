"""The log of a run: records in a JSONL file, training curves, and lines for the terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.checks import is_number
from tiepoint.errors import TrainingError
from tiepoint.files.paths import is_file
from tiepoint.files.reading import parse_json, text_lines
from tiepoint.files.writing import write_bytes
from tiepoint.plotting import curves_panel

LOG_FILE = "log.jsonl"
CURVES_FILE = "curves.png"

CURVES = (
    ("detector loss (nats per cell)", ("detector", "cross_entropy", "blind")),
    ("descriptor loss (nats)", ("descriptor",)),
    ("match accuracy, cosines", ("accuracy", "positive", "hardest_negative")),
    ("repeatability loss", ("repeat",)),
    ("images per second, waiting x 100", ("images_per_s", "waiting_percent")),
    ("held-out pairs within 3 px, repeatability", ("within_3px", "repeatability")),
    ("matching loss (nats), all layers and last layer", ("all_layers", "last_layer")),
    ("matches: precision, recall", ("precision", "recall")),
    ("held-out loss of the last layer", ("planar_last_layer", "two_camera_last_layer")),
    (
        "held-out precision, recall",
        ("planar_precision", "planar_recall", "two_camera_precision", "two_camera_recall"),
    ),
    ("held-out homographies, poses", ("planar_within_3px", "two_camera_auc_10deg")),
)


@dataclass(frozen=True)
class LogRecord:
    """Means over the steps since the last record.

    Attributes:
        step, stage: Last of these steps, and the name of its stage.
        done: Fraction of the budget spent, 0..1.
        figures: Losses, match accuracy and so on, by name.
        images_per_s, waiting: Training speed, and fraction of time spent waiting for data, 0..1.
        rate: Learning rate.
        skipped: Number of steps skipped since the start of the run.
        left_s: Expected time to the end of the budget, seconds.
    """

    step: int
    stage: str
    done: float
    figures: Mapping[str, float]
    images_per_s: float
    waiting: float
    rate: float
    skipped: int
    left_s: float

    def to_json(self) -> dict[str, Any]:
        """The record as one level of plain values."""
        values = {
            "step": self.step,
            "stage": self.stage,
            "done": round(self.done, 5),
            "rate": self.rate,
            "images_per_s": round(self.images_per_s, 2),
            "waiting_percent": round(100 * self.waiting, 1),
            "skipped": self.skipped,
        }
        return values | {name: round(value, 5) for name, value in self.figures.items()}

    def terminal_line(self) -> str:
        """The record for a terminal, under 120 columns."""
        figures = self.figures
        parts = [f"{self.done:4.0%} {self.stage:9s} step {self.step:6d}"]
        if "last_layer" in figures:
            parts.append(f"loss {figures['all_layers']:.3f} last layer {figures['last_layer']:.3f}")
            parts.append(f"precision {figures['precision']:.2f} recall {figures['recall']:.2f}")
        else:
            parts.append(f"detector {figures.get('detector', math.nan):.3f}")
        if "descriptor" in figures:
            descriptor, accuracy = figures["descriptor"], figures["accuracy"]
            parts.append(f"descriptor {descriptor:.2f} matched {accuracy:.0%}")
        if "repeat" in figures:
            parts.append(f"repeat {figures['repeat']:+.3f}")
        parts.append(f"{self.images_per_s:.0f} images/s, {self.waiting:.0%} waiting")
        if self.skipped:
            parts.append(f"{self.skipped} skipped")
        minutes, seconds = divmod(round(self.left_s), 60)
        parts.append(f"{minutes}:{seconds:02d} left")
        return "  ".join(parts)


class Log:
    """The log file of one run: one JSON object per line, each with a `step`.

    Args:
        from_step: Records after this step are dropped, because a resumed run logs them again.
    """

    def __init__(self, folder: Path, from_step: int = 0) -> None:
        self.folder = folder
        self.path = folder / LOG_FILE
        kept = (json.dumps(line) for line in read_log(self.path) if line["step"] <= from_step)
        write_bytes(self.path, "".join(f"{line}\n" for line in kept).encode())

    def add(self, values: Mapping[str, Any]) -> None:
        """Append a record."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def draw(self) -> None:
        """Redraw the curves."""
        encoded, png = cv2.imencode(".png", curves(read_log(self.path))[:, :, ::-1])
        assert encoded
        write_bytes(self.folder / CURVES_FILE, png.tobytes())


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read the records of a log file; a line cut off by a crash is left out."""
    if not is_file(path):
        return []
    records = []
    try:
        for line in text_lines(path):
            with suppress(ValueError):
                records.append(parse_json(line, finite=False))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path}: not the log of a run ({error}); move it away") from error
    return [record for record in records if _is_record(record)]


def _is_record(record: object) -> TypeGuard[dict[str, Any]]:
    """Whether a line is an object with a step, and numbers for the curves."""
    if not isinstance(record, dict) or not isinstance(record.get("step"), int):
        return False
    drawn = ["step", *(name for _, names in CURVES for name in names)]
    return all(
        is_number(record[name]) and (isinstance(record[name], float) or abs(record[name]) < 2**62)
        for name in drawn
        if name in record
    )


def curves(records: Sequence[Mapping[str, Any]]) -> NDArray[np.uint8]:
    """Draw one panel per group of curves, stacked vertically: H W 3, RGB."""
    panels = []
    for title, names in CURVES:
        lines = {}
        for name in names:
            logged = [record for record in records if math.isfinite(record.get(name, math.nan))]
            if logged:
                points = [(float(record["step"]), float(record[name])) for record in logged]
                lines[name] = np.array(points)  # N 2
        if lines:
            panels.append(curves_panel(title, lines))
    return np.concatenate(panels or [curves_panel("nothing recorded yet", {})])
