"""Correct matches of photographs that are turned, in steps of 15 degrees.

Photographs of the development part are turned about their middles, and both matched: with turns
tried (`rotation="auto"`) and without. Prints correct matches (within 3 px) per image, and how
often another turn than the nearest was taken.

    python benchmarks/rotation.py --photos ../shared/photos --count 40
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint import Detector
from tiepoint.config import RotationMode
from tiepoint.features import Features
from tiepoint.images.photographs import list_photos
from tiepoint.matching.match import match

POINTS, RIGHT_PX, STEP_DEG = 1000, 3.0, 15
ROTATIONS: tuple[RotationMode, ...] = ("auto", "none")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument("--count", type=int, default=40, help="photographs")
    arguments = parser.parse_args()
    detector = Detector(
        arguments.checkpoint, precision="f32", max_side=None, threshold=0.0, max_keypoints=POINTS
    )
    squares = [middle_square(path) for path in list_photos(arguments.photos)[: arguments.count]]
    upright = [detector(square) for square in squares]
    print("| degrees | correct, turns tried | correct, rotation none | wrong turn taken |")
    print("|---|---|---|---|")
    for degrees in range(0, 360, STEP_DEG):
        counts = [row(detector, *one, degrees) for one in zip(squares, upright, strict=True)]
        tried, plain, wrong = np.mean(counts, axis=0)
        print(f"| {degrees} | {tried:.0f} | {plain:.0f} | {wrong:.0%} |", flush=True)


def middle_square(path: Path) -> NDArray[np.uint8]:
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert image is not None
    side = min(image.shape)
    top, left = ((full - side) // 2 for full in image.shape)
    return np.asarray(image[top : top + side, left : left + side], np.uint8)


def row(
    detector: Detector, square: NDArray[np.uint8], upright: Features, degrees: int
) -> tuple[int, int, bool]:
    """Correct matches with turns tried and without, and whether a wrong turn was taken."""
    side = len(square)
    matrix = cv2.getRotationMatrix2D(((side - 1) / 2,) * 2, degrees, 1.0)
    how, edge = cv2.INTER_CUBIC, cv2.BORDER_REFLECT
    view = cv2.warpAffine(square, matrix, (side, side), flags=how, borderMode=edge)
    other = detector(np.asarray(view, np.uint8))
    counts, away = [], 0
    for rotation in ROTATIONS:
        matches = match(upright, other, rotation=rotation)
        i, j = matches.pairs.T
        there = upright.xy[i] @ matrix[:, :2].T + matrix[:, 2]
        counts.append(int((np.hypot(*(there - other.xy[j]).T) < RIGHT_PX).sum()))
        if rotation == "auto":
            away = abs((matches.turned_deg - degrees + 180) % 360 - 180)
    return counts[0], counts[1], away > 22.5


if __name__ == "__main__":
    main()
