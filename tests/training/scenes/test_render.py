"""Views of planes: grey values, owners, corners, and the flow between two views."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from support.scene_parts import SIZE, grey_sheet, plane_of
from tiepoint.evaluation.views import translation
from tiepoint.geometry import apply_homography
from tiepoint.training.scenes import cameras, textures
from tiepoint.training.scenes.canvas import Canvas, Fill, Sheet, sheet_without_corners
from tiepoint.training.scenes.render import NOBODY, Plane, Rendering, flow, render
from tiepoint.training.scenes.settings import Geometry

BLACK = np.zeros((4, 4), np.uint8)
IDENTITY = np.arange(256, dtype=np.uint8)


def box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float64)


def shift(x: float, y: float) -> np.ndarray:
    return translation(np.array([x, y], np.float64))


def seen(planes: list[Plane], matrices: list[np.ndarray], order=None, backdrop=BLACK) -> Rendering:
    order = list(range(len(planes))) if order is None else order
    return render(planes, matrices, order, backdrop, SIZE, 1.5)


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


def board_sheet() -> tuple[textures.Texture, Sheet]:
    board = textures.checks(np.random.default_rng(4), 288)
    return board, Canvas((288, 288), Fill(board, np.eye(3)[:2], IDENTITY)).sheet()


def test_without_planes_a_view_is_its_backdrop() -> None:
    backdrop = np.full((3, 5), 66, np.uint8)
    view = seen([], [], backdrop=backdrop)
    assert view.image.shape == SIZE and (view.image == 66).all()
    assert (view.owner == NOBODY).all()
    assert view.corners_xy.shape == (0, 2) and len(view.positive) == 0


def test_a_plane_that_fills_the_view_is_shown_as_it_is() -> None:
    values = textures.noise(np.random.default_rng(0), 128, 2.0)[: SIZE[0], : SIZE[1]]
    image = np.clip(128 + 30 * values, 0, 255).astype(np.uint8)
    large = cv2.copyMakeBorder(image, 20, 20, 20, 20, cv2.BORDER_REFLECT)
    view = seen([plane_of(sheet_without_corners(large))], [shift(-20, -20)])
    assert (view.owner == 1).all()
    assert np.abs(view.image.astype(int) - image).mean() < 2  # bilinear at half px smooths it


def test_a_constant_plane_keeps_its_grey() -> None:
    view = seen([plane_of(grey_sheet((300, 300), 201))], [shift(-50.3, -60.8)])
    assert (view.image == 201).all()


def test_the_border_of_a_plane_is_where_its_outline_says() -> None:
    plane = Plane(grey_sheet((300, 300), 200), box(50, 50, 100.25, 90.5), np.zeros(4, bool), 0)
    view = seen([plane], [shift(-30, -30)])
    row = view.image[40].astype(float) / 200
    assert row.sum() == pytest.approx(50.25, abs=0.15)  # px that the plane covers
    column = view.image[:, 40].astype(float) / 200
    assert column.sum() == pytest.approx(40.5, abs=0.15)


def test_the_later_plane_of_the_order_covers_the_earlier() -> None:
    planes = [plane_of(grey_sheet((200, 200), grey), body) for body, grey in ((0, 60), (1, 180))]
    matrices = [shift(-20, -20), shift(-20, -20)]
    assert (seen(planes, matrices, [0, 1]).image == 180).all()
    behind = seen(planes, matrices, [1, 0])
    assert (behind.image == 60).all() and (behind.owner == 1).all()


def test_a_plane_that_is_not_in_the_order_is_not_drawn() -> None:
    planes = [plane_of(grey_sheet((200, 200), grey), body) for body, grey in ((0, 60), (1, 180))]
    view = seen(planes, [shift(-20, -20)] * 2, [0])
    assert (view.image == 60).all() and (view.owner == 1).all()


def test_px_that_show_two_planes_belong_to_nobody() -> None:
    left = Plane(grey_sheet((200, 200), 60), box(-0.5, -0.5, 80.25, 199.5), np.zeros(4, bool), 0)
    right = Plane(grey_sheet((200, 200), 180), box(80.25, -0.5, 199.5, 199.5), np.zeros(4, bool), 1)
    view = seen([left, right], [shift(-20, -20)] * 2)
    owners = view.owner[40]
    assert (owners[:59] == 1).all() and (owners[62:] == 2).all()
    assert (view.owner == NOBODY).any(axis=0).sum() <= 2


def test_faces_of_one_body_leave_no_gap_at_their_edge() -> None:
    a = Plane(grey_sheet((200, 200), 200), box(20, 20, 70.3, 120), np.zeros(4, bool), 3)
    b = Plane(grey_sheet((200, 200), 200), box(70.3, 20, 110, 120), np.zeros(4, bool), 3)
    together = seen([a, b], [np.eye(3)] * 2).image[60, 30:100]
    assert (together == 200).all()
    apart = seen([a, Plane(b.sheet, b.outline, b.vertices, 4)], [np.eye(3)] * 2).image[60, 30:100]
    assert apart.min() < 200


def test_a_plane_behind_the_camera_is_left_out() -> None:
    horizon = np.array([[1.0, 0, 0], [0, 1, 0], [0, -0.01, 1]])  # w = 0 at y = 100
    matrix = horizon @ np.diag([1.0, 1.0, 1.0])
    sheet = grey_sheet((200, 200), 200)
    plane = Plane(sheet, np.array([[0, 0], [50, 0], [25, 100.0]]), np.zeros(3, bool), 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        view = seen([plane], [matrix])
    assert (view.owner <= 1).all() and view.image.shape == SIZE


def test_a_strongly_shrunk_plane_is_not_aliased() -> None:
    stripes = np.zeros((960, 1280), np.uint8)
    stripes[:, ::2] = 255  # finer than the view can show
    view = seen([plane_of(sheet_without_corners(stripes))], [np.diag([0.1, 0.1, 1.0])])
    assert np.abs(view.image[4:-4, 4:-4].astype(int) - 128).max() < 20


def test_corners_on_a_plane_are_where_the_labels_state() -> None:
    board, sheet = board_sheet()
    shifts = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        for matrix in cameras.flat_views(rng, Geometry(), SIZE, (288, 288), upright=False):
            view = seen([plane_of(sheet)], [matrix])
            xy = view.corners_xy[view.positive]
            inside = ((xy > 8) & (xy < (SIZE[1] - 9, SIZE[0] - 9))).all(axis=1)
            exact = apply_homography(matrix, board.corners_xy)
            gaps = np.hypot(*(xy[inside][:, None] - exact).transpose(2, 0, 1)).min(axis=1)
            assert gaps.max(initial=0) < 1e-3
            truth = chequered(board, matrix)
            down, right = np.gradient(truth)
            error = view.image - truth
            for x, y in np.rint(xy[inside]).astype(int):  # the shift that explains the difference
                part = slice(y - 5, y + 6), slice(x - 5, x + 6)
                slopes = np.stack([right[part].ravel(), down[part].ravel()], axis=1)
                shifts.append(np.linalg.lstsq(slopes, error[part].ravel(), rcond=None)[0])
    sizes = np.hypot(*np.array(shifts).T)
    assert len(sizes) > 40
    assert np.quantile(sizes, 0.95) < 0.05
    assert np.abs(np.mean(shifts, axis=0)).max() < 0.01  # nor all to one side


def test_corners_outside_the_view_are_left_out() -> None:
    board, sheet = board_sheet()
    view = seen([plane_of(sheet)], [shift(-100, -100)])
    limits = (SIZE[1] - 0.5, SIZE[0] - 0.5)
    assert ((view.corners_xy >= -0.5) & (view.corners_xy < limits)).all()
    expected = board.corners_xy - 100
    inner = ((expected > 5) & (expected < (SIZE[1] - 6, SIZE[0] - 6))).all(axis=1)
    assert 0 < inner.sum() <= len(view.corners_xy)


def covered_by(gap_px: float, cover_px: float = 1.5) -> Rendering:
    """A corner at (60, 50) and a plane in front of it whose edge is `gap_px` to its right."""
    xy = np.array([[60.0, 50.0]], np.float32)
    back = Sheet(np.full(SIZE, 90, np.uint8), xy, np.ones(1, bool), np.full(1, 5, np.float32))
    edge = 60 + gap_px
    front = Plane(grey_sheet(SIZE, 200), box(edge, -0.5, 127.5, 95.5), np.zeros(4, bool), 1)
    return render([plane_of(back), front], [np.eye(3)] * 2, [0, 1], BLACK, SIZE, cover_px)


@pytest.mark.parametrize(
    ("gap_px", "kept"), [(-3.0, 0), (0.5, 0), (1.0, 0), (2.5, 1), (10.0, 1)]
)  # fmt: skip
def test_a_corner_needs_its_distance_from_what_covers_it(gap_px: float, kept: int) -> None:
    assert len(covered_by(gap_px).corners_xy) == kept


def test_the_distance_can_be_chosen() -> None:
    assert len(covered_by(2.5, cover_px=3.5).corners_xy) == 0
    assert len(covered_by(1.0, cover_px=0.2).corners_xy) == 1


def test_a_small_clearance_on_the_sheet_counts_in_px_of_the_view() -> None:
    xy = np.array([[60.0, 50.0]], np.float32)
    near = Sheet(np.full((96, 128), 90, np.uint8), xy, np.ones(1, bool), np.full(1, 2, np.float32))
    assert len(seen([plane_of(near)], [np.eye(3)]).corners_xy) == 1  # 2 px away
    shrunk = np.array([[0.5, 0, 30], [0, 0.5, 20], [0, 0, 1]])
    assert len(seen([plane_of(near)], [shrunk]).corners_xy) == 0  # 1 px away


def test_vertices_of_a_plane_are_corners_where_it_states() -> None:
    cut = box(40, 30, 90, 70)
    plane = Plane(grey_sheet((200, 200), 200), cut, np.array([True, True, False, True]), 1)
    view = seen([plane], [np.eye(3)])
    assert view.corners_xy.tolist() == cut[[0, 1, 3]].tolist()
    assert view.positive.all()


def test_a_vertex_behind_another_body_is_hidden_and_one_behind_its_own_is_not() -> None:
    cut = box(40, 30, 90, 70)
    face = Plane(grey_sheet((200, 200), 200), cut, np.ones(4, bool), 1)
    for body, kept in ((2, 2), (1, 4)):
        other = Plane(grey_sheet((200, 200), 90), box(80, 20, 120, 80), np.zeros(4, bool), body)
        view = seen([face, other], [np.eye(3)] * 2)
        assert len(view.corners_xy) == kept


def test_doubtful_corners_stay_doubtful() -> None:
    xy = np.array([[30.0, 30.0], [60, 50]], np.float32)
    sheet = Sheet(
        np.full((96, 128), 90, np.uint8), xy, np.array([True, False]), np.full(2, 5, np.float32)
    )
    assert seen([plane_of(sheet)], [np.eye(3)]).positive.tolist() == [True, False]


def slow_flow(a: Rendering, b: Rendering, to_a: list, to_b: list) -> np.ndarray:
    """`flow` px by px."""
    height, width = a.owner.shape
    result = np.full((height, width, 2), np.nan)
    for y in range(height):
        for x in range(width):
            owner = a.owner[y, x]
            if owner == NOBODY:
                continue
            back = np.linalg.solve(to_a[owner - 1], [x, y, 1.0])
            u, v, w = to_b[owner - 1] @ back
            u, v = u / w, v / w
            column, row = int(np.rint(u)), int(np.rint(v))
            in_view = 0 <= column < width and 0 <= row < height
            if in_view and b.owner[row, column] == owner:
                result[y, x] = u, v
    return result


def test_the_flow_is_that_of_the_slow_twin() -> None:
    wall, board = grey_sheet((288, 384), 60), grey_sheet((288, 384), 200)
    planes = [plane_of(wall), Plane(board, box(120, 90, 250, 190), np.ones(4, bool), 1)]
    rng = np.random.default_rng(3)
    pairs = [cameras.flat_views(rng, Geometry(), SIZE, (288, 384), upright=True) for _ in range(2)]
    to_a, to_b = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    a, b = seen(planes, to_a), seen(planes, to_b)
    fast, slow = flow(a, b, to_a, to_b), slow_flow(a, b, to_a, to_b)
    assert fast.dtype == np.float32
    assert (np.isnan(fast) == np.isnan(slow)).mean() > 0.9999  # a tie of rounding may differ
    both = np.isfinite(fast) & np.isfinite(slow)
    assert both.mean() > 0.1
    assert np.abs(fast[both] - slow[both]).max() < 1e-3


def test_the_flow_of_equal_views_is_the_identity() -> None:
    view = seen([plane_of(grey_sheet((200, 200), 60))], [shift(-20, -20)])
    forth = flow(view, view, [shift(-20, -20)], [shift(-20, -20)])
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    assert np.allclose(forth, np.stack([x, y], axis=-1), atol=1e-4)


def test_the_backdrop_has_no_flow() -> None:
    view = seen([], [])
    assert np.isnan(flow(view, view, [], [])).all()


def test_what_a_board_hides_in_the_other_view_has_no_flow() -> None:
    # Both planes face the camera; it moves right by 8: the wall at twice the distance shifts half.
    wall, board = grey_sheet((400, 400), 60), grey_sheet((400, 400), 200)
    cut = box(100.5, 100.5, 160.5, 160.5)
    planes = [plane_of(wall), Plane(board, cut, np.ones(4, bool), 1)]
    to_a, to_b = [shift(-100, -100)] * 2, [shift(-104, -100), shift(-108, -100)]
    a, b = seen(planes, to_a), seen(planes, to_b)
    forth = flow(a, b, to_a, to_b)
    assert np.array_equal(forth[30, 20], [12, 30])  # on the board, 8 px nearer the left
    assert np.array_equal(forth[30, 80], [76, 30])  # on the wall
    assert np.isnan(forth[30, 4:8]).all()  # the board leaves the view or is in front of it
    back = flow(b, a, to_b, to_a)
    # Wall px of B at 53..56 are at 57..60 of A, behind the board's right edge at 60.5.
    assert np.isnan(back[30, 54:56]).all()
    assert np.array_equal(back[30, 58], [62, 30])
    assert np.abs(a.corners_xy[a.positive] - [60.5, 60.5]).max(axis=1).min() < 1e-3


def test_one_view_warped_by_the_flow_is_the_other() -> None:
    smooth = textures.noise(np.random.default_rng(0), 512, 2.4)[:288, :384]
    plane = plane_of(sheet_without_corners(np.clip(128 + 40 * smooth, 0, 255).astype(np.uint8)))
    errors = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        to_a, to_b = cameras.flat_views(rng, Geometry(), SIZE, (288, 384), upright=False)
        a, b = seen([plane], [to_a]), seen([plane], [to_b])
        forth = flow(a, b, [to_a], [to_b])
        known = np.isfinite(forth[..., 0])
        values = b.image.astype(np.float32)
        warped, half_a_px_off = (
            cv2.remap(values, forth[..., 0] + off, forth[..., 1], cv2.INTER_LINEAR)
            for off in (0, np.float32(0.5))
        )
        errors.append(np.abs(warped - a.image)[known].mean())
        assert np.abs(half_a_px_off - a.image)[known].mean() > 1.3 * errors[-1]  # 0.5 px shows
        assert known.mean() > 0.1
    assert np.mean(errors) < 1.5
