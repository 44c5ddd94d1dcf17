"""Exact positions of keypoints in other views: against rays cast in space, occlusion included."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tiepoint.geometry import apply_homography, inside
from tiepoint.training.matcher.positions import (
    COVERED,
    EDGE_PX,
    Elsewhere,
    OwnedView,
    elsewhere,
    owned_view,
)
from tiepoint.training.scenes.basics import Matrix
from tiepoint.training.scenes.composition import Scene, plain_sheet
from tiepoint.training.scenes.groups import ViewGroup, view_group
from tiepoint.training.scenes.render import NOBODY, render
from tiepoint.training.scenes.settings import GroupGeometry

SIZE_HW = 120, 160
SAFE_PX = EDGE_PX + 2.5
"""Distance from edges beyond which nothing is doubtful."""


def drawn(kind: str, seed: int) -> tuple[ViewGroup, list[OwnedView]]:
    random = np.random.default_rng(seed)
    sheets = tuple(plain_sheet(random, (360, 480)) for _ in range(1 if kind != "boxes" else 4))
    backdrop = np.full((20, 20), 128, np.uint8)
    group = view_group(Scene(kind, sheets, backdrop), GroupGeometry(), SIZE_HW, 4, random)
    bodies = [plane.body for plane in group.planes]
    views = []
    for to_view, order in zip(group.to_views, group.orders, strict=True):
        image = render(group.planes, to_view, order, backdrop, SIZE_HW, 1.5)
        views.append(owned_view(image.owner, np.zeros(SIZE_HW, bool), to_view, order, bodies))
    return group, views


def grid(step: float = 6.3) -> NDArray[np.float32]:
    y, x = np.mgrid[3.2 : SIZE_HW[0] - 3 : step, 3.7 : SIZE_HW[1] - 3 : step]
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)


def hits(group: ViewGroup, view: int, xy: NDArray[np.float64]) -> NDArray[np.int64]:
    """N: number of the plane that each ray meets first, by depth; -1 for none.

    Depth along a ray of a camera is 1 / w of the homography from the plane to the view, whose
    columns are in world units.
    """
    best = np.full(len(xy), -1)
    nearest = np.full(len(xy), np.inf)
    for number in group.orders[view]:
        matrix = group.to_views[view][number]
        on_sheet = apply_homography(np.linalg.inv(matrix), xy)
        depth = on_sheet @ matrix[2, :2] + matrix[2, 2]
        within = in_outline(on_sheet, group.planes[number].outline) & (depth < nearest)
        best[within], nearest[within] = number, depth[within]
    return best


def in_outline(points: NDArray[np.float64], outline: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether points are inside a convex outline, on the same side of all of its edges."""
    after = np.roll(outline, -1, axis=0) - outline  # K 2
    offset = points[:, None] - outline  # N K 2
    side = after[:, 0] * offset[..., 1] - after[:, 1] * offset[..., 0]  # N K
    return (side >= 0).all(axis=1) | (side <= 0).all(axis=1)


def is_clear(group: ViewGroup, view: int, xy: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether all rays around points meet the same plane first."""
    centre = hits(group, view, xy)
    same = centre >= 0
    for angle in np.arange(16) * np.pi / 8:
        for radius in (SAFE_PX / 2, SAFE_PX):
            around = xy + radius * np.array([np.cos(angle), np.sin(angle)])
            same &= hits(group, view, around) == centre
    return same


@pytest.mark.parametrize("seed", range(3))
def test_positions_of_scenes_with_depth_equal_rays_in_space(seed: int) -> None:
    group, views = drawn("boxes", seed)
    xy, hidden, seen = grid(), 0, 0
    safe = is_clear(group, 0, xy.astype(np.float64))
    owner = hits(group, 0, xy.astype(np.float64))
    for target in (1, 2, 3):
        ours = elsewhere(xy, views[0], views[target])
        for number in np.unique(owner[safe]):
            rows = np.flatnonzero(safe & (owner == number))
            to_a, to_b = (group.to_views[view][number] for view in (0, target))
            there = apply_homography(to_b, apply_homography(np.linalg.inv(to_a), xy[rows]))
            here = inside(there, SIZE_HW)
            first = hits(group, target, there)
            certain = is_clear(group, target, there) & here
            visible = certain & (first == number)
            np.testing.assert_allclose(ours.xy[rows[visible]], there[visible], atol=1e-3)
            assert not ours.doubtful[rows[visible]].any()
            occluded = certain & (first != number)
            assert np.isnan(ours.xy[rows[occluded]]).all()
            assert np.isnan(ours.xy[rows[~here]]).all()
            assert not ours.doubtful[rows[occluded | ~here]].any()
            hidden, seen = hidden + int(occluded.sum()), seen + int(visible.sum())
    assert seen > 20


def test_some_points_of_scenes_with_depth_are_occluded() -> None:
    """Otherwise the test above would prove nothing about occlusion."""
    occluded = 0
    for seed in range(3):
        group, views = drawn("boxes", seed)
        xy = grid()
        ours = elsewhere(xy, views[0], views[1])
        owner = hits(group, 0, xy.astype(np.float64))
        for number in np.unique(owner[owner >= 0]):
            rows = np.flatnonzero(owner == number)
            to_a, to_b = (group.to_views[view][number] for view in (0, 1))
            there = apply_homography(to_b, apply_homography(np.linalg.inv(to_a), xy[rows]))
            here = inside(there, SIZE_HW)
            occluded += int((np.isnan(ours.xy[rows, 0]) & here & ~ours.doubtful[rows]).sum())
    assert occluded > 20


@pytest.mark.parametrize("seed", range(3))
def test_positions_on_a_plane_are_the_homography_and_nothing_is_doubtful_inside(seed: int) -> None:
    group, views = drawn("leaves", seed)
    xy = grid()
    matrix = group.cameras[1][:, :3] @ np.linalg.inv(group.cameras[0][:, :3])
    there = apply_homography(matrix, xy)
    ours = elsewhere(xy, views[0], views[1])
    on_sheet = apply_homography(np.linalg.inv(group.to_views[0][0]), xy)
    inner = inside(on_sheet - 20, tuple(side - 40 for side in group.planes[0].sheet.size_hw))
    here = inside(there, SIZE_HW) & inner
    assert here.sum() > 20
    np.testing.assert_allclose(ours.xy[here], there[here], atol=1e-3)
    assert np.isnan(ours.xy[inner & ~here]).all()
    assert not ours.doubtful[inner].any()


@pytest.mark.parametrize("kind", ["leaves", "boxes"])
def test_no_pair_of_a_group_exceeds_the_limits(kind: str) -> None:
    limits = GroupGeometry()
    for seed in range(4):
        group, _ = drawn(kind, seed)
        for a in range(4):
            for b in range(a):
                if kind == "boxes":
                    relative = group.cameras[a][:, :3] @ group.cameras[b][:, :3].T
                    tilt = np.degrees(np.arccos(np.clip(relative[2, 2], -1, 1)))
                    assert tilt <= limits.tilt_deg + 1e-6
                else:
                    matrix = group.cameras[a][:, :3] @ np.linalg.inv(group.cameras[b][:, :3])
                    assert np.linalg.det(matrix / matrix[2, 2]) > 0


# By hand: a wall (plane 0) and a board (plane 1) in front of it, which moves more.


def flat(owner: NDArray[np.int16], shifts: tuple[float, float]) -> OwnedView:
    matrices: list[Matrix] = [np.array([[1, 0, s], [0, 1, 0], [0, 0, 1.0]]) for s in shifts]
    return owned_view(owner, np.zeros(owner.shape, bool), matrices, [0, 1], [0, 1])


def board(left: int, shifts: tuple[float, float]) -> OwnedView:
    owner = np.ones((40, 80), np.int16)
    owner[10:30, left : left + 20] = 2
    owner[9:31, [left - 1, left + 20]] = NOBODY
    owner[[9, 30], left : left + 20] = NOBODY
    return flat(owner, shifts)


A, B = board(20, (0, 0)), board(32, (2, 12))


def at(x: float, y: float) -> tuple[NDArray[np.float32], bool]:
    result: Elsewhere = elsewhere(np.array([[x, y]], np.float32), A, B)
    return result.xy[0], bool(result.doubtful[0])


def test_wall_and_board_move_with_their_planes() -> None:
    place, doubtful = at(5.25, 20)
    assert place.tolist() == [7.25, 20] and not doubtful
    place, doubtful = at(30.5, 20)
    assert place.tolist() == [42.5, 20] and not doubtful


def test_the_wall_behind_the_board_is_hidden_and_next_to_its_edge_doubtful() -> None:
    place, doubtful = at(43.0, 20)  # at 45 in B, inside the board
    assert np.isnan(place).all() and not doubtful
    place, doubtful = at(49.6, 20)  # at 51.6, under the board's edge
    assert place.tolist() == pytest.approx([51.6, 20]) and doubtful


def test_a_corner_of_the_board_moves_with_the_board_and_is_doubtful() -> None:
    place, doubtful = at(19.4, 9.3)
    assert place.tolist() == pytest.approx([31.4, 9.3]) and doubtful


def test_what_covers_the_lens_has_no_counterpart() -> None:
    covered = np.zeros((40, 80), bool)
    covered[:20, :20] = True
    near = owned_view(A.owner, covered, A.to_view, [0, 1], [0, 1])
    assert near.owner[5, 5] == COVERED
    points = np.array([[5, 5], [19.4, 15]], np.float32)
    ours = elsewhere(points, near, B)
    assert np.isnan(ours.xy).all() and ours.doubtful.tolist() == [False, True]
    far = owned_view(B.owner, covered, B.to_view, [0, 1], [0, 1])
    ours = elsewhere(np.array([[5, 5], [30, 35]], np.float32), A, far)
    assert np.isnan(ours.xy[0]).all() and ours.xy[1].tolist() == [32, 35]


def test_no_keypoints_have_no_positions() -> None:
    ours = elsewhere(np.zeros((0, 2), np.float32), A, B)
    assert ours.xy.shape == (0, 2) and ours.doubtful.shape == (0,)
