"""Derivatives of plane models."""

from __future__ import annotations

import numpy as np
import pytest

from support.registered import MATRICES, scattered
from tiepoint.geometry import apply_homography
from tiepoint.registration import derivatives
from tiepoint.registration.models import MODELS as FACTS

MODELS = sorted(MATRICES)


@pytest.mark.parametrize("model", MODELS)
def test_the_derivatives_by_the_position_are_those_of_finite_differences(model: str) -> None:
    """The Jacobian of a transformed point, by small steps in x and y."""
    matrix, xy, step = MATRICES[model], scattered(10), 1e-4
    for point, jacobian in zip(xy, derivatives.local_jacobian(matrix, xy), strict=True):
        ends = point + step * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
        right, left, down, up = apply_homography(matrix, ends)
        expected = np.stack([right - left, down - up], axis=1) / (2 * step)
        np.testing.assert_allclose(jacobian, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("model", MODELS)
def test_the_derivatives_by_the_parameters_are_those_of_finite_differences(model: str) -> None:
    xy, step = scattered(10), 1e-6
    local = derivatives.local_coordinates(xy)
    points = derivatives.in_local(local, xy)
    np.testing.assert_allclose(points[:, :2] * local[0, 0] + local[:2, 2], xy)
    assert np.abs(points).max() == 1
    from_local = MATRICES[model] @ local
    tangent, slopes = derivatives.linearised(model, from_local, points)
    assert tangent.shape == (9, FACTS[model].degrees_of_freedom)
    from_local /= np.linalg.norm(from_local)
    for direction, slope in zip(tangent.T, slopes.transpose(2, 1, 0), strict=True):
        ends = [
            apply_homography(from_local + sign * step * direction.reshape(3, 3), points[:, :2])
            for sign in (1, -1)
        ]
        np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * step), rtol=1e-5, atol=1e-4)


def test_points_behind_the_camera_have_no_derivatives() -> None:
    matrix = np.array([[1.0, 0, 0], [0, 1, 0], [-0.01, 0, 1]])  # w = 0 at x = 100
    points = derivatives.homogeneous(np.array([[50.0, 3], [150, 3]]))
    _, slopes = derivatives.linearised("homography", matrix, points)
    assert np.isfinite(slopes[:, 0]).all() and not np.isfinite(slopes[:, 1]).any()
