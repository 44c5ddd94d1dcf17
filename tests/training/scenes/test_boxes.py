"""Planes and boxes before two cameras."""

from __future__ import annotations

import math

import numpy as np
import pytest

from support.scene_parts import SIZE, grey_sheet
from tiepoint.geometry import apply_homography
from tiepoint.training.scenes import boxes
from tiepoint.training.scenes.boxes import BACKGROUND, Camera, Surface, World, box_views
from tiepoint.training.scenes.render import ViewPair, flow, render
from tiepoint.training.scenes.settings import Geometry

SHEETS = tuple(grey_sheet((288, 384) if n == 0 else (200, 200), 40 + 50 * n) for n in range(4))
FOCAL = 180.0
ORIGIN = Camera(np.array([[FOCAL, 0, 63.5], [0, FOCAL, 47.5], [0, 0, 1]]), np.eye(3), np.zeros(3))


def world(seed: int) -> World:
    return World(np.random.default_rng(seed), FOCAL, SIZE, SHEETS)


def pair(seed: int) -> ViewPair:
    return box_views(np.random.default_rng(seed), Geometry(), SIZE, SHEETS)


def outline_in_space(surface: Surface) -> np.ndarray:
    """N 3: the vertices of a surface in the world."""
    outline = surface.plane.outline
    return np.column_stack([outline, np.ones(len(outline))]) @ surface.to_world.T


def of_body(one: World, body: int) -> list[Surface]:
    return [surface for surface in one.surfaces if surface.plane.body == body]


WORLDS = [world(seed) for seed in range(12)]


def test_every_world_has_a_wall_and_some_have_a_floor() -> None:
    backgrounds = [sum(r == BACKGROUND for _, r in one.spheres) for one in WORLDS]
    assert set(backgrounds) == {1, 2}
    for one in WORLDS:
        assert one.spheres[0][1] == BACKGROUND
        assert one.surfaces[0].plane.sheet is SHEETS[0]


def test_bodies_are_boxes_of_six_faces_or_single_boards() -> None:
    counts = [
        len(of_body(one, body))
        for one in WORLDS
        for body, (_, radius) in enumerate(one.spheres)
        if radius != BACKGROUND
    ]
    assert set(counts) == {1, 6}


def test_boxes_fill_their_spheres_and_boards_hardly_exceed_them() -> None:
    for one in WORLDS:
        for body, (middle, radius) in enumerate(one.spheres):
            if radius == BACKGROUND:
                continue
            surfaces = of_body(one, body)
            points = np.concatenate([outline_in_space(surface) for surface in surfaces])
            farthest = np.linalg.norm(points - middle, axis=1).max()
            if len(surfaces) == 6:
                assert farthest <= radius * (1 + 1e-9)
            else:
                assert farthest <= 1.35 * radius  # a parallelogram leans


def test_spheres_do_not_intersect() -> None:
    for one in WORLDS:
        bodies = [sphere for sphere in one.spheres if sphere[1] != BACKGROUND]
        for number, (middle, radius) in enumerate(bodies):
            for other, other_radius in bodies[:number]:
                assert np.linalg.norm(middle - other) > radius + other_radius


def test_bodies_are_in_front_of_the_wall() -> None:
    for one in WORLDS:
        across, down, origin = one.surfaces[0].to_world.T
        normal = np.cross(across, down)
        normal /= np.linalg.norm(normal)
        for middle, radius in one.spheres:
            if radius != BACKGROUND:
                assert normal @ (origin - middle) >= radius - 1e-9


def test_bodies_are_above_the_floor() -> None:
    checked = 0
    for one in WORLDS:
        if len(one.spheres) > 1 and one.spheres[1][1] == BACKGROUND:
            floor = one.spheres[1][0][1]
            for middle, radius in one.spheres[2:]:
                assert middle[1] + radius <= floor + 1e-9
                checked += 1
    assert checked > 0


def test_faces_of_a_box_point_outwards_and_meet_at_its_eight_vertices() -> None:
    checked = 0
    for one in WORLDS:
        for body, (middle, _) in enumerate(one.spheres):
            faces = of_body(one, body)
            if len(faces) != 6:
                continue
            checked += 1
            vertices = np.concatenate([outline_in_space(face) for face in faces])
            assert len(np.unique(np.round(vertices, 6), axis=0)) == 8
            for face in faces:
                across, down, _ = face.to_world.T
                outwards = np.cross(across, down)
                assert outwards @ (outline_in_space(face).mean(axis=0) - middle) > 0
                assert not face.two_sided and face.plane.vertices.all()
    assert checked >= 4


def test_outlines_of_bodies_are_inside_their_sheets() -> None:
    for one in WORLDS:
        for surface in one.surfaces:
            height, width = surface.plane.sheet.size_hw
            outline = surface.plane.outline
            assert (outline >= -0.5 - 1e-9).all()
            assert (outline <= np.array([width, height]) - 0.5 + 1e-9).all()


def test_scale_on_a_surface_is_the_same_in_both_directions() -> None:
    for one in WORLDS:
        for body, (_, radius) in enumerate(one.spheres):
            if radius == BACKGROUND:
                continue
            for surface in of_body(one, body):
                across, down, _ = surface.to_world.T
                assert np.linalg.norm(across) == pytest.approx(np.linalg.norm(down))
                assert across @ down == pytest.approx(0, abs=1e-9)


def test_a_homography_is_the_projection_of_its_surface() -> None:
    for one in WORLDS[:4]:
        for surface in one.surfaces:
            points = outline_in_space(surface)
            projected = FOCAL * points[:, :2] / points[:, 2:] + [63.5, 47.5]
            matrix = ORIGIN.homography(surface.to_world)
            assert apply_homography(matrix, surface.plane.outline) == pytest.approx(projected)


def test_the_centre_of_a_camera_projects_to_nothing() -> None:
    rotation = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    camera = Camera(np.eye(3), rotation, np.array([1.0, 2, 3]))
    assert rotation @ camera.centre + camera.shift == pytest.approx(np.zeros(3))


def test_a_face_faces_the_camera_on_its_outer_side_only() -> None:
    to_world = np.column_stack([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 5]])  # across x down: +z
    plane = WORLDS[0].surfaces[0].plane
    surface = Surface(plane, to_world, two_sided=False)
    assert surface.facing(ORIGIN) > 0  # the camera is behind it
    beyond = Camera(ORIGIN.intrinsics, np.eye(3), np.array([0, 0, -10.0]))
    assert surface.facing(beyond) < 0


def test_the_order_has_backgrounds_first_and_near_bodies_last() -> None:
    for one in WORLDS:
        order = one.order(ORIGIN)
        bodies = [one.surfaces[number].plane.body for number in order]
        backgrounds = sum(radius == BACKGROUND for _, radius in one.spheres)
        assert bodies[:backgrounds] == list(range(backgrounds))
        powers = [
            float(np.linalg.norm(one.spheres[body][0]) ** 2 - one.spheres[body][1] ** 2)
            for body in bodies[backgrounds:]
        ]
        assert powers == sorted(powers, reverse=True)


def test_at_most_three_faces_of_a_box_are_drawn() -> None:
    for one in WORLDS:
        drawn = [one.surfaces[number].plane.body for number in one.order(ORIGIN)]
        for body in set(drawn):
            if len(of_body(one, body)) == 6:
                assert 1 <= drawn.count(body) <= 3


def test_a_camera_inside_the_layout_is_not_clear() -> None:
    for one in WORLDS[:4]:
        assert one.is_clear(ORIGIN)
        far = one.spheres[0][0][2]
        beyond = Camera(ORIGIN.intrinsics, np.eye(3), np.array([0, 0, -2 * far]))
        assert not one.is_clear(beyond)


def test_a_camera_that_looks_away_is_not_clear() -> None:
    away = Camera(ORIGIN.intrinsics, np.diag([-1.0, 1, -1]), np.zeros(3))
    assert not WORLDS[0].is_clear(away)


def test_a_pair_has_matrices_and_an_order_for_both_cameras() -> None:
    for seed in range(6):
        views = pair(seed)
        for matrices, order in zip(views.to_views, views.orders, strict=True):
            assert len(matrices) == len(views.planes)
            assert len(set(order)) == len(order) and set(order) <= set(range(len(views.planes)))
            assert all(np.isfinite(matrix).all() for matrix in matrices)


def test_a_pair_repeats_with_its_seed() -> None:
    first, second = pair(3), pair(3)
    assert first.orders == second.orders
    for a, b in zip(first.to_views[1], second.to_views[1], strict=True):
        assert np.array_equal(a, b)


def test_both_views_look_at_the_same_part_of_the_scene() -> None:
    common = []
    for seed in range(8):
        views = pair(seed)
        backdrop = np.zeros((4, 4), np.uint8)
        a, b = (
            render(views.planes, to_view, order, backdrop, SIZE, 1.5)
            for to_view, order in zip(views.to_views, views.orders, strict=True)
        )
        forth = flow(a, b, *views.to_views)
        common.append(np.isfinite(forth[..., 0]).mean())
    assert np.median(common) > 0.3 and min(common) > 0.02


def test_bodies_have_true_parallax() -> None:
    """Wall and bodies do not follow one homography if the camera moves."""
    differences = []
    for seed in range(8):
        views = pair(seed)
        matrices = [b @ np.linalg.inv(a) for a, b in zip(*views.to_views, strict=True)]
        wall = apply_homography(matrices[0], [[63.5, 47.5]])
        body = apply_homography(matrices[-1], [[63.5, 47.5]])
        differences.append(float(np.hypot(*(wall - body)[0])))
    assert np.median(differences) > 1.5


def test_if_no_cameras_fit_both_views_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boxes, "TRIES", 1)
    impossible = Geometry(scale=(8, 9), common_scale=(8, 9), min_overlap=1.0, roll_deg=180)
    same = 0
    for seed in range(4):
        views = box_views(np.random.default_rng(seed), impossible, SIZE, SHEETS)
        same += all(np.array_equal(a, b) for a, b in zip(*views.to_views, strict=True))
    assert same >= 2


def test_the_first_camera_is_nearly_upright_and_level() -> None:
    rolls = []
    for seed in range(40):
        views = pair(seed)
        wall = views.to_views[0][0]
        ends = apply_homography(wall, [[191.5, 143.5], [192.5, 143.5]])
        rolls.append(math.degrees(math.atan2(*(ends[1] - ends[0])[::-1])))
    assert np.std(rolls) < 35
