"""Depth and threshold of a learned matcher, on the held-out pairs of its training.

    python benchmarks/matcher_choice.py runs/base

For each number of layers and each least probability of a match: on flat scenes the share of
homographies within 3 px, on two-camera scenes the area under the pose errors up to 10 degrees, and
over all pairs the precision and recall of the matches that have a label. The last row of each table
has mutual nearest neighbours. The folder is one of `tiepoint train-matcher`, with its features.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from tiepoint.matching.learned.folder import load_matcher
from tiepoint.matching.learned.network_torch import LogAssignment, MatcherNetwork, log_assignment
from tiepoint.training.matcher.bank import open_held_out
from tiepoint.training.matcher.batch import collate
from tiepoint.training.matcher.losses import match_figures, mutual_maxima
from tiepoint.training.matcher.runs import FEATURES_FOLDER
from tiepoint.training.matcher.validation import HeldOut, Validation

THRESHOLDS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)
KINDS = {"planar": "within 3 px", "two_camera": "AUC at 10 degrees"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, nargs="+", help="default: all depths")
    parser.add_argument("--thresholds", type=float, nargs="+", default=THRESHOLDS)
    arguments = parser.parse_args()
    checkpoint = load_matcher(arguments.folder)
    network = MatcherNetwork.of(checkpoint.config, checkpoint.tensors).eval()
    validation = Validation(open_held_out(arguments.folder / FEATURES_FOLDER))
    counts = {kind: sum(pair.kind == kind for pair in validation.pairs) for kind in KINDS}
    print(
        f"{checkpoint.name}: {counts['planar']} flat pairs, {counts['two_camera']} of two cameras"
    )
    print(f"| layers | threshold | {' | '.join(KINDS.values())} | precision | recall |")
    print("|---|---|---|---|---|---|")
    for layers in arguments.layers or range(1, checkpoint.config.layers + 1):
        for row in rows_of(network, validation.pairs, layers, arguments.thresholds):
            print(row, flush=True)
    nearest = validation.nearest_neighbours()
    shown = [f"{value:.3f}" for kind in KINDS for value in nearest.get(kind, {}).values()]
    print(f"| nearest neighbours | | {' | '.join(shown)} | | |")


@torch.no_grad()
def rows_of(
    network: MatcherNetwork, pairs: Sequence[HeldOut], layers: int, thresholds: Sequence[float]
) -> list[str]:
    """A row of the table for each threshold."""
    rights: dict[float, dict[str, list[float]]] = {
        t: {kind: [] for kind in KINDS} for t in thresholds
    }
    figures: dict[float, list[tuple[float, float]]] = {t: [] for t in thresholds}
    for pair in pairs:
        batch = collate([pair.sides], torch.device("cpu"))
        part = log_assignment(network.last_head(batch.a, batch.b, layers=layers))
        for threshold in thresholds:
            xy = matched_xy(part, pair, threshold)
            rights[threshold][pair.kind].append(pair.is_right(*xy))
            shares = match_figures(part, batch.labels, threshold)
            figures[threshold].append((float(shares["precision"]), float(shares["recall"])))
    return [
        f"| {layers} | {threshold:g} | "
        + " | ".join(f"{np.mean(rights[threshold][kind]):.3f}" for kind in KINDS)
        + " | "
        + " | ".join(f"{value:.3f}" for value in np.mean(figures[threshold], axis=0))
        + " |"
        for threshold in thresholds
    ]


def matched_xy(
    part: LogAssignment, pair: HeldOut, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the matches in both images, M 2 px each."""
    a, b = pair.sides
    found = mutual_maxima(part.matched, threshold)[0, : len(a), : len(b)].numpy()
    rows, columns = np.nonzero(found)
    return a.xy[rows], b.xy[columns]


if __name__ == "__main__":
    main()
