"""OpenCV's tutorial of feature matching, with tiepoint in SIFT's place.

    python examples/opencv_pipeline.py a.jpg b.jpg -o matches.png
    python examples/opencv_pipeline.py a.jpg b.jpg -o sift.png --detector sift

Without images it uses two sample views. The picture shows the best inliers, and the outline of
image A in image B. `tiepoint.OpenCVFeature` has the methods of `cv2.Feature2D`, so the rest of an
existing pipeline stays as it is. Exit status: 0 found, 1 not found or not written, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import tiepoint

MIN_INLIERS = 15
MAX_LINES = 60  # more would hide the images


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    view_a, view_b = tiepoint.sample_views()
    parser.add_argument("a", nargs="?", default=view_a, help="image of a plane, such as a sign")
    parser.add_argument("b", nargs="?", default=view_b, help="another view of it")
    parser.add_argument("-o", "--out", type=Path, default=Path("matches.png"))
    parser.add_argument("--detector", choices=("tiepoint", "sift"), default="tiepoint")
    args = parser.parse_args()
    if not cv2.haveImageWriter(str(args.out)):
        parser.error(f"{args.out}: the ending names no image format, expected one such as .png")
    image_a, image_b = (cv2.imread(str(path)) for path in (args.a, args.b))
    if image_a is None or image_b is None:
        parser.error(f"{args.a if image_a is None else args.b}: cannot be read as an image")

    detector: Any = cv2.SIFT.create(1000)
    if args.detector == "tiepoint":
        detector = tiepoint.OpenCVFeature(tiepoint.Detector(max_keypoints=1000))

    keypoints_a, descriptors_a = detector.detectAndCompute(image_a, None)
    keypoints_b, descriptors_b = detector.detectAndCompute(image_b, None)
    matches: list[Any] = []
    if descriptors_a is not None and descriptors_b is not None:
        matcher = cv2.BFMatcher(detector.defaultNorm(), crossCheck=True)
        matches = sorted(matcher.match(descriptors_a, descriptors_b), key=lambda m: m.distance)
    print(f"{len(keypoints_a)} and {len(keypoints_b)} keypoints, {len(matches)} matches")

    homography, inliers = find_homography(keypoints_a, keypoints_b, matches)
    if homography is None or inliers.sum() < MIN_INLIERS:
        print(f"no homography: {inliers.sum()} inliers, expected at least {MIN_INLIERS}")
        return 1
    print(f"{inliers.sum()} inliers; image A to image B, px:")
    print(np.array2string(homography, precision=7, suppress_small=True))

    height, width = image_a.shape[:2]
    corners = [[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]]
    outline = cv2.perspectiveTransform(np.array([corners], np.float64), homography)  # 1 4 2
    cv2.polylines(image_b, [np.int32(outline.round())], True, (255, 255, 255), 2, cv2.LINE_AA)
    best = [match for match, fits in zip(matches, inliers, strict=True) if fits][:MAX_LINES]
    picture = cv2.drawMatches(
        image_a, keypoints_a, image_b, keypoints_b, best, None, matchColor=(80, 220, 80),
        flags=cv2.DrawMatchesFlags_NOT_DRAW_SINGLE_POINTS,
    )  # fmt: skip
    if not cv2.imwrite(str(args.out), picture):
        print(f"{args.out}: cannot be written", file=sys.stderr)
        return 1
    return 0


def find_homography(keypoints_a: Any, keypoints_b: Any, matches: Any) -> tuple[Any, Any]:
    """The homography from A to B, 3x3 or None, and which of the M matches fit it within 3 px."""
    none = None, np.zeros(len(matches), bool)
    if len(matches) < 4:
        return none
    xy_a = np.array([keypoints_a[match.queryIdx].pt for match in matches])  # M 2
    xy_b = np.array([keypoints_b[match.trainIdx].pt for match in matches])  # M 2
    homography, fits = cv2.findHomography(xy_a, xy_b, cv2.USAC_MAGSAC, 3.0)
    return none if homography is None else (homography, fits.ravel() > 0)


if __name__ == "__main__":
    sys.exit(main())
