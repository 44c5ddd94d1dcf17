"""A matcher's first weights give about the mutual nearest neighbours."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from support.learned_matchers import matcher_input, related_features
from tiepoint.matching.learned.architecture import MatcherConfig
from tiepoint.matching.learned.network_torch import MatcherNetwork, Points, log_assignment
from tiepoint.training.matcher.losses import mutual_maxima
from tiepoint.training.matcher.start import first_weights, frequencies, principal_axes

D = 16


def correlated(count: int, seed: int = 0) -> np.ndarray:
    """Unit descriptors with a mean and with channels that depend on each other."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(count, D)) @ rng.normal(size=(D, D)) + 1.5
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("width", [D, 24])  # without and with an input projection
def test_the_matches_of_every_layer_are_those_of_nearest_neighbours(width: int) -> None:
    config = MatcherConfig(D, width=width, heads=2, layers=3)
    a, b = related_features(60, D)
    sample = np.concatenate([a.descriptors, b.descriptors])
    network = MatcherNetwork(config)
    network.load_state_dict(first_weights(config, 0, sample))
    sides = [matcher_input(one) for one in (a, b)]
    points = [Points(*(torch.tensor(one)[None] for one in side)) for side in sides]
    cosines = torch.tensor(a.descriptors @ b.descriptors.T)[None]
    expected = mutual_maxima(cosines, 0)
    with torch.no_grad():
        for head in network(*points):
            found = mutual_maxima(log_assignment(head).matched, 0)
            assert (found & expected).sum() >= 0.9 * expected.sum() > 0


def test_the_layers_change_something_after_one_step() -> None:
    config = MatcherConfig(D, width=24, heads=2, layers=2)
    network = MatcherNetwork(config)
    network.load_state_dict(first_weights(config, 0, correlated(100)))
    a, b = (matcher_input(one) for one in related_features(20, D))
    sides = [Points(*(torch.tensor(one)[None] for one in side)) for side in (a, b)]
    sum(log_assignment(head).matched.sum() for head in network(*sides)).backward()
    for layer in config.matcher_layers():
        for block in (layer.self_block, layer.cross_block):
            assert network.get_parameter(f"{block.contract.name}.weight").grad.abs().max() > 0


def test_principal_axes_are_those_of_the_covariance_without_the_mean() -> None:
    values = correlated(500)
    mean, axes = principal_axes(values, 5)
    np.testing.assert_allclose(mean, values.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(axes @ axes.T, np.eye(5), atol=1e-9)
    variances = ((values - mean) @ axes.T).var(axis=0)
    assert (np.diff(variances) <= 0).all()
    singular = np.linalg.svd(values - mean, compute_uv=False)[:5] ** 2 / len(values)
    np.testing.assert_allclose(variances, singular, rtol=1e-5)


@pytest.mark.parametrize("count", [0, 1])
def test_without_a_sample_the_axes_are_the_channels(count: int) -> None:
    mean, axes = principal_axes(correlated(count), 4)
    assert np.array_equal(mean, np.zeros(D)) and np.array_equal(axes, np.eye(D)[:4])


def test_frequencies_cover_the_range_in_all_directions() -> None:
    waves = frequencies(24)
    radii = np.linalg.norm(waves, axis=1)
    assert radii[0] == pytest.approx(1) and radii[-1] == pytest.approx(32)
    angles = np.sort(np.arctan2(waves[:, 1], waves[:, 0]))
    assert np.diff(angles).max() < 1
