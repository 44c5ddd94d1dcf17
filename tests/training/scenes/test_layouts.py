"""Layouts: flat arrays that hold what `render` works out plane by plane."""

from __future__ import annotations

import numpy as np
import pytest

from support.scene_parts import SIZE, grey_sheet, of_kind, plane_of
from tiepoint.evaluation.views import translation
from tiepoint.geometry import apply_homography, resize_matrix
from tiepoint.training.scenes import composition
from tiepoint.training.scenes.layout_loader import view_numbers
from tiepoint.training.scenes.layouts import Layouts, joined, layouts_of
from tiepoint.training.scenes.render import FINE, ViewPair, render
from tiepoint.training.scenes.stored import atlas_shape, scene_dtype, store_scene

FINE_HW = SIZE[0] * FINE, SIZE[1] * FINE
ENLARGE = resize_matrix(SIZE, FINE_HW)


def drawn(kind: str, seed: int) -> tuple[composition.Scene, ViewPair]:
    config, rng = of_kind(kind), np.random.default_rng([seed, 8])
    scene = composition.scene_of(kind, config, rng)
    return scene, composition.view_pair(scene, config, rng)


def layouts(*pairs: tuple[composition.Scene, ViewPair]) -> Layouts:
    return layouts_of(pairs, view_numbers(range(len(pairs)), len(pairs)), SIZE)


def edges_of(laid_out: Layouts, number: int) -> np.ndarray:
    first = int(laid_out.planes["edges"][:number].sum())
    return laid_out.edges[first : first + laid_out.planes["edges"][number]]


def nearest(edges: np.ndarray, most: float) -> np.ndarray:
    """Distance inwards from the nearest edge at each px of the fine view, at most `most`."""
    y, x = np.mgrid[: FINE_HW[0], : FINE_HW[1]]
    distances = edges[:, 0, None, None] * x + edges[:, 1, None, None] * y + edges[:, 2, None, None]
    return np.minimum(distances.min(axis=0, initial=most), most)


def outside(polygon: np.ndarray) -> np.ndarray:
    """Edges of a convex polygon from its vertices, one by one."""
    middle, edges = polygon.mean(axis=0), []
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        a, b = np.array([y0 - y1, x1 - x0]) / np.hypot(x1 - x0, y1 - y0)
        c = -a * x0 - b * y0
        edges.append(np.array([a, b, c]) * np.sign(a * middle[0] + b * middle[1] + c))
    return np.array(edges)


@pytest.mark.parametrize("kind", ["leaves", "boxes"])
def test_edges_that_do_not_cross_the_view_are_left_out_and_change_nothing(kind: str) -> None:
    left_out = 0
    for seed in range(4):
        scene, pair = drawn(kind, seed)
        laid_out = layouts((scene, pair))
        for number, row in enumerate(laid_out.planes):
            plane = pair.planes[row["name"] - 1]
            order = [n for n in pair.orders[row["view"]] if pair.planes[n].body == plane.body]
            if order[0] == row["name"] - 1 and len(order) > 1:
                continue  # fills the hull of its body
            matrix = ENLARGE @ pair.to_views[row["view"]][row["name"] - 1]
            every = outside(apply_homography(matrix, plane.outline))
            kept = edges_of(laid_out, number)
            left_out += len(every) - len(kept)
            difference = np.clip(nearest(kept, 0.5), -0.5, 0.5) - np.clip(
                nearest(every, 0.5), -0.5, 0.5
            )
            assert np.abs(difference).max() < 1e-3
    assert left_out > 4


def test_a_plane_that_the_view_does_not_show_is_left_out() -> None:
    sheet = grey_sheet((40, 40))
    scene = composition.Scene("plain", (sheet,), np.zeros((96, 96), np.uint8))
    planes = [plane_of(sheet), plane_of(sheet, 1)]
    matrices = translation(np.array([20.0, 10])), translation(np.array([500.0, 10]))
    pair = ViewPair(planes, (matrices, matrices[::-1]), ([0, 1], [0, 1]))
    laid_out = layouts((scene, pair))
    assert laid_out.planes["view"].tolist() == [0, 1]
    assert laid_out.planes["name"].tolist() == [1, 2]
    assert len(laid_out.names) == 4  # whose homographies may still be needed


def test_a_plane_that_is_partly_behind_the_camera_is_left_out() -> None:
    sheet = grey_sheet((40, 40))
    scene = composition.Scene("plain", (sheet,), np.zeros((96, 96), np.uint8))
    behind = np.array([[1, 0, 0], [0, 1, 0], [-0.05, 0, 1.0]])
    pair = ViewPair([plane_of(sheet)], ([behind], [np.eye(3)]), ([0], [0]))
    assert layouts((scene, pair)).planes["view"].tolist() == [1]
    assert not render(pair.planes, [behind], [0], scene.backdrop, SIZE, 1.5).owner.any()


def test_a_plane_on_its_edge_raises_nothing() -> None:
    sheet = grey_sheet((40, 40))
    scene = composition.Scene("plain", (sheet,), np.zeros((96, 96), np.uint8))
    flat = np.array([[1, 0, 20], [1, 0, 20], [0, 0, 1.0]])
    pair = ViewPair([plane_of(sheet)], ([flat], [np.eye(3)]), ([0], [0]))
    laid_out = layouts((scene, pair))
    assert laid_out.planes["view"].tolist() in ([1], [0, 1])


def test_pairs_together_have_the_rows_of_each_alone() -> None:
    pairs = [drawn("boxes", 1), drawn("shapes", 2), drawn("boxes", 3)]
    together = layouts(*pairs)
    alone = joined(
        [
            layouts_of([pair], view_numbers([number], len(pairs)), SIZE)
            for number, pair in enumerate(pairs)
        ]
    )
    for name in ("planes", "edges", "ends", "names"):
        one, other = getattr(together, name), getattr(alone, name)
        assert one.dtype == other.dtype
        assert sorted(row.tobytes() for row in one) == sorted(row.tobytes() for row in other)


def test_a_stored_scene_has_all_levels_of_its_sheets() -> None:
    config = of_kind("boxes")
    scene = composition.scene_of("boxes", config, np.random.default_rng(4))
    stored = np.zeros(1, scene_dtype(SIZE))[0]
    stored["corners"] = 7  # of an earlier scene
    store_scene(scene, stored, SIZE)
    assert stored["sheets"] == len(scene.sheets) == composition.MOST_SHEETS
    offsets = atlas_shape(SIZE).offsets_xy(np.arange(3)).astype(int)
    for number, sheet in enumerate(scene.sheets):
        for level, (left, top) in zip(sheet.levels, offsets, strict=True):
            part = stored["atlases"][number, top:, left:][: level.shape[0], : level.shape[1]]
            assert np.array_equal(part, level)
        count = stored["counts"][number]
        assert count == len(sheet.corners_xy)
        assert np.array_equal(stored["corners"][number, :count, :2], sheet.corners_xy)
        assert not stored["corners"][number, count:].any()


def test_corners_beyond_the_room_of_a_stored_scene_are_left_out() -> None:
    room = scene_dtype(SIZE)["corners"].shape[1]
    sheet = grey_sheet(atlas_shape(SIZE).sheet_hw)
    many = np.zeros((room + 5, 2), np.float32)
    crowded = type(sheet)(sheet.image, many, np.ones(len(many), bool), many[:, 0])
    stored = np.zeros(1, scene_dtype(SIZE))[0]
    store_scene(composition.Scene("plain", (crowded,), np.zeros((96, 96), np.uint8)), stored, SIZE)
    assert stored["counts"][0] == room
