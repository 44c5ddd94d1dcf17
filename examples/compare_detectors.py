"""Compare tiepoint's checkpoints with SIFT and ORB on your own pairs, without ground truth.

    python examples/compare_detectors.py a.jpg b.jpg c.jpg d.jpg -o comparison.csv
    python examples/compare_detectors.py @pairs.txt --model fundamental

Images are given two by two; `@pairs.txt` reads them from a file, one path a line. Without images
it uses two sample views. All methods get the same reduced images and matching. The verdict is that
of `tiepoint.register`; `ms` is the time of detection in both images. A pair that cannot be read is
reported and left out; then the exit status is 1.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import tiepoint

COLUMNS = ("a", "b", "method", "keypoints", "matches", "inliers", "ms", "verdict")
MAX_SIDE_PX = 1024


def main() -> int:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=form, fromfile_prefix_chars="@"
    )
    parser.add_argument("images", nargs="*", default=tiepoint.sample_views(), metavar="A B")
    parser.add_argument("-k", "--max-keypoints", type=int, default=1000, help="per image (1000)")
    parser.add_argument("--model", choices=("homography", "fundamental"), default="homography")
    parser.add_argument("-o", "--out", type=Path, help="also write the table as CSV")
    args = parser.parse_args()
    if len(args.images) % 2:
        parser.error(f"{len(args.images)} images, expected pairs: A B [A B ...]")
    if args.out is not None and not args.out.parent.is_dir():
        parser.error(f"{args.out.parent}: no such folder")

    k = args.max_keypoints
    methods: dict[str, Any] = {
        name: tiepoint.Detector(name, threshold=0.0, max_keypoints=k)
        for name in ("base", "small", "large")
    }
    methods["SIFT"] = cv2.SIFT.create(k, contrastThreshold=0.0)
    methods["ORB"] = cv2.ORB.create(k, fastThreshold=5)

    rows, failed = [], 0
    print(f"{'method':8}{'keypoints':>10}{'matches':>9}{'inliers':>9}{'ms':>7}  verdict")
    for a, b in zip(args.images[::2], args.images[1::2], strict=True):
        print(f"{a} {b}", flush=True)
        try:
            images = [read(a), read(b)]
        except OSError as error:
            print(f"left out: {error}", file=sys.stderr)
            failed += 1
            continue
        for name, method in methods.items():
            row = {"a": a, "b": b, "method": name, **compare(method, images, args.model)}
            print("{method:8}{keypoints:10}{matches:9}{inliers:9}{ms:7}  {verdict}".format(**row))
            rows.append(row)
    if args.out is not None:
        with args.out.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, COLUMNS)
            table.writeheader()
            table.writerows(rows)
    return 1 if failed else 0


def read(path: str | Path) -> Any:
    image = cv2.imread(str(path))
    if image is None:
        raise OSError(f"{path} cannot be read as an image")
    zoom = min(1, MAX_SIDE_PX / max(image.shape))
    return cv2.resize(image, None, None, zoom, zoom, cv2.INTER_AREA)


def compare(method: Any, images: list[Any], model: Any) -> dict[str, Any]:
    """The figures of one method on one pair."""
    for image in images:
        features_of(image, method)  # the first image of a size also prepares the network for it
    start = time.perf_counter()
    a, b = (features_of(image, method) for image in images)
    ms = round(1000 * (time.perf_counter() - start))
    registration = tiepoint.register(a, b, matches=tiepoint.match(a, b), model=model)
    return {
        "keypoints": (len(a) + len(b)) // 2,
        "matches": len(registration.matches),
        "inliers": int(registration.inliers.sum()),
        "ms": ms,
        "verdict": "registered" if registration.success else registration.reason,
    }


def features_of(image: Any, method: Any) -> tiepoint.Features:
    """The features of a BGR image by tiepoint's `Detector` or a `cv2.Feature2D`."""
    if isinstance(method, tiepoint.Detector):
        features: tiepoint.Features = method(image, channel_order="bgr")
        return features
    keypoints, descriptors = method.detectAndCompute(image, None)
    if descriptors is None:  # no keypoints
        descriptors = np.empty((0, method.descriptorSize()), np.uint8)
    if method.defaultNorm() == cv2.NORM_HAMMING:
        # Bits as -1 and 1: the nearest by cosine is the nearest by Hamming distance.
        descriptors = np.unpackbits(descriptors, axis=1) * 2.0 - 1
    descriptors = descriptors.astype(np.float32)
    return tiepoint.Features.from_opencv(keypoints, descriptors, image.shape[:2])


if __name__ == "__main__":
    sys.exit(main())
