"""Text and strokes: letters as polygons, so that their corners are exact.

Letters of a font are rasterised 400 px high and their contours are simplified to polygons. These
polygons are drawn, so a letter's corners are exact by construction. Block letters are random
bitmaps on uneven grids; strokes are paths of constant width.
"""

from __future__ import annotations

import math
import string
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from tiepoint.geometry import SizeHW
from tiepoint.training.scenes import draws
from tiepoint.training.scenes.basics import Kinds, Matrix, Points, Rng, rectangle, turned
from tiepoint.training.scenes.canvas import (
    CORNER,
    DOUBTFUL,
    NONE,
    Canvas,
    Fill,
    Sheet,
    vertex_kinds,
)
from tiepoint.training.scenes.palette import Palette

MASTER_PX = 400  # height of the raster from which contours are taken
TOLERANCE_PX = 1.4  # of the simplified contour, at that height
REACH = 0.045  # distance from a vertex at which its turn is measured, in heights of the letter
CURVE_DEG, CORNER_DEG = 36.0, 50.0  # smaller turns are of a curve, larger ones are corners
LETTERS = string.ascii_letters + string.digits + "&@#%$?!+=*<>/[]{}"
HERSHEY = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
    cv2.FONT_HERSHEY_SCRIPT_COMPLEX,
)
SANS = -1  # Pillow's built-in font
WEIGHTS = (0, 1, 2)

Outline = tuple[Points, Kinds]
"""N 2 and the kind of each vertex."""


@dataclass(frozen=True, eq=False)
class Glyph:
    """A letter of height 1 around (0, 0)."""

    parts: tuple[tuple[Outline, tuple[Outline, ...]], ...]
    """(outline, outlines of its holes) for each connected part."""
    width: float  # in heights


def glyph_sheet(rng: Rng, size_hw: SizeHW) -> Sheet:
    """Lines of text, single large letters and strokes on a plain or textured ground."""
    palette = Palette(rng, textures=3)
    height, width = size_hw
    canvas = palette.canvas(size_hw)
    for _ in range(int(rng.integers(0, 4))):  # boards and labels behind the text
        radius = rng.uniform(0.15, 0.5) * min(size_hw)
        points = turned(rectangle((1, 0.6)) * radius, _text_angle(rng))
        points = points + rng.uniform((0, 0), (width, height))
        fill = palette.fill(radius, points.mean(axis=0))
        canvas.polygon(points, fill, vertices=vertex_kinds(points))
    for _ in range(int(rng.integers(4, 14))):
        start = rng.uniform((-0.1 * width, 0), (0.7 * width, height))
        _draw_word(canvas, rng, start, draws.log_uniform(rng, 16, 110), palette)
    for _ in range(int(rng.integers(0, 8))):
        _draw_stroke(canvas, rng, rng.uniform((0, 0), (width, height)), _ink(rng, palette))
    return canvas.sheet()


def draw_glyph(
    canvas: Canvas, rng: Rng, centre: ArrayLike, height: float, fill: int | Fill
) -> None:
    """Draw a single letter, rotated and slanted; centre (x, y) and height in px."""
    matrix = _affine(rng, height, draws.angle(rng))
    if rng.random() < 0.4:
        glyph = block_glyph(rng)
    else:
        glyph = letter_glyph(draws.pick(rng, LETTERS), _font(rng), draws.pick(rng, WEIGHTS))
    _draw(canvas, glyph, matrix, np.asarray(centre, np.float64), fill)


def _draw_word(canvas: Canvas, rng: Rng, start: Points, size: float, palette: Palette) -> None:
    matrix = _affine(rng, size, _text_angle(rng))
    blocks, font, weight = rng.random() < 0.35, _font(rng), draws.pick(rng, WEIGHTS)
    fill, changing = _ink(rng, palette), rng.random() < 0.2
    repeated = block_glyph(rng) if rng.random() < 0.2 else None  # the same sign several times
    centre = start
    for _ in range(int(rng.integers(2, 12))):
        if repeated is not None:
            glyph = repeated
        elif blocks:
            glyph = block_glyph(rng)
        else:
            glyph = letter_glyph(draws.pick(rng, LETTERS), font, weight)
        _draw(canvas, glyph, matrix, centre, fill)
        centre = centre + matrix[:, 0] * (glyph.width + rng.uniform(0.08, 0.22))
        fill = _ink(rng, palette) if changing else fill


def _ink(rng: Rng, palette: Palette) -> int:
    """A grey for text: mostly near black or near white, because text must be legible."""
    if rng.random() < 0.4:
        return palette.grey()
    depth = abs(rng.normal(0, 35))
    return int(np.clip(depth if rng.random() < 0.6 else 255 - depth, 0, 255))


def _draw(canvas: Canvas, glyph: Glyph, matrix: Matrix, centre: Points, fill: int | Fill) -> None:
    for (outer, kinds), holes in glyph.parts:
        cut = [hole @ matrix.T + centre for hole, _ in holes]
        canvas.polygon(outer @ matrix.T + centre, fill, vertices=kinds, holes=cut)
        for points, (_, hole_kinds) in zip(cut, holes, strict=True):
            canvas.points(points[hole_kinds != NONE], hole_kinds[hole_kinds != NONE])


def _draw_stroke(canvas: Canvas, rng: Rng, start: Points, fill: int) -> None:
    """A path of straight or curved pieces with constant width and square ends."""
    width = draws.log_uniform(rng, 2.5, 22)
    steps, heading = [start], draws.angle(rng)
    for _ in range(int(rng.integers(2, 7))):
        length = width * rng.uniform(3, 9)
        pieces, turn = (8, rng.normal(0, 0.16)) if rng.random() < 0.35 else (1, 0.0)
        heading += math.copysign(rng.uniform(0.7, 1.9), rng.normal())
        for _ in range(pieces):
            heading += turn
            step = np.array([math.cos(heading), math.sin(heading)])
            steps.append(steps[-1] + length / pieces * step)
    path = np.array(steps)  # N 2
    for number in range(len(path) - 2):  # each joint is a ribbon of its own, with mitres
        canvas.polygon(ribbon(path[number : number + 3], width), fill, vertices=None)
    thin = width < 4  # too thin for two corners at an end: its middle is the corner
    sides = [path] if thin else _sides(path, width)
    for side in sides:
        canvas.points(side[[0, -1]], np.full(2, DOUBTFUL if thin else CORNER))
    for side in sides:
        canvas.points(side[1:-1], _joints(path))


def ribbon(path: Points, width: float) -> Points:
    """2N 2 px: the outline of a path (N 2 px) of constant width (px) with mitred joints."""
    left, right = _sides(path, width)
    return np.concatenate([left, right[::-1]])


def _sides(path: Points, width: float) -> tuple[Points, Points]:
    along = np.diff(path, axis=0)
    along /= np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-9)[:, None]
    normals = np.stack([-along[:, 1], along[:, 0]], axis=1)
    before, after = np.vstack([normals[:1], normals]), np.vstack([normals, normals[-1:]])
    scale = np.maximum(1 + (before * after).sum(axis=1), 0.25)
    offset = width / 2 * (before + after) / scale[:, None]
    return path + offset, path - offset


def _joints(path: Points) -> Kinds:
    """N - 2: the kinds of the bends of a path, its ends excluded."""
    return vertex_kinds(np.vstack([path, path[::-1][1:-1]]), least_edge_px=0)[1 : len(path) - 1]


def _font(rng: Rng) -> int:
    return SANS if rng.random() < 0.6 else draws.pick(rng, HERSHEY)


def _text_angle(rng: Rng) -> float:
    """Radians; mostly nearly level, like real text."""
    return float(rng.normal(0, 0.1) if rng.random() < 0.7 else rng.uniform(0, 2 * math.pi))


def _affine(rng: Rng, height: float, angle: float) -> Matrix:
    """2 2: unit height -> px, stretched, slanted and rotated."""
    cos, sin = math.cos(angle), math.sin(angle)
    stretch, slant = math.exp(rng.normal(0, 0.15)), rng.normal(0, 0.15)
    rotation = np.array([[cos, -sin], [sin, cos]])
    return np.asarray(height * rotation @ np.array([[stretch, slant], [0, 1]]), np.float64)


@lru_cache(maxsize=4096)
def letter_glyph(letter: str, font: int, weight: int) -> Glyph:
    """A letter of a font, `SANS` or one of `HERSHEY`, as polygons; a larger weight is bolder."""
    if font == SANS:
        canvas = Image.new("L", (2 * MASTER_PX, 2 * MASTER_PX))
        sans: Any = ImageFont.load_default(MASTER_PX * 1.3)
        ImageDraw.Draw(canvas).text((MASTER_PX // 2, MASTER_PX // 4), letter, fill=255, font=sans)
        mask = np.where(np.asarray(canvas) >= 128, 255, 0).astype(np.uint8)
        if weight:  # a square pen keeps corners sharp
            pen = np.ones((2 * weight * 8 + 1, 2 * weight * 8 + 1), np.uint8)
            mask = np.asarray(cv2.dilate(mask, pen), np.uint8)
    else:
        mask = np.zeros((2 * MASTER_PX, 2 * MASTER_PX), np.uint8)
        thickness = (18, 34, 56)[weight]
        origin = MASTER_PX // 2, MASTER_PX * 3 // 2
        cv2.putText(mask, letter, origin, font, MASTER_PX / 24, 255, thickness, cv2.LINE_8)
    contours, tree = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    outlines = [
        cv2.approxPolyDP(contour, TOLERANCE_PX, closed=True)[:, 0].astype(np.float64)
        for contour in contours
    ]
    return _glyph(outlines, tree, MASTER_PX)


def _glyph(outlines: list[Points], tree: NDArray[np.int32] | None, unit: float) -> Glyph:
    """A glyph from contours in units of 1/`unit` and their hierarchy, 1 N 4 from OpenCV."""
    whole = [points for points in outlines if len(points) >= 3]
    if tree is None or not whole:
        return Glyph((), 0.3)
    parents = tree[0, :, 3]
    corners = np.concatenate(whole)
    low, high = corners.min(axis=0), corners.max(axis=0)
    scaled = [((points - (low + high) / 2) / unit, _kinds(points / unit)) for points in outlines]
    parts = []
    for number, outline in enumerate(scaled):
        if len(outline[0]) >= 3 and parents[number] < 0:
            holes = (scaled[n] for n in np.flatnonzero(parents == number))
            parts.append((outline, tuple(hole for hole in holes if len(hole[0]) >= 3)))
    return Glyph(tuple(parts), float(high[0] - low[0]) / unit)


def _kinds(points: Points) -> Kinds:
    """Classify each vertex of a letter's outline by the turn of the outline around it.

    Along a curve of many short edges the direction changes little within `REACH`; at a corner it
    changes at once.
    """
    if len(points) < 3:
        return np.zeros(len(points), np.int64)
    closed = np.vstack([points, points, points, points[:1]])
    steps = np.hypot(*np.diff(closed, axis=0).T)
    along = np.concatenate([[0], np.cumsum(steps)])
    arc = along[len(points) : 2 * len(points)]  # position of each vertex along the outline
    before, after = (
        np.stack([np.interp(arc + reach, along, axis) for axis in closed.T], axis=1)
        for reach in (-REACH, REACH)
    )
    back, forth = points - before, after - points
    cross = back[:, 0] * forth[:, 1] - back[:, 1] * forth[:, 0]
    turn = np.degrees(np.abs(np.arctan2(cross, (back * forth).sum(axis=1))))
    kinds = np.where((turn > CORNER_DEG) & (turn < 155), CORNER, DOUBTFUL)
    kinds[turn < CURVE_DEG] = NONE
    apart = np.abs(arc[:, None] - arc)
    apart = np.minimum(apart, along[len(points)] - apart)  # N N, along the outline
    number = np.arange(len(points))
    sharper = turn > turn[:, None]
    sharper |= (turn == turn[:, None]) & (number < number[:, None])
    kinds[(sharper & (apart < REACH)).any(axis=1)] = NONE  # a blunt corner is one corner
    return np.asarray(kinds, np.int64)


def block_glyph(rng: Rng) -> Glyph:
    """A sign of rectangles: a random bitmap on a grid of uneven rows and columns."""
    rows, columns = int(rng.integers(3, 7)), int(rng.integers(2, 6))
    bitmap = (rng.random((rows, columns)) < rng.uniform(0.4, 0.75)).astype(np.uint8)
    if rng.random() < 0.3:
        bitmap = np.maximum(bitmap, bitmap[:, ::-1])
    bitmap[int(rng.integers(rows)), int(rng.integers(columns))] = 1
    block = 8
    mask = np.pad(np.kron(bitmap, np.full((block, block), 255, np.uint8)), block)
    contours, tree = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    x_lines, y_lines = (
        np.concatenate([[0.0, 0.0], np.cumsum(rng.uniform(0.6, 1.4, count)), [0.0]])
        for count in (columns, rows)
    )
    outlines = []
    for contour in contours:  # contours run through px centres; the grid line is the nearest one
        line = np.rint((contour[:, 0] + 0.5) / block).astype(np.int64)  # N 2
        outlines.append(np.stack([x_lines[line[:, 0]], y_lines[line[:, 1]]], axis=1))
    return _glyph(outlines, tree, float(y_lines.max()))
