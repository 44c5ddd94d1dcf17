"""Match the keypoints of two images by kornia, and estimate a homography by its RANSAC.

    python examples/match_with_kornia.py a.jpg b.jpg --matcher smnn -o matches.png

Without images it uses two sample views. It needs kornia: `pip install kornia`.
Pixel centres are whole numbers in both libraries, so no position changes. Exit status: 0 found,
1 too few matches, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import kornia.feature as kornia_feature
import numpy as np
import torch
from kornia.geometry import RANSAC

import tiepoint

MIN_INLIERS = 15
MATCHERS = {
    "mnn": kornia_feature.match_mnn,  # mutual nearest neighbours
    "snn": kornia_feature.match_snn,  # ratio test
    "smnn": kornia_feature.match_smnn,  # both
}
"""Matchers of descriptors N D; each returns distances M 1 and pairs M 2."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    view_a, view_b = tiepoint.sample_views()
    parser.add_argument("a", nargs="?", default=view_a)
    parser.add_argument("b", nargs="?", default=view_b)
    parser.add_argument("--matcher", choices=tuple(MATCHERS), default="smnn")
    parser.add_argument("-o", "--out", type=Path, help="picture of the inliers, .png")
    args = parser.parse_args()
    if args.out is not None and args.out.suffix.lower() != ".png":
        parser.error(f"{args.out}: expected a name that ends in .png")

    detector = tiepoint.Detector(max_keypoints=1000)
    try:
        a, b = detector(args.a), detector(args.b)
    except tiepoint.TiepointError as error:
        parser.error(str(error))

    # torch.tensor copies: the arrays of features are read-only.
    distances, pairs = MATCHERS[args.matcher](
        torch.tensor(a.descriptors), torch.tensor(b.descriptors)
    )
    print(f"{len(a)} and {len(b)} keypoints, {len(pairs)} matches by {args.matcher}")
    if len(pairs) < MIN_INLIERS:
        print(f"no homography: {len(pairs)} matches, expected at least {MIN_INLIERS}")
        return 1

    torch.manual_seed(0)  # the same samples in each run
    xy_a, xy_b = torch.tensor(a.xy)[pairs[:, 0]], torch.tensor(b.xy)[pairs[:, 1]]  # M 2
    homography, inliers = RANSAC("homography", inl_th=3.0)(xy_a, xy_b)
    count = int(inliers.sum())
    if count < MIN_INLIERS:
        print(f"no homography: {count} inliers, expected at least {MIN_INLIERS}")
        return 1
    print(f"{count} inliers; image A to image B, px:")
    print(np.array2string(homography.numpy(), precision=7, suppress_small=True))

    if args.out is not None:
        order = distances[inliers, 0].argsort()  # best first, as tiepoint has matches
        scores = 1 - distances[inliers, 0][order]
        matches = tiepoint.Matches(pairs[inliers][order].numpy(), scores.numpy())
        tiepoint.plot_matches(args.a, args.b, a, b, matches, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
