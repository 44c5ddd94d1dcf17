"""Planar models: consensus, least squares, and how well they are known."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from support.registered import MATRICES, SIZE_HW, carried, scattered
from tiepoint.geometry import apply_homography, corners_xy
from tiepoint.registration import models, planar

MODELS = sorted(MATRICES)


def worst_corner_px(found: np.ndarray | None, truth: np.ndarray) -> float:
    assert found is not None
    corners = corners_xy(SIZE_HW)
    apart = apply_homography(found, corners) - apply_homography(truth, corners)
    return float(np.abs(apart).max())


def least_squares(model: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`refine` with a reach that weighs all matches alike, from a model that is off."""
    start = MATRICES[model] @ [[1, 0, 3], [0, 1, -2], [0, 0, 1]]
    return planar.refine(model, start, a, b, 1e9)[0]


def deviation(
    model: str,
    matrix: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    places: np.ndarray,
    within_px: float = 1e9,
) -> np.ndarray:
    """P: root of the variances in x and y."""
    covariance = planar.model_covariance(model, matrix, a, b, within_px).at(places)
    return np.sqrt(np.trace(covariance, axis1=1, axis2=2))


@pytest.mark.parametrize("model", MODELS)
def test_exact_points_give_the_model_exactly(model: str) -> None:
    a, b = carried(MATRICES[model], count=40)
    assert worst_corner_px(least_squares(model, a, b), MATRICES[model]) < 1e-3


@pytest.mark.parametrize("model", MODELS)
def test_consensus_and_refinement_find_the_model_among_wrong_matches(model: str) -> None:
    a, b = carried(MATRICES[model], count=300, noise_px=0.5, wrong=150)
    start = planar.consensus(model, a, b, 1.5)
    assert start is not None
    matrix, inliers = planar.refine(model, start, a, b, 3.0)
    assert worst_corner_px(matrix, MATRICES[model]) < 0.5
    assert inliers[150:].all()
    assert inliers[:150].mean() < 0.05


@pytest.mark.parametrize("model", MODELS)
def test_matches_a_few_px_beside_the_right_place_do_not_bend_the_refinement(model: str) -> None:
    """Neighbours taken for the point itself, all to one side: least squares would follow them."""
    a, b = carried(MATRICES[model], count=300, noise_px=0.3)
    b[::3] += (4, 2)
    b[200::3] += (1, 0.5)
    start = planar.consensus(model, a, b, 1.5)
    assert start is not None
    matrix, _ = planar.refine(model, start, a, b, 3.0)
    plain = least_squares(model, a, b)
    off, bent = (worst_corner_px(found, MATRICES[model]) for found in (matrix, plain))
    assert off < 0.4 < bent


@pytest.mark.parametrize("model", MODELS)
def test_matches_that_scatter_more_weigh_less(model: str) -> None:
    """Deviations that separate good from poor matches make the model more precise."""
    gains = []
    for seed in range(12):
        a, b = carried(MATRICES[model], count=80, noise_px=0.1, seed=seed)
        deviation = np.where(np.arange(80) % 2, 0.1, 1.5)
        b += np.random.default_rng(seed).normal(0, deviation[:, None], (80, 2))
        off = [
            worst_corner_px(planar.refine(model, MATRICES[model], a, b, 3.0, d)[0], MATRICES[model])
            for d in (None, deviation)
        ]
        gains.append(off[0] / off[1])
    assert np.median(gains) > 1.5


def test_deviations_that_are_none_count_as_usual_ones() -> None:
    a, b = carried(MATRICES["homography"], count=60, noise_px=0.3)
    start = MATRICES["homography"]
    plain, _ = planar.refine("homography", start, a, b, 3.0)
    for wrong in (0.0, np.nan, np.inf):
        found, _ = planar.refine("homography", start, a, b, 3.0, np.full(60, wrong))
        np.testing.assert_allclose(found, plain)


def test_a_match_infinitely_far_away_and_of_no_precision_has_no_weight() -> None:
    a, b = carried(MATRICES["homography"], count=60, noise_px=0.3)
    deviation = np.ones(60)
    expected, _ = planar.refine("homography", MATRICES["homography"], a[1:], b[1:], 3.0)
    b[0], deviation[0] = np.inf, 1e12
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, inliers = planar.refine("homography", MATRICES["homography"], a, b, 3.0, deviation)
    assert not inliers[0]
    assert worst_corner_px(found, expected) < 1e-6


def test_the_deviation_of_a_match_is_what_both_images_scatter_by() -> None:
    """Monte Carlo: both positions disturbed by their covariances, then transformed."""
    matrix, rng = MATRICES["homography"], np.random.default_rng(0)
    a = scattered(5)
    around_a = np.array([[[s, 0.3], [0.3, 2 * s]] for s in (1, 2, 3, 4, 5)]) / 10  # px^2
    around_b = np.array([[[0.5, -0.1], [-0.1, 0.2]]] * 5)
    stated = planar.match_deviation_px(matrix, a, around_a, around_b)
    for point, of_a, of_b, deviation in zip(a, around_a, around_b, stated, strict=True):
        there = apply_homography(matrix, rng.multivariate_normal(point, of_a, 20_000))
        there += rng.multivariate_normal((0, 0), of_b, 20_000)
        assert np.sqrt(there.var(axis=0).mean()) == pytest.approx(deviation, rel=0.03)


@pytest.mark.parametrize("model", ["translation", "similarity", "affine"])
def test_least_squares_equals_the_slow_twin(model: str) -> None:
    a, b = carried(MATRICES[model], count=30, noise_px=2.0)
    rows, right = [], []
    for (x, y), (u, v) in zip(a, b, strict=True):
        if model == "translation":
            rows += [[1, 0], [0, 1]]
            right += [u - x, v - y]
        elif model == "similarity":
            rows += [[x, -y, 1, 0], [y, x, 0, 1]]
            right += [u, v]
        else:
            rows += [[x, y, 1, 0, 0, 0], [0, 0, 0, x, y, 1]]
            right += [u, v]
    s = np.linalg.solve(np.array(rows).T @ rows, np.array(rows).T @ right)
    expected = {
        "translation": lambda: [[1, 0, s[0]], [0, 1, s[1]], [0, 0, 1]],
        "similarity": lambda: [[s[0], -s[1], s[2]], [s[1], s[0], s[3]], [0, 0, 1]],
        "affine": lambda: [s[:3], s[3:], [0, 0, 1]],
    }[model]()
    np.testing.assert_allclose(least_squares(model, a, b), expected, atol=1e-6)


def test_the_homography_minimises_the_distances_in_b() -> None:
    a, b = carried(MATRICES["homography"], count=60, noise_px=1.0)
    found = least_squares("homography", a, b)
    assert found is not None
    least = (planar.distances_px(found, a, b) ** 2).sum()
    rng = np.random.default_rng(0)
    for _ in range(50):
        other = found * (1 + 1e-4 * rng.standard_normal((3, 3)))
        assert (planar.distances_px(other, a, b) ** 2).sum() >= least * (1 - 1e-6)


@pytest.mark.parametrize("count", [1, 5, 300])
def test_the_consensus_of_a_translation_equals_the_slow_twin(count: int) -> None:
    rng = np.random.default_rng(count)
    a = scattered(count)
    b = a + np.array([7.5, -3.25]) + rng.normal(0, 1, (count, 2))
    b[: count // 2] = scattered(count // 2, seed=5)
    costs = [
        sum(min(float(((b[j] - a[j] - b[i] + a[i]) ** 2).sum()), 1.5**2) for j in range(count))
        for i in range(count)
    ]
    best = int(np.argmin(costs))
    found = planar.consensus("translation", a, b, 1.5)
    assert found is not None
    np.testing.assert_allclose(found[:2, 2], b[best] - a[best])


@pytest.mark.parametrize("model", MODELS)
def test_too_few_points_give_no_model(model: str) -> None:
    for count in range(models.MODELS[model].sample_size):
        a, b = carried(MATRICES[model], count=count)
        assert planar.consensus(model, a, b, 1.5) is None
        start = MATRICES[model]
        assert planar.refine(model, start, a, b, 3.0)[0] is start


@pytest.mark.parametrize("model", ["similarity", "affine", "homography"])
def test_points_that_are_all_one_keep_the_model_finite(model: str) -> None:
    a = np.full((20, 2), 50.0)
    b = apply_homography(MATRICES[model], a)
    assert np.isfinite(planar.refine(model, MATRICES[model], a, b, 3.0)[0]).all()


@pytest.mark.parametrize("model", ["affine", "homography"])
def test_points_on_a_line_leave_the_model_unknown(model: str) -> None:
    x = np.linspace(10, 600, 40)
    a = np.stack([x, 0.5 * x + 20], axis=1)
    b = apply_homography(MATRICES["affine"], a)
    known = deviation(model, MATRICES["affine"], a, b, corners_xy(SIZE_HW))
    assert np.isinf(known).all()


@pytest.mark.parametrize("model", MODELS)
def test_the_deviation_equals_that_of_repeated_measurements(model: str) -> None:
    truth, places = MATRICES[model], np.array([[0.0, 0], [639, 479], [320, 240]])
    clean_a, clean_b = carried(truth, count=60)
    rng = np.random.default_rng(9)
    seen, foretold = [], []
    for _ in range(400):
        b = clean_b + rng.normal(0, 0.7, clean_b.shape)
        found = least_squares(model, clean_a, b)
        assert found is not None
        seen.append(apply_homography(found, places))
        foretold.append(deviation(model, found, clean_a, b, places))
    scatter = np.sqrt(np.var(seen, axis=0).sum(axis=1))
    np.testing.assert_allclose(np.mean(foretold, axis=0), scatter, rtol=0.12)


def test_the_deviation_counts_what_wrong_matches_near_the_model_do_to_it() -> None:
    """Half of the matches are anywhere within 6 px, which plain least squares ignores."""
    truth, places = MATRICES["homography"], corners_xy(SIZE_HW)
    rng = np.random.default_rng(4)
    seen, foretold, plain = [], [], []
    for seed in range(200):
        a, b = carried(truth, count=90, noise_px=0.8, seed=seed)
        b[:45] += rng.uniform(-6, 6, (45, 2))
        found, inliers = planar.refine("homography", truth, a, b, 3.0)
        seen.append(apply_homography(found, places))
        foretold.append(deviation("homography", found, a, b, places, 3.0))
        plain.append(deviation("homography", found, a[inliers], b[inliers], places))
    scatter = np.sqrt(np.var(seen, axis=0).sum(axis=1))
    np.testing.assert_allclose(np.median(foretold, axis=0), scatter, rtol=0.25)
    assert np.mean(np.median(plain, axis=0) / scatter) < 0.9


def test_the_deviation_is_infinite_where_nothing_is_left_over_to_judge_by() -> None:
    a, b = carried(MATRICES["homography"], count=4)
    found = deviation("homography", MATRICES["homography"], a, b, a)
    assert np.isinf(found).all()


def test_distances_do_not_depend_on_the_sign_or_scale_of_the_matrix() -> None:
    a, b = carried(MATRICES["homography"], count=20, noise_px=1.0)
    expected = [
        float(np.linalg.norm(apply_homography(MATRICES["homography"], p)[0] - q))
        for p, q in zip(a, b, strict=True)
    ]
    for factor in (1, -1, -0.01):
        found = planar.distances_px(factor * MATRICES["homography"], a, b)
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_the_refinement_equals_iteratively_reweighted_least_squares_of_an_affine() -> None:
    """Slow twin: weights by Geman and McClure, then the normal equations, until nothing moves."""
    a, b = carried(MATRICES["affine"], count=80, noise_px=0.6, wrong=15)
    refined, _ = planar.refine("affine", MATRICES["affine"], a, b, 3.0)
    matrix, scale = MATRICES["affine"].copy(), planar.ROBUST_SHARE * 3.0
    design = np.column_stack([a, np.ones(80)])
    for _ in range(100):
        squares = ((apply_homography(matrix, a) - b) ** 2).sum(axis=1)
        weights = (1 + squares / scale**2) ** -2.0
        normal = design.T @ (weights[:, None] * design)
        matrix[:2] = np.linalg.solve(normal, design.T @ (weights[:, None] * b)).T
    np.testing.assert_allclose(refined, matrix, atol=0.02, rtol=1e-3)


def test_the_inliers_are_counted_after_the_last_step() -> None:
    a, b = carried(MATRICES["homography"], count=100, noise_px=1.5)
    matrix, inliers = planar.refine("homography", MATRICES["homography"], a, b, 3.0)
    np.testing.assert_array_equal(inliers, planar.distances_px(matrix, a, b) <= 3.0)
    assert 50 < inliers.sum() < 100


def test_refinement_never_makes_the_robust_cost_worse() -> None:
    def cost(matrix: np.ndarray) -> float:
        squares = (planar.distances_px(matrix, a, b) / (planar.ROBUST_SHARE * 3.0)) ** 2
        return float((squares / (1 + squares)).sum())

    for seed in range(10):
        a, b = carried(MATRICES["homography"], count=60, noise_px=1.0, wrong=30, seed=seed)
        start = MATRICES["homography"] @ [[1, 0, 1.5], [0, 1, -1], [0, 0, 1]]
        refined, _ = planar.refine("homography", start, a, b, 3.0)
        assert cost(refined) <= cost(start)


@pytest.mark.parametrize("estimate", [None, np.full((3, 3), np.nan), np.zeros((3, 3)), np.eye(2)])
def test_what_is_no_plane_model_becomes_none(estimate: np.ndarray | None) -> None:
    assert planar.as_matrix(estimate) is None


def test_an_affine_estimate_gets_its_last_row() -> None:
    matrix = planar.as_matrix(np.array([[1, 2, 3], [4, 5, 6]], np.float32))
    np.testing.assert_array_equal(matrix, [[1, 2, 3], [4, 5, 6], [0, 0, 1]])
    assert matrix is not None and matrix.dtype == np.float64
    np.testing.assert_array_equal(planar.as_matrix(MATRICES["homography"]), MATRICES["homography"])


def test_most_points_decide_which_side_is_in_front() -> None:
    matrix = np.array([[1.0, 0, 0], [0, 1, 0], [-0.01, 0, 1]])  # w = 0 at x = 100
    before, behind = np.array([[50.0, 0]]), np.array([[150.0, 0]])
    assert planar.facing(matrix, before) is matrix
    np.testing.assert_array_equal(planar.facing(matrix, behind), -matrix)
    assert planar.facing(matrix, np.concatenate([before, before, behind])) is matrix
    assert planar.facing(matrix, np.concatenate([before, behind])) is matrix
    assert planar.facing(matrix, np.empty((0, 2))) is matrix


def test_points_behind_the_camera_are_infinitely_far() -> None:
    matrix = np.array([[1.0, 0, 0], [0, 1, 0], [-0.01, 0, 1]])
    xy = np.array([[10.0, 0], [20, 0], [150, 0]])
    distances = planar.distances_px(matrix, xy, xy)
    assert np.isfinite(distances[:2]).all() and np.isinf(distances[2])


def test_the_deviation_falls_with_the_root_of_the_number_of_points() -> None:
    places = np.array([[320.0, 240.0]])
    sds = []
    for count in (50, 800):
        a, b = carried(MATRICES["affine"], count=count, noise_px=1.0)
        sds.append(deviation("affine", MATRICES["affine"], a, b, places)[0])
    assert sds[0] / sds[1] == pytest.approx(4, rel=0.25)


def test_the_deviation_grows_away_from_the_points() -> None:
    a, _ = carried(np.eye(3), count=60)
    a = 200 + a * 0.2
    b = a + np.random.default_rng(0).normal(0, 0.5, a.shape)
    places = np.array([[250.0, 250.0], [500, 250], [1000, 250], [2000, 250]])
    sds = deviation("homography", np.eye(3), a, b, places)
    assert (np.diff(sds) > 0).all()


@pytest.mark.parametrize("model", MODELS)
def test_exact_points_have_no_deviation(model: str) -> None:
    a, b = carried(MATRICES[model], count=40)
    sds = deviation(model, MATRICES[model], a, b, corners_xy(SIZE_HW))
    assert sds.max() < 1e-6
    assert deviation(model, MATRICES[model], a, b, np.empty((0, 2))).shape == (0,)
