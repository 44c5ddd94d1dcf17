"""Overlays: the ring is around its keypoint, and the picture under it is the image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tiepoint.errors import ConfigError, FormatError
from tiepoint.features import Features, Matches
from tiepoint.plotting import (
    CURVE_COLOURS,
    GAP_PX,
    PANEL_WH,
    curves_panel,
    figure,
    figure_of_matches,
    plot,
    plot_matches,
)  # fmt: skip

HALVES = (slice(0, 250), slice(250, 500))
HALF_1, HALF_2 = slice(0, 150), slice(150, 300)


def features_at(points: list[tuple[float, float]], size_hw: tuple[int, int]) -> Features:
    xy = np.array(points, np.float32).reshape(-1, 2)
    scores = np.linspace(1, 0.5, len(xy), dtype=np.float32)
    return Features(xy=xy, scores=scores, descriptors=None, size_hw=size_hw)


def test_deep_and_float_images_are_drawn_as_in_eight_bits() -> None:
    levels = np.tile(np.linspace(0, 255, 500).astype(np.uint8), (500, 1))
    nothing = features_at([], levels.shape)
    expected = plot(nothing, levels).astype(int)
    kinds = [levels.astype(np.uint16) * 16, 30_000 + levels.astype(np.uint16), levels / 5 - 12]
    for image in [*kinds, levels.astype(np.uint16) * 257, levels / 255]:
        np.testing.assert_allclose(plot(nothing, image), expected, atol=1)
    gaps = np.where(levels < 40, np.nan, levels * 9.0)
    assert (plot(nothing, gaps)[levels < 40] == 255).all()


@pytest.mark.parametrize("size_hw", [(600, 500), (120, 100)])  # drawn as it is, and enlarged
@pytest.mark.parametrize("point", [(50.0, 60.0), (50.5, 60.25)])
def test_a_ring_is_around_its_keypoint(
    size_hw: tuple[int, int], point: tuple[float, float]
) -> None:
    grey = np.full(size_hw, 90, np.uint8)
    drawn = plot(features_at([point], size_hw), grey)
    zoom = drawn.shape[0] // size_hw[0]
    rows, columns = np.nonzero((drawn != 90).any(axis=2))
    centre = np.array([columns.min() + columns.max(), rows.min() + rows.max()]) / 2
    expected = (np.array(point) + 0.5) * zoom - 0.5
    np.testing.assert_allclose(centre, expected, atol=0.51)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_without_keypoints_the_picture_is_the_image_in_eight_bits(dtype: type) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16).repeat(32, 0).repeat(32, 1)
    image = {
        np.uint8: levels,
        np.uint16: levels.astype(np.uint16) * 257,
        np.float32: levels.astype(np.float32) / 255,
    }[dtype]
    drawn = plot(features_at([], (512, 512)), image)
    np.testing.assert_array_equal(drawn, np.stack([levels] * 3, axis=2))


def test_the_image_given_is_not_drawn_on_and_the_best_is_yellow(tmp_path: Path) -> None:
    image = np.zeros((500, 500, 3), np.uint8)
    path = tmp_path / "겹침.png"
    drawn = plot(features_at([(100, 100), (400, 400)], (500, 500)), image, path)
    assert not image.any()
    best, worst = (drawn[half, half].reshape(-1, 3).max(axis=0) for half in HALVES)
    assert best[1] > 200 and best[2] < 100 and worst[1] < 100 < worst[2]
    written = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(written[:, :, ::-1], drawn)


def test_the_features_of_another_image_are_refused() -> None:
    with pytest.raises(ConfigError, match="100x120 px"):
        plot(features_at([], (120, 100)), np.zeros((100, 120), np.uint8))


def test_a_name_that_would_belie_the_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"\.png"):
        plot(features_at([], (9, 9)), np.zeros((9, 9), np.uint8), tmp_path / "overlay.jpg")
    assert not list(tmp_path.iterdir())


def matched(*pairs: tuple[int, int]) -> Matches:
    scores = np.linspace(0.9, 0.3, len(pairs), dtype=np.float32)
    return Matches(np.array(pairs, np.int64).reshape(-1, 2), scores)


def pair_of(grey_a: int = 90, grey_b: int = 60) -> tuple[Any, Any]:
    return np.full((300, 600), grey_a, np.uint8), np.full((400, 510), grey_b, np.uint8)


def test_two_images_without_matches_are_side_by_side_and_unchanged() -> None:
    a, b = pair_of()
    nothing = features_at([], (300, 600)), features_at([], (400, 510))
    drawn = plot_matches(a, b, *nothing, matched(), max_side=600)
    assert drawn.shape == (400, 600 + GAP_PX + 510, 3)
    assert (drawn[:300, :600] == 90).all() and (drawn[:, 600 + GAP_PX :] == 60).all()
    assert (drawn[300:, :600] == 255).all() and (drawn[:, 600 : 600 + GAP_PX] == 255).all()


@pytest.mark.parametrize(("max_side", "scale_a", "scale_b"), [(600, 1, 1), (300, 0.5, 300 / 510)])
def test_a_match_is_marked_at_both_ends_with_a_line_between(
    max_side: int, scale_a: float, scale_b: float
) -> None:
    a, b = pair_of()
    ends = features_at([(1, 1), (200, 150)], (300, 600)), features_at([(300, 150)], (400, 510))
    drawn = plot_matches(a, b, *ends, matched((1, 0)), max_side=max_side).astype(int)
    start = round(600 * scale_a) + GAP_PX
    left, right = drawn[: round(300 * scale_a), : start - GAP_PX], drawn[:, start:]
    columns_a = np.nonzero((left != 90).any(axis=(0, 2)))[0]
    columns_b = np.nonzero((right != 60).any(axis=(0, 2)))[0]
    # The ring around each end, 3 px and its edge, is farthest out; keypoint 0 has no match.
    assert abs(columns_a.min() - (200.5 * scale_a - 0.5 - 3.5)) < 1.5
    assert abs(columns_b.max() - (300.5 * scale_b - 0.5 + 3.5)) < 1.5
    assert (drawn[:, start - GAP_PX // 2] != 255).any()  # the line crosses the gap


def test_of_many_matches_only_some_get_lines_but_all_are_marked() -> None:
    rows = [(50.0, 10.0 + 20 * n) for n in range(14)]
    a = b = np.zeros((300, 300), np.uint8)
    ends = features_at(rows, (300, 300)), features_at(rows, (300, 300))
    every = matched(*[(n, n) for n in range(14)])
    crossing = {}
    for most in (None, 4, 1, 0):
        drawn = plot_matches(a, b, *ends, every, max_lines=most, max_side=300)
        gap = (drawn[:, 300 + GAP_PX // 2] != 255).any(axis=1)
        crossing[most] = int((np.diff(np.r_[0, gap.astype(int)]) == 1).sum())
        assert all(drawn[int(y) - 6 : int(y) + 7, 40:60].any() for _, y in rows)
    assert crossing == {None: 14, 4: 4, 1: 1, 0: 0}


def test_the_best_match_is_yellow_and_the_images_stay_as_they_were(tmp_path: Path) -> None:
    a = b = np.zeros((300, 300), np.uint8)
    rows = [(50.0, 50.0), (50.0, 250.0)]
    ends = features_at(rows, (300, 300)), features_at(rows, (300, 300))
    path = tmp_path / "짝.png"
    drawn = plot_matches(a, b, *ends, matched((0, 0), (1, 1)), path, max_side=300)
    assert not a.any()
    best, worst = (drawn[rows, :200].reshape(-1, 3).max(axis=0) for rows in (HALF_1, HALF_2))
    assert best[0] > 200 and best[1] > 200 and worst[1] < 100 < worst[2]
    written = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(written[:, :, ::-1], drawn)


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    a, b = pair_of()
    of_a, of_b = features_at([(1, 1)], (300, 600)), features_at([(1, 1)], (400, 510))
    with pytest.raises(ConfigError, match="image A is 510x400 px"):
        plot_matches(b, b, of_a, of_b, matched())
    with pytest.raises(ConfigError, match="image B is 600x300 px"):
        plot_matches(a, a, of_a, of_b, matched())
    with pytest.raises(ConfigError, match="keypoint 1 of image B, which has 1"):
        plot_matches(a, b, of_a, of_b, matched((0, 1)))
    with pytest.raises(FormatError, match=r"\.png"):
        plot_matches(a, b, of_a, of_b, matched(), tmp_path / "x.jpg")
    for limit in ({"max_lines": -1}, {"max_lines": 1.5}, {"max_side": 0}, {"max_side": None}):
        with pytest.raises(ConfigError, match=f"{next(iter(limit))} is .*, expected a whole"):
            plot_matches(a, b, of_a, of_b, matched(), **limit)  # type: ignore[arg-type]


def test_points_far_outside_do_not_hide_the_others() -> None:
    image = np.zeros((480, 480), np.uint8)
    inside = features_at([(100, 100)], (480, 480))
    far = features_at([(100, 100), (1e9, -1e9), (np.nan, 3e38)], (480, 480))
    assert plot(far, image).any() and (plot(far.top(1), image) == plot(inside, image)).all()
    assert plot_matches(image, image, far, far, matched((0, 0), (1, 1), (2, 2))).any()


def test_no_match_of_one_keypoint_with_itself_is_drawn_as_a_ring_only() -> None:
    a = b = np.zeros((300, 300), np.uint8)
    ends = features_at([(150, 150)], (300, 300)), features_at([(150, 150)], (300, 300))
    drawn = plot_matches(a, b, *ends, matched((0, 0)), max_lines=0, max_side=300)
    assert (drawn[:, 300 : 300 + GAP_PX] == 255).all()
    left, right = drawn[:, :300], drawn[:, 300 + GAP_PX :]
    assert left.any()
    np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(("size", "zoom"), [(479, 1), (240, 2), (100, 4), (61, 7), (10, 8), (1, 8)])
def test_small_images_are_enlarged_by_a_whole_factor(size: int, zoom: int) -> None:
    image = np.random.default_rng(size).integers(0, 256, (size, size, 3), dtype=np.uint8)
    drawn = plot(features_at([], (size, size)), image)
    assert drawn.shape == (size * zoom, size * zoom, 3)
    np.testing.assert_array_equal(drawn[::zoom, ::zoom], image)
    np.testing.assert_array_equal(drawn[zoom - 1 :: zoom, zoom - 1 :: zoom], image)


def test_rings_of_better_keypoints_are_on_top() -> None:
    """Two rings at one place show the colour of the better keypoint."""
    image = np.zeros((500, 500), np.uint8)
    hidden = plot(features_at([(250, 250), (250, 250)], (500, 500)), image)
    apart = plot(features_at([(250, 250), (50, 50)], (500, 500)), image)
    ring = apart[200:300, 200:300]
    solid = ring[..., 0] > 200  # anti-aliased edges mix both colours
    assert solid.any()
    np.testing.assert_allclose(hidden[200:300, 200:300][solid].astype(int), ring[solid], atol=40)


def test_the_scores_rank_the_colours_and_not_their_values() -> None:
    """Keypoints come best first; equal steps in rank are equal steps in colour."""
    points = [(100.0, 100.0), (250.0, 250.0), (400.0, 400.0)]
    image = np.zeros((500, 500), np.uint8)
    features = features_at(points, (500, 500))
    steep = Features(features.xy, np.array([0.9, 0.011, 0.010], np.float32), None, features.size_hw)
    np.testing.assert_array_equal(plot(features, image), plot(steep, image))


def test_lines_are_half_transparent() -> None:
    a = b = np.full((300, 300), 200, np.uint8)
    ends = features_at([(250, 150)], (300, 300)), features_at([(50, 150)], (300, 300))
    drawn = plot_matches(a, b, *ends, matched((0, 0)), max_side=300).astype(float)
    line = drawn[150, 300 + GAP_PX // 2]  # on the white gap
    yellow = np.array([240, 249, 33])  # the end of the colour map
    np.testing.assert_allclose(line, 0.7 * yellow + 0.3 * 255, atol=20)  # anti-aliased


def test_lines_are_an_even_selection_from_best_to_worst() -> None:
    """Three of nine matches get lines: the best, the middle and the worst."""
    rows = [(50.0, 20.0 + 30 * n) for n in range(9)]
    a = b = np.zeros((300, 300), np.uint8)
    ends = features_at(rows, (300, 300)), features_at(rows, (300, 300))
    every = matched(*[(n, n) for n in range(9)])
    drawn = plot_matches(a, b, *ends, every, max_lines=3, max_side=300)
    gap = (drawn[:, 300 + GAP_PX // 2] != 255).any(axis=1)
    crossed = [n for n, (_, y) in enumerate(rows) if gap[int(y) - 1 : int(y) + 2].any()]
    assert crossed == [0, 4, 8]


@pytest.mark.parametrize(("max_side", "size"), [(300, 300), (599, 300), (600, 600), (1000, 900)])
def test_images_for_matches_are_enlarged_by_whole_factors_only(max_side: int, size: int) -> None:
    image = np.zeros((300, 150), np.uint8)
    none = features_at([], (300, 150))
    drawn = plot_matches(image, image, none, none, matched(), max_side=max_side)
    assert drawn.shape == (size, size // 2 * 2 + GAP_PX, 3)


@pytest.mark.parametrize(
    ("side_a", "side_b", "expected"),
    [(100, 60, (100, 60)), (40, 30, (80, 60)), (200, 30, (100, 90)), (200, 300, (100, 100))],
)
def test_two_images_that_fit_are_shown_at_their_relative_sizes(
    side_a: int, side_b: int, expected: tuple[int, int]
) -> None:
    a, b = (np.zeros((side, side), np.uint8) for side in (side_a, side_b))
    none = [features_at([], (side, side)) for side in (side_a, side_b)]
    drawn = plot_matches(a, b, *none, matched(), max_side=100)
    assert drawn.shape[1] == sum(expected) + GAP_PX
    assert drawn.shape[0] == max(expected)


def test_large_images_for_matches_are_averaged() -> None:
    stripes = np.zeros((400, 400), np.uint8)
    stripes[:, ::2] = 200
    none = features_at([], (400, 400))
    drawn = plot_matches(stripes, stripes, none, none, matched(), max_side=200)
    assert (drawn[:, :200] == 100).all()


def columns_of(panel: np.ndarray, colour: tuple[int, int, int]) -> dict[int, float]:
    """Mean row of a colour in each column below the title and the names."""
    rows, columns = np.nonzero(np.abs(panel.astype(int) - colour).sum(axis=2) < 60)
    below = rows > 34
    return {
        int(column): float(rows[below & (columns == column)].mean())
        for column in np.unique(columns[below])
    }


def test_a_panel_without_curves_has_frame_and_title_only() -> None:
    empty = curves_panel("loss", {})
    assert empty.shape == (PANEL_WH[1], PANEL_WH[0], 3) and empty.dtype == np.uint8
    assert (empty[:25, 44:120] < 128).any()  # the title
    untitled = curves_panel("", {})
    assert (untitled[:30] == 255).all()


def test_a_curve_goes_through_its_points() -> None:
    """A straight line from the bottom left to the top right of the frame."""
    points = np.array([[0, 0.0], [100, 1.0]])
    panel = curves_panel("", {"a": points}, size_wh=(400, 300))
    line = columns_of(panel, CURVE_COLOURS[0])
    left, right, ceiling, floor = 44, 388, 34, 276
    for column, row in line.items():
        if left + 5 < column < right - 5:
            expected = floor - (column - left) / (right - left) * (floor - ceiling)
            assert row == pytest.approx(expected, abs=1.5)
    assert len(line) > 250


def test_curves_have_different_colours_and_share_one_axis() -> None:
    """The curve of ones is at the top, and that of halves in the middle."""
    x = np.arange(10.0)
    lines = {name: np.stack([x, np.full(10, y)], axis=1) for name, y in (("a", 1.0), ("b", 0.5))}
    panel = curves_panel("", lines, size_wh=(400, 300))
    top = columns_of(panel, CURVE_COLOURS[0])
    middle = columns_of(panel, CURVE_COLOURS[1])
    assert np.median(list(middle.values())) == pytest.approx((34 + 276) / 2, abs=1)
    assert not top or min(top.values()) < 40


@pytest.mark.parametrize(("top", "row"), [(None, 34), (2.0, 155)])
def test_the_top_of_the_axis_can_be_given(top: float | None, row: int) -> None:
    points = np.array([[0, 0.0], [50, 1.0], [100, 0.0]])
    panel = curves_panel("", {"a": points}, size_wh=(401, 300), top=top)
    line = columns_of(panel, CURVE_COLOURS[0])
    assert min(line.values()) == pytest.approx(row, abs=3)


def test_negative_values_lower_the_axis_and_positive_ones_keep_zero() -> None:
    flat = np.array([[0, 1.0], [1, 1.0]])
    below = np.array([[0, -1.0], [1, 1.0]])
    above_zero = columns_of(curves_panel("", {"a": flat}, top=2.0), CURVE_COLOURS[0])
    assert np.median(list(above_zero.values())) == pytest.approx((34 + 196) / 2, abs=1)
    falling = columns_of(curves_panel("", {"a": below}), CURVE_COLOURS[0])
    assert max(falling.values()) == pytest.approx(196, abs=1.5)


def test_one_point_and_curves_of_zeros_do_no_harm() -> None:
    for points in ([[3.0, 0.0]], [[0.0, 0.0], [1.0, 0.0]], [[0.0, 5.0]]):
        panel = curves_panel("flat", {"a": np.array(points)})
        assert panel.shape == (PANEL_WH[1], PANEL_WH[0], 3)


def test_more_curves_than_colours_use_them_again() -> None:
    count = len(CURVE_COLOURS) + 1
    lines = {
        str(n): np.array([[0, float(n)], [1, float(n)]]) for n in range(count)
    }  # horizontal lines, evenly spaced
    panel = curves_panel("", lines, size_wh=(400, 300), top=10)
    rows = columns_of(panel, CURVE_COLOURS[0])
    assert max(rows.values()) - min(rows.values()) < 150
    first, last = 276.0, 276 - (count - 1) / 10 * (276 - 34)
    assert np.median(list(rows.values())) == pytest.approx((first + last) / 2, abs=2)


def test_a_figure_of_keypoints_has_them_at_their_places_in_px() -> None:
    pytest.importorskip("matplotlib")
    image = np.zeros((60, 80, 3), np.uint8)
    features = features_at([(10.25, 20.5), (70, 5)], (60, 80))
    made = figure(features, image)
    axes = made.axes[0]
    np.testing.assert_allclose(axes.collections[0].get_offsets(), features.xy)
    assert axes.get_xlim() == (-0.5, 79.5) and axes.get_ylim() == (59.5, -0.5)
    assert made._repr_png_().startswith(b"\x89PNG")
    assert figure(features_at([], (60, 80)), image)._repr_png_()
    with pytest.raises(ConfigError, match="80x60"):
        figure(features, image[:50])


def test_a_figure_of_matches_shows_the_picture_of_both() -> None:
    pytest.importorskip("matplotlib")
    images = [np.zeros((60, 80, 3), np.uint8)] * 2
    features = features_at([(10, 20)], (60, 80))
    matches = Matches(np.array([[0, 0]]), np.ones(1, np.float32))
    made = figure_of_matches(*images, features, features, matches)
    expected = plot_matches(*images, features, features, matches)
    np.testing.assert_array_equal(made.axes[0].images[0].get_array(), expected)
    assert made.axes[0].get_title() == "1 matches"
