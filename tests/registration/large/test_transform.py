"""The map between two large images, its inverse and its slopes."""

from __future__ import annotations

import numpy as np
import pytest

from tiepoint.geometry import apply_homography
from tiepoint.registration.large.deformation import Deformation
from tiepoint.registration.large.transform import LargeTransform

MATRIX = np.array([[0.9, 0.12, 40], [-0.1, 0.95, 30], [1e-5, -5e-6, 1]])
BENT = LargeTransform(
    MATRIX,
    Deformation((0.0, 0.0), 200.0, np.random.default_rng(0).normal(0, 8, (8, 9, 2))),
)
PLACES = np.random.default_rng(1).uniform(-100, 1300, (300, 2))


@pytest.mark.parametrize("transform", [LargeTransform(MATRIX), BENT], ids=["plane", "bent"])
def test_the_inverse_leads_back(transform: LargeTransform) -> None:
    back = transform.inverse(transform.forward(PLACES))
    np.testing.assert_allclose(back, PLACES, atol=1e-5)
    there = transform.forward(transform.inverse(PLACES))
    np.testing.assert_allclose(there, PLACES, atol=1e-5)


def test_a_displacement_is_added_to_the_plane() -> None:
    assert BENT.deformation is not None
    expected = apply_homography(MATRIX, PLACES) + BENT.deformation.at(PLACES)
    np.testing.assert_array_equal(BENT.forward(PLACES), expected)


@pytest.mark.parametrize("transform", [LargeTransform(MATRIX), BENT], ids=["plane", "bent"])
def test_the_slopes_are_those_of_small_steps(transform: LargeTransform) -> None:
    xy, step = PLACES[(PLACES > 1).all(axis=1) & (PLACES < 999).all(axis=1)], 1e-3
    along = [
        (transform.forward(xy + d) - transform.forward(xy - d)) / (2 * step)
        for d in np.eye(2) * step
    ]
    np.testing.assert_allclose(transform.slopes(xy), np.stack(along, axis=2), atol=1e-5)


def test_places_behind_the_camera_are_nan() -> None:
    tilted = LargeTransform(np.array([[1, 0, 0], [0, 1, 0], [-0.01, 0, 1.0]]))
    assert np.isnan(tilted.forward(np.array([[200.0, 0]]))).all()
    assert np.isnan(BENT.inverse(np.array([[np.nan, 0]]))).all()


def test_a_fold_has_no_inverse() -> None:
    steep = np.zeros((8, 8, 2))
    steep[:, 4, 0] = 4000
    folded = LargeTransform(np.eye(3), Deformation((0.0, 0.0), 100.0, steep))
    there = np.stack(np.meshgrid(np.linspace(0, 500, 30), [250.0]), axis=2).reshape(-1, 2)
    back = folded.inverse(there)
    known = np.isfinite(back).all(axis=1)
    np.testing.assert_allclose(folded.forward(back[known]), there[known], atol=1e-4)


def test_only_an_affine_matrix_is_affine() -> None:
    assert LargeTransform(np.array([[1, 2, 3], [4, 5, 6], [0, 0, 1.0]])).is_affine
    assert not LargeTransform(MATRIX).is_affine
    assert not BENT.is_affine
