"""Pairs of images that invite a wrong registration, made by the tests themselves."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.uint8]
Points = NDArray[np.float64]
VIEW_HW = (260, 360)
STAMP_ROWS = 26


def grey_levels(values: NDArray[Any]) -> Grey:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def shift(x: float, y: float) -> Points:
    """3x3 of a translation, px."""
    return np.array([[1.0, 0, x], [0, 1, y], [0, 0, 1]])


def view(photo: NDArray[np.uint8], left: int = 0, top: int = 0, size_hw: Any = VIEW_HW) -> Grey:
    """Part of a photograph, in grey."""
    grey = photo if photo.ndim == 2 else cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    least = max((top + size_hw[0]) / grey.shape[0], (left + size_hw[1]) / grey.shape[1])
    if least > 1:
        grey = cv2.resize(grey, None, fx=least, fy=least, interpolation=cv2.INTER_CUBIC)
    return np.array(grey[top : top + size_hw[0], left : left + size_hw[1]])


def blank(
    mean: float, noise: float, seed: int, size_hw: tuple[int, int] = VIEW_HW, slope: float = 0.0
) -> Grey:
    """A frame without anything to see: noise, and a shading that falls by `slope` to the right."""
    rng = np.random.default_rng(seed)
    shading = 1 - slope * np.linspace(0, 1, size_hw[1])
    return grey_levels(mean * shading + rng.normal(0, noise, size_hw))


def facade(spread: float, seed: int, step_px: int = 88) -> NDArray[np.float64]:
    """A wall of equal windows whose panes differ by a few grey levels."""
    rng = np.random.default_rng(seed)
    wall = np.full((400, 1100), 165.0)
    for top in range(14, 400 - step_px // 2, step_px):
        for left in range(10, 1100 - step_px // 2, step_px):
            height, width = int(step_px * 0.65), int(step_px * 0.55)
            cv2.rectangle(wall, (left, top), (left + width, top + height), 225.0, 3)
            for x in (left + 4, left + width // 2 + 2):
                for y in (top + 4, top + height // 2 + 2):
                    end = (x + width // 2 - 7, y + height // 2 - 7)
                    cv2.rectangle(wall, (x, y), end, float(60 + rng.normal(0, spread)), -1)
    return wall


def facade_pair(shift_px: int, spread: float, seed: int = 0) -> tuple[Grey, Grey]:
    """Two views of a facade; x_B = x_A - shift_px."""
    wall, rng = facade(spread, seed), np.random.default_rng(seed + 100)
    a, b = (wall[:, left : left + 640] for left in (120, 120 + shift_px))
    return tuple(grey_levels(x + rng.normal(0, 2, x.shape)) for x in (a, b))  # type: ignore[return-value]


def stamped(image: Grey) -> Grey:
    """With a time stamp below and a logo in a corner."""
    done = image.copy()
    height, width = done.shape
    done[-STAMP_ROWS:] = 0
    text = "2024-06-12 14:33:07 CAM-02 GATE"
    cv2.putText(done, text, (4, height - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.55, 240, 1, cv2.LINE_AA)
    done[6:40, width - 90 : width - 6] = 255
    cv2.putText(done, "NEWS7", (width - 86, 32), cv2.FONT_HERSHEY_SIMPLEX, 0.7, 0, 2, cv2.LINE_AA)
    return done


def through_a_tube(image: Grey) -> Grey:
    """A round view with text beside it, as of an endoscope."""
    height, width = image.shape
    y, x = np.mgrid[0:height, 0:width]
    done = np.where(
        (x - 0.6 * width) ** 2 + (y - 0.5 * height) ** 2 < (0.46 * height) ** 2, image, 0
    )
    done = done.astype(np.uint8)
    for row, text in enumerate(("ID 4711", "M / 54", "CVP 12", "Eh A3", "Ce 0")):
        at = (4, 36 + 52 * row)
        cv2.putText(done, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.6, 240, 1, cv2.LINE_AA)
    return done


def windowed(image: Grey) -> Grey:
    """In the window of a program: a menu above and a list at the left."""
    done = image.copy()
    done[:36] = 60
    text = "File  Edit  View  Help  Layers"
    cv2.putText(done, text, (6, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 240, 1, cv2.LINE_AA)
    done[36:, :84] = 225
    for row in range(8):
        at = (5, 62 + 30 * row)
        cv2.putText(done, f"Item {row}", at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 20, 1, cv2.LINE_AA)
    return done


OVERLAYS = {"stamp": stamped, "tube": through_a_tube, "window": windowed}


def jpeg(image: Grey, quality: int) -> Grey:
    encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE), np.uint8)
