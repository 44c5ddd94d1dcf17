"""Results: shapes held at birth, order kept, settings compared."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from tiepoint.errors import ConfigError
from tiepoint.features import Features, Matches, different_settings


def some(count: int = 3) -> Features:
    xy = np.arange(2 * count, dtype=np.float32).reshape(count, 2)
    scores = np.linspace(1, 0.5, count, dtype=np.float32)
    return Features(xy, scores, np.eye(count, 4, dtype=np.float32), (10, 20), {"source": "a"})


def test_length_is_the_number_of_keypoints_and_the_text_says_it() -> None:
    assert len(some(3)) == 3
    assert repr(some(3)) == "Features(3 keypoints, descriptors 4-D, image 20x10 px)"


def test_the_top_are_the_first() -> None:
    top = some(3).top(2)
    assert len(top) == 2 and top.meta == {"source": "a"}
    np.testing.assert_array_equal(top.descriptors, some(3).descriptors[:2])
    assert len(some(3).top(0)) == 0 and len(some(3).top(9)) == 3


def test_taking_by_a_mask_keeps_the_rows_together() -> None:
    taken = some(3).take(np.array([True, False, True]))
    assert taken.xy.tolist() == [[0, 1], [4, 5]] and len(taken.descriptors) == 2


def test_features_travel_through_pickle() -> None:
    again = pickle.loads(pickle.dumps(some()))
    np.testing.assert_array_equal(again.xy, some().xy)
    assert again.size_hw == (10, 20) and again.meta == {"source": "a"}


@pytest.mark.parametrize(
    ("xy", "scores", "descriptors"),
    [((3, 3), (3,), None), ((3, 2), (2,), None), ((3, 2), (3,), (2, 4)), ((3, 2), (3,), (3,))],
)
def test_shapes_that_do_not_fit_are_refused(xy, scores, descriptors) -> None:
    with pytest.raises(ConfigError, match="features"):
        Features(
            np.zeros(xy, np.float32),
            np.zeros(scores, np.float32),
            None if descriptors is None else np.zeros(descriptors, np.float32),
            (8, 8),
        )


def test_matches_hold_pairs_and_scores_of_one_length() -> None:
    assert repr(Matches(np.zeros((2, 2), np.int64), np.zeros(2, np.float32))) == "Matches(2 pairs)"
    with pytest.raises(ConfigError, match="matches"):
        Matches(np.zeros((2, 3), np.int64), np.zeros(2, np.float32))


def test_settings_agree_whatever_the_source_and_the_engine() -> None:
    a = {"sha256": "x", "settings": {"max_side": 1024}, "engine": "openvino", "source": "a.jpg"}
    b = {**a, "engine": "torch", "source": "b.jpg", "exif_orientation": 6}
    assert different_settings(a, b) == []


def test_settings_that_differ_are_named() -> None:
    a = {"sha256": "x", "settings": {"max_side": 1024, "threshold": 0.1}}
    b = {"sha256": "y", "settings": {"max_side": 640, "threshold": 0.1}}
    assert different_settings(a, b) == ["settings.max_side", "sha256"]
