"""The torch network of the learned matcher is fit for training: padding, depths, gradients."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from support.learned_matchers import (
    matcher_input,
    random_features,
    random_tensors,
    related_features,
    slow_matcher,
)
from tiepoint.matching.learned.architecture import MatcherConfig
from tiepoint.matching.learned.inputs import MatcherInput
from tiepoint.matching.learned.network_torch import (
    Head,
    LogAssignment,
    MatcherNetwork,
    Points,
    is_tied,
    log_assignment,
)

CONFIG = MatcherConfig(descriptor_length=16, width=24, heads=2, layers=3)


def batch(sides: list[MatcherInput], count: int) -> Points:
    """Padded with values that would be seen: large positions and descriptors."""
    xy = np.full((len(sides), count, 2), 9, np.float32)
    descriptors = np.full((len(sides), count, CONFIG.descriptor_length), 7, np.float32)
    valid = np.zeros((len(sides), count), bool)
    for i, side in enumerate(sides):
        own = len(side.xy)
        xy[i, :own], descriptors[i, :own], valid[i, :own] = side.xy, side.descriptors, True
    return Points(*(torch.from_numpy(one) for one in (xy, descriptors, valid)))


def pairs() -> tuple[list[MatcherInput], list[MatcherInput]]:
    features = [related_features(count, 16, seed=count) for count in (30, 12, 21)]
    return [matcher_input(a) for a, _ in features], [matcher_input(b) for _, b in features]


@pytest.mark.parametrize("training", [False, True])
def test_every_layer_of_a_padded_batch_equals_the_slow_twin(training: bool) -> None:
    tensors = random_tensors(CONFIG)
    sides_a, sides_b = pairs()
    with torch.set_grad_enabled(training):
        heads = MatcherNetwork.of(CONFIG, tensors)(batch(sides_a, 33), batch(sides_b, 26))
    assert len(heads) == CONFIG.layers
    for layer, head in enumerate(heads, 1):
        log_p = LogAssignment(*(one.detach() for one in log_assignment(head)))
        assert log_p.matched.dtype == torch.float32 and log_p.matched.isfinite().all()
        for i, (a, b) in enumerate(zip(sides_a, sides_b, strict=True)):
            expected = slow_matcher(CONFIG, tensors, a, b, layer)
            own = log_p.matched[i, : len(a.xy), : len(b.xy)]
            np.testing.assert_allclose(own.exp(), np.exp(expected.log_assignment), atol=1e-5)
            unmatched = log_p.unmatched_a[i, : len(a.xy)].exp()
            np.testing.assert_allclose(unmatched, 1 - expected.matchability_a, atol=1e-5)


def test_an_image_without_keypoints_in_a_batch_leaves_results_and_gradients_finite() -> None:
    sides_a, sides_b = pairs()
    sides_b[1] = matcher_input(random_features(0, 16))
    network = MatcherNetwork.of(CONFIG, random_tensors(CONFIG))
    a, b = batch(sides_a, 33), batch(sides_b, 26)
    total = sum(log_assignment(head).matched[0].exp().sum() for head in network(a, b))
    total.backward()
    gradients = [one.grad for one in network.parameters() if one.grad is not None]
    assert all(one.isfinite().all() for one in gradients)
    b.descriptors[1], b.xy[1] = 3, -5  # padding only
    with torch.no_grad():
        first = network(a, b)[-1].matchability_a[1]
        b.descriptors[1], b.xy[1] = -1, 2
        assert torch.equal(first, network(a, b)[-1].matchability_a[1])


def test_all_weights_but_those_of_early_stopping_learn() -> None:
    network = MatcherNetwork(CONFIG)
    sides_a, sides_b = pairs()
    heads: list[Head] = network(batch(sides_a, 33), batch(sides_b, 26))
    parts = [log_assignment(head) for head in heads]
    sum(p.matched[:, :12, :8].sum() + p.unmatched_a[:, :12].sum() for p in parts).backward()
    still = {
        name for name, one in network.named_parameters()
        if one.grad is None or not one.grad.abs().sum() > 0
    }  # fmt: skip
    assert still == {
        f"token_confidence.{i}.token.{part}" for i in (0, 1) for part in ("weight", "bias")
    }


def test_a_few_steps_lower_the_loss_of_a_pair() -> None:
    torch.manual_seed(0)
    network = MatcherNetwork(MatcherConfig(16, width=16, heads=1, layers=1))
    a, b = related_features(15, 16)
    points = [batch([matcher_input(one)], len(one)) for one in (a, b)]
    order = np.random.default_rng(1).permutation(15)[:10]  # of `related_features`
    matches = torch.from_numpy(order), torch.arange(10)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        loss = -log_assignment(network(*points)[0]).matched[0][matches].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 4


def test_queries_and_keys_of_the_cross_attention_stay_one_map_unless_given_apart() -> None:
    network = MatcherNetwork(CONFIG)
    assert is_tied(CONFIG, network.arrays())
    assert set(network.arrays()) == set(CONFIG.tensor_shapes())
    apart = random_tensors(CONFIG, tied=False)
    assert not is_tied(CONFIG, apart)
    loaded = MatcherNetwork.of(CONFIG, apart).arrays()
    assert all(np.array_equal(loaded[name], apart[name]) for name in apart)
    counts = [len(list(MatcherNetwork.of(CONFIG, t).parameters())) for t in (apart, loaded)]
    tied = len(list(network.parameters()))
    assert counts == [tied + 2 * CONFIG.layers] * 2


def test_under_autocast_positions_and_probabilities_stay_in_float32() -> None:
    network = MatcherNetwork.of(CONFIG, random_tensors(CONFIG))
    points = [batch(sides, 33) for sides in pairs()]
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        head = network(*points)[-1]
        log_p = log_assignment(head)
        cosine, _ = network._rotation(points[0].xy)
    assert log_p.matched.dtype == log_p.unmatched_b.dtype == torch.float32
    assert head.projected_a.dtype == torch.bfloat16
    with torch.no_grad():
        assert torch.equal(cosine, network._rotation(points[0].xy)[0])


def test_fewer_layers_are_the_first_ones() -> None:
    network = MatcherNetwork.of(CONFIG, random_tensors(CONFIG))
    points = [batch(sides, 33) for sides in pairs()]
    with torch.no_grad():
        every, two = network(*points), network(*points, layers=2)
    assert len(two) == 2 and torch.equal(two[1].projected_a, every[1].projected_a)
