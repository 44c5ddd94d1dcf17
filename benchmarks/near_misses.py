"""Positions of wrong matches: a few pixels off the true position, or anywhere.

A robust estimator rejects matches that are far off; matches 3 to 8 px off bend its result. Prints
for each method, over generated pairs of development photographs:

- the distances of matches from the truth;
- homographies within 1 px, with all matches and without those 2 to 8 px off;
- the share of points without a partner whose match is within 8 px;
- the share of the best 1000 points that are found again, by distance.

    python benchmarks/near_misses.py --photos ../shared/photos --method default --method sift
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiepoint.evaluation.estimators import estimate_homography
from tiepoint.evaluation.generated import LEVELS, generated_pairs
from tiepoint.evaluation.homography_pairs import LoadedHomography
from tiepoint.evaluation.methods import BASELINES, Method, checkpoint_methods, method
from tiepoint.evaluation.metrics import corner_error
from tiepoint.geometry import apply_homography, inside
from tiepoint.images.photographs import list_photos
from tiepoint.matching.match import match

K, LONG_SIDE, SEED = 1000, 640, 7
FOUND_PX = (0.5, 1.0, 2.0, 3.0)

Float = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--method", action="append", required=True, help="checkpoint, sift, orb")
    parser.add_argument("--level", default="easy", choices=[level.name for level in LEVELS])
    parser.add_argument("--count", type=int, default=30, help="pairs of that level")
    arguments = parser.parse_args()
    drawn = generated_pairs(list_photos(arguments.photos), len(LEVELS) * arguments.count, SEED)
    pairs = [pair.load(LONG_SIDE) for pair in drawn if pair.group == arguments.level]
    print("| method | matches | within 1 px | within 3 px | 3 to 8 px off | farther "
          "| homographies within 1 px | without matches 2 to 8 px off |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    second_table = []
    for name in arguments.method:
        chosen = method(name) if name in BASELINES else checkpoint_methods([name])[0]
        rows = [measured(chosen, pair) for pair in pairs]
        mean = np.nanmean([row for row, _ in rows], axis=0)
        counts = " | ".join(f"{value:.0f}" for value in mean[:5])
        print(f"| {chosen.name} | {counts} | {mean[5]:.0%} | {mean[6]:.0%} |", flush=True)
        second_table.append((chosen.name, np.nanmean([row for _, row in rows], axis=0)))
    shown = " | ".join(f"found again within {px:g} px" for px in FOUND_PX)
    print(f"\n| method | {shown} | without a partner within 1 px: matched within 8 px |")
    print("|---|---|---|---|---|---|")
    for name, mean in second_table:
        print(f"| {name} | {' | '.join(f'{value:.2f}' for value in mean[:4])} | {mean[4]:.0%} |")


def measured(chosen: Method, pair: LoadedHomography) -> tuple[list[float], list[float]]:
    """The rows of both tables for one pair."""
    truth = pair.homography
    a, b = (chosen.detect(i, K).top(K) for i in (pair.image_a, pair.image_b))
    assert a.descriptors is not None
    assert b.descriptors is not None
    i, j = match(a, b, rotation="none").pairs.T
    xy_a, xy_b = a.xy[i].astype(np.float64), b.xy[j].astype(np.float64)
    off_px = np.hypot(*(apply_homography(truth, xy_a) - xy_b).T)  # M

    def within_1_px(kept: NDArray[np.bool_]) -> float:
        estimate = estimate_homography(xy_a[kept], xy_b[kept], 0)
        return float(corner_error(estimate, truth, a.size_hw) <= 1)

    near, ring = off_px <= 3, (off_px > 2) & (off_px <= 8)
    counts = [len(off_px), (off_px <= 1).sum(), near.sum(), ((off_px > 3) & (off_px <= 8)).sum()]
    matches = [
        *map(float, counts),
        float((off_px > 8).sum()),
        within_1_px(off_px >= 0),
        within_1_px(~ring),
    ]
    in_b = apply_homography(truth, a.xy)
    shared = inside(in_b, b.size_hw)
    distances = np.hypot(*(in_b[shared][:, None] - b.xy[None]).transpose(2, 0, 1))  # N M
    nearest = distances.min(axis=1)
    choice = (a.descriptors[shared] @ b.descriptors.T).argmax(axis=1)
    matched_px = distances[np.arange(len(distances)), choice]
    alone = nearest > 1
    near_miss = float((matched_px[alone] < 8).mean()) if alone.any() else float("nan")
    return matches, [*(float((nearest <= px).mean()) for px in FOUND_PX), near_miss]


if __name__ == "__main__":
    main()
