"""The matcher's loss equals plain loops; precision and recall leave out what has no label."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from tiepoint.matching.learned.network_torch import Head, LogAssignment, log_assignment
from tiepoint.training.matcher.labels import Labels
from tiepoint.training.matcher.losses import head_loss, match_figures, matcher_objective


def head(seed: int) -> Head:
    random = torch.Generator().manual_seed(seed)
    vectors = [torch.randn(2, count, 6, generator=random) for count in (5, 4)]
    logits = [torch.randn(2, count, generator=random) for count in (5, 4)]
    return Head(*vectors, *logits, None, None)


def truth() -> Labels:
    """Pair 1 is unrelated, and without a single unmatchable keypoint of B."""
    matched = torch.zeros(2, 5, 4, dtype=torch.bool)
    matched[0, 1, 2] = matched[0, 3, 0] = True
    alone_a = torch.tensor([[True, False, False, False, True], [True] * 5])
    alone_b = torch.tensor([[False, True, False, False], [False] * 4])
    return Labels(matched, alone_a, alone_b)


def slow_loss(part: LogAssignment, labels: Labels, weight: float) -> float:
    means: dict[str, list[float]] = {"matched": [], "a": [], "b": []}
    for pair in range(len(part.matched)):
        for name, values, chosen in (
            ("matched", part.matched, labels.matched),
            ("a", part.unmatched_a, labels.unmatchable_a),
            ("b", part.unmatched_b, labels.unmatchable_b),
        ):
            picked = [float(-values[pair][tuple(at)]) for at in chosen[pair].nonzero()]
            if picked:
                means[name].append(sum(picked) / len(picked))
    matched, a, b = (sum(m) / len(m) if m else 0.0 for m in means.values())
    return (1 - weight) * matched + weight * (a + b) / 2


@pytest.mark.parametrize("weight", [0.5, 0.2])
def test_the_loss_of_a_layer_equals_plain_loops(weight: float) -> None:
    part = log_assignment(head(0))
    assert float(head_loss(part, truth(), weight)) == pytest.approx(
        slow_loss(part, truth(), weight)
    )


def test_every_layer_counts_alike_and_the_last_is_logged_apart() -> None:
    heads = [head(seed) for seed in range(3)]
    each = [slow_loss(log_assignment(one), truth(), 0.5) for one in heads]
    result = matcher_objective(heads, truth(), 0.5)
    assert float(result.loss) == pytest.approx(np.mean(each))
    assert float(result.figures["last_layer"]) == pytest.approx(each[-1])
    assert float(result.figures["all_layers"]) == pytest.approx(np.mean(each))


def test_a_batch_without_any_label_has_loss_0_and_a_gradient() -> None:
    vectors = torch.randn(1, 3, 6, requires_grad=True)
    one = Head(vectors, torch.randn(1, 2, 6), torch.zeros(1, 3), torch.zeros(1, 2), None, None)
    nothing = Labels(
        *(torch.zeros(shape, dtype=torch.bool) for shape in ((1, 3, 2), (1, 3), (1, 2)))
    )
    loss = matcher_objective([one], nothing, 0.5).loss
    loss.backward()
    assert float(loss.detach()) == 0 and vectors.grad is not None and not vectors.grad.any()


def test_precision_leaves_out_matches_of_keypoints_without_a_label() -> None:
    log_p = torch.full((1, 4, 4), -20.0)
    for i, j in ((0, 0), (1, 2), (3, 3)):
        log_p[0, i, j] = -0.1
    log_p[0, 2, 1] = -5  # below the threshold
    matched = torch.zeros(1, 4, 4, dtype=torch.bool)
    matched[0, 0, 0] = matched[0, 2, 1] = True
    alone_a = torch.tensor([[False, True, False, False]])
    labels = Labels(matched, alone_a, torch.zeros(1, 4, dtype=torch.bool))
    part = LogAssignment(log_p, torch.zeros(1, 4), torch.zeros(1, 4))
    figures = match_figures(part, labels)
    assert float(figures["precision"]) == 0.5  # (1, 2) is wrong; (3, 3) has no label
    assert float(figures["recall"]) == 0.5


def test_losses_are_float32_under_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = matcher_objective([head(0)], truth(), 0.5)
    assert result.loss.dtype == torch.float32
