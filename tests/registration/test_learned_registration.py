"""`register(method="learned")`: matches of a learned matcher, then everything as before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from support.learned_matchers import random_features, saved
from support.provenance import made
from support.registered import MATRICES, SIZE_HW, carried, corners_off_px, matched
from tiepoint.errors import ConfigError
from tiepoint.features import Features
from tiepoint.matching.learned.matcher import LearnedMatcher
from tiepoint.matching.match import match
from tiepoint.registration.register import register

LENGTH = 16


@pytest.fixture(scope="module")
def matcher(tmp_path_factory: pytest.TempPathFactory) -> LearnedMatcher:
    return LearnedMatcher(saved(tmp_path_factory.mktemp("matcher")))


def described(wrong: int = 60) -> tuple[Features, Features]:
    """Points of two images that a homography relates, with noisy descriptors, in other orders."""
    random = np.random.default_rng(4)
    xy_a, xy_b = carried(MATRICES["homography"], 240, noise_px=0.4)
    rows = random.normal(size=(240, LENGTH))
    noisy = rows + 0.1 * random.normal(size=rows.shape)
    noisy[:wrong] = random.normal(size=(wrong, LENGTH))  # of something else
    order = random.permutation(240)
    scores = np.linspace(1, 0.5, 240, dtype=np.float32)
    sides = []
    for xy, values in ((xy_a, rows), (xy_b[order], noisy[order])):
        unit = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)
        sides.append(Features(xy.astype(np.float32), scores, unit, SIZE_HW, provenance=made()))
    return sides[0], sides[1]


def test_matches_of_a_learned_matcher_are_registered(matcher: LearnedMatcher) -> None:
    a, b = described()
    result = register(a, b, method="learned", matcher=matcher, guided=False)
    assert result.success, result.reason
    assert corners_off_px(result, MATRICES["homography"]) < 1.5
    assert result.matches.meta["matcher_sha256"] == matcher.checkpoint.sha256
    assert (result.matches.scores <= 1).all() and len(result.matches) > 150
    back = register(b, a, method="learned", matcher=matcher, guided=False)
    assert back.matrix is not None and result.matrix is not None
    product = back.matrix @ result.matrix
    np.testing.assert_allclose(product / product[2, 2], np.eye(3), atol=1e-9)


def test_guided_matching_follows_as_after_nearest_neighbours(matcher: LearnedMatcher) -> None:
    a, b = described()
    learned = register(a, b, method="learned", matcher=matcher)
    nearest = register(a, b)
    assert learned.success and "guided_px" in learned.matches.meta
    assert set(map(tuple, learned.matches.pairs)) == set(map(tuple, nearest.matches.pairs))


def test_the_number_of_layers_reaches_the_matcher(matcher: LearnedMatcher) -> None:
    a, b = described()
    result = register(
        a, b, method="learned", matcher=matcher.checkpoint.name, layers=1, guided=False
    )
    assert result.matches.meta["settings"]["layers"] == 1


def test_where_the_matcher_finds_nothing_nearest_neighbours_are_tried(
    matcher: LearnedMatcher,
) -> None:
    tensors = matcher.checkpoint.tensors
    unmatchable = {
        name: np.full_like(array, -50) if name.endswith("matchability.bias") else array
        for name, array in tensors.items()
    }
    blind = LearnedMatcher(replace(matcher.checkpoint, tensors=unmatchable))
    a, b = described()
    assert len(match(a, b, method="learned", matcher=blind)) == 0
    result, nearest = register(a, b, method="learned", matcher=blind), register(a, b)
    assert result.success and result.matches.meta.get("matcher_sha256") is None
    np.testing.assert_array_equal(result.matrix, nearest.matrix)


@pytest.mark.parametrize(("count_a", "count_b"), [(0, 0), (0, 40), (1, 1), (1, 40), (300, 300)])
def test_images_with_nothing_in_common_are_refused_with_a_reason(
    count_a: int, count_b: int, matcher: LearnedMatcher
) -> None:
    a, b = random_features(count_a, LENGTH, 1), random_features(count_b, LENGTH, 2)
    result = register(a, b, method="learned", matcher=matcher)
    assert not result.success and result.matrix is None
    assert result.reason


def test_a_method_that_contradicts_other_arguments_is_refused(matcher: LearnedMatcher) -> None:
    a, b = described()
    with pytest.raises(ConfigError, match="matcher is given for method='nearest'"):
        register(a, b, matcher=matcher)
    with pytest.raises(ConfigError, match="layers needs method='learned'"):
        register(a, b, layers=2)
    with pytest.raises(ConfigError, match="matches are given, which need no method"):
        register(*matched(a.xy, b.xy)[:2], matches=matched(a.xy, b.xy)[2], method="learned")
    unknown = replace(a, provenance=None), replace(b, provenance=None)
    with pytest.raises(ConfigError, match="without provenance"):
        register(*unknown, method="learned")
