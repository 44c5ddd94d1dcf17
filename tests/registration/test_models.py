"""The table of models agrees with the mathematics and with OpenCV's minimal solvers."""

from __future__ import annotations

from typing import get_args

import cv2
import numpy as np
import pytest

from support.registered import CAMERA, MATRICES, scattered, two_views
from tiepoint.config import Model, RegistrationConfig
from tiepoint.geometry import apply_homography
from tiepoint.registration import epipolar
from tiepoint.registration.models import MODELS, PLANE_MODELS, TWO_VIEW_MODELS, inlier_px


def test_the_table_has_every_model_of_the_settings_once() -> None:
    assert tuple(MODELS) == get_args(Model)
    assert {*PLANE_MODELS, *TWO_VIEW_MODELS} == set(MODELS)
    assert not set(PLANE_MODELS) & set(TWO_VIEW_MODELS)


@pytest.mark.parametrize("model", MODELS)
def test_a_minimal_sample_has_as_many_equations_as_the_model_has_unknowns(model: Model) -> None:
    facts = MODELS[model]
    equations = 2 if facts.kind == "plane" else 1
    assert equations * facts.sample_size == facts.degrees_of_freedom


def rank_of_changes(images: list[np.ndarray]) -> int:
    """Rank of the changes of transformed points between models of one family."""
    changes = np.array([(image - images[0]).ravel() for image in images[1:]])
    return int(np.linalg.matrix_rank(changes / np.abs(changes).max(), tol=1e-6))


@pytest.mark.parametrize("model", PLANE_MODELS)
def test_plane_models_move_points_in_as_many_ways_as_the_table_has(model: Model) -> None:
    """Small changes of the parameters of each family, written down one by one."""
    families = {
        "translation": [(0, 2), (1, 2)],
        "similarity": [(0, 2), (1, 2), "scale", "rotate"],
        "affine": [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)],
        "homography": [(i, j) for i in range(3) for j in range(3)],
    }
    xy = scattered(20) / 640
    images = [apply_homography(np.eye(3), xy)]
    for change in families[model]:
        matrix = np.eye(3)
        if change == "scale":
            matrix[[0, 1], [0, 1]] += 1e-6
        elif change == "rotate":
            matrix[0, 1], matrix[1, 0] = -1e-6, 1e-6
        else:
            matrix[change] += 1e-6
        images.append(apply_homography(matrix, xy))
    assert rank_of_changes(images) == MODELS[model].degrees_of_freedom


def test_seven_points_give_up_to_three_fundamental_matrices() -> None:
    counts = set()
    for seed in range(20):
        a, b = two_views(7, seed=seed)
        matrices, _ = cv2.findFundamentalMat(a, b, cv2.FM_7POINT)
        counts.add(0 if matrices is None else len(matrices) // 3)
    assert max(counts) == MODELS["fundamental"].solutions


def test_five_points_give_no_more_essential_matrices_than_the_table_has() -> None:
    counts = set()
    for seed in range(20):
        a, b = two_views(5, noise_px=30.0, seed=seed)
        rays_a, rays_b = (epipolar.rays(xy, CAMERA) for xy in (a, b))
        matrices, _ = cv2.findEssentialMat(rays_a, rays_b, np.eye(3), method=cv2.RANSAC)
        counts.add(0 if matrices is None else len(matrices) // 3)
    assert 1 < max(counts) <= MODELS["essential"].solutions


def test_the_inlier_threshold_is_the_settings_or_else_the_models() -> None:
    for model, facts in MODELS.items():
        assert inlier_px(RegistrationConfig(model=model)) == facts.inlier_px
        assert inlier_px(RegistrationConfig(model=model, threshold_px=0.7)) == 0.7


def test_a_phrase_reads_as_a_part_of_a_sentence() -> None:
    for facts in MODELS.values():
        article, noun = facts.phrase.split(" ", maxsplit=1)
        assert article == ("an" if noun[0] in "aeiou" else "a")


def test_the_true_matrices_of_the_tests_belong_to_their_models() -> None:
    for model, matrix in MATRICES.items():
        assert np.linalg.det(matrix) > 0
        if model != "homography":
            np.testing.assert_array_equal(matrix[2], [0, 0, 1])
