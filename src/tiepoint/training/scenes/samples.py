"""Pictures of training pairs with their labels, and a report of what they look like in numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.files import make_folder, write_bytes
from tiepoint.training.scenes.pairs import DataConfig, TrainingPair, TrainingView, training_pair
from tiepoint.training.scenes.statistics import pair_summary, photographs_at, summary

ENLARGED = 3
COLUMNS = 4
GREEN, BLUE, YELLOW = (80, 230, 60), (255, 90, 40), (0, 210, 255)
TRACKED = 6  # corners of A whose place in B is drawn


def write_samples(folder: Path, config: DataConfig, seed: int, count: int) -> dict[str, Any]:
    """Draw `count` pairs per kind: a sheet `<kind>.png` each, and `report.json`.

    Args:
        folder: Made where missing; files of the same names are replaced.
        config: With photographs, these are measured too and get a sheet of their own.

    Returns:
        The report: kind -> statistics; "generated": all drawn kinds in the shares of the mix;
        "photographs": those of the photographs themselves.

    Raises:
        FormatError: The folder cannot be written, or no photographs are there.
        ImageError: A photograph cannot be read.
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
    images = [view.image for pair in mixed for view in (pair.a, pair.b)]
    report["generated"] = summary(images) | pair_summary(mixed)
    write_bytes(folder / "report.json", (json.dumps(report, indent=1) + "\n").encode())
    return report


def _write_kind(
    folder: Path, kind: str, config: DataConfig, seed: int, count: int
) -> dict[str, Any]:
    pairs = [training_pair(config, seed, index) for index in range(count)]
    done, packed = cv2.imencode(".png", sheet(pairs))
    assert done
    write_bytes(folder / f"{kind}.png", packed.tobytes())
    images = [view.image for pair in pairs for view in (pair.a, pair.b)]
    return summary(images) | pair_summary(pairs)


def sheet(pairs: Sequence[TrainingPair]) -> NDArray[np.uint8]:
    """Pairs side by side, `COLUMNS` images to a row.

    Sure corners are green rings, px out of the loss are blue, and a few corners of A carry yellow
    numbers that stand again at the same places in B.

    Returns:
        `H W 3` uint8, blue first.
    """
    height, width = pairs[0].a.image.shape
    tiles = [np.hstack([_shown(pair, pair.a), _shown(pair, pair.b)]) for pair in pairs]
    per_row = COLUMNS // 2
    empty = np.zeros((height * ENLARGED, 2 * width * ENLARGED, 3), np.uint8)
    tiles += [empty] * (-len(tiles) % per_row)
    rows = [np.hstack(tiles[at : at + per_row]) for at in range(0, len(tiles), per_row)]
    return np.vstack(rows)


def _shown(pair: TrainingPair, view: TrainingView) -> NDArray[np.uint8]:
    size = view.image.shape[1] * ENLARGED, view.image.shape[0] * ENLARGED
    large = cv2.resize(view.image, size, interpolation=cv2.INTER_NEAREST)
    picture = np.asarray(cv2.cvtColor(large, cv2.COLOR_GRAY2BGR), np.uint8)
    left_out = cv2.resize(view.ignore.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    picture[left_out] = picture[left_out] // 4 * 3 + np.array(BLUE, np.uint8) // 4
    for x, y in view.corners_xy:
        cv2.circle(picture, _large(float(x), float(y)), 4, GREEN, 1, cv2.LINE_AA)
    for number, (here, there) in enumerate(_tracked(pair)):
        x, y = here if view is pair.a else there
        at = _large(float(x), float(y))
        cv2.putText(picture, str(number), at, cv2.FONT_HERSHEY_PLAIN, 1.1, YELLOW, 1, cv2.LINE_AA)
    return picture


def _tracked(pair: TrainingPair) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """A few corners of A that B shows, and where."""
    found = []
    for xy in pair.a.corners_xy:
        x, y = np.rint(xy).astype(int)
        there = pair.a_to_b[min(y, pair.a_to_b.shape[0] - 1), min(x, pair.a_to_b.shape[1] - 1)]
        if np.isfinite(there).all():
            found.append((xy, there))
    return found[:: max(1, len(found) // TRACKED)][:TRACKED]


def _large(x: float, y: float) -> tuple[int, int]:
    return round((x + 0.5) * ENLARGED - 0.5), round((y + 0.5) * ENLARGED - 0.5)
