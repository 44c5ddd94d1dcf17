"""Results: shapes held at birth, order kept, settings compared."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest

from tiepoint.errors import ConfigError
from tiepoint.features import Features, Matches, Provenance


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


def test_scales_are_one_for_each_keypoint_and_above_zero() -> None:
    scaled = replace(some(3), scales_px=np.array([1, 2, 4], np.float32))
    assert scaled.take(np.array([2, 0])).scales_px.tolist() == [4, 1]
    assert some(3).top(1).scales_px is None
    for bad in ([1, 2], [1, 2, 0], [1, 2, np.nan]):
        with pytest.raises(ConfigError, match="scales_px"):
            replace(some(3), scales_px=np.array(bad, np.float32))


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


MADE = Provenance(
    checkpoint="base",
    weights_sha256="x",
    rules="exact",
    settings={"max_side": 1024, "threshold": 0.1},
    engine="openvino",
    device="cpu",
    precision="f32",
    tiepoint_version="0",
)


def test_provenances_agree_whatever_the_engine_and_the_version() -> None:
    other = replace(MADE, engine="torch", device="cuda", tiepoint_version="1", revision="0" * 40)
    assert MADE.differences(other) == []


def test_settings_that_differ_are_named() -> None:
    other = replace(MADE, weights_sha256="y", settings={"max_side": 640, "threshold": 0.1})
    assert MADE.differences(other) == ["weights_sha256", "settings.max_side"]


def test_a_provenance_comes_back_from_json() -> None:
    assert Provenance.from_json(json.loads(json.dumps(MADE.to_json()))) == MADE


@pytest.mark.parametrize(
    "values",
    [None, [], {}, {"checkpoint": "base"}, {**MADE.to_json(), "extra": 1},
     {**MADE.to_json(), "settings": "none"}, {**MADE.to_json(), "engine": 3}],
)  # fmt: skip
def test_what_is_no_provenance_is_refused(values: object) -> None:
    with pytest.raises(ConfigError, match="provenance"):
        Provenance.from_json(values)


def test_the_arrays_of_a_result_are_read_only_and_the_callers_stay_writable() -> None:
    xy = np.zeros((2, 2), np.float32)
    features = Features(xy, np.ones(2, np.float32), None, (8, 8))
    for one in (features, features.top(1), pickle.loads(pickle.dumps(features))):
        with pytest.raises(ValueError, match="read-only"):
            one.xy[0] = 5
    xy[0] = 7
    matches = Matches(np.zeros((1, 2), np.int64), np.zeros(1, np.float32))
    with pytest.raises(ValueError, match="read-only"):
        matches.pairs[0] = 1


def test_a_scale_of_the_input_that_is_none_is_refused() -> None:
    for scale in (0.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match="px_per_input_px"):
            Features(
                np.zeros((0, 2), np.float32),
                np.zeros(0, np.float32),
                None,
                (8, 8),
                px_per_input_px=scale,
            )
