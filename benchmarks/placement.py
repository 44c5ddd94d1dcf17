"""How exactly keypoints stay in their places when the image moves: a detector's own precision.

Photographs of the development part are brought to 0.83 of their size, off the grid of their JPEG
cells, and then moved, turned, scaled, blurred, darkened or given noise, each by itself. Prints, for
the best 600 points of each image, the share that has one within 3 px of where it should be, and how
far away it is. A network of 8x8 cells that knows a corner's cell but not its place in it
moves points when the image moves by 3 px, and not when it moves by 8.

    python benchmarks/placement.py --photos ../shared/photos/free --method default --method sift
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.evaluation.methods import BASELINES, Method, checkpoint_methods, method
from tiepoint.images.photographs import list_photos

Grey = NDArray[np.uint8]
SCALE, POINTS, BORDER_PX, FOUND_PX = 0.83, 600, 16, 3.0


def affine(a: float, b: float, c: float, d: float, e: float, f: float) -> NDArray[np.float64]:
    return np.array([[a, b, c], [d, e, f]], np.float64)


STILL = affine(1, 0, 0, 0, 1, 0)
COS, SIN = np.cos(np.pi / 12), np.sin(np.pi / 12)
CHANGES: dict[str, NDArray[np.float64]] = {
    "moved by 3 px": affine(1, 0, 3, 0, 1, 0),
    "moved by 8 px": affine(1, 0, 8, 0, 1, 0),
    "moved by 0.5 px, both ways": affine(1, 0, 0.5, 0, 1, 0.5),
    "scaled by 0.9": affine(0.9, 0, 5, 0, 0.9, 5),
    "turned by 15 degrees": affine(COS, SIN, -40, -SIN, COS, 60),
}
LIGHTS: dict[str, Callable[[Grey], Grey]] = {
    "noise, 6 grey levels": lambda image: np.asarray(
        np.clip(image + np.random.default_rng(0).normal(0, 6, image.shape), 0, 255), np.uint8
    ),
    "blur, 1 px": lambda image: np.asarray(cv2.GaussianBlur(image, (0, 0), 1.0), np.uint8),
    "gamma 1.7": lambda image: np.asarray(255 * (image / 255) ** 1.7, np.uint8),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--method", action="append", required=True, help="checkpoint, sift, orb")
    parser.add_argument("--count", type=int, default=12, help="photographs")
    arguments = parser.parse_args()
    photos = list_photos(arguments.photos, "development")[: arguments.count]
    images = [smaller(path) for path in photos]
    for name in arguments.method:
        chosen = method(name) if name in BASELINES else checkpoint_methods([name])[0]
        print(f"\n{chosen.name}: {len(images)} photographs, best {POINTS} points")
        print("| change | found within 3 px | median distance, px | rms per axis, px |")
        print("|---|---|---|---|")
        for change, matrix in CHANGES.items():
            print_row(change, [offsets(chosen, i, warped(i, matrix), matrix) for i in images])
        for change, light in LIGHTS.items():
            print_row(change, [offsets(chosen, i, light(i), STILL) for i in images])


def smaller(path: Path) -> Grey:
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert image is not None
    resized = cv2.resize(image, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_AREA)
    return np.asarray(resized, np.uint8)


def warped(image: Grey, matrix: NDArray[np.float64]) -> Grey:
    size_wh = image.shape[1], image.shape[0]
    how, edge = cv2.INTER_CUBIC, cv2.BORDER_REPLICATE
    return np.asarray(cv2.warpAffine(image, matrix, size_wh, flags=how, borderMode=edge), np.uint8)


def offsets(
    chosen: Method, a: Grey, b: Grey, matrix: NDArray[np.float64]
) -> tuple[NDArray[np.float64], int]:
    """Offsets M 2 px of the points of B near a point of A's place, and how many A has."""
    xy_a = chosen.detect(a, POINTS).top(POINTS).xy.astype(np.float64)
    xy_b = chosen.detect(b, POINTS).top(POINTS).xy.astype(np.float64)
    place = xy_a @ matrix[:, :2].T + matrix[:, 2]  # N 2
    last = np.array([b.shape[1], b.shape[0]]) - 1 - BORDER_PX
    place = place[(place >= BORDER_PX).all(axis=1) & (place <= last).all(axis=1)]
    if len(place) == 0 or len(xy_b) == 0:
        return np.empty((0, 2)), len(place)
    away = np.hypot(*np.moveaxis(place[:, None] - xy_b[None], -1, 0))  # N N_B
    nearest = away.argmin(axis=1)
    found = away[np.arange(len(place)), nearest] < FOUND_PX
    return xy_b[nearest[found]] - place[found], len(place)


def print_row(change: str, measured: list[tuple[NDArray[np.float64], int]]) -> None:
    offset = np.concatenate([found for found, _ in measured])  # M 2
    share = len(offset) / max(1, sum(count for _, count in measured))
    distance = float(np.median(np.hypot(*offset.T))) if len(offset) else float("nan")
    rms = float(np.sqrt((offset**2).mean())) if len(offset) else float("nan")
    print(f"| {change} | {share:.2f} | {distance:.2f} | {rms:.2f} |", flush=True)


if __name__ == "__main__":
    main()
