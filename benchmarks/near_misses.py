"""Where wrong matches lie: a few pixels beside the right place, or anywhere.

A robust estimator throws out what lies anywhere; what lies 3 to 8 px off bends its result. Prints,
per method, over generated pairs of development photographs: how far matches are off; how many
homographies come out within 1 px, with all matches and without those 2 to 8 px off; which matches
points without a partner get; and how many of the best 1000 points are found again how near.

    python benchmarks/near_misses.py --photos ../shared/photos --method default --method sift
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiepoint.evaluation.generated import LEVELS, generated_pairs
from tiepoint.evaluation.methods import BASELINES, Method, checkpoint_methods, method
from tiepoint.evaluation.metrics import corner_error, estimate_homography
from tiepoint.evaluation.pairs import LoadedPair
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
    further = []
    for name in arguments.method:
        chosen = method(name) if name in BASELINES else checkpoint_methods([name])[0]
        found = [measured(chosen, pair) for pair in pairs]
        mean = np.nanmean([row for row, _ in found], axis=0)
        counts = " | ".join(f"{value:.0f}" for value in mean[:5])
        print(f"| {chosen.name} | {counts} | {mean[5]:.0%} | {mean[6]:.0%} |", flush=True)
        further.append((chosen.name, np.nanmean([row for _, row in found], axis=0)))
    shown = " | ".join(f"found again within {px:g} px" for px in FOUND_PX)
    print(f"\n| method | {shown} | without a partner within 1 px: matched within 8 px |")
    print("|---|---|---|---|---|---|")
    for name, mean in further:
        print(f"| {name} | {' | '.join(f'{value:.2f}' for value in mean[:4])} | {mean[4]:.0%} |")


def measured(chosen: Method, pair: LoadedPair) -> tuple[list[float], list[float]]:
    """The rows of both tables for one pair."""
    truth = pair.homography
    a, b = (chosen.detect(i, K).top(K) for i in (pair.image_a, pair.image_b))
    assert a.descriptors is not None
    assert b.descriptors is not None
    i, j = match(a, b, rotation="none").pairs.T
    xy_a, xy_b = a.xy[i].astype(np.float64), b.xy[j].astype(np.float64)
    off = np.hypot(*(apply_homography(truth, xy_a) - xy_b).T)  # M

    def good(kept: NDArray[np.bool_]) -> float:
        estimate = estimate_homography(xy_a[kept], xy_b[kept], 0)
        return float(corner_error(estimate, truth, a.size_hw) <= 1)

    near, ring = off <= 3, (off > 2) & (off <= 8)
    counts = [len(off), (off <= 1).sum(), near.sum(), ((off > 3) & (off <= 8)).sum()]
    matches = [*map(float, counts), float((off > 8).sum()), good(off >= 0), good(~ring)]
    there = apply_homography(truth, a.xy)
    seen = inside(there, b.size_hw)
    apart = np.hypot(*(there[seen][:, None] - b.xy[None]).transpose(2, 0, 1))  # N M
    nearest = apart.min(axis=1)
    choice = (a.descriptors[seen] @ b.descriptors.T).argmax(axis=1)
    taken = apart[np.arange(len(apart)), choice]
    alone = nearest > 1
    beside = float((taken[alone] < 8).mean()) if alone.any() else float("nan")
    return matches, [*(float((nearest <= px).mean()) for px in FOUND_PX), beside]


if __name__ == "__main__":
    main()
