"""Text and strokes: letters as polygons, so that their corners are exact.

Letters of a font are rasterised 400 px high, their contours simplified to polygons, and those
polygons are what is drawn: the corners are the polygon's by construction. Block letters are random
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

from tiepoint.training.scenes.canvas import (
    CORNER,
    DOUBTFUL,
    NONE,
    Canvas,
    Fill,
    Points,
    Sheet,
    vertex_kinds,
)
from tiepoint.training.scenes.outlines import turned
from tiepoint.training.scenes.palette import Palette, placed

Rng = np.random.Generator

MASTER_PX = 400  # height at which contours are taken
TOLERANCE_PX = 1.4  # of the simplified contour, at that height
REACH = 0.045  # of a letter's height: how far around a vertex its turn is measured
CURVE_DEG, CORNER_DEG = 36.0, 50.0  # turns up to the first are a curve's, beyond the other a corner
LETTERS = string.ascii_letters + string.digits + "&@#%$?!+=*<>/[]{}"
HERSHEY = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
    cv2.FONT_HERSHEY_SCRIPT_COMPLEX,
)
SANS = -1  # the font that Pillow carries
WEIGHTS = (0, 1, 2)


Outline = tuple[Points, NDArray[np.int64]]
"""N 2 and what each vertex is."""


@dataclass(frozen=True, eq=False)
class Glyph:
    """A letter: parts, each an outline and its holes, in a box of height 1 around (0, 0)."""

    parts: tuple[tuple[Outline, tuple[Outline, ...]], ...]
    width: float


def glyph_sheet(rng: Rng, size_hw: tuple[int, int]) -> Sheet:
    """Lines of text, single large letters and strokes, on a plain or textured ground."""
    palette = Palette(rng, textures=3)
    height, width = size_hw
    canvas = Canvas(size_hw, placed(palette.fill(1e9), (width / 2, height / 2)))
    for _ in range(int(rng.integers(0, 4))):  # boards and labels behind the text
        radius = rng.uniform(0.15, 0.5) * min(size_hw)
        points = turned(
            np.array([[-1, -0.6], [1, -0.6], [1, 0.6], [-1, 0.6]]) * radius, _slant(rng)
        )
        points = points + rng.uniform((0, 0), (width, height))
        fill = placed(palette.fill(radius), tuple(points.mean(axis=0)))
        canvas.polygon(points, fill, vertices=vertex_kinds(points))
    for _ in range(int(rng.integers(4, 14))):
        start = rng.uniform((-0.1 * width, 0), (0.7 * width, height))
        size = math.exp(rng.uniform(math.log(16), math.log(110)))
        _word(canvas, rng, start, size, palette)
    for _ in range(int(rng.integers(0, 8))):
        _stroke(canvas, rng, rng.uniform((0, 0), (width, height)), _ink(rng, palette))
    return canvas.sheet()


def draw_glyph(
    canvas: Canvas, rng: Rng, centre: ArrayLike, height: float, fill: int | Fill
) -> None:
    """A single letter, turned and slanted.

    Args:
        centre: 2 px.
        height: px.
    """
    matrix = _affine(rng, height, rng.uniform(0, 2 * math.pi))
    _draw(canvas, _any_glyph(rng), matrix, np.asarray(centre, np.float64), fill)


def _word(
    canvas: Canvas, rng: Rng, start: NDArray[np.float64], size: float, palette: Palette
) -> None:
    matrix = _affine(rng, size, _slant(rng))
    blocks, font, weight = rng.random() < 0.35, _font(rng), int(rng.integers(len(WEIGHTS)))
    fill, changing = _ink(rng, palette), rng.random() < 0.2
    repeated = _block_glyph(rng) if rng.random() < 0.2 else None  # the same sign again and again
    at = start
    for _ in range(int(rng.integers(2, 12))):
        if repeated is not None:
            glyph = repeated
        elif blocks:
            glyph = _block_glyph(rng)
        else:
            glyph = _letter(LETTERS[int(rng.integers(len(LETTERS)))], font, weight)
        _draw(canvas, glyph, matrix, at, fill)
        at = at + matrix[:, 0] * (glyph.width + rng.uniform(0.08, 0.22))
        fill = _ink(rng, palette) if changing else fill


def _ink(rng: Rng, palette: Palette) -> int:
    """What is written is meant to be read: mostly near black or near white."""
    if rng.random() < 0.4:
        return palette.grey()
    depth = abs(rng.normal(0, 35))
    return int(np.clip(depth if rng.random() < 0.6 else 255 - depth, 0, 255))


def _draw(
    canvas: Canvas,
    glyph: Glyph,
    matrix: NDArray[np.float64],
    centre: NDArray[np.float64],
    fill: int | Fill,
) -> None:
    for (outer, kinds), holes in glyph.parts:
        cut = [hole @ matrix.T + centre for hole, _ in holes]
        canvas.polygon(outer @ matrix.T + centre, fill, vertices=kinds, holes=cut)
        for at, (_, hole_kinds) in zip(cut, holes, strict=True):
            canvas.points(at[hole_kinds != NONE], hole_kinds[hole_kinds != NONE])


def _stroke(canvas: Canvas, rng: Rng, start: NDArray[np.float64], fill: int) -> None:
    """A path of straight or curved pieces with constant width, ends cut square."""
    width = math.exp(rng.uniform(math.log(2.5), math.log(22)))
    steps, at, heading = [start], start, rng.uniform(0, 2 * math.pi)
    for _ in range(int(rng.integers(2, 7))):
        length = width * rng.uniform(3, 9)
        curved = rng.random() < 0.35
        pieces, turn = (8, rng.normal(0, 0.16)) if curved else (1, 0.0)
        heading += math.copysign(rng.uniform(0.7, 1.9), rng.normal())
        for _ in range(pieces):
            heading += turn
            at = at + length / pieces * np.array([math.cos(heading), math.sin(heading)])
            steps.append(at)
    path = np.array(steps)  # N 2
    for number in range(len(path) - 2):  # joints first: each piece is its own ribbon with mitres
        piece = ribbon(path[number : number + 3], width)
        canvas.polygon(piece, fill, vertices=None)
    if width < 4:  # too thin for two corners at an end: the middle of it is one
        canvas.points(path[[0, -1]], np.full(2, DOUBTFUL))
        canvas.points(path[1:-1], _joints(path))
    else:
        sides = _sides(path, width)
        canvas.points(np.concatenate([side[[0, -1]] for side in sides]), np.full(4, CORNER))
        for side in sides:
            canvas.points(side[1:-1], _joints(path))


def ribbon(path: Points, width: float) -> Points:
    """The outline of a path of constant width, its joints mitred.

    Args:
        path: N 2 px.
        width: px.

    Returns:
        2N 2 px.
    """
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


def _joints(path: Points) -> NDArray[np.int64]:
    """What the bends of a path are, ends left out."""
    return vertex_kinds(np.vstack([path, path[::-1][1:-1]]), least_edge_px=0)[1 : len(path) - 1]


def _any_glyph(rng: Rng) -> Glyph:
    if rng.random() < 0.4:
        return _block_glyph(rng)
    letter = LETTERS[int(rng.integers(len(LETTERS)))]
    return _letter(letter, _font(rng), int(rng.integers(len(WEIGHTS))))


def _font(rng: Rng) -> int:
    return SANS if rng.random() < 0.6 else HERSHEY[int(rng.integers(len(HERSHEY)))]


def _slant(rng: Rng) -> float:
    """Text is mostly level, as people write it."""
    return float(rng.normal(0, 0.1) if rng.random() < 0.7 else rng.uniform(0, 2 * math.pi))


def _affine(rng: Rng, height: float, angle: float) -> NDArray[np.float64]:
    """2 2: unit height -> px, stretched, slanted and turned."""
    cos, sin = math.cos(angle), math.sin(angle)
    stretch, slant = math.exp(rng.normal(0, 0.15)), rng.normal(0, 0.15)
    turn = np.array([[cos, -sin], [sin, cos]])
    return np.asarray(height * turn @ np.array([[stretch, slant], [0, 1]]), np.float64)


@lru_cache(maxsize=4096)
def _letter(letter: str, font: int, weight: int) -> Glyph:
    """A letter of a font as polygons."""
    if font == SANS:
        mask = _sans_mask(letter)
        if weight:  # a square pen keeps corners sharp
            pen = np.ones((2 * weight * 8 + 1, 2 * weight * 8 + 1), np.uint8)
            mask = np.asarray(cv2.dilate(mask, pen), np.uint8)
    else:
        mask = np.zeros((2 * MASTER_PX, 2 * MASTER_PX), np.uint8)
        thickness = (18, 34, 56)[weight]
        origin = MASTER_PX // 2, MASTER_PX * 3 // 2
        cv2.putText(mask, letter, origin, font, MASTER_PX / 24, 255, thickness, cv2.LINE_8)
    return _polygons(mask, MASTER_PX)


def _sans_mask(letter: str) -> NDArray[np.uint8]:
    picture = Image.new("L", (2 * MASTER_PX, 2 * MASTER_PX))
    sans: Any = ImageFont.load_default(MASTER_PX * 1.3)
    ImageDraw.Draw(picture).text((MASTER_PX // 2, MASTER_PX // 4), letter, fill=255, font=sans)
    return np.where(np.asarray(picture) >= 128, 255, 0).astype(np.uint8)


def _polygons(mask: NDArray[np.uint8], unit: float) -> Glyph:
    """The outlines of a mask in units of `unit` px, around the middle of its box."""
    found, tree = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    outlines = [
        cv2.approxPolyDP(contour, TOLERANCE_PX, closed=True)[:, 0].astype(np.float64)
        for contour in found
    ]
    return _glyph(outlines, None if tree is None else tree[0], unit)


def _glyph(outlines: list[Points], tree: NDArray[np.int32] | None, unit: float) -> Glyph:
    whole = [points for points in outlines if len(points) >= 3]
    if tree is None or not whole:
        return Glyph((), 0.3)
    corners = np.concatenate(whole)
    low, high = corners.min(axis=0), corners.max(axis=0)
    scaled = [((points - (low + high) / 2) / unit, _kinds(points / unit)) for points in outlines]
    parts = []
    for number, outline in enumerate(scaled):
        if len(outline[0]) < 3 or tree[number][3] >= 0:
            continue
        holes = tuple(p for i, p in enumerate(scaled) if tree[i][3] == number and len(p[0]) >= 3)
        parts.append((outline, holes))
    return Glyph(tuple(parts), float(high[0] - low[0]) / unit)


def _kinds(points: Points) -> NDArray[np.int64]:
    """What each vertex of a letter's outline is, by how much the outline turns near it.

    A curve of many short edges turns little within `REACH`; a corner turns at once.
    """
    if len(points) < 3:
        return np.zeros(len(points), np.int64)
    closed = np.vstack([points, points, points, points[:1]])
    steps = np.hypot(*np.diff(closed, axis=0).T)
    along = np.concatenate([[0], np.cumsum(steps)])
    own = along[len(points) : 2 * len(points)]
    before, after = (
        np.stack([np.interp(own + reach, along, axis) for axis in closed.T], axis=1)
        for reach in (-REACH, REACH)
    )
    back, forth = points - before, after - points
    cross = back[:, 0] * forth[:, 1] - back[:, 1] * forth[:, 0]
    turn = np.degrees(np.abs(np.arctan2(cross, (back * forth).sum(axis=1))))
    kinds = np.where((turn > CORNER_DEG) & (turn < 155), CORNER, DOUBTFUL)
    kinds[turn < CURVE_DEG] = NONE
    apart = np.abs(own[:, None] - own)
    apart = np.minimum(apart, along[len(points)] - apart)  # N N, along the outline
    sharper = turn > turn[:, None]
    sharper |= (turn == turn[:, None]) & (np.arange(len(points)) < np.arange(len(points))[:, None])
    kinds[(sharper & (apart < REACH)).any(axis=1)] = NONE  # a blunt corner is one corner
    return np.asarray(kinds, np.int64)


def _block_glyph(rng: Rng) -> Glyph:
    """A sign of rectangles: a random bitmap on a grid of uneven rows and columns."""
    rows, columns = int(rng.integers(3, 7)), int(rng.integers(2, 6))
    bitmap = (rng.random((rows, columns)) < rng.uniform(0.4, 0.75)).astype(np.uint8)
    if rng.random() < 0.3:
        bitmap = np.maximum(bitmap, bitmap[:, ::-1])
    bitmap[int(rng.integers(rows)), int(rng.integers(columns))] = 1
    block = 8
    mask = np.pad(np.kron(bitmap, np.full((block, block), 255, np.uint8)), block)
    found, tree = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    widths = [np.concatenate([[0.0, 0.0], np.cumsum(rng.uniform(0.6, 1.4, n)), [0.0]])
              for n in (columns, rows)]  # fmt: skip
    outlines = []
    for contour in found:  # contours run through px centres; the grid line is the nearest one
        line = np.rint((contour[:, 0] + 0.5) / block).astype(np.int64)  # N 2
        outlines.append(np.stack([widths[0][line[:, 0]], widths[1][line[:, 1]]], axis=1))
    return _glyph(outlines, None if tree is None else tree[0], float(widths[1].max()))
