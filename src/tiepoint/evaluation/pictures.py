"""Pictures of an evaluation: the share of pairs over the error, and the worst pairs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.evaluation import homography, metrics
from tiepoint.evaluation.homography import HomographyEvaluation, HomographyFigures
from tiepoint.evaluation.homography_pairs import HomographyPair, LoadedHomography
from tiepoint.evaluation.methods import Method
from tiepoint.evaluation.settings import HomographySettings
from tiepoint.evaluation.task import Evaluation, Record
from tiepoint.files.writing import make_folder, write_bytes
from tiepoint.geometry import apply_homography, corners_xy
from tiepoint.plotting import MAX_LINES, SUBPIXEL_BITS, curves_panel, write_text

SHARES_FILE = "shares.png"
WORST = 8
"""Pairs drawn for each method."""

MOST_NAME_BYTES = 120
"""Longest name of a picture; file systems take 255, and a Korean letter has three."""
CURVE_STEPS = 200
MAX_OUTLINE_PX = 8000  # limit of OpenCV's fixed-point coordinates
CORRECT, WRONG = (60, 200, 60), (230, 60, 60)  # RGB of matches
TRUTH, ESTIMATE = (255, 255, 255), (255, 210, 0)  # RGB of outlines


def draw_pictures(
    evaluation: Evaluation[Any, Any, Any], pairs: Sequence[Any], folder: Path
) -> None:
    """The shares of pairs over the error, and for homographies the worst pairs."""
    axis = evaluation.task.error_axis
    assert axis is not None, f"{evaluation.task.kind} has no error to plot"
    names = [method.name for method in evaluation.methods]
    errors = {
        name: [getattr(one, axis.name) for one in evaluation.figures_of(name)] for name in names
    }
    draw_shares(errors, axis.up_to, axis.unit, folder / SHARES_FILE)
    if evaluation.task is homography.HOMOGRAPHY:
        draw_worst(evaluation, pairs, folder)


def draw_shares(
    errors: Mapping[str, Sequence[float]], up_to: float, unit: str, path: Path
) -> NDArray[np.uint8]:
    """For each method the share of pairs with an error of at most x, over x; a PNG file.

    Args:
        errors: Name of the method -> an error for each pair; may be infinite.

    Returns:
        H W 3 uint8, RGB.
    """
    x = np.linspace(0, up_to, CURVE_STEPS + 1)
    lines = {
        name: np.stack([x, (np.asarray(values)[:, None] <= x).mean(axis=0)], axis=1)
        for name, values in errors.items()
    }
    title = f"share of {len(next(iter(errors.values())))} pairs within N {unit}"
    panel = curves_panel(title, lines, size_wh=(800, 420), top=1.0)
    _write(path, panel)
    return panel


def draw_worst(
    evaluation: HomographyEvaluation,
    pairs: Sequence[HomographyPair],
    folder: Path,
    count: int = WORST,
) -> list[Path]:
    """Draw each method's worst pairs; returns the files, the worst first, method by method."""
    by_key = {(pair.group, pair.name): pair for pair in pairs}
    written = []
    for method in evaluation.methods:
        records = [record for record in evaluation.records if record.method == method.name]
        records.sort(key=lambda record: -record.figures.error_px)
        method_folder = make_folder(folder / _file_name(method.name))
        for old in method_folder.glob("[0-9][0-9] *.png"):
            old.unlink()  # the worst pairs of an earlier run
        for rank, record in enumerate(records[:count], start=1):
            pair = by_key[record.group, record.pair].load(evaluation.settings.frame)
            path = method_folder / f"{rank:02d} {_file_name(record.pair)}.png"
            _write(path, draw_pair(method, record, pair, evaluation.settings))
            written.append(path)
    return written


def draw_pair(
    method: Method,
    record: Record[HomographyFigures],
    pair: LoadedHomography,
    settings: HomographySettings,
) -> NDArray[np.uint8]:
    """One method on one pair, A on the left: H W 3 uint8, RGB.

    Matches within `correct_px` are green, others red, up to 60 of each. The true outline of A is
    white, the estimated one yellow.
    """
    matches = homography.matched(method, pair, settings)
    xy_a, xy_b, _ = matches
    correct = metrics.correct_matches(xy_a, xy_b, pair.homography, settings.correct_px)
    errors = record.figures.seed_errors_px
    median_seed = int(np.argsort(errors)[len(errors) // 2])  # the estimate that the table counts
    estimate = homography.estimate(matches, median_seed, settings)
    width_a = pair.image_a.shape[1]
    to_right = np.array([width_a, 0])
    height = max(pair.image_a.shape[0], pair.image_b.shape[0])
    canvas = np.zeros((height, width_a + pair.image_b.shape[1], 3), np.uint8)
    for image, left in ((pair.image_a, 0), (pair.image_b, width_a)):
        canvas[: image.shape[0], left : left + image.shape[1]] = image[:, :, None]
    for is_correct, colour in ((True, CORRECT), (False, WRONG)):  # wrong ones on top
        for index in _evenly(np.flatnonzero(correct == is_correct), MAX_LINES // 2):
            ends = _fixed(xy_a[index]).tolist(), _fixed(xy_b[index] + to_right).tolist()
            cv2.line(canvas, *ends, colour, 1, cv2.LINE_AA, SUBPIXEL_BITS)
    corners = corners_xy((pair.image_a.shape[0], width_a))
    for matrix, colour in ((pair.homography, TRUTH), (estimate, ESTIMATE)):
        outline = None if matrix is None else apply_homography(matrix, corners)
        if outline is not None and np.isfinite(outline).all():
            points = _fixed(np.clip(outline + to_right, -MAX_OUTLINE_PX, MAX_OUTLINE_PX))
            cv2.polylines(canvas, [points[:, None]], True, colour, 2, cv2.LINE_AA, SUBPIXEL_BITS)
    error_px = record.figures.error_px
    text = f"{record.pair}: {error_px:.1f} px, {correct.sum()} of {len(correct)} right"
    cv2.rectangle(canvas, (0, 0), (canvas.shape[1], 20), (0, 0, 0), -1)
    write_text(canvas, text, (6, 15), TRUTH, 0.45)
    return canvas


def _evenly(index: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """At most `count` of them, in even steps, because hundreds of lines hide each other."""
    steps = np.linspace(0, len(index) - 1, min(count, len(index))).round().astype(int)
    return np.asarray(index[steps], np.intp)


def _fixed(points: NDArray[np.floating[Any]]) -> NDArray[np.int32]:
    return np.asarray(np.rint(points * 2**SUBPIXEL_BITS), np.int32)


def _file_name(name: str) -> str:  # every file system takes it
    plain = re.sub(r"[^\w. -]+", "_", name).encode()
    return plain[-MOST_NAME_BYTES:].decode(errors="ignore")


def _write(path: Path, picture: NDArray[np.uint8]) -> None:
    make_folder(path.parent)
    write_bytes(path, cv2.imencode(".png", picture[:, :, ::-1])[1].tobytes())
