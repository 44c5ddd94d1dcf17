"""Letters, block signs and strokes as polygons."""

from __future__ import annotations

import numpy as np
import pytest

from tiepoint.training.scenes import glyphs
from tiepoint.training.scenes.canvas import CORNER, NONE, Canvas, doubled_area, edges


def rng_of(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def area_of(glyph: glyphs.Glyph) -> float:
    """Area of a letter in squared heights, holes subtracted."""
    return sum(
        abs(doubled_area(outer)) / 2 - sum(abs(doubled_area(hole)) / 2 for hole, _ in holes)
        for (outer, _), holes in glyph.parts
    )


@pytest.mark.parametrize(
    ("letter", "corners"), [("H", 12), ("L", 6), ("T", 8), ("E", 12), ("I", 4), ("+", 12)]
)
def test_letters_have_corners_where_their_outlines_turn_sharply(letter: str, corners: int) -> None:
    ((points, kinds), holes), *rest = glyphs.letter_glyph(letter, glyphs.SANS, 0).parts
    assert not holes and not rest
    assert (kinds == CORNER).sum() == corners
    assert np.abs(points).max() <= 0.6


@pytest.mark.parametrize("letter", ["O", "0", "o"])
def test_round_letters_have_no_corner(letter: str) -> None:
    glyph = glyphs.letter_glyph(letter, glyphs.SANS, 0)
    for (_, kinds), holes in glyph.parts:
        assert not (kinds == CORNER).any()
        assert not any((hole_kinds == CORNER).any() for _, hole_kinds in holes)


@pytest.mark.parametrize(
    ("letter", "parts", "holes"),
    [("H", 1, 0), ("O", 1, 1), ("B", 1, 2), ("8", 1, 2), ("i", 2, 0), ("%", 3, 2), ("=", 2, 0)],
)
def test_letters_have_their_parts_and_holes(letter: str, parts: int, holes: int) -> None:
    glyph = glyphs.letter_glyph(letter, glyphs.SANS, 0)
    assert len(glyph.parts) == parts
    assert sum(len(part_holes) for _, part_holes in glyph.parts) == holes


@pytest.mark.parametrize("font", [glyphs.SANS, *glyphs.HERSHEY])
def test_every_font_has_every_letter(font: int) -> None:
    for letter in glyphs.LETTERS[::7]:
        glyph = glyphs.letter_glyph(letter, font, 1)
        assert glyph.parts and 0 < glyph.width < 2
        for (points, kinds), _ in glyph.parts:
            assert len(points) == len(kinds) >= 3


def test_a_larger_weight_is_bolder() -> None:
    for letter in "HQ8":
        areas = [area_of(glyphs.letter_glyph(letter, glyphs.SANS, w)) for w in glyphs.WEIGHTS]
        assert areas[0] < areas[1] < areas[2]


def test_the_box_of_a_letter_is_around_the_origin_and_as_wide_as_stated() -> None:
    for letter in "HgQ8":
        glyph = glyphs.letter_glyph(letter, glyphs.SANS, 0)
        points = np.concatenate([outer for (outer, _), _ in glyph.parts])
        low, high = points.min(axis=0), points.max(axis=0)
        assert low + high == pytest.approx(np.zeros(2), abs=1e-9)
        assert high[0] - low[0] == pytest.approx(glyph.width)


def test_a_letter_is_made_once() -> None:
    assert glyphs.letter_glyph("K", glyphs.SANS, 2) is glyphs.letter_glyph("K", glyphs.SANS, 2)


def test_a_space_has_no_parts() -> None:
    assert glyphs.letter_glyph(" ", glyphs.SANS, 0).parts == ()


def test_block_signs_have_right_angles_only() -> None:
    for seed in range(20):
        glyph = glyphs.block_glyph(rng_of(seed))
        assert glyph.parts
        for (outer, _), holes in glyph.parts:
            for ring in (outer, *(hole for hole, _ in holes)):
                x, y = edges(ring)
                assert ((np.abs(x) < 1e-9) | (np.abs(y) < 1e-9)).all()


def test_block_signs_are_one_high_at_most() -> None:
    for seed in range(20):
        glyph = glyphs.block_glyph(rng_of(seed))
        points = np.concatenate([outer for (outer, _), _ in glyph.parts])
        assert np.ptp(points[:, 1]) <= 1 + 1e-9
        assert np.ptp(points[:, 0]) == pytest.approx(glyph.width)


def test_block_signs_have_corners_and_differ() -> None:
    signs = [glyphs.block_glyph(rng_of(seed)) for seed in range(12)]
    corners = [sum(int((kinds == CORNER).sum()) for (_, kinds), _ in s.parts) for s in signs]
    assert min(corners) >= 4
    assert len({area_of(sign) for sign in signs}) == 12


def test_a_straight_ribbon_is_a_rectangle() -> None:
    outline = glyphs.ribbon(np.array([[0.0, 0], [10, 0]]), 4)
    assert sorted(map(tuple, outline.tolist())) == [(0, -2), (0, 2), (10, -2), (10, 2)]
    assert abs(doubled_area(outline)) == pytest.approx(2 * 40)


def test_points_along_a_straight_ribbon_do_not_change_its_width() -> None:
    path = np.array([[0.0, 0], [3, 0], [7, 0], [10, 0]])
    assert abs(doubled_area(glyphs.ribbon(path, 4))) == pytest.approx(2 * 40)
    assert np.abs(glyphs.ribbon(path, 4)[:, 1]) == pytest.approx(np.full(8, 2.0))


def test_a_mitred_joint_keeps_the_width_on_both_sides() -> None:
    path = np.array([[0.0, 0], [20, 0], [20, 20]])
    left, right = np.split(glyphs.ribbon(path, 6), 2)
    assert left[1] == pytest.approx(np.array([17, 3]))
    assert right[::-1][1] == pytest.approx(np.array([23, -3]))


def test_a_needle_joint_is_limited() -> None:
    path = np.array([[0.0, 0], [20, 0], [0, 0.01]])
    outline = glyphs.ribbon(path, 6)
    assert np.hypot(*(outline - [10, 0]).T).max() < 40


@pytest.mark.parametrize("height", [20.0, 60.0])
def test_a_drawn_letter_is_around_its_centre_and_as_high_as_asked(height: float) -> None:
    centre, sizes = np.array([80.0, 75.0]), []
    for seed in range(10):
        canvas = Canvas((150, 160), 0)
        glyphs.draw_glyph(canvas, rng_of(seed), centre, height, 255)
        rows, columns = np.nonzero(canvas.sheet().image)
        assert abs(columns.mean() - 80) < 0.4 * height and abs(rows.mean() - 75) < 0.4 * height
        sizes.append(np.hypot(np.ptp(columns), np.ptp(rows)))
    assert 0.5 * height < np.median(sizes) < 2 * height


def test_a_drawn_letter_has_labelled_corners() -> None:
    counts = []
    for seed in range(10):
        canvas = Canvas((150, 160), 0)
        glyphs.draw_glyph(canvas, rng_of(seed), (80, 75), 90, 255)
        counts.append(int(canvas.sheet().positive.sum()))
    assert np.median(counts) >= 4


def test_the_hole_of_a_drawn_letter_shows_the_ground() -> None:
    class Fixed:
        """A canvas that records the polygons."""

        def __init__(self) -> None:
            self.holes: list[int] = []
            self.kinds: list[np.ndarray] = []

        def polygon(self, points, fill, *, vertices, holes) -> None:
            self.holes.append(len(holes))

        def points(self, xy, kinds) -> None:
            self.kinds.append(kinds)

    counts = []
    for seed in range(60):
        recorder = Fixed()
        glyphs.draw_glyph(recorder, rng_of(seed), (0, 0), 30, 255)  # type: ignore[arg-type]
        assert len(recorder.kinds) == sum(recorder.holes)
        assert all((kinds != NONE).all() for kinds in recorder.kinds)
        counts.append(sum(recorder.holes))
    assert max(counts) >= 1 and min(counts) == 0
