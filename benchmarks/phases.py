"""How much results depend on the network's grid of cells, for one, two and four phases.

    python benchmarks/phases.py --photos ../shared/photos/ccby [-c base -c small] [--phases 1 2 4]

Prints three things, in float32 and without registration's verdict:
- by the px that a crop moves a photograph's content against the grid: the median cosine of the
  same keypoints in both, and the share of keypoints that the crop has within 0.5 px;
- generated facades (benchmarks/situations.py) whose mutual nearest neighbours and MAGSAC agree on
  a wrong window, RootSIFT on the same pairs beside it;
- where in its cell the keypoints of blank frames and of photographs at JPEG quality 5 are: the
  share of the fullest of the 64 places, relative to an even share. JPEG's own blocks of 8 px have
  corners, so the photographs are also cropped by other offsets after compression.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

import situations
from tiepoint import Detector, Features, match
from tiepoint.architecture import CELL_PX
from tiepoint.evaluation.estimators import estimate_homography
from tiepoint.evaluation.methods import method
from tiepoint.geometry import apply_homography, corners_xy
from tiepoint.images.photographs import list_photos
from tiepoint.images.reading import read
from tiepoint.network.inputs import resize

SHIFTS_PX = range(1, CELL_PX)
SIDE_PX, KEYPOINTS = 640, 1000
NEAR_PX = 0.5
WRONG_PX = 20.0
"""Mean corner error of a facade registered at another window; windows are 64 px apart and more."""
FLAT_FRAMES = 60
PLACES = CELL_PX**2

Grey = NDArray[np.uint8]
Detect = Callable[[Grey], Features]


def photographs(folder: Path, count: int) -> Iterator[Grey]:
    """Evenly chosen photographs, grey, of at most `SIDE_PX`."""
    files = list_photos(folder, "all")
    for path in files[:: max(1, len(files) // count)][:count]:
        pixels = resize(read(path).pixels, SIDE_PX)
        yield pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)


def crops_by_shift(detect: Detect, photos: list[Grey]) -> dict[int, tuple[float, float]]:
    """Shift, px -> median cosine of keypoints that the crop has too, and their share."""
    found: dict[int, list[NDArray[np.float32]]] = {shift: [] for shift in SHIFTS_PX}
    shares: dict[int, list[float]] = {shift: [] for shift in SHIFTS_PX}
    for photo in photos:
        whole = detect(photo)
        for shift in SHIFTS_PX:
            crop = detect(np.ascontiguousarray(photo[shift:, shift:]))
            if not len(whole) or not len(crop):
                continue
            apart = np.linalg.norm(whole.xy[:, None] - (crop.xy + shift)[None], axis=2)
            same = apart.min(axis=1) < NEAR_PX
            assert whole.descriptors is not None and crop.descriptors is not None
            partner = crop.descriptors[apart.argmin(axis=1)]
            found[shift].append((whole.descriptors * partner).sum(axis=1)[same])
            shares[shift].append(float(same.mean()))
    return {
        shift: (float(np.median(np.concatenate(each))), float(np.mean(shares[shift])))
        for shift, each in found.items()
    }


def wrong_facades(detect: Detect, count: int) -> tuple[int, int]:
    """Facades whose matches agree on a wrong place, and on the right one."""
    rng, wrong, right = np.random.default_rng(11), 0, 0
    for _ in range(count):
        pair = situations.facade(rng)
        a, b = detect(pair.image_a), detect(pair.image_b)
        matches = match(a, b, rotation="none")
        xy_a, xy_b = a.xy[matches.pairs[:, 0]], b.xy[matches.pairs[:, 1]]
        model = estimate_homography(xy_a, xy_b, 0)
        if model is None:
            continue
        corners = corners_xy(pair.image_a.shape)
        assert pair.truth is not None
        errors = apply_homography(model, corners) - apply_homography(pair.truth, corners)
        is_right = bool(np.linalg.norm(errors, axis=1).mean() < WRONG_PX)  # False if NaN
        right, wrong = right + is_right, wrong + (not is_right)
    return wrong, right


def fullest_place(detect: Detect, frames: list[Grey]) -> tuple[float, int]:
    """The share of the fullest place of a cell relative to an even one, and the keypoints."""
    counts = np.zeros(PLACES, np.int64)
    for frame in frames:
        column, row = np.floor(detect(frame).xy + 0.5).astype(int).T % CELL_PX
        counts += np.bincount(row * CELL_PX + column, minlength=PLACES)
    return float(counts.max() * PLACES / max(1, counts.sum())), int(counts.sum())


def blank_frames() -> list[Grey]:
    rng = np.random.default_rng(5)
    return [situations.blank(rng).image_a for _ in range(FLAT_FRAMES)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("-c", "--checkpoint", action="append", default=[])
    parser.add_argument("--phases", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--facades", type=int, default=64)
    parser.add_argument("--count", type=int, default=12, help="photographs")
    options = parser.parse_args()
    photos = list(photographs(options.photos, options.count))
    compressed = [situations.compressed(photo, 5) for photo in photos]
    offsets_yx = np.random.default_rng(6).integers(0, CELL_PX, (4 * len(photos), 2))
    cropped = [
        np.ascontiguousarray(photo[y:, x:])
        for photo, (y, x) in zip(4 * compressed, offsets_yx, strict=True)
    ]
    flat = {
        "blank": blank_frames(), "JPEG quality 5": compressed,
        "JPEG quality 5, other offsets": cropped,
    }  # fmt: skip
    sift = method("sift")
    found = wrong_facades(lambda image: sift.detect(image, KEYPOINTS), options.facades)
    print(f"facades, RootSIFT: {found} (wrong, right)")
    for name in options.checkpoint or ["base"]:
        for phases in options.phases:
            at_all = Detector(
                name, precision="f32", phases=phases, max_keypoints=KEYPOINTS, threshold=0.0
            )
            at_one = Detector(
                name, precision="f32", phases=phases, max_keypoints=KEYPOINTS, threshold=0.0,
                scales=(1.0,),
            )  # fmt: skip
            crops = crops_by_shift(at_one, photos)
            print(f"{name}, phases {phases}")
            print("  cosine:", " ".join(f"{s} px {c:.4f}" for s, (c, _) in crops.items()))
            print("  found again:", " ".join(f"{s} px {n:.3f}" for s, (_, n) in crops.items()))
            print(f"  facades: {wrong_facades(at_all, options.facades)} (wrong, right)")
            for kind, frames in flat.items():
                share, count = fullest_place(at_one, frames)
                print(f"  {kind}: fullest place {share:.2f} of an even share, {count} keypoints")


if __name__ == "__main__":
    main()
