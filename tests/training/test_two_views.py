"""Pairs: flows and corners are exact, and differ as much as the configuration says."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from tiepoint.geometry import apply_homography
from tiepoint.training.scenes import cameras, composition, pairs, textures
from tiepoint.training.scenes.canvas import Canvas, Fill, Sheet
from tiepoint.training.scenes.pairs import training_pair
from tiepoint.training.scenes.render import Plane, flow, render
from tiepoint.training.scenes.settings import DataConfig, Geometry, Photometry
from tiepoint.training.scenes.statistics import in_cell_histogram

SIZE = (96, 128)
CALM = Photometry(
    gamma=1, contrast=(1, 1), bias=0, shading=0, shadow=0, vignette=0, blur_px=0, motion=0,
    rescale=0, patches=0, noise=0, pepper=0, jpeg=0,
)  # fmt: skip


def of_kind(kind: str, **changes) -> DataConfig:
    settings = {"size_hw": SIZE, "mix": ((kind, 1.0),), "photometry": CALM, "bank": 6, "reuse": 4}
    return DataConfig(**(settings | changes))


def sheet_of(image: np.ndarray) -> Sheet:
    none = np.zeros(0, np.float32)
    return Sheet(image, np.zeros((0, 2), np.float32), none.astype(bool), none)


def plane_of(sheet: Sheet, body: int = 0) -> Plane:
    return Plane(sheet, sheet.outline, np.zeros(4, bool), body)


def sampled(field: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Bilinear, NaN beside NaN. OpenCV's own counts in 1/32 px, which is too coarse here."""
    height, width = field.shape[:2]
    x, y = xy[..., 0], xy[..., 1]
    known = np.isfinite(x) & (x >= 0) & (y >= 0) & (x < width - 1) & (y < height - 1)
    left, top = (np.where(known, np.floor(axis), 0).astype(int) for axis in (x, y))
    u, v = (np.where(known, axis - low, np.nan)[..., None] for axis, low in ((x, left), (y, top)))
    above = (1 - u) * field[top, left] + u * field[top, left + 1]
    below = (1 - u) * field[top + 1, left] + u * field[top + 1, left + 1]
    return (1 - v) * above + v * below


def test_one_view_carried_along_the_flow_is_the_other() -> None:
    smooth = textures.noise(np.random.default_rng(0), 512, 2.4)[:288, :384]
    sheet = sheet_of(np.clip(128 + 40 * smooth, 0, 255).astype(np.uint8))
    backdrop = np.zeros((8, 8), np.uint8)
    errors = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        to_a, to_b = cameras.flat_views(rng, Geometry(), SIZE, (288, 384), upright=False)
        a, b = (render([plane_of(sheet)], [m], [0], backdrop, SIZE, 1.5) for m in (to_a, to_b))
        there = flow(a, b, [to_a], [to_b])
        known = np.isfinite(there[..., 0])
        carried = cv2.remap(
            b.image.astype(np.float32), there[..., 0], there[..., 1], cv2.INTER_LINEAR
        )
        errors.append(np.abs(carried - a.image)[known].mean())
        shifted = cv2.remap(
            b.image.astype(np.float32), there[..., 0] + 0.5, there[..., 1], cv2.INTER_LINEAR
        )
        assert np.abs(shifted - a.image)[known].mean() > 1.3 * errors[-1]  # the test can see 0.5 px
        assert known.mean() > 0.1
    assert np.mean(errors) < 1.5


@pytest.mark.parametrize("kind", ["leaves", "boxes"])
def test_there_and_back_is_the_same_place(kind: str) -> None:
    config = of_kind(kind)
    for index in range(6):
        pair = training_pair(config, 2, index)
        y, x = np.mgrid[: SIZE[0], : SIZE[1]]
        for forth, back in ((pair.a_to_b, pair.b_to_a), (pair.b_to_a, pair.a_to_b)):
            returned = sampled(back, forth)
            error = np.hypot(returned[..., 0] - x, returned[..., 1] - y)
            error = error[np.isfinite(error)]
            assert len(error) > 100
            # Of boxes, four neighbours may show two planes: there the mean of both means nothing.
            assert np.quantile(error, 1.0 if kind == "leaves" else 0.8) < 0.02


def test_what_a_board_hides_in_the_other_view_has_no_flow() -> None:
    # Both planes face the camera; it moves right by 8: the wall at twice the distance shifts half.
    wall, board = (sheet_of(np.full((400, 400), grey, np.uint8)) for grey in (60, 200))
    cut = np.array([[100.5, 100.5], [160.5, 100.5], [160.5, 160.5], [100.5, 160.5]])
    planes = [plane_of(wall), Plane(board, cut, np.ones(4, bool), 1)]
    at = [cameras.moved(np.array([-100.0, -100.0])) for _ in range(2)]
    other = [cameras.moved(np.array([-104.0, -100.0])), cameras.moved(np.array([-108.0, -100.0]))]
    a, b = (render(planes, m, [0, 1], np.zeros((4, 4), np.uint8), SIZE, 1.5) for m in (at, other))
    there = flow(a, b, at, other)
    assert np.array_equal(there[30, 20], [12, 30])  # on the board, 8 px nearer the left
    assert np.array_equal(there[30, 80], [76, 30])  # on the wall
    assert np.isnan(there[30, 4:8]).all()  # the board leaves the view or stands before it
    back = flow(b, a, other, at)
    # Wall px of B at 53..56 lie at 57..60 of A, behind the board's right edge at 60.5.
    assert np.isnan(back[30, 54:56]).all()
    assert np.array_equal(back[30, 58], [62, 30])
    assert np.abs(a.corners_xy[a.positive] - [60.5, 60.5]).max(axis=1).min() < 1e-3


def chequered(board: textures.Texture, matrix: np.ndarray, fine: int = 8) -> np.ndarray:
    """The slow way: the board's rule at 64 points of each px of the view."""
    height, width = SIZE
    x, y = np.meshgrid(
        (np.arange(width * fine) + 0.5) / fine - 0.5, (np.arange(height * fine) + 0.5) / fine - 0.5
    )
    back = np.linalg.inv(matrix)
    w = back[2, 0] * x + back[2, 1] * y + back[2, 2]
    u = (back[0, 0] * x + back[0, 1] * y + back[0, 2]) / w
    v = (back[1, 0] * x + back[1, 1] * y + back[1, 2]) / w
    columns, rows = (np.unique(axis) for axis in board.corners_xy.T)
    odd = (np.searchsorted(columns, u) + np.searchsorted(rows, v)) % 2
    values = np.where(odd == 0, float(board.image[0, 0]), 255.0 - board.image[0, 0])
    side = board.image.shape[0]
    values[(u < 0) | (v < 0) | (u > side - 1) | (v > side - 1)] = 0
    return values.reshape(height, fine, width, fine).mean(axis=(1, 3))


def test_corners_on_a_plane_lie_where_the_labels_say() -> None:
    board = textures.checks(np.random.default_rng(4), 288)
    fill = Fill(board, np.eye(3)[:2], np.arange(256, dtype=np.uint8))
    sheet = Canvas((288, 288), fill).sheet()
    shifts = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        for matrix in cameras.flat_views(rng, Geometry(), SIZE, (288, 288), upright=False):
            seen = render([plane_of(sheet)], [matrix], [0], np.zeros((8, 8), np.uint8), SIZE, 1.5)
            xy = seen.corners_xy[seen.positive]
            inside = ((xy > 8) & (xy < (SIZE[1] - 9, SIZE[0] - 9))).all(axis=1)
            exact = apply_homography(matrix, board.corners_xy)
            gaps = np.hypot(*(xy[inside][:, None] - exact).transpose(2, 0, 1)).min(axis=1)
            assert gaps.max(initial=0) < 1e-3
            truth = chequered(board, matrix)
            down, right = np.gradient(truth)
            error = seen.image - truth
            for x, y in np.rint(xy[inside]).astype(int):  # the shift that explains the difference
                part = slice(y - 5, y + 6), slice(x - 5, x + 6)
                slopes = np.stack([right[part].ravel(), down[part].ravel()], axis=1)
                shifts.append(np.linalg.lstsq(slopes, error[part].ravel(), rcond=None)[0])
    sizes = np.hypot(*np.array(shifts).T)
    assert len(sizes) > 40
    assert np.quantile(sizes, 0.95) < 0.05
    assert np.abs(np.mean(shifts, axis=0)).max() < 0.01  # nor all to one side


@pytest.mark.parametrize("kind", ["leaves", "repeats", "boxes"])
def test_a_drawn_corner_of_both_views_is_one_place(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "texture_points", lambda clean, hidden: np.zeros((0, 2)))
    config = of_kind(kind)
    near = []
    for index in range(8):
        pair = training_pair(config, 1, index)
        there = sampled(pair.a_to_b, pair.a.corners_xy[None])[0]  # N 2
        there = there[np.isfinite(there).all(axis=1)]
        if len(there) and len(pair.b.corners_xy):
            gaps = np.hypot(*(there[:, None] - pair.b.corners_xy).transpose(2, 0, 1))
            near.append(gaps.min(axis=1))
    distances = np.concatenate(near)
    assert len(distances) > 30
    assert (distances < 0.05).mean() > 0.4  # others are too weak, hidden or crowded in B
    assert ((distances > 0.1) & (distances < 0.7)).mean() < 0.04


def test_flat_views_differ_as_the_geometry_says() -> None:
    geometry, sheet_hw = Geometry(), (288, 384)
    scales, shares = [], []
    centre = np.array([[(SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2]])
    for seed in range(250):
        rng = np.random.default_rng(seed)
        to_a, to_b = cameras.flat_views(rng, geometry, SIZE, sheet_hw, upright=True)
        a_to_b = to_b @ np.linalg.inv(to_a)
        scales.append(float(cameras.scale_at(a_to_b / a_to_b[2, 2], centre)[0]))
        shares.append(cameras.overlap(to_a, to_b, SIZE))
    assert min(shares) >= geometry.min_overlap
    inner = np.mean([(0.6 < s < 1.6) for s in scales])  # tilt shrinks areas: limits are wider
    assert 0.6 < inner < 0.95
    assert np.quantile(scales, 0.03) < 0.75 and np.quantile(scales, 0.97) > 1.3


def test_relative_scales_lie_in_the_common_range_as_often_as_asked() -> None:
    rng, geometry = np.random.default_rng(0), Geometry()
    drawn = np.array([cameras.relative_scale(rng, geometry) for _ in range(4000)])
    low, high = geometry.common_scale
    assert drawn.min() >= geometry.scale[0] and drawn.max() <= geometry.scale[1]
    common = ((drawn > low) & (drawn < high)).mean()
    assert common == pytest.approx(geometry.common_share, abs=0.03)
    assert abs(np.log(drawn).mean()) < 0.03


def test_corners_lie_evenly_over_the_places_of_a_cell() -> None:
    config = of_kind("leaves", bank=16, reuse=6)
    pairs = [training_pair(config, 0, index) for index in range(80)]
    counts = in_cell_histogram([view for pair in pairs for view in (pair.a, pair.b)])
    flat = counts.sum() / 64
    assert flat > 60
    assert counts.min() > 0.6 * flat and counts.max() < 1.45 * flat


@pytest.mark.parametrize("kind", ["shapes", "glyphs", "boxes"])
def test_a_pair_depends_on_seed_and_index_alone(kind: str) -> None:
    config = of_kind(kind, photometry=Photometry())
    forth = [training_pair(config, 5, index) for index in range(8)]
    composition._BANK.clear()
    back = [training_pair(config, 5, index) for index in reversed(range(8))][::-1]
    for one, other in zip(forth, back, strict=True):
        for a, b in ((one.a, other.a), (one.b, other.b)):
            assert np.array_equal(a.image, b.image)
            assert np.array_equal(a.ignore, b.ignore)
            assert np.array_equal(a.corners_xy, b.corners_xy)
        assert np.array_equal(one.a_to_b, other.a_to_b, equal_nan=True)
        assert one.kind == kind
    assert not np.array_equal(forth[0].a.image, training_pair(config, 6, 0).a.image)


def test_two_pairs_of_one_scene_see_it_differently() -> None:
    config = of_kind("leaves", bank=2)
    first, second = training_pair(config, 0, 0), training_pair(config, 0, 2)
    assert composition.scene_number(config, 0) == composition.scene_number(config, 2)
    assert not np.array_equal(first.a.image, second.a.image)


def test_scenes_are_renewed_evenly_and_never_twice_in_a_bank() -> None:
    config = replace(DataConfig(), bank=8, reuse=4)
    numbers = [composition.scene_number(config, index) for index in range(8 * 40)]
    for start in range(len(numbers) - 8):
        assert len(set(numbers[start : start + 8])) == 8
    late = numbers[8 * 8 : 8 * 36]
    assert {late.count(number) for number in late if numbers.count(number) >= 4} <= {4, 3, 2, 1}
    seen = set(numbers[: 8 * 8])
    renewed = [len(set(numbers[8 * t : 8 * t + 8]) - set(numbers[8 * t - 8 : 8 * t]))
               for t in range(9, 36)]  # fmt: skip
    assert seen and set(renewed) == {2}  # a quarter of eight at each turn


def test_photographs_are_labelled_where_both_views_have_a_point(shared) -> None:
    folder = str(shared / "photos" / "free")
    config = of_kind("leaves", photos=(folder,), photo_share=1.0)
    counts = []
    for index in range(6):
        pair = training_pair(config, 0, index)
        assert pair.kind == "photo"
        counts.append(len(pair.a.corners_xy))
        there = sampled(pair.a_to_b, pair.a.corners_xy[None])[0]  # N 2
        gaps = np.hypot(*(there[:, None] - pair.b.corners_xy).transpose(2, 0, 1)).min(axis=1)
        assert np.nanquantile(gaps, 0.9) < 2.5  # 1 px of the coarser view
        assert np.isfinite(pair.a_to_b).mean() > 0.2
    assert sum(counts) > 60


def test_development_photographs_are_never_trained_on(shared) -> None:
    from tiepoint.evaluation.generated import part_of
    from tiepoint.training.scenes.photographs import photo_files

    files = photo_files((str(shared / "photos" / "free"),), "training")
    assert files and all(part_of(path.name) == "training" for path in files)


def test_a_homography_of_a_sheet_maps_its_corners() -> None:
    matrix = cameras.moved(np.array([5.0, 2])) @ cameras.seen(0.5, 0.3, 0.4, 0.2, 150.0)
    xy = np.array([[3.0, 4], [50, 20]])
    step = 1e-4
    moved = [apply_homography(matrix, xy + np.array(d) * step) for d in ((1, 0), (0, 1), (0, 0))]
    jacobian = np.stack([moved[0] - moved[2], moved[1] - moved[2]], axis=-1) / step
    assert np.sqrt(np.abs(np.linalg.det(jacobian))) == pytest.approx(
        cameras.scale_at(matrix, xy), rel=1e-3
    )


def test_a_place_at_the_very_edge_of_the_other_view_counts_as_its_last_pixel() -> None:
    flow_px = np.full((8, 8, 2), np.nan, np.float32)
    flow_px[0, 0] = 7.5, 7.5
    flow_px[0, 1] = -0.5, 3.0
    covered = np.zeros((8, 8), bool)
    covered[7, 7] = True
    pairs._hide(flow_px, np.zeros((8, 8), bool), covered)
    assert np.isnan(flow_px[0, 0]).all() and flow_px[0, 1].tolist() == [-0.5, 3.0]
