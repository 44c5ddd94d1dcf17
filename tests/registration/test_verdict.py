"""Each check of the verdict refuses what no other check refuses; the first objection counts."""

from __future__ import annotations

import dataclasses
import math
import tracemalloc

import numpy as np
import pytest

from support.registered import (
    CAMERA,
    DIRECTION,
    MATRICES,
    ROTATION,
    all_inliers,
    carried,
    fit_of,
    scattered,
    two_views,
)
from support.situations import shift
from tiepoint.geometry import apply_homography
from tiepoint.registration import epipolar, planar, verdict
from tiepoint.registration.appearance import Picture
from tiepoint.registration.estimation import Estimate, estimate_model
from tiepoint.registration.fit import LEAST_SD, Fit
from tiepoint.registration.models import MODELS, PLANE_MODELS
from tiepoint.registration.result import Registration
from tiepoint.registration.verdict import CHECKS, WHOLE_VIEW_CHECKS, objection_to, report

CAMERAS = (CAMERA, CAMERA)
TRUE_POSE = epipolar.Pose(ROTATION, DIRECTION)


def exact(matrix: object, count: int = 60, **settings: object) -> Fit:
    """Matches that fit a plane model to round-off."""
    truth = np.array(matrix, np.float64)
    a = scattered(count)
    return fit_of(a, apply_homography(truth, a), all_inliers(truth, count), **settings)


def objectors(fit: Fit) -> list[str]:
    """Names of the checks that object to a fit, in order."""
    return [check.__name__ for check in CHECKS[fit.settings.model] if check(fit) is not None]


def judge(fit: Fit) -> Registration:
    """The result after the checks of the model."""
    return report(fit, objection_to(fit, CHECKS[fit.settings.model]))


def few() -> Fit:
    return exact(MATRICES["homography"], count=12)


def by_chance() -> Fit:
    """20 of 1000 matches within 40 px: random matches do that."""
    a, b = carried(MATRICES["homography"], 1000, noise_px=0.3, wrong=980)
    estimate = Estimate(MATRICES["homography"], np.arange(1000) >= 980)
    return fit_of(a, b, estimate, threshold_px=40.0, max_overlap_sd_px=math.inf)


def in_one_corner() -> Fit:
    a = scattered(40) * 0.08
    b = a + np.random.default_rng(0).normal(0, 0.7, a.shape)
    estimate = estimate_model(a, b, model="homography", within_px=3.0)
    assert estimate is not None
    return fit_of(a, b, estimate)


def beyond_the_horizon() -> Fit:
    matrix = np.array([[1.0, 0, 0], [0, 1, 0], [-0.002, 0, 1]])  # w = 0 at x = 500
    a = scattered(60) * (0.6, 1)
    return fit_of(a, apply_homography(matrix, a), all_inliers(matrix, 60))


def homography_as_affine() -> Fit:
    a, b = carried(MATRICES["homography"], 600, noise_px=0.3)
    estimate = estimate_model(a, b, model="affine", within_px=3.0)
    assert estimate is not None
    return fit_of(a, b, estimate, model="affine")


def plane_as_two_views() -> Fit:
    """A homography of a camera that moved, with the fundamental matrix of the movement."""
    a = scattered(100)
    depth = 6.0
    rays = np.column_stack([a, np.ones(100)]) @ np.linalg.inv(CAMERA).T
    moved = (depth * rays) @ ROTATION.T + DIRECTION
    seen = moved @ CAMERA.T
    lines = epipolar.pixel_matrix(TRUE_POSE.essential, CAMERAS)
    estimate = Estimate(lines, np.ones(100, bool))
    return fit_of(a, seen[:, :2] / seen[:, 2:], estimate, model="fundamental")


def rotation_as_movement() -> Fit:
    a, b = two_views(100, noise_px=0.2, direction=np.zeros(3))
    estimate = Estimate(TRUE_POSE.essential, np.ones(100, bool), TRUE_POSE)
    return fit_of(a, b, estimate, cameras=CAMERAS, model="essential")


def noise_as_two_views() -> Fit:
    """Matches between the same rows of two images, anywhere along them."""
    a, b = scattered(300, 1), scattered(300, 2)
    a[:, 1] = b[:, 1] = np.linspace(5, 475, 300)
    lines = np.array([[0.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    return fit_of(a, b, Estimate(lines, np.ones(300, bool)), model="fundamental")


def two_views_of_noise() -> Fit:
    """Matches that move as a scene with depth, in pictures that have nothing in common."""
    a, b = two_views(200, noise_px=0.2)
    lines = epipolar.pixel_matrix(TRUE_POSE.essential, CAMERAS)
    fit = fit_of(a, b, Estimate(lines, np.ones(200, bool)), model="fundamental")
    rng = np.random.default_rng(0)
    pictures = [rng.normal(128, 20, (480, 640)).astype(np.float32) for _ in range(2)]
    first, second = (Picture(grey, np.eye(3)) for grey in pictures)
    return dataclasses.replace(fit, pictures=(first, second))


def test_a_two_view_model_without_inliers_looks_alike_nowhere() -> None:
    """With limits that let everything pass."""
    fit = two_views_of_noise()
    none = dataclasses.replace(fit.estimate, inliers=np.zeros(200, bool))
    assert dataclasses.replace(fit, estimate=none).share_of_inliers_alike == 0


def by_whole_blocks() -> Fit:
    """Corners of 8x8 blocks, in two images that have little else."""
    a = np.floor(scattered(80) / 8) * 8 - 0.5
    fit = fit_of(a, a + np.array([8, 0]), all_inliers(shift(8, 0), 80))
    blocky = Picture(np.zeros((480, 640), np.float32), np.eye(3), 0.3)
    return dataclasses.replace(fit, pictures=(blocky, blocky))


def test_depth_in_steps_of_blocks_is_no_scene() -> None:
    """Bands of compression at the same place across, some blocks apart along one direction."""
    a = np.floor(scattered(300) / 8) * 8 - 0.5
    b = a + np.column_stack([np.zeros(300), 8 * np.floor(a[:, 1] / 60) ** 2])
    lines = np.array([[0.0, 0, 1], [0, 0, 0], [-1, 0, 0]])  # x_B = x_A
    fit = fit_of(a, b, Estimate(lines, np.ones(300, bool)), model="fundamental")
    assert objectors(fit) == ["not_bound_to_blocks"]


CASES = {
    "enough_inliers": few,
    "unlikely_by_chance": by_chance,
    "not_bound_to_blocks": by_whole_blocks,
    "neighbours_move_alike": noise_as_two_views,
    "inliers_look_alike": two_views_of_noise,
    "well_determined": in_one_corner,
    "not_mirrored": lambda: exact([[-1, 0, 600], [0, 1, 0], [0, 0, 1]]),
    "no_horizon": beyond_the_horizon,
    "has_common_view": lambda: exact([[1, 0, 9000], [0, 1, 0], [0, 0, 1]]),
    "plausible_zoom": lambda: exact([[0.02, 0, 300], [0, 0.02, 200], [0, 0, 1]]),
    "not_too_simple": homography_as_affine,
    "not_one_plane": plane_as_two_views,
    "not_only_rotated": rotation_as_movement,
}


def test_there_is_a_case_for_every_check() -> None:
    assert {check.__name__ for checks in CHECKS.values() for check in checks} == set(CASES)
    assert set(CHECKS) == set(MODELS)


@pytest.mark.parametrize("name", CASES)
def test_a_case_that_only_one_check_refuses(name: str) -> None:
    fit = CASES[name]()
    assert objectors(fit) == [name]
    result = judge(fit)
    check = getattr(verdict, name)
    assert not result.success and result.reason == check(fit)
    assert result.matrix is None and result.rotation is None and result.translation is None
    np.testing.assert_array_equal(result.inliers, fit.estimate.inliers)


@pytest.mark.parametrize("model", PLANE_MODELS)
def test_a_sound_plane_model_passes_every_check(model: str) -> None:
    a, b = carried(MATRICES[model], 200, noise_px=0.4)
    fit = fit_of(a, b, all_inliers(MATRICES[model], 200), model=model)
    assert objectors(fit) == []
    result = judge(fit)
    assert result.success and result.reason == "ok" and result.model == model
    np.testing.assert_allclose(result.matrix, MATRICES[model])


def test_sound_two_view_models_pass_every_check() -> None:
    a, b = two_views(200, noise_px=0.2)
    every = np.ones(200, bool)
    lines = epipolar.pixel_matrix(TRUE_POSE.essential, CAMERAS)
    fundamental = fit_of(a, b, Estimate(lines, every), model="fundamental")
    essential = fit_of(
        a, b, Estimate(TRUE_POSE.essential, every, TRUE_POSE),
        cameras=CAMERAS, model="essential",
    )  # fmt: skip
    assert objectors(fundamental) == objectors(essential) == []
    assert judge(fundamental).rotation is None
    result = judge(essential)
    np.testing.assert_array_equal(result.rotation, ROTATION)
    np.testing.assert_array_equal(result.translation, DIRECTION)
    np.testing.assert_array_equal(result.matrix, TRUE_POSE.essential)


def test_the_first_objection_counts() -> None:
    """Few, mirrored and far too large: the number of inliers comes first."""
    fit = exact([[-50, 0, 600], [0, 50, 0], [0, 0, 1]], count=12)
    assert objectors(fit) == ["enough_inliers", "not_mirrored", "plausible_zoom"]
    assert "12 of 12 matches fit a homography, 15 are asked for" in judge(fit).reason
    assert "mirror image" in judge(exact([[-50, 0, 600], [0, 50, 0], [0, 0, 1]])).reason


def test_a_refused_model_keeps_its_figures() -> None:
    fit = few()
    result = judge(fit)
    assert result.coverage > 0
    assert result.reprojection_px.rms < 1e-4  # float32 positions
    assert result.overlap_sd_px == pytest.approx(LEAST_SD, rel=1e-3)
    assert result.corner_sd_px == pytest.approx(LEAST_SD, rel=1e-3)


@pytest.mark.parametrize("inliers", [0, 1, 3])
def test_a_model_with_fewer_inliers_than_a_sample_has_no_figures(inliers: int) -> None:
    a, b = carried(MATRICES["homography"], 40, noise_px=0.3)
    result = judge(fit_of(a, b, Estimate(MATRICES["homography"], np.arange(40) < inliers)))
    assert not result.success and f"{inliers} of 40" in result.reason
    assert result.coverage == 0 and math.isnan(result.reprojection_px.median)
    assert math.isnan(result.overlap_sd_px) and math.isnan(result.corner_sd_px)


def test_the_figures_are_those_of_the_inliers_alone() -> None:
    a, b = carried(MATRICES["homography"], 200, noise_px=0.5, wrong=80)
    inliers = np.arange(200) >= 80
    result = judge(fit_of(a, b, Estimate(MATRICES["homography"], inliers)))
    kept_a, kept_b = a[80:].astype(np.float32), b[80:].astype(np.float32)
    distances = planar.distances_px(MATRICES["homography"], kept_a, kept_b)
    assert result.reprojection_px.median == pytest.approx(float(np.median(distances)))
    assert result.reprojection_px.rms == pytest.approx(float(np.sqrt((distances**2).mean())))


@pytest.mark.parametrize("factor", [1.0, -1.0, 0.01])
def test_the_matrix_of_a_plane_ends_in_one(factor: float) -> None:
    """`estimate_model` gives any scale; a negative sign puts the points behind the camera."""
    a, b = carried(MATRICES["homography"], 60)
    matrix = planar.facing(factor * MATRICES["homography"], a)
    result = judge(fit_of(a, b, all_inliers(matrix, 60)))
    assert result.matrix is not None and result.matrix[2, 2] == 1
    np.testing.assert_allclose(result.matrix, MATRICES["homography"], rtol=1e-9)


def test_limits_without_bounds_let_a_doubtful_model_pass() -> None:
    fit = in_one_corner()
    lax = fit_of(*fit.xy, fit.estimate, max_overlap_sd_px=math.inf, max_false_alarms=math.inf)
    assert judge(lax).success
    few_but_enough = exact(MATRICES["homography"], count=12, min_inliers=12)
    assert judge(few_but_enough).success


def test_the_limit_of_the_deviation_is_in_px_of_the_networks_input() -> None:
    fit = in_one_corner()
    sd = fit.overlap_sd_px
    assert sd > 3
    for input_px, refused in ((sd / 3.2, True), (sd / 2.8, False)):
        features_b = dataclasses.replace(fit.features_b, px_per_input_px=input_px)
        settings = dataclasses.replace(fit.settings, threshold_px=3.0 / input_px)
        scaled = dataclasses.replace(fit, features_b=features_b, settings=settings)
        assert (verdict.well_determined(scaled) is not None) == refused


@pytest.mark.parametrize(("zoom", "refused"), [(0.034, False), (0.032, True), (29, False)])
def test_the_zoom_is_limited_to_thirty(zoom: float, refused: bool) -> None:
    matrix = np.diag([zoom, zoom, 1.0])
    assert (verdict.plausible_zoom(exact(matrix)) is not None) == refused


def test_the_zoom_is_that_of_the_images_as_the_network_saw_them() -> None:
    """A of 3200 px was downscaled to 640: a matrix of 0.01 is a zoom of 0.05 to the network."""
    fit = exact(np.diag([0.02, 0.02, 1.0]))
    assert verdict.plausible_zoom(fit) is not None
    features_a = dataclasses.replace(fit.features_a, px_per_input_px=2.0)
    seen = dataclasses.replace(fit, features_a=features_a)
    assert verdict.plausible_zoom(seen) is None


@pytest.mark.parametrize(("share", "refused"), [(0.70, False), (0.9, True)])
def test_a_plane_may_contain_up_to_eighty_percent_of_the_matches(
    share: float, refused: bool
) -> None:
    fit = plane_as_two_views()
    a, b = (xy.copy() for xy in fit.xy)
    deep_a, deep_b = two_views(100, seed=5)
    off = round(100 * (1 - share))
    a[:off], b[:off] = deep_a[:off], deep_b[:off]
    mixed = fit_of(a, b, fit.estimate, model="fundamental")
    assert (verdict.not_one_plane(mixed) is not None) == refused


def test_neighbours_of_many_inliers_need_little_memory() -> None:
    lines = epipolar.pixel_matrix(TRUE_POSE.essential, CAMERAS)
    scene = fit_of(*two_views(8000, noise_px=0.2), Estimate(lines, np.ones(8000, bool)),
                   model="fundamental")  # fmt: skip
    tracemalloc.start()
    assert verdict.neighbours_move_alike(scene) is None
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 300e6  # all distances have 1.5 GB with their squares
    mixed = np.random.default_rng(0).permutation(8000)
    by_chance = fit_of(scene.xy[0], scene.xy[1][mixed], scene.estimate, model="fundamental")
    assert verdict.neighbours_move_alike(by_chance) is not None


def test_neighbours_in_one_cell_are_one_witness_of_a_two_view_model() -> None:
    """12 clusters of 10 matches count as 12 matches; 120 in as many cells are convincing."""
    lines = epipolar.pixel_matrix(TRUE_POSE.essential, CAMERAS)
    estimate = Estimate(lines, np.ones(120, bool))
    a, b = two_views(120, noise_px=0.2)
    spread = fit_of(a, b, estimate, model="fundamental")
    assert verdict.unlikely_by_chance(spread) is None
    in_clusters = np.repeat(np.floor(a[:12] / 8) * 8 + 4, 10, axis=0)
    clustered = fit_of(in_clusters, b, estimate, model="fundamental")
    reason = verdict.unlikely_by_chance(clustered)
    assert reason is not None and "120 of 120 matches fit a fundamental matrix" in reason
    as_plane = fit_of(in_clusters, b, all_inliers(np.eye(3), 120))
    assert verdict.unlikely_by_chance(as_plane) is None  # discs are small


def test_what_is_fixed_in_both_pictures_is_no_scene() -> None:
    """The inliers cover little, and the rest of two pictures of noise does not agree."""
    rng = np.random.default_rng(0)
    a = scattered(60) * (1, 0.1)
    fit = fit_of(a, a, all_inliers(np.eye(3), 60))
    noise = [Picture(rng.uniform(0, 255, (480, 640)).astype(np.float32), np.eye(3)) for _ in "ab"]
    seen = dataclasses.replace(fit, pictures=(noise[0], noise[1]))
    reason = objection_to(seen, WHOLE_VIEW_CHECKS)
    assert reason is not None and "something fixed in both pictures" in reason
    alike = dataclasses.replace(fit, pictures=(noise[0], noise[0]))
    assert objection_to(alike, WHOLE_VIEW_CHECKS) is None
    assert report(alike, None).agreement == 1


def test_without_pictures_and_descriptors_the_whole_view_is_unknown() -> None:
    fit = exact(MATRICES["homography"])
    assert objection_to(fit, WHOLE_VIEW_CHECKS) is None
    assert math.isnan(report(fit, None).agreement)


@pytest.mark.parametrize(
    ("cells", "refused"),
    [((1, 0, 0, 0), True), ((0.4, 0, 0, 0), False), ((1, 0.2, 0, 0), False), ((), False)],
)
def test_a_copy_in_few_cells_is_refused_without_pictures(
    cells: tuple[float, ...], refused: bool
) -> None:
    fit = exact(MATRICES["homography"])
    fit.__dict__["answered_cells"] = np.array(cells)
    assert (verdict.whole_view_agrees(fit) is not None) == refused


def test_a_refused_fit_of_exchanged_images_names_them_as_the_caller_does() -> None:
    fit = dataclasses.replace(exact([[0.02, 0, 300], [0, 0.02, 200], [0, 0, 1]]), names=("B", "A"))
    assert judge(fit).reason.startswith("image B would be scaled by 0.02")
    result = report(fit, None)
    assert result.features_a is fit.features_b
    np.testing.assert_allclose(np.linalg.inv(result.matrix)[:2, :2], 0.02 * np.eye(2), atol=1e-12)


def test_objections_name_the_model_the_figures_and_the_limit() -> None:
    assert "10^" in judge(by_chance()).reason and "10^-8 are allowed" in judge(by_chance()).reason
    corner = judge(in_one_corner()).reason
    assert "a homography" in corner and "3 px are allowed" in corner
    assert "scaled by 0.02" in judge(CASES["plausible_zoom"]()).reason
    simple = judge(homography_as_affine()).reason
    assert simple.startswith("an affine transform fits") and 'with "homography"' in simple
    assert "100% of the matches that fit are on one plane" in judge(plane_as_two_views()).reason
