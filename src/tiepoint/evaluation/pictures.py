"""Pictures of an evaluation: the share of pairs over the error, and the worst pairs to look at."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.evaluation import metrics
from tiepoint.evaluation.methods import Method
from tiepoint.evaluation.pairs import LoadedPair, Pair
from tiepoint.evaluation.run import Evaluation, Measured, Record, matched
from tiepoint.evaluation.settings import Settings
from tiepoint.files import make_folder, write_bytes
from tiepoint.geometry import apply_homography, corners_xy
from tiepoint.plotting import MAX_LINES, SUBPIXEL_BITS, curves_panel

SHARES_FILE = "shares.png"
WORST = 8
"""Pairs drawn of each method."""

CURVE_STEPS = 200
RIGHT, WRONG, TRUTH, FOUND = (60, 200, 60), (230, 60, 60), (255, 255, 255), (255, 210, 0)  # RGB


def draw_shares(
    errors: Mapping[str, Sequence[float]], up_to: float, unit: str, path: Path
) -> NDArray[np.uint8]:
    """For each method the share of pairs with an error of at most x, over x.

    Args:
        errors: Name of the method -> an error for each pair; may be infinite.
        up_to: Where the axis ends.
        unit: Of the errors.
        path: A PNG to write.

    Returns:
        H W 3 uint8, RGB.
    """
    x = np.linspace(0, up_to, CURVE_STEPS + 1)
    lines = {
        name: np.stack([x, (np.asarray(values)[:, None] <= x).mean(axis=0)], axis=1)
        for name, values in errors.items()
    }
    title = f"share of {len(next(iter(errors.values())))} pairs within so many {unit}"
    panel = curves_panel(title, lines, size_wh=(800, 420), top=1.0)
    _write(path, panel)
    return panel


def draw_worst(
    evaluation: Evaluation, pairs: Sequence[Pair], folder: Path, count: int = WORST
) -> list[Path]:
    """Each method's worst pairs, its matches and the outline of A as it should lie in B.

    Matches within `Settings.correct_px` are green, others red, up to 60 of each; the true outline
    is white, the estimated one yellow.

    Returns:
        The files written, the worst first, method by method.
    """
    by_key = {(pair.group, pair.name): pair for pair in pairs}
    written = []
    for method in evaluation.methods:
        own = [record for record in evaluation.records if record.method == method.name]
        own.sort(key=lambda record: -record.measured.error_px)
        make_folder(folder / _plain(method.name))
        for old in (folder / _plain(method.name)).glob("[0-9][0-9] *.png"):
            old.unlink()  # of an earlier run, whose worst pairs were others
        for rank, record in enumerate(own[:count], start=1):
            pair = by_key[record.group, record.pair].load(evaluation.settings.frame)
            path = folder / _plain(method.name) / f"{rank:02d} {_plain(record.pair)}.png"
            _write(path, draw_pair(method, record, pair, evaluation.settings))
            written.append(path)
    return written


def draw_pair(
    method: Method, record: Record[Measured], pair: LoadedPair, settings: Settings
) -> NDArray[np.uint8]:
    """One method on one pair: H W 3 uint8, RGB, A on the left."""
    xy_a, xy_b, around = matched(method, pair, settings)
    right = metrics.correct_matches(xy_a, xy_b, pair.homography, settings.correct_px)
    errors = record.measured.seed_errors_px
    middle = int(np.argsort(errors)[len(errors) // 2])  # the seed whose error the table counts
    found = metrics.estimate_homography(
        xy_a, xy_b, middle, around, settings.estimator, settings.estimator_px
    )
    start = pair.image_a.shape[1]
    beside = np.array([start, 0])
    height = max(pair.image_a.shape[0], pair.image_b.shape[0])
    canvas = np.zeros((height, start + pair.image_b.shape[1], 3), np.uint8)
    for image, left in ((pair.image_a, 0), (pair.image_b, start)):
        canvas[: image.shape[0], left : left + image.shape[1]] = image[:, :, None]
    for good in (True, False):  # wrong ones on top
        for index in _evenly(np.flatnonzero(right == good), MAX_LINES // 2):
            ends = _fixed(xy_a[index]), _fixed(xy_b[index] + beside)
            cv2.line(canvas, *ends, RIGHT if good else WRONG, 1, cv2.LINE_AA, SUBPIXEL_BITS)
    corners = corners_xy((pair.image_a.shape[0], start))
    for matrix, colour in ((pair.homography, TRUTH), (found, FOUND)):
        there = None if matrix is None else apply_homography(matrix, corners)
        if there is not None and np.isfinite(there).all():
            outline = np.clip(there + beside, -8000, 8000)  # OpenCV's limit
            points = np.rint(outline * 2**SUBPIXEL_BITS).astype(np.int32)
            cv2.polylines(canvas, [points[:, None]], True, colour, 2, cv2.LINE_AA, SUBPIXEL_BITS)
    text = f"{record.pair}: {record.measured.error_px:.1f} px, {right.sum()} of {len(right)} right"
    cv2.rectangle(canvas, (0, 0), (canvas.shape[1], 20), (0, 0, 0), -1)
    cv2.putText(canvas, text, (6, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.45, TRUTH, 1, cv2.LINE_AA)
    return canvas


def _evenly(index: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    """At most so many of them, in even steps: hundreds of lines hide each other."""
    places = np.linspace(0, len(index) - 1, min(most, len(index))).round().astype(int)
    chosen: NDArray[np.intp] = index[places]
    return chosen


def _fixed(point: NDArray[np.float64]) -> list[int]:
    fixed: list[int] = np.rint(np.asarray(point) * 2**SUBPIXEL_BITS).astype(int).tolist()
    return fixed


def _plain(name: str) -> str:
    """A name that every file system takes."""
    return re.sub(r"[^\w. -]+", "_", name)[-120:]


def _write(path: Path, picture: NDArray[np.uint8]) -> None:
    make_folder(path.parent)
    write_bytes(path, cv2.imencode(".png", picture[:, :, ::-1])[1].tobytes())
