"""The loss of every layer's head, and how many matches the last one has right."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tiepoint.matching.learned.network_torch import Head, LogAssignment, log_assignment
from tiepoint.training.detector.objective import Objective
from tiepoint.training.matcher.labels import Labels

MATCH_THRESHOLD = 0.1
"""Least probability of a match in the figures of the log; transformers' default."""


def matcher_objective(heads: Sequence[Head], truth: Labels, unmatchable_weight: float) -> Objective:
    """The mean loss of all layers, and figures of the last one.

    Args:
        heads: From `MatcherNetwork`.
        unmatchable_weight: Weight of the keypoints without a match; see `MatcherPreset`.
    """
    parts = [log_assignment(head) for head in heads]
    each = [head_loss(part, truth, unmatchable_weight) for part in parts]
    loss = torch.stack(each).mean()
    with torch.no_grad():
        figures = {
            "all_layers": loss.detach(), "last_layer": each[-1].detach(),
            **match_figures(parts[-1], truth),
        }  # fmt: skip
    return Objective(loss, figures)


def head_loss(part: LogAssignment, truth: Labels, unmatchable_weight: float) -> Tensor:
    """Negative log-likelihood: means over the keypoints of a pair, then over pairs.

    Pairs without matches, or without unmatchable keypoints, do not count in that mean.
    """
    matches = _mean(-part.matched, truth.matched)
    alone_a = _mean(-part.unmatched_a, truth.unmatchable_a)
    alone_b = _mean(-part.unmatched_b, truth.unmatchable_b)
    return (1 - unmatchable_weight) * matches + unmatchable_weight / 2 * (alone_a + alone_b)


@torch.no_grad()
def match_figures(
    part: LogAssignment, truth: Labels, threshold: float = MATCH_THRESHOLD
) -> dict[str, Tensor]:
    """Precision and recall of the mutual maxima above a threshold.

    Matches of keypoints without a label do not count. Padding has a label of no kind.

    Returns:
        "precision" and "recall", scalars in 0..1; 1 without any match, found or true.
    """
    found = mutual_maxima(part.matched, threshold)  # B N_A N_B
    known_a = truth.matched.any(2) | truth.unmatchable_a  # B N_A
    known_b = truth.matched.any(1) | truth.unmatchable_b  # B N_B
    right = (found & truth.matched).sum()
    wrong = (found & ~truth.matched & (known_a[:, :, None] | known_b[:, None])).sum()
    true = truth.matched.sum()
    return {"precision": _share(right, right + wrong), "recall": _share(right, true)}


def mutual_maxima(log_matched: Tensor, threshold: float) -> Tensor:
    """B N_A N_B bool: maxima of row and column whose probability is above a threshold."""
    rows = log_matched == log_matched.amax(2, keepdim=True)
    columns = log_matched == log_matched.amax(1, keepdim=True)
    return rows & columns & (log_matched.exp() > threshold)


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    """The mean of the chosen values of each pair, and of these means; 0 if none is chosen."""
    values, chosen = values.flatten(1), chosen.flatten(1)  # B K
    counts = chosen.sum(1)  # B
    sums = torch.where(chosen, values, 0).sum(1)  # B
    means = sums / counts.clamp(min=1)
    return means.sum() / (counts > 0).sum().clamp(min=1)


def _share(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / whole.clamp(min=1), 1.0)
