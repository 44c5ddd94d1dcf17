"""The pairs of a collection that are chosen for matching."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tiepoint.batch.pair_choice import choose_pairs
from tiepoint.config import PairConfig
from tiepoint.errors import ConfigError, FormatError, TiepointError
from tiepoint.features import Features

NAMES = ["left/0.jpg", "left/1.jpg", "right/2.jpg", "right/3.jpg"]


def features(axis: int | None, length: int = 4) -> Features:
    """One keypoint, whose descriptor is along an axis."""
    descriptors = None if axis is None else np.eye(length, dtype=np.float32)[[axis]]
    return Features(np.zeros((1, 2), np.float32), np.ones(1, np.float32), descriptors, (8, 8))


def collection(*axes: int | None) -> dict[str, Features]:
    return {name: features(axis) for name, axis in zip(NAMES, axes, strict=False)}


def indices(pairs: list[tuple[str, str]]) -> list[tuple[int, int]]:
    return [(NAMES.index(a), NAMES.index(b)) for a, b in pairs]


@pytest.mark.parametrize("rule", ["all", "sequential", "similar"])
@pytest.mark.parametrize("count", [0, 1])
def test_less_than_two_images_give_no_pair(rule: str, count: int) -> None:
    assert choose_pairs(collection(*[0] * count), PairConfig(rule)) == []


def test_all_pairs_are_the_default() -> None:
    pairs = indices(choose_pairs(collection(0, 1, 2, 3), PairConfig()))
    assert pairs == [(i, j) for i in range(4) for j in range(i + 1, 4)]


def test_a_sequence_has_a_window_and_may_reach_further() -> None:
    images = collection(0, 1, 2, 3)
    near = choose_pairs(images, PairConfig("sequential", window=1))
    assert indices(near) == [(0, 1), (1, 2), (2, 3)]
    far = choose_pairs(images, PairConfig("sequential", window=2, quadratic=True))
    assert indices(far) == [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)]


def test_the_most_similar_images_are_paired() -> None:
    pairs = choose_pairs(collection(0, 1, 0, 1), PairConfig("similar", k=1))
    assert indices(pairs) == [(0, 2), (1, 3)]


def test_images_without_descriptors_are_reported_and_in_no_pair() -> None:
    errors: list[TiepointError] = []
    pairs = choose_pairs(collection(0, None, 0, 0), PairConfig("similar"), errors.append)
    assert indices(pairs) == [(0, 2), (0, 3), (2, 3)]
    assert len(errors) == 1 and "no descriptors" in str(errors[0])
    assert choose_pairs(collection(None, None), PairConfig("similar")) == []


def test_similar_images_need_descriptors_of_one_length() -> None:
    images = {"a": features(0), "b": features(0, length=6)}
    with pytest.raises(ConfigError, match="descriptors of different lengths: detect again"):
        choose_pairs(images, PairConfig("similar"))


def test_a_list_names_the_pairs(here: Path) -> None:
    Path("pairs.txt").write_text("right/3.jpg left/1.jpg\nleft/0.jpg right/2.jpg\n")
    pairs = choose_pairs(collection(0, 1, 2, 3), PairConfig("pairs.txt"))
    assert indices(pairs) == [(3, 1), (0, 2)]
    with pytest.raises(FormatError, match="line 1: no image 'right/3.jpg'"):
        choose_pairs(collection(0, 1), PairConfig("pairs.txt"))


def test_an_unknown_rule_is_refused_with_those_there_are(here: Path) -> None:
    message = "pairs is 'some', expected 'all', 'sequential', 'similar', or a text file"
    with pytest.raises(ConfigError, match=message):
        choose_pairs(collection(0, 1), PairConfig("some"))
