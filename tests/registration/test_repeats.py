"""Rivals of a model: found in next-best matches, decided by the pictures."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from support.registered import all_inliers, fit_of
from support.situations import facade_pair, shift
from tiepoint.images.reading import SourceImage
from tiepoint.registration import repeats
from tiepoint.registration.appearance import picture_of
from tiepoint.registration.fit import Fit
from tiepoint.registration.repeats import find_rivals

Points = NDArray[np.float64]


def grid(period_px: float, noise_px: float = 0.3) -> tuple[Points, Points, NDArray[np.float32]]:
    """Points of B are those of A; each is similar to all at multiples of the period in x."""
    rng = np.random.default_rng(0)
    kinds = rng.uniform(0, (period_px, 400), (12, 2))
    places = [kinds + np.array([period_px * k, 0]) for k in range(7)]
    xy_a = np.concatenate(places)  # N 2
    similarities = rng.uniform(-0.2, 0.3, (len(xy_a), len(xy_a))).astype(np.float32)
    kind = np.tile(np.arange(12), 7)
    similarities[kind[:, None] == kind] = 0.9
    return xy_a, xy_a + rng.normal(0, noise_px, xy_a.shape), similarities


def test_the_rivals_of_a_repeated_structure_are_a_period_away() -> None:
    xy_a, xy_b, similarities = grid(90)
    rivals = find_rivals("homography", np.eye(3), xy_a, xy_b, similarities, 1.0)
    shifts = np.array([rival.shift_xy for rival in rivals])
    assert {-2, -1, 1, 2} <= set(np.rint(shifts[:, 0] / 90)) and 0 not in np.rint(shifts[:, 0] / 90)
    np.testing.assert_allclose(shifts[:, 0], 90 * np.rint(shifts[:, 0] / 90), atol=1)
    assert rivals[0].strength == max(rival.strength for rival in rivals)
    np.testing.assert_allclose(rivals[0].matrix[0, 2], rivals[0].shift_xy[0], atol=2)


def test_shifts_are_in_px_of_b_and_periods_in_px_of_the_networks_input() -> None:
    xy_a, xy_b, similarities = grid(90)
    rivals = find_rivals("homography", np.eye(3) * (4, 4, 1), xy_a, 4 * xy_b, similarities, 4.0)
    assert abs(abs(rivals[0].shift_xy[0]) - 360) < 4


def test_structure_that_does_not_repeat_has_no_rivals() -> None:
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 500, (300, 2))
    similarities = rng.uniform(-0.2, 0.4, (300, 300)).astype(np.float32)
    np.fill_diagonal(similarities, 0.9)
    assert find_rivals("homography", np.eye(3), xy, xy, similarities, 1.0) == []


def test_no_keypoints_have_no_rivals() -> None:
    none, similarities = np.empty((0, 2)), np.empty((0, 4), np.float32)
    assert find_rivals("homography", np.eye(3), none, np.zeros((4, 2)), similarities, 1.0) == []


def repeated_fit(*, pictures: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None = None) -> Fit:
    """The identity, fitted to a structure with a period of 88 px."""
    xy_a, xy_b, similarities = grid(88, noise_px=0.1)
    fit = fit_of(xy_a, xy_b, all_inliers(np.eye(3), len(xy_a)))
    if pictures is not None:
        a, b = (picture_of(SourceImage(image, "array")) for image in pictures)
        fit = dataclasses.replace(fit, pictures=(a, b))
    fit.__dict__["similarities"] = similarities  # in place of descriptors
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
