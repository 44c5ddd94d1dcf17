"""Contact sheets of training pairs with their labels, and a report of their statistics."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.files.writing import make_folder, write_bytes
from tiepoint.training.scenes.pairs import TrainingPair, TrainingView, training_pair
from tiepoint.training.scenes.settings import DataConfig
from tiepoint.training.scenes.statistics import pair_summary, photographs_at, summary

ENLARGED = 3
COLUMNS = 4
GREEN, BLUE, YELLOW = (80, 230, 60), (255, 90, 40), (0, 210, 255)
TRACKED = 6  # corners of A that are numbered in both views


def write_samples(folder: Path, config: DataConfig, seed: int, count: int) -> dict[str, Any]:
    """Draw pairs of every kind: a contact sheet `<kind>.png` each, and `report.json`.

    Args:
        folder: Created if missing; files of the same names are replaced.
        config: With photographs, these are measured too and get a sheet of their own.
        count: Number of pairs per kind.

    Returns:
        The report: kind -> statistics; "generated": all drawn kinds in the shares of the mix;
        "photographs": statistics of the photographs themselves.

    Raises:
        FormatError: The folder has no photographs.
        OutputError: It cannot be written.
        ImageError: Most photographs cannot be read.
    """
    make_folder(folder, advice="name a folder")
    drawn_only = replace(config, photos=())
    report: dict[str, Any] = {"seed": seed, "size_hw": list(config.size_hw)}
    for kind in (kind for kind, share in config.mix if share > 0):
        alone = replace(drawn_only, mix=((kind, 1.0),), bank=max(count, 1))
        report[kind] = _write_kind(folder, kind, alone, seed, count)
    if config.photos:
        alone = replace(config, photo_share=1.0, bank=max(count, 1))
        report["photo"] = _write_kind(folder, "photo", alone, seed, count)
        pieces = photographs_at(config.photos, config.part, config.size_hw, 200)
        report["photographs"] = summary(pieces)
    mixed = [training_pair(drawn_only, seed, index) for index in range(2 * count)]
    report["generated"] = _statistics(mixed)
    write_bytes(folder / "report.json", (json.dumps(report, indent=1) + "\n").encode())
    return report


def _write_kind(
    folder: Path, kind: str, config: DataConfig, seed: int, count: int
) -> dict[str, Any]:
    pairs = [training_pair(config, seed, index) for index in range(count)]
    encoded, packed = cv2.imencode(".png", contact_sheet(pairs))
    assert encoded
    write_bytes(folder / f"{kind}.png", packed.tobytes())
    return _statistics(pairs)


def _statistics(pairs: Sequence[TrainingPair]) -> dict[str, Any]:
    return summary(view.image for pair in pairs for view in (pair.a, pair.b)) | pair_summary(pairs)


def contact_sheet(pairs: Sequence[TrainingPair]) -> NDArray[np.uint8]:
    """`H W 3` BGR: at least one pair, of one size, `COLUMNS` images per row, enlarged.

    Corners are green rings and ignored px are blue. A few corners of A have yellow numbers, which
    are repeated at the corresponding positions in B.
    """
    height, width = pairs[0].a.image.shape
    tiles = [np.hstack([_drawn(pair, pair.a), _drawn(pair, pair.b)]) for pair in pairs]
    per_row = COLUMNS // 2
    empty = np.zeros((height * ENLARGED, 2 * width * ENLARGED, 3), np.uint8)
    tiles += [empty] * (-len(tiles) % per_row)
    rows = [np.hstack(tiles[n : n + per_row]) for n in range(0, len(tiles), per_row)]
    return np.vstack(rows)


def _drawn(pair: TrainingPair, view: TrainingView) -> NDArray[np.uint8]:
    size = view.image.shape[1] * ENLARGED, view.image.shape[0] * ENLARGED
    large = cv2.resize(view.image, size, interpolation=cv2.INTER_NEAREST)
    picture = np.asarray(cv2.cvtColor(large, cv2.COLOR_GRAY2BGR), np.uint8)
    ignored = cv2.resize(view.ignore.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    picture[ignored] = picture[ignored] // 4 * 3 + np.array(BLUE, np.uint8) // 4
    for xy in view.corners_xy:
        cv2.circle(picture, _enlarged(xy), 4, GREEN, 1, cv2.LINE_AA)
    for number, (xy_a, xy_b) in enumerate(tracked_corners(pair)):
        position = _enlarged(xy_a if view is pair.a else xy_b)
        font = cv2.FONT_HERSHEY_PLAIN
        cv2.putText(picture, str(number), position, font, 1.1, YELLOW, 1, cv2.LINE_AA)
    return picture


def tracked_corners(pair: TrainingPair) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """A few corners of A that B shows, with their positions in B."""
    tracks = []
    height, width = pair.a_to_b.shape[:2]
    for xy in pair.a.corners_xy:
        x, y = np.rint(xy).astype(int)
        position = pair.a_to_b[min(y, height - 1), min(x, width - 1)]
        if np.isfinite(position).all():
            tracks.append((xy, position))
    return tracks[:: max(1, len(tracks) // TRACKED)][:TRACKED]


def _enlarged(xy: NDArray[np.float32]) -> tuple[int, int]:
    x, y = (round((float(value) + 0.5) * ENLARGED - 0.5) for value in xy)
    return x, y
