"""Least probability of a match, layers and precision of the matcher, on generated homographies that
no table of accuracy has.

    python benchmarks/matcher_threshold.py --photos ../shared/photos -c large --limit 150 --seed 8
    python benchmarks/matcher_threshold.py --photos ../shared/photos --precisions f32 bf16
    python benchmarks/matcher_threshold.py --photos ../shared/photos --layers 3 4 5

For nearest neighbours, and for each precision, depth and least probability: the share of
homographies within 1, 3 and 5 px; the precision of the matches, and their recall of the keypoints
that can be matched, which are mutually nearest within 3 px by the known homography. Means over the
pairs.
`tiepoint evaluate generated` has another seed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np

from tiepoint.config import Precision
from tiepoint.evaluation import metrics
from tiepoint.evaluation.generated import generated_pairs
from tiepoint.evaluation.homography import estimate
from tiepoint.evaluation.homography_pairs import LoadedHomography
from tiepoint.evaluation.methods import checkpoint_methods
from tiepoint.evaluation.settings import HomographySettings
from tiepoint.features import Features, Matches, covariances_of
from tiepoint.geometry import apply_homography
from tiepoint.images.photographs import list_photos
from tiepoint.matching.learned.choice import matcher_folder
from tiepoint.matching.learned.matcher import LearnedMatcher
from tiepoint.matching.match import match

CORRECT_PX = 3.0
THRESHOLDS = (0.0, 0.02, 0.05, 0.1, 0.2)
WITHIN_PX = (1.0, 3.0, 5.0)


class Figures(NamedTuple):
    """One pair: px of the corners, and shares 0..1."""

    error_px: float
    precision: float
    recall: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("-c", "--checkpoint", default="base")
    parser.add_argument("--matcher", help="default: the checkpoint's")
    parser.add_argument("--limit", type=int, default=150)
    parser.add_argument("--seed", type=int, default=8)
    parser.add_argument("--thresholds", type=float, nargs="+", default=THRESHOLDS)
    parser.add_argument(
        "--precisions", nargs="+", default=["f32"], choices=get_args(Precision), metavar="P",
        help="of the matcher; the detector has its own",
    )  # fmt: skip
    parser.add_argument(
        "--layers", type=int, nargs="+", default=[None], help="that run; default: all"
    )
    options = parser.parse_args()
    pairs = generated_pairs(list_photos(options.photos, "development"), options.limit, options.seed)
    settings = HomographySettings(seeds=1)
    detection = checkpoint_methods([options.checkpoint])[0]
    folder = matcher_folder(options.matcher or options.checkpoint)
    matchers = {
        f"learned, {precision}, {layers or 'all'} layers": LearnedMatcher(
            folder, precision=precision, layers=layers
        )
        for precision in options.precisions
        for layers in options.layers
    }
    found: dict[str, list[Figures]] = {}
    for pair in pairs:
        loaded = pair.load(settings.frame)
        a, b = (one.top(settings.k) for one in detection.features_of_pair(loaded, settings.k))
        rows = {"nearest neighbours": match(a, b)}
        for title, matcher in matchers.items():
            learned = match(a, b, method="learned", matcher=matcher, min_probability=0.0)
            for threshold in options.thresholds:
                name = f"{title}, above {threshold:g}"
                rows[name] = learned.take(learned.scores > threshold)
        for name, matches in rows.items():
            found.setdefault(name, []).append(figures(a, b, matches, loaded, settings))
    print(f"{options.checkpoint}, {len(pairs)} pairs of seed {options.seed}")
    print("| matches | within 1 / 3 / 5 px | precision | recall |\n|---|---|---|---|")
    for name, one in found.items():
        print(f"| {name} | {row(one)} |")


def figures(
    a: Features, b: Features, matches: Matches, pair: LoadedHomography, settings: HomographySettings
) -> Figures:
    i, j = matches.pairs.T
    xy_a, xy_b = a.xy[i], b.xy[j]
    correct = metrics.correct_matches(xy_a, xy_b, pair.homography, CORRECT_PX).sum()
    matrix = estimate((xy_a, xy_b, covariances_of(a, b, matches.pairs)), 0, settings)
    return Figures(
        metrics.corner_error(matrix, pair.homography, a.size_hw),
        correct / max(1, len(matches)),
        correct / max(1, findable(a, b, pair)),
    )


def findable(a: Features, b: Features, pair: LoadedHomography) -> int:
    """Keypoints of A with one of B where they are shown, mutually nearest."""
    if len(a) == 0 or len(b) == 0:
        return 0
    mapped = apply_homography(pair.homography, a.xy)
    apart = np.linalg.norm(mapped[:, None] - b.xy[None], axis=2)  # N_A N_B
    nearest_a, nearest_b = apart.argmin(axis=1), apart.argmin(axis=0)
    mutual = nearest_a[nearest_b] == np.arange(len(b))
    return int((mutual & (apart.min(axis=0) <= CORRECT_PX)).sum())


def row(one: Sequence[Figures]) -> str:
    errors = np.array([figure.error_px for figure in one])
    within = " / ".join(f"{(errors <= px).mean():.3f}" for px in WITHIN_PX)
    precision, recall = (np.mean([f[k] for f in one]) for k in (1, 2))
    return f"{within} | {precision:.3f} | {recall:.3f}"


if __name__ == "__main__":
    main()
