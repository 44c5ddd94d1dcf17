"""What the selection of keypoints should be: in-cell histogram, NMS radius, threshold.

The network decides in cells of 8x8 px. Where its best points are within the cells should not
depend on the grid: prints how often each of the 64 places comes, least and most, in parts of its
even share. The photographs are those of the development part, brought to 0.83 of their size, off
the grid of their JPEG blocks; whole pixels, before refinement. Then generated pairs of the same
photographs under several NMS radii with 1000 points, and under several thresholds.

    python benchmarks/selection.py --photos ../shared/photos --checkpoint default
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint import images
from tiepoint.architecture import CELL_PX
from tiepoint.config import DetectionOptions
from tiepoint.detector import Detector
from tiepoint.evaluation.generated import generated_pairs
from tiepoint.evaluation.homography import HOMOGRAPHY
from tiepoint.evaluation.methods import Method
from tiepoint.evaluation.run import evaluate
from tiepoint.evaluation.settings import PROFILES
from tiepoint.evaluation.summary import rows
from tiepoint.images.photographs import list_photos
from tiepoint.network.inputs import to_grey

SCALE, BEST, SEED = 0.83, 1000, 7
RADII_PX = (2, 3, 4, 5, 6)
MEDIAN_POINTS = (300, 600, 1200, 2400)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument("--count", type=int, default=90, help="pairs")
    arguments = parser.parse_args()
    photos = list_photos(arguments.photos, "development")
    detector = Detector(arguments.checkpoint, precision="f32", threshold=0.0, max_side=None)
    counts = in_cell_counts(detector, photos)
    flat = counts.sum() / counts.size
    spread = np.sqrt(flat) / flat  # of a count that comes by chance
    print(f"in-cell histogram of the best {BEST} of {len(photos)} photographs, parts of flat: ")
    print(f"{counts.min() / flat:.2f} to {counts.max() / flat:.2f}, chance {spread:.2f} either way")
    print("\n".join(" ".join(f"{n / flat:4.2f}" for n in row) for row in counts))
    pairs = generated_pairs(photos, arguments.count, SEED)
    methods = [method(arguments.checkpoint, f"NMS {r} px", 0.0, r) for r in RADII_PX]
    thresholds = {n: threshold(detector, photos, n) for n in MEDIAN_POINTS}
    named = {n: f"threshold {value:.2g} (median {n} points)" for n, value in thresholds.items()}
    methods += [
        method(arguments.checkpoint, named[n], value, None) for n, value in thresholds.items()
    ]
    print(f"\n| {len(pairs)} pairs | points | within 1 / 3 / 5 px | repeatability | precision |")
    print("|---|---|---|---|---|")
    settings = replace(PROFILES["tiepoint"], within_px=(1.0, 3.0, 5.0))
    everything = replace(settings, k=10**6)
    for chosen in methods:
        asked = settings if chosen.name.startswith("NMS") else everything
        row = rows(evaluate(HOMOGRAPHY, pairs, [chosen], asked))[0]
        means = row.means
        shares = " / ".join(f"{share.mean:.3f}" for share in means.within.values())
        print(f"| {chosen.name} | {row.keypoints:.0f} | {shares} | {means.repeatability.mean:.3f} "
              f"| {means.precision.mean:.3f} |", flush=True)  # fmt: skip


def in_cell_counts(detector: Detector, photos: list[Path]) -> NDArray[np.int64]:
    """8 8: how often a keypoint is in each row and column of its cell."""
    counts = np.zeros((CELL_PX, CELL_PX), np.int64)
    whole = Detector(
        detector.checkpoint,
        precision="f32",
        threshold=0.0,
        max_side=None,
        descriptors=False,
        scales=(1.0,),
        subpixel=False,
    )
    for path in photos:
        grey = to_grey(images.read(path).pixels)
        smaller = cv2.resize(grey, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_AREA)
        xy = whole(smaller.astype(np.float32), max_keypoints=BEST).xy.astype(int)
        np.add.at(counts, (xy[:, 1] % CELL_PX, xy[:, 0] % CELL_PX), 1)
    return counts


def threshold(detector: Detector, photos: list[Path], points: int) -> float:
    """The score at which the median photograph keeps `points` keypoints, long side 640 px."""
    found = detector.stream(
        photos, max_side=640, scales=(1.0,), max_keypoints=points, descriptors=False
    )
    return float(np.median([d.require().scores[-1] for d in found if len(d.require())]))


def method(checkpoint: str, name: str, least: float, radius_px: int | None) -> Method:
    options: DetectionOptions = {"max_side": None, "threshold": least}
    if radius_px is not None:
        options["nms_radius"] = radius_px
    detector = Detector(checkpoint, precision="f32", **options)

    def detect(grey: NDArray[np.uint8], k: int) -> object:
        return detector(grey, max_keypoints=min(4 * k, 20_000))

    return Method(name, detect)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
