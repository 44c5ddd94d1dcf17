"""Pictures of results, drawn with OpenCV so that no plotting library is needed."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import ConfigError, FormatError
from tiepoint.features import Features, Matches
from tiepoint.files import write_bytes
from tiepoint.geometry import fit_inside, resize_xy
from tiepoint.images.reading import read

SUBPIXEL_BITS = 4
"""OpenCV draws at 1/16 px: a marker sits where the keypoint is, not on the next whole pixel."""

MAX_LINES = 120
"""Lines of matches drawn: more hide each other."""
MATCHES_SIDE_PX = 1000
"""Longer side of each image beside another: two fit a screen."""
GAP_PX = 12
LINE_OPACITY = 0.7

PANEL_WH = (560, 220)
PANEL_MARGIN_PX = 44
"""For the numbers of the axis."""
CURVE_COLOURS = (
    (20, 90, 180), (220, 120, 40), (60, 150, 60), (150, 60, 150), (120, 120, 120), (200, 40, 40),
)  # fmt: skip
"""RGB."""


def plot(
    features: Features, image: Any, path: str | PathLike[str] | None = None
) -> NDArray[np.uint8]:
    """Draw keypoints over their image: the better the score, the more yellow the ring.

    Args:
        features: Of this image.
        image: Whatever the detector reads.
        path: Where to write the picture as PNG; None only returns it.

    Returns:
        H W 3 uint8, RGB. Images whose longer side is under 480 px are enlarged by a whole
        number, so that the rings leave the picture visible.

    Raises:
        ConfigError: The image has another size than the features say.
        FormatError: The path does not end in .png, or cannot be written.
        ImageError: The image cannot be read.
    """
    _check_ending(path)
    pixels = _pixels_of(image, features, "the image is")
    height, width = features.size_hw
    zoom = max(1, min(8, 480 // max(height, width)))
    canvas = as_rgb8(pixels)
    canvas = canvas.repeat(zoom, axis=0).repeat(zoom, axis=1)
    radius = max(3.0, 0.004 * zoom * max(height, width))
    thickness = max(1, round(radius / 3))
    colours = _colours(np.linspace(0, 1, max(1, len(features)))[::-1])[: len(features)]  # N 3
    centres = (features.xy + 0.5) * zoom - 0.5  # N 2
    for centre, colour in zip(_fixed(centres)[::-1], colours[::-1], strict=True):
        _ring(canvas, centre, radius, colour.tolist(), thickness)
    _write(canvas, path)
    return canvas


def plot_matches(
    image_a: Any,
    image_b: Any,
    features_a: Features,
    features_b: Features,
    matches: Matches,
    path: str | PathLike[str] | None = None,
    *,
    max_lines: int | None = MAX_LINES,
    max_side: int = MATCHES_SIDE_PX,
) -> NDArray[np.uint8]:
    """Draw two images side by side with lines between matched keypoints, the best most yellow.

    Every matched keypoint is marked. Of many matches only some get a line, from the best to the
    worst in even steps, since hundreds of lines hide each other and the images.

    Args:
        image_a, image_b: Whatever the detector reads.
        features_a, features_b: Of these images.
        matches: Of these features.
        path: Where to write the picture as PNG; None only returns it.
        max_lines: Lines drawn at most; None draws all.
        max_side: px; an image is brought to this longer side, but enlarged by whole numbers only.

    Returns:
        H W 3 uint8, RGB: A on the left, B on the right, their tops on one level.

    Raises:
        ConfigError: An image has another size than its features say, or the matches are of other
            features.
        FormatError: The path does not end in .png, or cannot be written.
        ImageError: An image cannot be read.
    """
    _check_ending(path)
    _check_matches(matches, features_a, features_b)
    left, xy_a = _fitted(_pixels_of(image_a, features_a, "image A is"), features_a.xy, max_side)
    right, xy_b = _fitted(_pixels_of(image_b, features_b, "image B is"), features_b.xy, max_side)
    start = left.shape[1] + GAP_PX
    height = max(left.shape[0], right.shape[0])
    canvas = np.full((height, start + right.shape[1], 3), 255, np.uint8)
    canvas[: left.shape[0], : left.shape[1]] = left
    canvas[: right.shape[0], start:] = right
    ends_a = xy_a[matches.pairs[:, 0]]  # M 2
    ends_b = xy_b[matches.pairs[:, 1]] + [start, 0]  # M 2
    colours = _colours(_levels(matches.scores))  # M 3
    count = len(matches) if max_lines is None else min(max_lines, len(matches))
    lined = np.linspace(0, len(matches) - 1, count).round().astype(int)  # L
    _lines(canvas, ends_a[lined], ends_b[lined], colours[lined])
    radius = max(3.0, height / 250)
    for ends in (ends_a, ends_b):
        for centre, colour in reversed(list(zip(_fixed(ends), colours.tolist(), strict=True))):
            _ring(canvas, centre, radius, colour, 1)
    _write(canvas, path)
    return canvas


def curves_panel(
    title: str,
    lines: Mapping[str, NDArray[np.float64]],
    *,
    size_wh: tuple[int, int] = PANEL_WH,
    top: float | None = None,
) -> NDArray[np.uint8]:
    """Lines over one axis, their names above them.

    Args:
        lines: Name -> N 2 (x, y), finite.
        size_wh: (width, height) of the panel, px.
        top: Highest y shown; None takes the lines' own. The lowest is 0, or theirs if lower.

    Returns:
        H W 3 uint8, RGB.
    """
    width, height = size_wh
    panel = np.full((height, width, 3), 255, np.uint8)
    left, right, ceiling, floor = PANEL_MARGIN_PX, width - 12, 34, height - 24
    cv2.rectangle(panel, (left, ceiling), (right, floor), (210, 210, 210), 1)
    _text(panel, title, (left, 14), (0, 0, 0))
    if not lines:
        return panel
    every = np.concatenate(list(lines.values()))  # N 2
    (first, low), (last, high) = every.min(axis=0), every.max(axis=0)
    low, high = min(low, 0.0), max(high if top is None else top, low + 1e-6)
    span_x, span_y = last - first or 1.0, high - low
    for value, y in ((high, ceiling + 8), (low, floor)):
        _text(panel, f"{value:.3g}", (2, y), (120, 120, 120))
    _text(panel, f"{last:.0f}", (right - 50, height - 8), (120, 120, 120))
    place = left
    for index, (name, points) in enumerate(lines.items()):
        colour = CURVE_COLOURS[index % len(CURVE_COLOURS)]
        x = left + (points[:, 0] - first) / span_x * (right - left)
        y = floor - (points[:, 1] - low) / span_y * (floor - ceiling)
        drawn = np.rint(np.stack([x, y], axis=1)).astype(np.int32)
        cv2.polylines(panel, [drawn[:, None]], False, colour, 1, cv2.LINE_AA)
        _text(panel, name, (place, 28), colour)
        place += 10 + 8 * len(name)
    return panel


def _text(panel: NDArray[np.uint8], text: str, at: tuple[int, int], colour: Any) -> None:
    cv2.putText(panel, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1, cv2.LINE_AA)


def _lines(
    canvas: NDArray[np.uint8],
    ends_a: NDArray[np.float64],
    ends_b: NDArray[np.float64],
    colours: NDArray[np.uint8],
) -> None:
    """Draw lines half transparent, the best on top."""
    over = canvas.copy()
    drawn = zip(_fixed(ends_a), _fixed(ends_b), colours.tolist(), strict=True)
    for a, b, colour in reversed(list(drawn)):
        cv2.line(over, a.tolist(), b.tolist(), colour, 1, cv2.LINE_AA, SUBPIXEL_BITS)
    canvas[:] = cv2.addWeighted(over, LINE_OPACITY, canvas, 1 - LINE_OPACITY, 0)


def _fitted(
    pixels: NDArray[Any], xy: NDArray[np.float32], max_side: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """An image brought to a size for looking at, and its keypoints there."""
    image = as_rgb8(pixels)
    from_hw = image.shape[0], image.shape[1]
    zoom = max(1, max_side // max(from_hw))
    to_hw = fit_inside((from_hw[0] * zoom, from_hw[1] * zoom), max_side)
    if zoom > 1:
        image = image.repeat(zoom, axis=0).repeat(zoom, axis=1)
    elif to_hw != from_hw:
        image = cv2.resize(image, to_hw[::-1], interpolation=cv2.INTER_AREA)
    moved = resize_xy(xy.astype(np.float64), from_hw, to_hw)  # N 2
    return image, np.asarray(moved, np.float64)


def _levels(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """0..1 from the worst to the best score that is there; 1 when they are all the same."""
    if len(scores) == 0 or scores.min() == scores.max():
        return np.ones(len(scores))
    low, high = float(scores.min()), float(scores.max())
    return (scores.astype(np.float64) - low) / (high - low)


def _colours(levels: NDArray[np.float64]) -> NDArray[np.uint8]:
    """N levels 0..1 as N 3 colours from dark blue to yellow."""
    if len(levels) == 0:
        return np.empty((0, 3), np.uint8)
    table = cv2.applyColorMap((levels * 255).astype(np.uint8)[:, None], cv2.COLORMAP_PLASMA)
    return np.asarray(table[:, 0, ::-1], np.uint8)  # N 3


def _fixed(xy: NDArray[Any]) -> NDArray[np.int_]:
    fixed: NDArray[np.int_] = np.round(xy * 2**SUBPIXEL_BITS).astype(int)
    return fixed


def _check_ending(path: str | PathLike[str] | None) -> None:
    if path is not None and Path(path).suffix.lower() != ".png":
        raise FormatError(f"{path}: overlays are written as PNG; let the name end in .png")


def _pixels_of(image: Any, features: Features, subject: str) -> NDArray[Any]:
    pixels = read(image).pixels
    if pixels.shape[:2] != features.size_hw:
        raise ConfigError(
            f"{subject} {pixels.shape[1]}x{pixels.shape[0]} px, the features are of one of "
            f"{features.size_hw[1]}x{features.size_hw[0]} px: pass the image they were found in"
        )
    return pixels


def _check_matches(matches: Matches, features_a: Features, features_b: Features) -> None:
    for side, features in enumerate((features_a, features_b)):
        index = matches.pairs[:, side]
        if len(index) and not 0 <= index.min() <= index.max() < len(features):
            raise ConfigError(
                f"matches name keypoint {index.max()} of image {'AB'[side]}, which has "
                f"{len(features)}: pass the features they were made from"
            )


def _write(canvas: NDArray[np.uint8], path: str | PathLike[str] | None) -> None:
    if path is not None:
        encoded = cv2.imencode(".png", canvas[:, :, ::-1])[1]
        write_bytes(path, encoded.tobytes())


def _ring(
    canvas: NDArray[np.uint8],
    centre: NDArray[np.int_],
    radius: float,
    colour: list[int],
    thickness: int,
) -> None:
    scaled = round(radius * 2**SUBPIXEL_BITS)
    point = (int(centre[0]), int(centre[1]))
    cv2.circle(canvas, point, scaled, colour, thickness, cv2.LINE_AA, SUBPIXEL_BITS)


def as_rgb8(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """What `image.read` gives, of any type, as a copy in 8-bit RGB for the eye."""
    if pixels.dtype == np.uint8:
        scaled = pixels
    else:
        top = 65535.0 if pixels.dtype == np.uint16 else 1.0
        scaled = np.round(pixels * (255.0 / top)).astype(np.uint8)
    return scaled.copy() if scaled.ndim == 3 else np.stack([scaled] * 3, axis=2)
