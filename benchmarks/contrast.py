"""Margin of the range of values, and reach of gaps: behind `images.ranges` and `images.gaps`.

Prints the share of the best 500 keypoints of photographs in 8 bits that are found again within
1 px in other ranges of values, by margin; and the share of keypoints beside gaps that have no
counterpart in the complete photograph, by distance.

    python benchmarks/contrast.py --photos ../shared/photos --count 10
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

import tiepoint
from tiepoint.config import DetectionOptions
from tiepoint.evaluation.sizes import grey_uint8
from tiepoint.images import gaps, ranges
from tiepoint.images.photographs import list_photos
from tiepoint.images.reading import read

Array = NDArray[Any]

SIDE_PX = 640
KEYPOINTS = 500
MARGINS = (0, 0.05, 0.25)
DISTANCES_PX = (0, 2, 4, 6, 8, 10, 12, 16, 24, np.inf)
HOLES = 8


def whole(low: float, span: float) -> Callable[[Array], Array]:
    return lambda unit: np.rint(low + span * unit).astype(np.uint16)


def with_outliers(image: Array, value: float, share: float) -> Array:
    chosen = np.random.default_rng(1).permutation(image.size)[: max(1, round(share * image.size))]
    image.flat[chosen] = value
    return image


KINDS: dict[str, Callable[[Array], Array]] = {
    "10 bits": whole(0, 1023),
    "12 bits": whole(0, 4095),
    "span of 3000 counts": whole(200, 3000),
    "span of 100 counts": whole(7000, 100),
    "span of 1500 counts": whole(30_000, 1500),
    "reflectance": lambda unit: 0.02 + 0.38 * unit,
    "degrees": lambda unit: -12 + 50 * unit,
    "heights": lambda unit: 300 + 2100 * unit,
    "one hot pixel": lambda unit: with_outliers(whole(30_000, 300)(unit), 65535, 0),
    "0.05 % hot pixels": lambda unit: with_outliers(whole(30_000, 300)(unit), 65535, 5e-4),
    "0.05 % dead pixels": lambda unit: with_outliers(whole(7_000, 1500)(unit), 0, 5e-4),
    "0.3 % without data": lambda unit: with_outliers(unit.copy(), np.nan, 3e-3),
}


def nearest_px(xy: Array, others: Array) -> Array:
    """Distance of each point from the nearest of the others."""
    offsets = xy[:, None] - others[None]  # N M 2
    return np.asarray(np.hypot(offsets[..., 0], offsets[..., 1]).min(axis=1))


def compare_margins(detector: tiepoint.Detector, photos: Sequence[Array]) -> None:
    shares: dict[tuple[str, float], list[float]] = defaultdict(list)
    for photo in photos:
        expected = detector(photo).xy
        for name, make in KINDS.items():
            for margin in MARGINS:
                ranges.MARGIN = margin
                again = nearest_px(expected, detector(make(photo / 255)).xy) < 1
                shares[name, margin].append(again.mean())
    ranges.MARGIN = 0.05
    print(f"{'image':<22}", *(f"margin {margin:<6}" for margin in MARGINS))
    for name in KINDS:
        print(f"{name:<22}", *(f"{np.mean(shares[name, margin]):<13.3f}" for margin in MARGINS))


def holes(size_hw: tuple[int, int], rng: np.random.Generator) -> NDArray[np.bool_]:
    drawn = np.zeros(size_hw, np.uint8)
    for _ in range(HOLES):
        centre = rng.integers(0, size_hw[::-1])
        corners = centre + rng.normal(0, 25, (rng.integers(3, 7), 2))
        cv2.fillPoly(drawn, [cv2.convexHull(corners.astype(np.int32))], 1)
    return drawn > 0


def compare_distances(detector: tiepoint.Detector, photos: Sequence[Array]) -> None:
    reach, gaps.GAP_REACH_PX = gaps.GAP_REACH_PX, 0
    rng = np.random.default_rng(5)
    distances, spurious = [], []
    options: DetectionOptions = {"threshold": 0.005, "max_keypoints": 3000, "scales": (1,)}
    for photo in photos:
        gap = holes((photo.shape[0], photo.shape[1]), rng)
        found = detector(np.ma.masked_array(photo, gap), **options)
        spurious.append(nearest_px(found.xy, detector(photo, **options).xy) > 2)
        to_gap = cv2.distanceTransform((~gap).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
        columns, rows = np.rint(found.xy).astype(int).T
        distances.append(to_gap[rows, columns])
    gaps.GAP_REACH_PX = reach
    distance, is_spurious = np.concatenate(distances), np.concatenate(spurious)
    for low, high in pairwise(DISTANCES_PX):
        within = (distance >= low) & (distance < high)
        print(f"{low} to {high} px from a gap: {is_spurious[within].mean():.2f} spurious")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--count", type=int, default=10)
    arguments = parser.parse_args()
    paths = list_photos(arguments.photos, "all")
    chosen = np.random.default_rng(0).permutation(len(paths))[: arguments.count]
    photos = [grey_uint8(read(paths[index]).pixels, SIDE_PX) for index in chosen]
    detector = tiepoint.Detector(threshold=0.0, max_keypoints=KEYPOINTS, precision="f32")
    compare_margins(detector, photos)
    compare_distances(detector, photos)


if __name__ == "__main__":
    main()
