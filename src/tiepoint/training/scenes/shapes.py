"""Classic shapes with exact corners, a few on a calm ground.

Source: SuperPoint, section 4: lines, polygons, stars, chequerboards, stripes and cubes; ellipses
and noise as examples without corners. All are drawn from their description in the paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np

from tiepoint.geometry import SizeHW, apply_homography
from tiepoint.training.scenes import draws, outlines
from tiepoint.training.scenes.basics import UNIT_SQUARE, Matrix, Points, Rng, rectangle, turned
from tiepoint.training.scenes.canvas import CORNER, DOUBTFUL, Canvas, Sheet, vertex_kinds
from tiepoint.training.scenes.palette import Palette, middle_xy

CONTRAST = 40
"""Least difference between the greys of two-tone shapes, of 255."""


def shapes(rng: Rng, size_hw: SizeHW) -> Sheet:
    """A sheet of two to four kinds of classic shapes."""
    palette = Palette(rng, textures=2)
    height, width = size_hw
    ground = palette.grey()
    rough = palette.textured(palette.textures[0], middle_xy(size_hw))
    canvas = Canvas(size_hw, rough if rng.random() < 0.6 else ground)
    makers = rng.choice(len(MAKERS), size=int(rng.integers(2, 5)), replace=False)
    for number in makers:
        maker, most = MAKERS[int(number)]
        for _ in range(int(rng.integers(max(1, most // 3), most + 1))):
            radius = min(size_hw) * rng.uniform(0.07, 0.33) / math.sqrt(max(1, most / 4))
            centre = rng.uniform((0, 0), (width, height))
            maker(canvas, rng, centre, radius, palette)
    return canvas.sheet()


def draw_polygon(canvas: Canvas, rng: Rng, centre: Points, radius: float, palette: Palette) -> None:
    """A polygon with sharp corners, plain or textured."""
    makers = (outlines.polygon, outlines.parallelogram, outlines.regular, outlines.angular)
    points = draws.pick(rng, makers)(rng, radius) + centre
    fill = palette.fill(radius, centre) if rng.random() < 0.3 else palette.grey()
    canvas.polygon(points, fill, vertices=vertex_kinds(points))


def draw_star(canvas: Canvas, rng: Rng, centre: Points, radius: float, palette: Palette) -> None:
    """Rays from one point; the middle and the ends are corners."""
    count, half = int(rng.integers(3, 8)), rng.uniform(1.2, 3.5)
    angles = 2 * math.pi * (np.arange(count) / count + rng.uniform(-0.03, 0.03, count))
    angles += draws.angle(rng)
    grey = palette.grey()
    for angle in angles:
        length = radius * rng.uniform(0.6, 1)
        ray = np.array([[0, -half], [length, -half], [length, half], [0, half]])
        kinds = np.array([0, 1, 1, 0]) * (CORNER if half > 2.5 else DOUBTFUL)
        canvas.polygon(turned(ray, angle) + centre, grey, vertices=kinds)
    canvas.points(centre[None], np.array([CORNER]))


def draw_ellipse(canvas: Canvas, rng: Rng, centre: Points, radius: float, palette: Palette) -> None:
    """An ellipse or a blob: no corner."""
    maker = outlines.ellipse if rng.random() < 0.7 else outlines.blob
    canvas.polygon(maker(rng, radius) + centre, palette.grey(), vertices=None)


def draw_line(canvas: Canvas, rng: Rng, centre: Points, radius: float, palette: Palette) -> None:
    """A straight line; a thin one has a single corner at each end."""
    half = draws.log_uniform(rng, 0.9, 6)
    along = np.array([[-1, 0], [1, 0.0]]) * radius * rng.uniform(1, 2.5)
    angle = draws.angle(rng)
    ends = turned(along, angle) + centre
    across = turned(np.array([[0, half]]), angle)
    points = np.array([ends[0] - across[0], ends[1] - across[0], *(ends[::-1] + across)])
    wide = half > 3
    canvas.polygon(points, palette.grey(), vertices=vertex_kinds(points) if wide else None)
    if not wide:
        canvas.points(ends, np.full(2, CORNER if half < 2 else DOUBTFUL))


def draw_chequerboard(
    canvas: Canvas, rng: Rng, centre: Points, radius: float, palette: Palette
) -> None:
    """A board in perspective: the pale board first, then the dark squares."""
    rows, columns = (int(n) for n in rng.integers(3, 9, 2))
    x_lines, y_lines = _lines(rng, columns), _lines(rng, rows)
    matrix, dark = _draw_board(canvas, rng, centre, radius, palette)
    for row in range(rows):
        for column in range(row % 2, columns, 2):
            (left, right), (top, bottom) = x_lines[column : column + 2], y_lines[row : row + 2]
            square = [[left, top], [right, top], [right, bottom], [left, bottom]]
            canvas.polygon(apply_homography(matrix, square), dark, vertices=None)
    x, y = np.meshgrid(x_lines, y_lines)
    crossings = apply_homography(matrix, np.stack([x.ravel(), y.ravel()], axis=1))
    x_rim, y_rim = (x == 0) | (x == 1), (y == 0) | (y == 1)
    kinds = np.where(x_rim | y_rim, DOUBTFUL, CORNER)
    kinds[x_rim & y_rim] = CORNER
    canvas.points(crossings, kinds.ravel())


def draw_stripes(canvas: Canvas, rng: Rng, centre: Points, radius: float, palette: Palette) -> None:
    """Bands in perspective; their ends are doubtful because they are T-junctions."""
    lines = _lines(rng, int(rng.integers(4, 12)))
    matrix, dark = _draw_board(canvas, rng, centre, radius, palette)
    for left, right in zip(lines[1:-1:2], lines[2::2], strict=False):
        band = apply_homography(matrix, [[left, 0], [right, 0], [right, 1], [left, 1]])
        canvas.polygon(band, dark, vertices=np.full(4, DOUBTFUL))


def draw_cube(canvas: Canvas, rng: Rng, centre: Points, radius: float, palette: Palette) -> None:
    """Three faces of a box: seven corners."""
    start = draws.angle(rng)
    angles = start + np.array([0, 2, 4]) * math.pi / 3 + rng.uniform(-0.35, 0.35, 3)
    lengths = radius * rng.uniform(0.5, 1, 3)
    a, b, c = np.stack([np.cos(angles), np.sin(angles)], axis=1) * lengths[:, None]
    rim = np.array([a, a + b, b, b + c, c, c + a]) + centre
    first, step = palette.grey(), rng.choice([-1, 1]) * rng.uniform(30, 70)
    greys = [int(np.clip(first + step * k, 0, 255)) for k in range(3)]
    canvas.polygon(rim, greys[0], vertices=vertex_kinds(rim))
    for face, grey in (([a * 0, a, a + b, b], greys[1]), ([a * 0, b, b + c, c], greys[2])):
        canvas.polygon(np.array(face) + centre, grey, vertices=None)
    canvas.points(np.vstack([rim, centre]), np.append(vertex_kinds(rim), CORNER))


MAKERS: tuple[tuple[Callable[[Canvas, Rng, Points, float, Palette], None], int], ...] = (
    (draw_polygon, 12),
    (draw_polygon, 4),
    (draw_star, 5),
    (draw_ellipse, 12),
    (draw_line, 14),
    (draw_chequerboard, 3),
    (draw_stripes, 3),
    (draw_cube, 6),
)
"""(maker, largest number of its shapes on a sheet)."""


def _lines(rng: Rng, count: int) -> Points:
    """Increasing positions from 0 to 1 of `count` + 1 lines, evenly spaced or not."""
    gaps = 1 + rng.choice([0, 0.5]) * rng.uniform(-1, 1, count)
    lines = np.concatenate([[0], np.cumsum(gaps) / gaps.sum()])
    lines[-1] = 1
    return np.asarray(lines, np.float64)


def _draw_board(
    canvas: Canvas, rng: Rng, centre: Points, radius: float, palette: Palette
) -> tuple[Matrix, int]:
    """Draw a quadrilateral; 3x3, the unit square -> its px, and a grey `CONTRAST` or more apart."""
    corners = rectangle((1, 1)) * rng.uniform(0.6, 1, 2) + rng.uniform(-0.25, 0.25, (4, 2))
    corners = turned(corners * radius * 1.6, draws.angle(rng)) + centre
    unit, target = UNIT_SQUARE.astype(np.float32), corners.astype(np.float32)
    matrix = np.asarray(cv2.getPerspectiveTransform(unit, target), np.float64)
    grey, frame = palette.grey(), apply_homography(matrix, UNIT_SQUARE)
    other = grey + int(rng.integers(CONTRAST, 200)) * (1 if grey < 128 else -1)
    canvas.polygon(frame, grey, vertices=vertex_kinds(frame))
    return matrix, int(np.clip(other, 0, 255))
