"""Lay image A over image B: warp, blend, and pictures by which the eye judges."""

from __future__ import annotations

import math
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import ConfigError, FormatError
from tiepoint.files import write_bytes
from tiepoint.geometry import SizeHW, apply_homography, resize_matrix
from tiepoint.images.reading import DEFAULT_MAX_PIXELS, read
from tiepoint.plotting import as_rgb8
from tiepoint.registration.result import Registration

Canvas = Literal["b", "both"]
"""The frame of image B, or the smallest that holds both images whole."""

Image = NDArray[Any]

LONGEST_SIDE_PX = 32_766
"""OpenCV warps nothing larger."""

_WARPED_AS_THEY_ARE = (np.uint8, np.uint16, np.int16, np.float32, np.float64)
_CHANNELS_AT_ONCE = 4
_SQUARES = 8
"""Squares of a checkerboard along the longer side."""


@dataclass(frozen=True)
class Frame:
    """Where pictures are drawn.

    Attributes:
        size_hw: (height, width), px.
        offset_xy: Where the centre of B's top-left pixel lies in it, whole px.
    """

    size_hw: SizeHW
    offset_xy: tuple[int, int]


def warp(
    image_a: Any,
    registration: Registration,
    *,
    canvas: Canvas = "b",
    fill: float = 0,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Image:
    """Image A as image B would show it.

    Bilinear; where A gets smaller by 2 or more it is averaged down first, so that nothing
    aliases. Half a pixel is half a pixel: integer coordinates are pixel centres on both sides.

    Args:
        image_a: `H W` or `H W C` array of any numbers and channels, which are kept as they are;
            or whatever `Detector` reads.
        registration: Of a plane model.
        canvas: "b", or "both" for the smallest frame that holds all of A and B; `frame` says
            where B lies in it.
        fill: What stands where A shows nothing, in A's own values.
        max_pixels: Refuse a canvas of more.

    Returns:
        Of A's type and channels.

    Raises:
        RegistrationError: Not registered, or a two-view model.
        ConfigError: A is of another size than the registration says, or the canvas too large.
        ImageError: The image cannot be read.
    """
    place = frame(registration, canvas, max_pixels)
    pixels = _pixels(image_a, registration.features_a.size_hw, "A")
    warped = _warped(pixels, registration, place)
    warped[~covered(registration, place)] = fill
    return warped


def frame(
    registration: Registration, canvas: Canvas = "b", max_pixels: int = DEFAULT_MAX_PIXELS
) -> Frame:
    """The frame of a canvas.

    Raises:
        RegistrationError: Not registered, or a two-view model.
        ConfigError: Unknown canvas, or one of too many px.
    """
    if canvas not in ("b", "both"):
        raise ConfigError(f'canvas is {canvas!r}, expected "b" or "both"')
    b_height, b_width = registration.features_b.size_hw
    outline = registration.transform(_edges_xy(registration.features_a.size_hw))  # 4 2
    if canvas == "b":
        return Frame((b_height, b_width), (0, 0))
    # Outer edges lie at whole numbers minus a half; a hair beyond one does not make a new pixel.
    low = np.floor(np.minimum(outline.min(axis=0), -0.5) + 0.5 + 1e-3)
    high = np.ceil(np.maximum(outline.max(axis=0), (b_width - 0.5, b_height - 0.5)) + 0.5 - 1e-3)
    width, height = (high - low).astype(float)
    if not width * height <= max_pixels or max(width, height) > LONGEST_SIDE_PX:
        raise ConfigError(
            f"a canvas that holds both images would be {width:.0f}x{height:.0f} px, at most "
            f"{max_pixels} px and {LONGEST_SIDE_PX} px a side are allowed: warp to B's frame "
            '(canvas="b"), or register smaller images'
        )
    return Frame((int(height), int(width)), (int(-low[0]), int(-low[1])))


def covered(registration: Registration, place: Frame) -> NDArray[np.bool_]:
    """`H W` of the frame: the pixels whose centre shows A."""
    shown = np.full(registration.features_a.size_hw, 255, np.uint8)
    _check_side(shown)
    matrix = _to_frame(registration, place)
    size_wh = place.size_hw[::-1]
    found = cv2.warpPerspective(shown, matrix, size_wh, flags=cv2.INTER_NEAREST)
    mask: NDArray[np.bool_] = found > 0
    return mask


def blend(
    image_a: Any,
    image_b: Any,
    registration: Registration,
    *,
    canvas: Canvas = "both",
    fill: float = 0,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Image:
    """Both images in one; where both show something they fade into one another.

    Args:
        image_a, image_b: As for `warp`, of one type and one number of channels.

    Returns:
        Of their type and channels.

    Raises:
        ConfigError: Types or channels differ; and as `warp`.
    """
    place = frame(registration, canvas, max_pixels)
    a = _pixels(image_a, registration.features_a.size_hw, "A")
    b = _pixels(image_b, registration.features_b.size_hw, "B")
    if a.dtype != b.dtype or a.shape[2:] != b.shape[2:]:
        raise ConfigError(
            f"image A is {a.dtype} of {_channels(a)} channels and image B {b.dtype} of "
            f"{_channels(b)}, expected one type and one number of channels: convert one of them"
        )
    in_a = covered(registration, place)
    in_b = np.zeros(place.size_hw, bool)
    x, y = place.offset_xy
    in_b[y : y + b.shape[0], x : x + b.shape[1]] = True
    inset_a, inset_b = _inset_px(in_a), _inset_px(in_b)  # H W
    share_a = inset_a / np.where(in_a | in_b, inset_a + inset_b, 1)  # H W
    whole_b = np.zeros((*place.size_hw, *b.shape[2:]), b.dtype)
    whole_b[y : y + b.shape[0], x : x + b.shape[1]] = b
    mixed = np.where(_like(in_a, a), _warped(a, registration, place), whole_b).astype(np.float64)
    both = in_a & in_b
    share = _like(share_a[both].astype(np.float64), a[0])  # P, or P 1
    mixed[both] = mixed[both] * share + whole_b[both] * (1 - share)
    result = _as_type(mixed, a.dtype)
    result[~(in_a | in_b)] = fill
    return result


def checkerboard(image_a: Any, image_b: Any, registration: Registration) -> NDArray[np.uint8]:
    """Squares of A and of B in turn, in B's frame: edges that run on show that they line up.

    Returns:
        H W 3 uint8, RGB.
    """
    a, b, in_a = _side_by_side(image_a, image_b, registration)
    height, width = in_a.shape
    side = max(1, math.ceil(max(height, width) / _SQUARES))
    odd = (np.arange(height)[:, None] // side + np.arange(width) // side) % 2 == 1  # H W
    return np.where((odd & in_a)[:, :, None], a, b)


def overlay(image_a: Any, image_b: Any, registration: Registration) -> NDArray[np.uint8]:
    """A in red and B in cyan, in B's frame: what lines up is grey, what does not has fringes.

    Both are drawn in grey, and A is brought to B's brightness and contrast, so that colour
    stands for place alone.

    Returns:
        H W 3 uint8, RGB.
    """
    a, b, in_a = _side_by_side(image_a, image_b, registration)
    grey_a = cv2.cvtColor(a, cv2.COLOR_RGB2GRAY).astype(np.float32)
    grey_b = cv2.cvtColor(b, cv2.COLOR_RGB2GRAY)
    if in_a.any():
        of_a, of_b = grey_a[in_a], grey_b[in_a]
        gain = of_b.std() / max(float(of_a.std()), 1e-6)
        grey_a = (grey_a - of_a.mean()) * gain + of_b.mean()
    red = np.where(in_a, np.clip(np.rint(grey_a), 0, 255), grey_b).astype(np.uint8)
    return np.stack([red, grey_b, grey_b], axis=2)


def _side_by_side(
    image_a: Any, image_b: Any, registration: Registration
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_]]:
    """A and B in B's frame, 8-bit RGB, and where A shows."""
    place = frame(registration)
    a = _pixels(image_a, registration.features_a.size_hw, "A", for_the_eye=True)
    b = _pixels(image_b, registration.features_b.size_hw, "B", for_the_eye=True)
    return _warped(a, registration, place), b, covered(registration, place)


def _pixels(source: Any, size_hw: SizeHW, name: str, *, for_the_eye: bool = False) -> Image:
    """The image as an array; an array stays what it is unless it is drawn for the eye."""
    if isinstance(source, np.ndarray) and not for_the_eye:
        pixels: Image = source
        if pixels.ndim not in (2, 3) or pixels.dtype.kind not in "biuf":
            raise ConfigError(
                f"image {name} has shape {pixels.shape} and type {pixels.dtype}, expected numbers "
                "of shape (H, W) or (H, W, C)"
            )
    else:
        pixels = read(source).pixels
    if pixels.shape[:2] != size_hw:
        raise ConfigError(
            f"image {name} is {pixels.shape[1]}x{pixels.shape[0]} px, the registration is of one "
            f"of {size_hw[1]}x{size_hw[0]} px: pass the image that was registered"
        )
    return as_rgb8(pixels) if for_the_eye else pixels


def _warped(pixels: Image, registration: Registration, place: Frame) -> Image:
    """A in the frame; its edge repeats beyond it."""
    kept = pixels.dtype.type in _WARPED_AS_THEY_ARE
    working = pixels if kept else pixels.astype(np.float64)
    matrix = _to_frame(registration, place)
    working, matrix = _reduced(working, matrix, registration, place)
    _check_side(working)
    flat = working.reshape(*working.shape[:2], -1)  # H W C
    parts = [
        cv2.warpPerspective(
            np.ascontiguousarray(flat[:, :, start : start + _CHANNELS_AT_ONCE]),
            matrix,
            place.size_hw[::-1],
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        ).reshape(*place.size_hw, -1)
        for start in range(0, flat.shape[2], _CHANNELS_AT_ONCE)
    ]
    warped = np.concatenate(parts, axis=2).reshape(*place.size_hw, *pixels.shape[2:])
    return warped if kept else _as_type(warped, pixels.dtype)


def _reduced(
    pixels: Image, matrix: NDArray[np.float64], registration: Registration, place: Frame
) -> tuple[Image, NDArray[np.float64]]:
    """The image averaged down by the whole factor by which the frame shows it smaller."""
    size_hw = _hw(pixels)
    height, width = size_hw
    corners = apply_homography(matrix, _edges_xy(size_hw))  # 4 2
    sides = np.linalg.norm(corners - np.roll(corners, 1, axis=0), axis=1)  # left, top, right, ...
    factors = np.array([height, width, height, width]) / np.maximum(sides, 1e-9)
    factor = min(int(factors.min()), height, width)
    if factor < 2:
        return pixels, matrix
    small_hw = max(1, round(height / factor)), max(1, round(width / factor))
    flat = pixels.reshape(height, width, -1)
    parts = [
        cv2.resize(
            np.ascontiguousarray(flat[:, :, start : start + _CHANNELS_AT_ONCE]),
            small_hw[::-1],
            interpolation=cv2.INTER_AREA,
        ).reshape(*small_hw, -1)
        for start in range(0, flat.shape[2], _CHANNELS_AT_ONCE)
    ]
    small = np.concatenate(parts, axis=2).reshape(*small_hw, *pixels.shape[2:])
    return small, matrix @ np.linalg.inv(resize_matrix(size_hw, small_hw))


def _to_frame(registration: Registration, place: Frame) -> NDArray[np.float64]:
    """px of A -> px of the frame."""
    x, y = place.offset_xy
    assert registration.matrix is not None  # `frame` has asked
    matrix: NDArray[np.float64] = np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])
    matrix = matrix @ registration.matrix
    return matrix


def _edges_xy(size_hw: SizeHW) -> NDArray[np.float64]:
    """4 2: the outer corners of an image: half a pixel beyond the centres of its corner pixels."""
    right, bottom = size_hw[1] - 0.5, size_hw[0] - 0.5
    return np.array([[-0.5, -0.5], [right, -0.5], [right, bottom], [-0.5, bottom]])


def _like(values: NDArray[Any], image: Image) -> NDArray[Any]:
    """With an axis for the channels, if the image has one."""
    return values[..., None] if image.ndim > values.ndim else values


def _inset_px(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """How far each pixel lies from where its image ends."""
    framed = np.pad(mask, 1).astype(np.uint8)
    distance = cv2.distanceTransform(framed, cv2.DIST_L2, cv2.DIST_MASK_3)
    inset: NDArray[np.float32] = distance[1:-1, 1:-1].astype(np.float32)
    return inset


def _as_type(values: Image, dtype: np.dtype[Any]) -> Image:
    if dtype.kind == "f":
        return values.astype(dtype)
    if dtype.kind == "b":
        return values >= 0.5
    limits = np.iinfo(dtype)
    return np.clip(np.rint(values), limits.min, limits.max).astype(dtype)


def _check_side(pixels: Image) -> None:
    if max(pixels.shape[:2]) > LONGEST_SIDE_PX:
        raise ConfigError(
            f"image A is {pixels.shape[1]}x{pixels.shape[0]} px, at most {LONGEST_SIDE_PX} px a "
            "side can be warped: reduce it first, and register that"
        )


def _channels(pixels: Image) -> int:
    return 1 if pixels.ndim == 2 else pixels.shape[2]


def _hw(pixels: Image) -> SizeHW:
    return pixels.shape[0], pixels.shape[1]


def alike(image_a: Image, image_b: Image) -> tuple[Image, Image]:
    """Two images as `image.read` gives them, in the deeper type and the larger number of channels
    of both."""
    depth = max((image_a.dtype, image_b.dtype), key=lambda dtype: dtype.itemsize)
    colour = max(image_a.ndim, image_b.ndim) == 3
    a, b = (_in_type(pixels, depth) for pixels in (image_a, image_b))
    return tuple(  # type: ignore[return-value]
        np.stack([pixels] * 3, axis=2) if colour and pixels.ndim == 2 else pixels
        for pixels in (a, b)
    )


def write_picture(path: str | PathLike[str], picture: Image) -> None:
    """Write an image file, whole or not at all: PNG for 8 and 16 bits, TIFF for floats too.

    Args:
        picture: `H W` or `H W 3` RGB; uint8, uint16, or float32 for TIFF.

    Raises:
        FormatError: The ending is none of these, or does not hold this type.
    """
    ending = Path(path).suffix.lower()
    if ending not in (".png", ".tif", ".tiff"):
        raise FormatError(f"{path}: the ending picks the format, one of .png, .tif, .tiff")
    if ending == ".png" and picture.dtype.kind == "f":
        raise FormatError(f"{path}: PNG holds no floats, and the image is one; write a .tif")
    ordered = picture if picture.ndim == 2 else np.ascontiguousarray(picture[:, :, ::-1])
    done, encoded = cv2.imencode(ending, ordered)
    if not done:
        raise FormatError(f"{path}: OpenCV could not encode {picture.shape} {picture.dtype}")
    write_bytes(path, encoded.tobytes())


def _in_type(pixels: Image, dtype: np.dtype[Any]) -> Image:
    """From one to another of uint8, uint16 and float32 in 0..1."""
    if pixels.dtype == dtype:
        return pixels
    if dtype == np.uint16:
        return pixels.astype(np.uint16) * 257
    return pixels.astype(np.float32) / np.iinfo(pixels.dtype).max
