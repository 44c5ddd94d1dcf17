"""Warp image A onto image B, blend both, and draw pictures for checking a registration by eye."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.checks import is_number, shown
from tiepoint.errors import ConfigError
from tiepoint.geometry import Matrix, SizeHW, apply_homography, resize_matrix
from tiepoint.images.arrays import in_unit_range
from tiepoint.images.reading import DEFAULT_MAX_PIXELS, read
from tiepoint.plotting import to_rgb8
from tiepoint.registration.result import Registration

CanvasName = Literal["b", "both"]
"""The area of image B, or the smallest that contains both images whole."""

Image = NDArray[Any]

MAX_SIDE_PX = 32_766
"""OpenCV warps no larger images."""

_OPENCV_TYPES = (np.uint8, np.uint16, np.int16, np.float32, np.float64)
_OPENCV_CHANNELS = 4
_SQUARES = 8
"""Squares of a checkerboard along the longer side."""


@dataclass(frozen=True)
class Canvas:
    """The area that a picture shows.

    Attributes:
        size_hw: (height, width), px.
        offset_xy: Position of the centre of B's top-left pixel, whole px.
    """

    size_hw: SizeHW
    offset_xy: tuple[int, int]


def warp(
    image_a: Any,
    registration: Registration,
    *,
    canvas: CanvasName = "b",
    fill: float = 0,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Image:
    """Image A as image B would show it.

    Bilinear. Where A shrinks by a factor of 2 or more it is averaged first, against aliasing.

    Args:
        image_a: `H W` or `H W C` array of any numeric type and number of channels, which are
            kept; or any source that `Detector` reads.
        registration: A successful registration with a plane model.
        canvas: "b", or "both" for the smallest area that contains all of A and B; `canvas_of`
            returns where B is in it.
        fill: Value of the pixels outside A, in A's range.
        max_pixels: Maximum size of the canvas.

    Returns:
        `H W` or `H W C` of A's type.

    Raises:
        RegistrationError: Not registered, or a two-view model.
        ConfigError: A has another size than the registration, or is too large for OpenCV; the
            canvas is unknown or too large; A's type does not hold the fill.
        ImageError: The image cannot be read.
    """
    area = canvas_of(registration, canvas, max_pixels)
    pixels = _pixels(image_a, registration.features_a.size_hw, "A")
    check_fill(pixels.dtype, fill)
    warped = _warped(pixels, registration, area)
    warped[~covered(registration, area)] = fill
    return warped


def canvas_of(
    registration: Registration, canvas: CanvasName = "b", max_pixels: int = DEFAULT_MAX_PIXELS
) -> Canvas:
    """Size of a canvas, and the position of B in it; raises like `warp`."""
    if canvas not in ("b", "both"):
        raise ConfigError(f'canvas is {canvas!r}, expected "b" or "both"')
    b_height, b_width = registration.features_b.size_hw
    a_height, a_width = a_hw = registration.features_a.size_hw
    outline = registration.transform(_edges_xy(a_hw))  # 4 2
    if max(a_hw) > MAX_SIDE_PX:
        raise ConfigError(
            f"image A is {a_width}x{a_height} px, expected at most {MAX_SIDE_PX} px a side for "
            "warping: downscale it first, and register that"
        )
    if canvas == "b":
        return Canvas((b_height, b_width), (0, 0))
    # Outer edges are at whole numbers minus a half; round-off beyond one adds no pixel.
    low = np.floor(np.minimum(outline.min(axis=0), -0.5) + 0.5 + 1e-3)
    high = np.ceil(np.maximum(outline.max(axis=0), (b_width - 0.5, b_height - 0.5)) + 0.5 - 1e-3)
    width, height = (high - low).astype(float)
    if not width * height <= max_pixels or max(width, height) > MAX_SIDE_PX:
        raise ConfigError(
            f"a canvas for both images would be {width:.0f}x{height:.0f} px, expected at most "
            f"{max_pixels} px and {MAX_SIDE_PX} px a side: warp to the area of B "
            '(canvas="b"), or register smaller images'
        )
    return Canvas((int(height), int(width)), (int(-low[0]), int(-low[1])))


def covered(registration: Registration, canvas: Canvas) -> NDArray[np.bool_]:
    """`H W` of the canvas: pixels whose centre is inside A."""
    image = np.full(registration.features_a.size_hw, 255, np.uint8)
    matrix, size_wh = _to_canvas(registration, canvas), canvas.size_hw[::-1]
    return np.asarray(cv2.warpPerspective(image, matrix, size_wh, flags=cv2.INTER_NEAREST) > 0)


def blend(
    image_a: Any,
    image_b: Any,
    registration: Registration,
    *,
    canvas: CanvasName = "both",
    fill: float = 0,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Image:
    """Both images in one, with a gradual transition where they overlap; see `warp`.

    The images are of one type and one number of channels, which the result keeps.

    Raises:
        ConfigError: Types or channels differ; and as `warp`.
    """
    area = canvas_of(registration, canvas, max_pixels)
    a = _pixels(image_a, registration.features_a.size_hw, "A")
    b = _pixels(image_b, registration.features_b.size_hw, "B")
    if a.dtype != b.dtype or a.shape[2:] != b.shape[2:]:
        raise ConfigError(
            f"image A is {a.dtype} of {math.prod(a.shape[2:])} channels and image B {b.dtype} of "
            f"{math.prod(b.shape[2:])}, expected one type and one number of channels: convert one"
        )
    check_fill(a.dtype, fill)
    x, y = area.offset_xy
    b_area = slice(y, y + b.shape[0]), slice(x, x + b.shape[1])
    in_a, in_b = covered(registration, area), np.zeros(area.size_hw, bool)
    in_b[b_area] = True
    inset_a, inset_b = _inset_px(in_a), _inset_px(in_b)  # H W
    weights = inset_a / np.where(in_a | in_b, inset_a + inset_b, 1)  # H W, of A
    whole_b = np.zeros((*area.size_hw, *b.shape[2:]), b.dtype)
    whole_b[b_area] = b
    mixed = np.where(_like(in_a, a), _warped(a, registration, area), whole_b).astype(np.float64)
    both = in_a & in_b
    weight = _like(weights[both].astype(np.float64), a[0])  # P, or P 1
    mixed[both] = mixed[both] * weight + whole_b[both] * (1 - weight)
    blended = _as_type(mixed, a.dtype)
    blended[~(in_a | in_b)] = fill
    return blended


def check_fill(dtype: np.dtype[Any], fill: float) -> None:
    """Raise ConfigError unless pixels of a type hold a value."""
    if not is_number(fill) or not holds(dtype, fill):
        named = f"{fill:g}" if is_number(fill) else shown(fill)
        raise ConfigError(f"fill is {named}, which pixels of {dtype} do not hold")


def holds(dtype: np.dtype[Any], value: float) -> bool:
    """Whether pixels of a type hold a value as it is, up to the digits of floats."""
    if dtype.kind == "f":
        return True
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return math.isfinite(value) and value == int(value) and low <= value <= high


def checkerboard(image_a: Any, image_b: Any, registration: Registration) -> NDArray[np.uint8]:
    """H W 3 RGB, the area of B: alternating squares of A and B, for edges to continue across."""
    a, b, in_a = _superposed(image_a, image_b, registration)
    height, width = in_a.shape
    side = max(1, math.ceil(max(height, width) / _SQUARES))
    odd = (np.arange(height)[:, None] // side + np.arange(width) // side) % 2 == 1  # H W
    return np.where((odd & in_a)[:, :, None], a, b)


def overlay(image_a: Any, image_b: Any, registration: Registration) -> NDArray[np.uint8]:
    """H W 3 RGB, the area of B: A in red and B in cyan; aligned parts are grey, without fringes.

    Both are converted to grey levels, and A to the brightness and contrast of B, so that colour
    shows misalignment only.
    """
    a, b, in_a = _superposed(image_a, image_b, registration)
    grey_a = cv2.cvtColor(a, cv2.COLOR_RGB2GRAY).astype(np.float32)
    grey_b = cv2.cvtColor(b, cv2.COLOR_RGB2GRAY)
    if in_a.any():
        levels_a, levels_b = grey_a[in_a], grey_b[in_a]
        gain = levels_b.std() / max(float(levels_a.std()), 1e-6)
        grey_a = (grey_a - levels_a.mean()) * gain + levels_b.mean()
    red = np.where(in_a, np.clip(np.rint(grey_a), 0, 255), grey_b).astype(np.uint8)
    return np.stack([red, grey_b, grey_b], axis=2)


def alike(image_a: Image, image_b: Image) -> tuple[Image, Image]:
    """Convert two images from `images.read` to the deeper type and larger number of channels.

    Floats outside 0..1 have no white in common with other types: both become 8-bit RGB.
    """
    if image_a.dtype != image_b.dtype and not (_has_white(image_a) and _has_white(image_b)):
        return to_rgb8(read(image_a)), to_rgb8(read(image_b))
    depth = max((image_a.dtype, image_b.dtype), key=lambda dtype: dtype.itemsize)
    colour = max(image_a.ndim, image_b.ndim) == 3
    a, b = (_in_type(pixels, depth) for pixels in (image_a, image_b))
    if colour:
        a, b = (np.stack([x] * 3, axis=2) if x.ndim == 2 else x for x in (a, b))
    return a, b


def _superposed(
    image_a: Any, image_b: Any, registration: Registration
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_]]:
    """A and B in the area of B, 8-bit RGB, and the mask of A."""
    area = canvas_of(registration)
    a, b = read(image_a), read(image_b)
    _check_size(a.pixels, registration.features_a.size_hw, "A")
    _check_size(b.pixels, registration.features_b.size_hw, "B")
    rgb_a, rgb_b = to_rgb8(a), to_rgb8(b)
    return _warped(rgb_a, registration, area), rgb_b, covered(registration, area)


def _pixels(source: Any, size_hw: SizeHW, name: str) -> Image:
    """The image as an array; an array keeps its type and channels."""
    if isinstance(source, np.ndarray):
        pixels: Image = source
        if pixels.ndim not in (2, 3) or pixels.dtype.kind not in "biuf":
            raise ConfigError(
                f"image {name} has shape {pixels.shape} and type {pixels.dtype}, expected numbers "
                "of shape (H, W) or (H, W, C)"
            )
    else:
        pixels = read(source).pixels
    _check_size(pixels, size_hw, name)
    return pixels


def _check_size(pixels: Image, size_hw: SizeHW, name: str) -> None:
    if pixels.shape[:2] != size_hw:
        raise ConfigError(
            f"image {name} is {pixels.shape[1]}x{pixels.shape[0]} px, expected the "
            f"{size_hw[1]}x{size_hw[0]} px of the registration: pass the image that was registered"
        )


def _warped(pixels: Image, registration: Registration, canvas: Canvas) -> Image:
    """A on the canvas; its edge pixels repeat outside it."""
    native = pixels.dtype.type in _OPENCV_TYPES
    working = pixels if native else pixels.astype(np.float64)
    working, matrix = _reduced(working, _to_canvas(registration, canvas))
    size_wh, border = canvas.size_hw[::-1], cv2.BORDER_REPLICATE
    warped = _by_channels(
        working, lambda part: cv2.warpPerspective(part, matrix, size_wh, borderMode=border)
    )
    return warped if native else _as_type(warped, pixels.dtype)


def _reduced(pixels: Image, matrix: Matrix) -> tuple[Image, Matrix]:
    """The image averaged by the whole factor by which it shrinks, and its matrix."""
    height, width = size_hw = pixels.shape[0], pixels.shape[1]
    corners = apply_homography(matrix, _edges_xy(size_hw))  # 4 2
    sides = np.linalg.norm(corners - np.roll(corners, 1, axis=0), axis=1)  # left, top, right, ...
    factors = np.array([height, width, height, width]) / np.maximum(sides, 1e-9)
    factor = min(int(factors.min()), height, width)
    if factor < 2:
        return pixels, matrix
    small_hw = max(1, round(height / factor)), max(1, round(width / factor))
    small_wh, area = small_hw[::-1], cv2.INTER_AREA
    small = _by_channels(pixels, lambda part: cv2.resize(part, small_wh, interpolation=area))
    return small, matrix @ np.linalg.inv(resize_matrix(size_hw, small_hw))


def _by_channels(pixels: Image, resample: Callable[[Image], Image]) -> Image:
    """Resample an image of any number of channels, as many at a time as OpenCV takes."""
    flat = pixels.reshape(*pixels.shape[:2], -1)  # H W C
    starts = range(0, flat.shape[2], _OPENCV_CHANNELS)
    parts = [flat[:, :, start : start + _OPENCV_CHANNELS] for start in starts]
    joined = np.dstack([resample(np.ascontiguousarray(part)) for part in parts])
    return joined.reshape(*joined.shape[:2], *pixels.shape[2:])


def _to_canvas(registration: Registration, canvas: Canvas) -> Matrix:
    """3x3, px of A -> px of the canvas."""
    x, y = canvas.offset_xy
    assert registration.matrix is not None  # `canvas_of` has checked
    return np.asarray(np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]]) @ registration.matrix)


def _edges_xy(size_hw: SizeHW) -> NDArray[np.float64]:
    """4 2: the outer corners of an image, half a pixel outside the centres of its corner pixels."""
    right, bottom = size_hw[1] - 0.5, size_hw[0] - 0.5
    return np.array([[-0.5, -0.5], [right, -0.5], [right, bottom], [-0.5, bottom]])


def _like(values: NDArray[Any], image: Image) -> NDArray[Any]:
    """With an axis for the channels, if the image has one."""
    return values[..., None] if image.ndim > values.ndim else values


def _inset_px(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Distance of each pixel inside the mask from its outline."""
    padded = np.pad(mask, 1).astype(np.uint8)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_3)
    return np.asarray(distance[1:-1, 1:-1], np.float32)


def _as_type(values: Image, dtype: np.dtype[Any]) -> Image:
    if dtype.kind == "f":
        return values.astype(dtype)
    if dtype.kind == "b":
        return values >= 0.5
    limits = np.iinfo(dtype)
    return np.clip(np.rint(values), limits.min, limits.max).astype(dtype)


def _has_white(pixels: Image) -> bool:
    return pixels.dtype.kind != "f" or in_unit_range(float(pixels.min()), float(pixels.max()))


def _in_type(pixels: Image, dtype: np.dtype[Any]) -> Image:
    """Convert between uint8, uint16, and float32 in 0..1."""
    if pixels.dtype == dtype:
        return pixels
    if dtype == np.uint16:
        return pixels.astype(np.uint16) * 257
    return pixels.astype(np.float32) / np.iinfo(pixels.dtype).max
