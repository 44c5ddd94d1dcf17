"""Rivals of a model: found in next-best matches, decided by the pictures."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from support.registered import all_inliers, fit_of
from support.situations import facade_pair, shift
from tiepoint.images.reading import SourceImage
from tiepoint.registration import repeats
from tiepoint.registration.appearance import picture_of
from tiepoint.registration.fit import Fit
from tiepoint.registration.repeats import find_rivals, similar_pairs

Points = NDArray[np.float64]
Similar = tuple[NDArray[np.int64], NDArray[np.int64]]


def grid(period_px: float, noise_px: float = 0.3) -> tuple[Points, Points, Similar]:
    """Points of B are those of A; each is similar to all at multiples of the period in x."""
    rng = np.random.default_rng(0)
    kinds = rng.uniform(0, (period_px, 400), (12, 2))
    places = [kinds + np.array([period_px * k, 0]) for k in range(7)]
    xy_a = np.concatenate(places)  # N 2
    kind = np.tile(np.arange(12), 7)
    similar = np.nonzero(kind[:, None] == kind)
    return xy_a, xy_a + rng.normal(0, noise_px, xy_a.shape), similar


def test_the_rivals_of_a_repeated_structure_are_a_period_away() -> None:
    xy_a, xy_b, similar = grid(90)
    rivals = find_rivals("homography", np.eye(3), xy_a, xy_b, similar, 1.0)
    shifts = np.array([rival.shift_xy for rival in rivals])
    assert {-2, -1, 1, 2} <= set(np.rint(shifts[:, 0] / 90)) and 0 not in np.rint(shifts[:, 0] / 90)
    np.testing.assert_allclose(shifts[:, 0], 90 * np.rint(shifts[:, 0] / 90), atol=1)
    assert rivals[0].strength == max(rival.strength for rival in rivals)
    np.testing.assert_allclose(rivals[0].matrix[0, 2], rivals[0].shift_xy[0], atol=2)


def test_shifts_are_in_px_of_b_and_periods_in_px_of_the_networks_input() -> None:
    xy_a, xy_b, similar = grid(90)
    rivals = find_rivals("homography", np.eye(3) * (4, 4, 1), xy_a, 4 * xy_b, similar, 4.0)
    assert abs(abs(rivals[0].shift_xy[0]) - 360) < 4


def test_structure_that_does_not_repeat_has_no_rivals() -> None:
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 500, (300, 2))
    similar = np.arange(300), np.arange(300)
    assert find_rivals("homography", np.eye(3), xy, xy, similar, 1.0) == []
    anywhere = rng.permutation(300), rng.permutation(300)
    assert find_rivals("homography", np.eye(3), xy, xy, anywhere, 1.0) == []


def test_no_keypoints_have_no_rivals() -> None:
    none, some = np.empty((0, 8), np.float32), np.ones((4, 8), np.float32)
    for a, b in ((none, some), (some, none)):
        similar = similar_pairs(a, b)
        xy_a, xy_b = np.zeros((len(a), 2)), np.zeros((len(b), 2))
        assert find_rivals("homography", np.eye(3), xy_a, xy_b, similar, 1.0) == []


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_similar_pairs_are_those_of_a_loop(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "_ROWS", rows)
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(40, 6)), rng.normal(size=(50, 6))
    a, b = (x.astype(np.float32) / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    expected = []
    for i, one in enumerate(a):
        cosines = [float(one @ other) for other in b]
        bar = max(*cosines, repeats.LEAST_SIMILARITY) - repeats.SIMILARITY_GAP
        expected += [(i, j) for j, cosine in enumerate(cosines) if cosine >= bar]
    found_a, found_b = similar_pairs(a.astype(np.float32), b.astype(np.float32))
    assert list(zip(found_a.tolist(), found_b.tolist(), strict=True)) == expected
    assert len(expected) > 40


@pytest.mark.parametrize("reach", [20, 600, 3000])
def test_peaks_are_those_of_the_whole_histogram(reach: float) -> None:
    rng = np.random.default_rng(4)
    places = rng.uniform(-reach, reach, (12, 2))
    shifts = np.concatenate([p + rng.normal(0, 2, (30, 2)) for p in places])
    shifts = np.concatenate([shifts, rng.uniform(-2 * reach, 2 * reach, (500, 2))])
    half = repeats._REACH_BINS // 2
    counts = np.zeros((2 * half, 2 * half))
    for x, y in np.floor(shifts / repeats._BIN_PX + 0.5).astype(int) + half:
        if 0 <= x < 2 * half and 0 <= y < 2 * half:
            counts[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] += 1
    expected = []
    for y, x in zip(*np.nonzero(counts >= repeats.LEAST_MATCHES), strict=True):
        around = counts[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3]
        place = (x - half) * repeats._BIN_PX, (y - half) * repeats._BIN_PX
        if counts[y, x] == around.max() and np.hypot(*place) > repeats._NEAR_PX:
            expected.append((place, counts[y, x]))
    expected.sort(key=lambda peak: -peak[1])
    found = [(tuple(place), strength) for place, strength in repeats._peaks(shifts)]
    assert found == expected


def test_shifts_beyond_reach_have_no_peak() -> None:
    assert repeats._peaks(np.full((20, 2), 1e6)) == []
    assert repeats._peaks(np.empty((0, 2))) == []


def repeated_fit(*, pictures: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None = None) -> Fit:
    """The identity, fitted to a structure with a period of 88 px."""
    xy_a, xy_b, _ = grid(88, noise_px=0.1)
    described = np.tile(np.eye(12, dtype=np.float32), (7, 1))  # one descriptor a kind
    fit = fit_of(xy_a, xy_b, all_inliers(np.eye(3), len(xy_a)))
    if pictures is not None:
        a, b = (picture_of(SourceImage(image, "array")) for image in pictures)
        fit = dataclasses.replace(fit, pictures=(a, b))
    fit.__dict__["descriptors"] = (described, described)
    return fit


def test_without_pictures_a_strong_rival_makes_the_model_ambiguous() -> None:
    rival, objection = repeats.decide(repeated_fit())
    assert rival is None and objection is not None
    assert objection.startswith("ambiguous: image A also fits 88 px to the ")


def test_pictures_decide_for_the_model_or_for_a_rival() -> None:
    a, b = facade_pair(0, 40)
    assert repeats.decide(repeated_fit(pictures=(a, b))) == (None, None)
    a, b = facade_pair(88, 40)  # x_B = x_A - 88
    rival, objection = repeats.decide(repeated_fit(pictures=(a, b)))
    assert objection is None and rival is not None
    assert abs(rival.shift_xy[0] + 88) < 2


def test_pictures_that_cannot_decide_leave_the_model_ambiguous() -> None:
    rival, objection = repeats.decide(repeated_fit(pictures=facade_pair(0, 0)))
    assert rival is None and objection is not None and "ambiguous" in objection


def test_the_objection_names_direction_and_images() -> None:
    fit = repeated_fit()
    rival = repeats.Rival(shift(-12, 40), np.array([-12.0, 40.0]), 0.5)
    assert "fits 12 px to the left and 40 px down in image B" in repeats.ambiguous(fit, rival)
    rival = repeats.Rival(shift(12, 0.2), np.array([12.0, 0.2]), 0.5)
    named = dataclasses.replace(fit, names=("B", "A"))
    assert "image B also fits 12 px to the right in image A" in repeats.ambiguous(named, rival)
