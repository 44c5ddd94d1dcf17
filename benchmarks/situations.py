"""Pairs of images from the field that invite a wrong registration, drawn from a seed.

Each function draws one pair of its kind. `truth` maps px of A to px of B; None means that the two
images show different things, so that any registration is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint import images
from tiepoint.geometry import Matrix, SizeHW, resize_matrix
from tiepoint.network.inputs import resize, to_grey

Grey = NDArray[np.uint8]
Canvas = NDArray[np.float32]
Random = np.random.Generator

PHOTO_SIDE = 900
VIEW_HW = (400, 560)
FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True, eq=False)
class Situation:
    """Two images, H W uint8 each, and the 3x3 between them; None if they are unrelated."""

    kind: str
    image_a: Grey
    image_b: Grey
    truth: Matrix | None


def blank(rng: Random) -> Situation:
    """Two frames of one camera with nothing in view: noise, shading, compression."""
    height, width = (int(side) for side in np.exp(rng.uniform(np.log(64), np.log(1500), 2)))
    mean, noise = rng.uniform(0, 255), np.exp(rng.uniform(np.log(0.3), np.log(20)))
    shading = _shading(rng, (height, width))
    quality = int(rng.integers(10, 96)) if rng.random() < 0.5 else None
    frames = []
    for _ in range(2):
        frame = _rounded(mean * shading + rng.normal(0, noise, (height, width)))
        frames.append(frame if quality is None else compressed(frame, quality))
    kind = "blank, weak noise" if noise < 4 else "blank, strong noise"
    return Situation(kind, frames[0], frames[1], None)


def faint(rng: Random, photos: list[Path]) -> Situation:
    """A photograph at a tenth of its contrast, moved, with noise of one grey level."""
    *views, truth = _moved_views(rng, _photo(rng, photos))
    a, b = (_rounded(128 + (x - 128) / 10 + rng.normal(0, 1, x.shape)) for x in views)
    return Situation("faint photograph", a, b, truth)


def facade(rng: Random) -> Situation:
    """Windows of nearly equal brightness around a door and a sign; the camera moves sideways."""
    step_x, step_y = (int(x) for x in rng.integers(64, 120, 2))
    wall = np.full((640, 1400), rng.uniform(140, 190), np.float32)
    spread = rng.uniform(2, 18)
    for top in range(20, wall.shape[0] - step_y // 2, step_y):
        for left in range(15, wall.shape[1] - step_x // 2, step_x):
            _window(rng, wall, (top, left), (int(step_y * 0.65), int(step_x * 0.55)), spread)
    door = int(rng.integers(350, 1000)), int(rng.integers(260, 330))
    cv2.rectangle(wall, door, (door[0] + 80, door[1] + 150), 20, -1)
    _write(wall, "BAKERY", (door[0] - 30, door[1] - 20), 0.9, 240)
    cv2.circle(wall, (door[0] - 200, door[1] - 80), 20, 235, 3)
    while True:
        shift = int(rng.integers(20, 260))
        if shift % 8:
            break
    left, top = int(rng.integers(0, 400)), int(rng.integers(0, 200))
    views = [wall[top : top + 420, x : x + 700] for x in (left, left + shift)]
    a, b = (_rounded(view + rng.normal(0, 2, view.shape)) for view in views)
    return Situation("facade", a, b, _shift(-shift, 0))


OVERLAYS = ("time stamp and logo", "endoscope", "slide mount", "window frame", "head-up display")


def overlay(rng: Random, photos: list[Path], kind: str) -> Situation:
    """Two unrelated photographs under one overlay."""
    first, second = rng.choice(len(photos), 2, replace=False)
    draw = _overlay(rng, kind, VIEW_HW)
    a, b = (draw(_view(rng, _grey(photos[i]), VIEW_HW)) for i in (first, second))
    return Situation("unrelated, " + kind, _rounded(a), _rounded(b), None)


def overlay_on_motion(rng: Random, photos: list[Path]) -> Situation:
    """One scene that moves under an overlay that does not."""
    a, b, truth = _moved_views(rng, _photo(rng, photos))
    kind = "time stamp and logo" if rng.random() < 0.5 else "head-up display"
    draw = _overlay(rng, kind, VIEW_HW)
    return Situation("moved under an overlay", _rounded(draw(a)), _rounded(draw(b)), truth)


CHANGES = ("people and cars", "shadow", "a quarter replaced")


def changed(rng: Random, photos: list[Path], kind: str) -> Situation:
    """One scene of which a part has changed."""
    a, b, truth = _moved_views(rng, _photo(rng, photos))
    height, width = b.shape
    if kind == "people and cars":
        for view in (a, b):
            for _ in range(5):
                _paste(rng, view, _photo(rng, photos), (height // 4, width // 8))
    elif kind == "shadow":
        corners = rng.uniform(0, (width, height), (4, 2)).astype(np.int32)
        dark = np.zeros(b.shape, np.uint8)
        cv2.fillConvexPoly(dark, cv2.convexHull(corners), 1)
        b = np.where(dark > 0, b * rng.uniform(0.3, 0.6), b)
    else:
        _paste(rng, b, _photo(rng, photos), (height // 2, width // 2))
    return Situation("changed: " + kind, _rounded(a), _rounded(b), truth)


def heavily_compressed(rng: Random, photos: list[Path]) -> Situation:
    """A shifted photograph, both views as JPEGs of quality 3 to 10."""
    *views, truth = _moved_views(rng, _photo(rng, photos), shift_only=True)
    quality = int(rng.integers(3, 11))
    a, b = (compressed(_rounded(x), quality) for x in views)
    return Situation("JPEG quality 3 to 10", a, b, truth)


def zoomed(rng: Random, photos: list[Path]) -> Situation:
    """A photograph and the same, three to four times smaller."""
    photo = _photo(rng, photos)
    zoom = rng.uniform(3, 4)
    height, width = (round(side / zoom) for side in photo.shape)
    small = np.asarray(cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA))
    b = _rounded(small + rng.normal(0, 2, small.shape))
    truth = resize_matrix(photo.shape, b.shape)
    return Situation("zoom 3 to 4", _rounded(photo), b, truth)


def compressed(image: Grey, quality: int) -> Grey:
    encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE), np.uint8)


def _grey(path: Path) -> Canvas:
    return to_grey(resize(images.read(path).pixels, PHOTO_SIDE)) * np.float32(255)


def _photo(rng: Random, photos: list[Path]) -> Canvas:
    return _grey(photos[int(rng.integers(len(photos)))])


def _view(rng: Random, photo: Canvas, size_hw: SizeHW) -> Canvas:
    """A part of a photograph of this size, enlarged first if it is smaller."""
    factor = max(1.0, size_hw[0] / photo.shape[0], size_hw[1] / photo.shape[1])
    if factor > 1:
        size_wh = [int(np.ceil(side * factor)) for side in photo.shape[::-1]]
        photo = np.asarray(cv2.resize(photo, size_wh, interpolation=cv2.INTER_CUBIC))
    top = int(rng.integers(0, photo.shape[0] - size_hw[0] + 1))
    left = int(rng.integers(0, photo.shape[1] - size_hw[1] + 1))
    return photo[top : top + size_hw[0], left : left + size_hw[1]].copy()


def _moved_views(
    rng: Random, photo: Canvas, *, shift_only: bool = False
) -> tuple[Canvas, Canvas, Matrix]:
    """Two overlapping views of a photograph: moved, and turned and tilted a little."""
    height, width = VIEW_HW
    whole = _view(rng, photo, (480, 680))
    shift = rng.integers(-60, 61, 2).astype(float)
    if shift_only:
        first = np.eye(3)
        second = _shift(float(shift[0]), float(shift[1]))
    else:
        first = _shift(0, 0)
        angle, zoom = rng.normal(0, 0.08), np.exp(rng.normal(0, 0.06))
        c, s = zoom * np.cos(angle), zoom * np.sin(angle)
        tilt = rng.normal(0, 5e-5, 2)
        second = _shift(width / 2 + shift[0], height / 2 + shift[1]) @ np.array(
            [[c, -s, 0], [s, c, 0], [tilt[0], tilt[1], 1]]
        ) @ _shift(-width / 2, -height / 2)  # fmt: skip
    centre = _shift(-60, -40)
    a, b = (
        cv2.warpPerspective(
            whole, matrix @ centre, (width, height), flags=cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REFLECT,
        )
        for matrix in (first, second)
    )  # fmt: skip
    return np.asarray(a), np.asarray(b), second @ np.linalg.inv(first)


def _shift(x: float, y: float) -> Matrix:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def _rounded(values: NDArray[Any]) -> Grey:
    return np.asarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def _shading(rng: Random, size_hw: SizeHW) -> Canvas:
    """Brightness relative to the centre: flat, a vignette, or a slope."""
    y, x = np.mgrid[0 : size_hw[0], 0 : size_hw[1]].astype(np.float32)
    x, y = x / size_hw[1] - 0.5, y / size_hw[0] - 0.5
    depth, kind = rng.uniform(0, 0.6), rng.integers(3)
    if kind == 0:
        return np.ones(size_hw, np.float32)
    fall = x**2 + y**2 if kind == 1 else x + 0.5
    return np.asarray(1 - depth * fall, np.float32)


def _window(
    rng: Random, wall: Canvas, corner: tuple[int, int], size_hw: SizeHW, spread: float
) -> None:
    """One window of four panes, drawn into the wall."""
    (top, left), (height, width) = corner, size_hw
    cv2.rectangle(wall, (left, top), (left + width, top + height), 225, 3)
    for row in range(2):
        for column in range(2):
            pane = (left + 3 + column * width // 2, top + 3 + row * height // 2)
            end = (pane[0] + width // 2 - 6, pane[1] + height // 2 - 6)
            cv2.rectangle(wall, pane, end, float(55 + rng.normal(0, spread)), -1)


def _write(canvas: Canvas, words: str, at_xy: tuple[int, int], size: float, value: float) -> None:
    """Text in a grey value, drawn into the canvas."""
    ink = np.zeros(canvas.shape, np.uint8)  # OpenCV writes into 8 bits only
    cv2.putText(ink, words, at_xy, FONT, size, 255, 2 if size > 0.5 else 1, cv2.LINE_AA)
    canvas += (value - canvas) * (ink / np.float32(255))


def _paste(rng: Random, view: Canvas, photo: Canvas, size_hw: SizeHW) -> None:
    """Part of another photograph, somewhere in the view."""
    part = _view(rng, photo, size_hw)
    top = int(rng.integers(0, view.shape[0] - size_hw[0] + 1))
    left = int(rng.integers(0, view.shape[1] - size_hw[1] + 1))
    view[top : top + size_hw[0], left : left + size_hw[1]] = part


def _overlay(rng: Random, kind: str, size_hw: SizeHW) -> Callable[[Canvas], Canvas]:
    """A function that draws one overlay over any image of this size."""
    height, width = size_hw
    layer, opaque = np.zeros(size_hw, np.float32), np.zeros(size_hw, np.uint8)

    def text(words: str, x: int, y: int, size: float = 0.6) -> None:
        _write(layer, words, (x, y), size, 240)
        cv2.putText(opaque, words, (x, y), FONT, size, 1, 2)

    def fill(left: int, top: int, right: int, bottom: int, value: float) -> None:
        cv2.rectangle(layer, (left, top), (right, bottom), value, -1)
        cv2.rectangle(opaque, (left, top), (right, bottom), 1, -1)

    number = int(rng.integers(1000, 9999))
    if kind == "time stamp and logo":
        fill(0, height - 28, width, height, 0)
        text(f"2024-06-12 14:{number % 60:02d}:07  CAM-{number}", 6, height - 8)
        fill(width - 100, 6, width - 6, 44, 255)
        _write(layer, "NEWS7", (width - 94, 34), 0.8, 0)
    elif kind == "endoscope":
        y, x = np.mgrid[0:height, 0:width]
        outside = (x - width * 0.58) ** 2 + (y - height / 2) ** 2 > (height * 0.47) ** 2
        opaque[outside] = 1
        for row, words in enumerate((f"ID {number}", "OLYMPUS", "M / 54", "CVP 12", "Eh A3 Ce 0")):
            text(words, 6, 40 + 60 * row, 0.55)
    elif kind == "slide mount":
        frame = int(rng.integers(30, 50))
        for left, top, right, bottom in (
            (0, 0, width, frame), (0, height - frame, width, height),
            (0, 0, frame, height), (width - frame, 0, width, height),
        ):  # fmt: skip
            fill(left, top, right, bottom, 235)
        _write(layer, f"KODACHROME {number}", (60, 24), 0.7, 30)
    elif kind == "window frame":
        fill(0, 0, width, 40, 60)
        text("File  Edit  View  Help   Layers", 8, 26)
        fill(0, 41, 90, height, 225)
        for row in range(9):
            y = 70 + 34 * row
            _write(layer, f"Item {number + row}", (6, y), 0.45, 20)
    else:  # head-up display
        for offset in (-60, -30, 0, 30, 60):
            y = height // 2 + offset
            text(f"{offset:+d} ------", width // 2 - 60, y, 0.5)
        text(f"ALT {number}", 10, 30)
        text(f"SPD {number % 97}", width - 110, 30)
    return lambda view: np.where(opaque > 0, layer, view)
