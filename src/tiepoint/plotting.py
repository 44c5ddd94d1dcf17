"""Pictures of keypoints, matches and curves, drawn with OpenCV; or as figures of matplotlib."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.checks import check_whole
from tiepoint.config import ProcessorConfig
from tiepoint.errors import ConfigError, FormatError, MissingExtraError
from tiepoint.features import Features, Matches
from tiepoint.files.writing import write_bytes
from tiepoint.geometry import Float, fit_inside, resize_xy
from tiepoint.images.ranges import nominal_white
from tiepoint.images.reading import SourceImage, read
from tiepoint.network.inputs import as_grey

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUBPIXEL_BITS = 4
"""Fractional bits of OpenCV's coordinates: markers are drawn at 1/16 px."""

MOST_PX = 2.0**26
"""Largest coordinate that OpenCV draws with these bits, px."""

PLOT_SIDE_PX, MAX_PLOT_ZOOM = 480, 8
"""Images with a smaller longer side are enlarged for `plot`, up to this zoom."""

MAX_LINES = 120
"""Maximum number of lines between matches: more would hide each other."""
MATCHES_SIDE_PX = 1000
"""Longer side of each image of `plot_matches`: two fit on a screen."""
GAP_PX = 12
LINE_OPACITY = 0.7

PANEL_WH = (560, 220)
PANEL_MARGIN_PX = 44
"""Left margin, for the numbers of the axis."""
CURVE_COLOURS = (
    (20, 90, 180), (220, 120, 40), (60, 150, 60), (150, 60, 150), (120, 120, 120), (200, 40, 40),
)  # fmt: skip
"""RGB."""

Array = NDArray[np.float64]
Picture = NDArray[np.uint8]
"""H W 3, RGB."""


def plot(features: Features, image: Any, path: str | PathLike[str] | None = None) -> Picture:
    """Draw a ring around each keypoint: yellow for the best score, dark blue for the worst.

    Args:
        features: Features of this image.
        image: Any source that `Detector` reads.
        path: PNG file to write; None only returns the picture.

    Returns:
        H W 3 uint8, RGB. Images whose longer side is under 480 px are enlarged by a whole
        factor, so that the rings do not hide the image.

    Raises:
        ConfigError: The image has another size than the features.
        FormatError: The path does not end in .png.
        OutputError: It cannot be written.
        ImageError: The image cannot be read.
    """
    _check_ending(path)
    side = max(features.size_hw)
    zoom = max(1, min(MAX_PLOT_ZOOM, PLOT_SIDE_PX // side))
    canvas = _enlarged(to_rgb8(_image_of(image, features, "the image")), zoom)
    radius = max(3.0, 0.004 * zoom * side)
    colours = _colours(np.linspace(0, 1, max(1, len(features)))[::-1])[: len(features)]  # N 3
    _rings(canvas, (features.xy + 0.5) * zoom - 0.5, radius, colours, max(1, round(radius / 3)))
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
) -> Picture:
    """Draw two images side by side with lines between matched keypoints, the best in yellow.

    Every matched keypoint is marked. If there are more than `max_lines` matches, lines connect an
    even selection from best to worst, because hundreds would hide each other and the images.

    Args:
        image_a, image_b: Any sources that `Detector` reads.
        features_a, features_b: Features of these images.
        matches: Matches between these features.
        path: PNG file to write; None only returns the picture.
        max_lines: Maximum number of lines; None draws all.
        max_side: Longer side to which each image is resized, px; enlarged by whole factors only,
            and two images that fit by the same factor.

    Returns:
        H W 3 uint8, RGB: A on the left, B on the right, aligned at the top.

    Raises:
        ConfigError: An image has another size than its features, the matches index other
            features, or a limit that is no whole number.
        FormatError: The path does not end in .png.
        OutputError: It cannot be written.
        ImageError: An image cannot be read.
    """
    _check_ending(path)
    _check_matches(matches, features_a, features_b)
    check_whole("max_side", max_side, minimum=1, unit="px")
    if max_lines is not None:
        check_whole("max_lines", max_lines, minimum=0, unit="lines, or None for all")
    zoom_a, zoom_b = _zooms(max(features_a.size_hw), max(features_b.size_hw), max_side)
    source_a = _image_of(image_a, features_a, "image A")
    source_b = _image_of(image_b, features_b, "image B")
    left, xy_a = _fitted(source_a, features_a.xy, zoom_a, max_side)
    right, xy_b = _fitted(source_b, features_b.xy, zoom_b, max_side)
    start = left.shape[1] + GAP_PX
    height = max(len(left), len(right))
    canvas = np.full((height, start + right.shape[1], 3), 255, np.uint8)
    canvas[: len(left), : left.shape[1]], canvas[: len(right), start:] = left, right
    ends_a = xy_a[matches.pairs[:, 0]]  # M 2
    ends_b = xy_b[matches.pairs[:, 1]] + [start, 0]  # M 2
    colours = _colours(_levels(matches.scores))  # M 3
    count = len(matches) if max_lines is None else min(max_lines, len(matches))
    chosen = np.linspace(0, len(matches) - 1, count).round().astype(int)  # L
    _lines(canvas, ends_a[chosen], ends_b[chosen], colours[chosen])
    for ends in (ends_a, ends_b):
        _rings(canvas, ends, max(3.0, height / 250), colours, 1)
    _write(canvas, path)
    return canvas


def figure(features: Features, image: Any) -> Figure:
    """A figure of matplotlib: the image with its keypoints, coloured by their scores.

    Axes are px, so zooming in shows where keypoints are. The figure is not of pyplot: notebooks
    show it where it is the value of a cell, and `figure.savefig` writes it.

    Args:
        features: Features of this image.
        image: Any source that `Detector` reads.

    Raises:
        ConfigError: The image has another size than the features.
        ImageError: The image cannot be read.
        MissingExtraError: matplotlib, of the extra `matplotlib`, is not installed.
    """
    made = _new_figure()
    axes = made.add_subplot()
    axes.imshow(to_rgb8(_image_of(image, features, "the image")))
    x, y = features.xy.T
    points = axes.scatter(x, y, s=8, c=features.scores, cmap="plasma", linewidths=0)
    made.colorbar(points, ax=axes, label="score", shrink=0.8)
    axes.set_title(f"{len(features)} keypoints")
    return made


def figure_of_matches(
    image_a: Any,
    image_b: Any,
    features_a: Features,
    features_b: Features,
    matches: Matches,
    *,
    max_lines: int | None = MAX_LINES,
) -> Figure:
    """A figure of matplotlib: `plot_matches` with a title; see `figure` and `plot_matches`."""
    picture = plot_matches(image_a, image_b, features_a, features_b, matches, max_lines=max_lines)
    made = _new_figure()
    axes = made.add_subplot()
    axes.imshow(picture)
    axes.set_axis_off()
    axes.set_title(f"{len(matches)} matches")
    return made


def _new_figure() -> Figure:
    """A figure that notebooks show, with or without pyplot."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("a figure of matplotlib", "matplotlib") from error

    class Shown(Figure):
        def _repr_png_(self) -> bytes:
            buffer = BytesIO()
            self.savefig(buffer, format="png")
            return buffer.getvalue()

    made = Shown(figsize=(8, 6), layout="constrained")
    FigureCanvasAgg(made)
    return made


def to_rgb8(image: SourceImage) -> Picture:
    """An image as a copy in 8-bit RGB, for display.

    Deep images and floats are stretched as `contrast="auto"` does. In them, pixels without data
    are white.
    """
    pixels = image.pixels
    if pixels.dtype == np.uint8:
        levels = pixels.copy()
    else:
        grey = as_grey(pixels, ProcessorConfig(), image.valid)
        black, white = grey.value_range or (0.0, nominal_white(pixels))
        scaled = (grey.pixels - black) * (255.0 / (white - black))
        levels = np.clip(np.round(scaled), 0, 255).astype(np.uint8)
        if image.valid is not None:
            levels[~image.valid] = 255
    return levels if levels.ndim == 3 else np.stack([levels] * 3, axis=2)


def curves_panel(
    title: str,
    curves: Mapping[str, Array],
    *,
    size_wh: tuple[int, int] = PANEL_WH,
    top: float | None = None,
) -> Picture:
    """Draw curves over one axis, with their names above them.

    Args:
        curves: Name -> N 2 (x, y), finite.
        size_wh: (width, height) of the panel, px.
        top: Highest y shown; None takes the highest of the curves. The lowest is 0, or that of
            the curves if it is negative.
    """
    width, height = size_wh
    panel = np.full((height, width, 3), 255, np.uint8)
    left, right, ceiling, floor = PANEL_MARGIN_PX, width - 12, 34, height - 24
    cv2.rectangle(panel, (left, ceiling), (right, floor), (210, 210, 210), 1)
    write_text(panel, title, (left, 14), (0, 0, 0))
    if not curves:
        return panel
    points = np.concatenate(list(curves.values()))  # N 2
    (first, low), (last, high) = points.min(axis=0), points.max(axis=0)
    low, high = min(low, 0.0), max(high if top is None else top, low + 1e-6)
    span_x, span_y = last - first or 1.0, high - low
    for value, y in ((high, ceiling + 8), (low, floor)):
        write_text(panel, f"{value:.3g}", (2, y), (120, 120, 120))
    write_text(panel, f"{last:.0f}", (right - 50, height - 8), (120, 120, 120))
    name_x = left
    for index, (name, points) in enumerate(curves.items()):
        colour = CURVE_COLOURS[index % len(CURVE_COLOURS)]
        x = left + (points[:, 0] - first) / span_x * (right - left)
        y = floor - (points[:, 1] - low) / span_y * (floor - ceiling)
        drawn = np.rint(np.stack([x, y], axis=1)).astype(np.int32)
        cv2.polylines(panel, [drawn[:, None]], False, colour, 1, cv2.LINE_AA)
        write_text(panel, name, (name_x, 28), colour)
        name_x += 10 + 8 * len(name)
    return panel


def write_text(
    picture: Picture,
    text: str,
    at: tuple[int, int],
    colour: tuple[int, int, int],
    scale: float = 0.4,
) -> None:
    """Write a line of text; OpenCV's fonts have ASCII only, and lone surrogates crash it."""
    plain = text.encode("ascii", "replace").decode()
    cv2.putText(picture, plain, at, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA)


def _lines(canvas: Picture, ends_a: Float, ends_b: Float, colours: Picture) -> None:
    """Draw half-transparent lines, the best on top."""
    opaque = canvas.copy()
    lines = list(zip(_fixed(ends_a), _fixed(ends_b), colours.tolist(), strict=True))
    for a, b, colour in reversed(lines):
        cv2.line(opaque, a, b, colour, 1, cv2.LINE_AA, SUBPIXEL_BITS)
    canvas[:] = cv2.addWeighted(opaque, LINE_OPACITY, canvas, 1 - LINE_OPACITY, 0)


def _rings(canvas: Picture, xy: Float, radius: float, colours: Picture, thickness: int) -> None:
    """Draw rings, the best on top."""
    fixed_radius = round(radius * 2**SUBPIXEL_BITS)
    for centre, colour in reversed(list(zip(_fixed(xy), colours.tolist(), strict=True))):
        cv2.circle(canvas, centre, fixed_radius, colour, thickness, cv2.LINE_AA, SUBPIXEL_BITS)


def _zooms(side_a: int, side_b: int, max_side: int) -> tuple[int, int]:
    """Whole factors by which two images are enlarged, given their longer sides in px."""
    zoom_a, zoom_b = max_side // side_a, max_side // side_b
    if zoom_a and zoom_b:  # one factor, so that the eye compares the true sizes
        zoom_a = zoom_b = min(zoom_a, zoom_b)
    return max(1, zoom_a), max(1, zoom_b)


def _fitted(
    source: SourceImage, xy: NDArray[np.float32], zoom: int, max_side: int
) -> tuple[Picture, Array]:
    """An image resized for display, and its keypoints in it."""
    image = to_rgb8(source)
    from_hw = image.shape[0], image.shape[1]
    to_hw = fit_inside((from_hw[0] * zoom, from_hw[1] * zoom), max_side)
    if zoom == 1 and to_hw != from_hw:
        image = cv2.resize(image, to_hw[::-1], interpolation=cv2.INTER_AREA)
    moved = resize_xy(xy.astype(np.float64), from_hw, to_hw)  # N 2
    return _enlarged(image, zoom), np.asarray(moved, np.float64)


def _enlarged(image: Picture, zoom: int) -> Picture:
    return image.repeat(zoom, axis=0).repeat(zoom, axis=1)


def _levels(scores: NDArray[np.float32]) -> Array:
    """N scores as 0..1 between the worst and the best; 1 if all are equal."""
    levels = scores.astype(np.float64)
    if len(levels) == 0 or levels.min() == levels.max():
        return np.ones(len(levels))
    relative: Array = (levels - levels.min()) / float(np.ptp(levels))
    return relative


def _colours(levels: Array) -> Picture:
    """N levels 0..1 as N 3 colours from dark blue to yellow."""
    if len(levels) == 0:
        return np.empty((0, 3), np.uint8)
    table = cv2.applyColorMap((levels * 255).astype(np.uint8)[:, None], cv2.COLORMAP_PLASMA)
    return np.asarray(table[:, 0, ::-1], np.uint8)  # N 3


def _fixed(xy: Float) -> list[tuple[int, int]]:
    """N points in OpenCV's fixed-point coordinates; those far outside at `MOST_PX`."""
    inside = np.clip(np.nan_to_num(xy, nan=-MOST_PX), -MOST_PX, MOST_PX)
    return [(x, y) for x, y in np.round(inside * 2**SUBPIXEL_BITS).astype(int).tolist()]


def _check_ending(path: str | PathLike[str] | None) -> None:
    if path is not None and Path(path).suffix.lower() != ".png":
        raise FormatError(f"{path}: overlays are written as PNG; let the name end in .png")


def _image_of(source: Any, features: Features, name: str) -> SourceImage:
    image = read(source)
    if image.size_hw != features.size_hw:
        raise ConfigError(
            f"{name} is {image.size_hw[1]}x{image.size_hw[0]} px, expected the "
            f"{features.size_hw[1]}x{features.size_hw[0]} px of the features: pass the image they "
            "were found in"
        )
    return image


def _check_matches(matches: Matches, features_a: Features, features_b: Features) -> None:
    for side, features in enumerate((features_a, features_b)):
        index = matches.pairs[:, side]
        if len(index) and not 0 <= index.min() <= index.max() < len(features):
            raise ConfigError(
                f"matches name keypoint {index.max()} of image {'AB'[side]}, which has "
                f"{len(features)}: pass the features they were made from"
            )


def _write(canvas: Picture, path: str | PathLike[str] | None) -> None:
    if path is not None:
        write_bytes(path, cv2.imencode(".png", canvas[:, :, ::-1])[1].tobytes())
