"""Arrays -> pixels of an image: check type and range, blend alpha with white, rotate upright."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import ImageError

Array = NDArray[Any]
Pixels = NDArray[Any]
"""H W or H W 3; uint8, uint16, or float32 in 0..1."""

ChannelOrder = Literal["rgb", "bgr"]
Layout = Literal["hwc", "chw"]

RANGE_SLACK = 1e-3
"""Floats up to this far outside 0..1 are clipped, because resampling and float16 overshoot."""

_CHANNELS = (1, 3, 4)
_FULL_SCALE = {1: 255, 2: 65535, 4: 1}  # bytes of uint8, uint16, float32 -> white
_BAND_PX = 1 << 18
"""Pixels per band when blending alpha, so that the wide integers fit into the cache."""


def from_array(array: Array, name: str, channel_order: ChannelOrder, *, layout: Layout) -> Pixels:
    """Check an array and convert it to pixels.

    Args:
        array: `H W`, or colours last (`layout` "hwc") or first ("chw") with 1, 3 or 4 channels;
            bool, uint8, uint16 or float in 0..1.
        name: Name in error messages.
        channel_order: Order of the colours, "rgb" or "bgr"; alpha is last in both.

    Returns:
        `H W` or `H W 3` RGB, C-contiguous; the array itself if it needs no conversion.

    Raises:
        ImageError: Another shape or type, no pixels, values out of range, NaN or infinite.
    """
    pixels = _supported_values(_channels_last(array, name, layout), name)  # H W or H W C
    pixels = np.ascontiguousarray(pixels)
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if channels == 1:
        return pixels.reshape(pixels.shape[:2])  # H W
    if channel_order == "bgr":
        code = cv2.COLOR_BGR2RGB if channels == 3 else cv2.COLOR_BGRA2RGBA
        pixels = cv2.cvtColor(pixels, code)
    return on_white(pixels) if channels == 4 else pixels  # H W 3


def _channels_last(array: Array, name: str, layout: Layout) -> Array:
    """Check the shape. Returns `H W` or `H W C`."""
    shape, is_chw = tuple(array.shape), layout == "chw"
    expected = f"expected H W, or {'C H W' if is_chw else 'H W C'} with 1, 3 or 4 channels"
    if 0 in shape:
        raise ImageError(f"{name}: shape {shape} has no pixels; expected at least 1x1")
    if array.ndim == 2:
        return array
    if array.ndim == 4:
        raise ImageError(f"{name}: shape {shape} is a batch, {expected}; pass a list of images")
    if array.ndim != 3:
        raise ImageError(f"{name}: shape {shape}, {expected}")
    if shape[0 if is_chw else 2] in _CHANNELS:
        return array.transpose(1, 2, 0) if is_chw else array  # H W C
    advice = "last here: use .permute(2, 0, 1)" if is_chw else "first here: use .transpose(1, 2, 0)"
    hint = f"; the colours come {advice}" if shape[2 if is_chw else 0] in _CHANNELS else ""
    raise ImageError(f"{name}: shape {shape}, {expected}{hint}")


def _supported_values(array: Array, name: str) -> Pixels:
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if kind == "u" and size in (1, 2):  # other byte order -> this machine's
        return array.astype(f"u{size}", copy=False)
    if kind == "f" and size in (2, 4, 8):
        return unit_floats(array, name)
    advice = "convert it to uint8, uint16 or float in 0..1"
    if kind in "iu":
        low, high = int(array.min()), int(array.max())
        advice = f"its values run from {low} to {high}: scale them to 0..65535, then use uint16"
        if low >= 0 and high <= 65535:
            fits = "uint8" if high <= 255 else "uint16"
            advice = f"its values {low}..{high} fit .astype(np.{fits})"
    raise ImageError(f"{name}: type {array.dtype}, expected uint8, uint16, float or bool; {advice}")


def unit_floats(array: Array, name: str) -> NDArray[np.float32]:
    """Convert floats to float32 and check that they are finite and in 0..1.

    Raises:
        ImageError: NaN, infinite, or more than `RANGE_SLACK` outside 0..1.
    """
    low, high = float(array.min()), float(array.max())  # NaN if any value is
    if not (np.isfinite(low) and np.isfinite(high)):
        count = int(np.count_nonzero(~np.isfinite(array)))
        raise ImageError(
            f"{name}: {count} of {array.size} values are NaN or infinite, expected 0..1; "
            "replace them, for example with np.nan_to_num"
        )
    if low < -RANGE_SLACK or high > 1 + RANGE_SLACK:
        full_scale = 255 if high <= 255 else 65535 if high <= 65535 else "their full scale"
        remedy = f"divide by {full_scale}"
        if low < 0:
            remedy = "map them to it, for example (x + 1) / 2 for -1..1"
        raise ImageError(
            f"{name}: float values run from {low:.6g} to {high:.6g}, expected 0..1; {remedy}"
        )
    floats = array.astype(np.float32, copy=False)
    return np.clip(floats, 0, 1) if low < 0 or high > 1 else floats


def on_white(pixels: Pixels, *, premultiplied: bool = False) -> Pixels:
    """Blend with white, rounding to nearest: H W C, alpha last -> H W or H W 3 of the same type.

    `premultiplied` states that the colours are already multiplied by alpha.
    """
    colour, alpha = pixels[..., :-1], pixels[..., -1:]  # H W C-1, H W 1
    full = _FULL_SCALE[pixels.dtype.itemsize]
    result: Pixels = np.empty(colour.shape, pixels.dtype)
    if bool((alpha == full).all()):
        result[:] = colour
    else:
        rows = max(1, _BAND_PX // pixels.shape[1])
        for top in range(0, len(pixels), rows):
            band = slice(top, top + rows)
            result[band] = _blend_with_white(colour[band], alpha[band], full, premultiplied)
    return result.reshape(result.shape[:2]) if result.shape[-1] == 1 else result


def _blend_with_white(colour: Array, alpha: Array, full: int, premultiplied: bool) -> Array:
    # full^2 + full/2 still fits the integer type of twice the width.
    wide = {1: np.uint16, 2: np.uint32, 4: np.float32}[colour.dtype.itemsize]
    colour, alpha = colour.astype(wide), alpha.astype(wide)
    if premultiplied:
        return np.asarray(np.minimum(colour + (full - alpha), full))
    blended: Array = colour * alpha + full * (full - alpha)
    return (blended + full // 2) // full if full > 1 else blended


_TURNS: dict[int, Callable[[Array], Array]] = {
    2: lambda pixels: cv2.flip(pixels, 1),
    3: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_180),
    4: lambda pixels: cv2.flip(pixels, 0),
    5: cv2.transpose,
    6: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE),
    7: lambda pixels: cv2.flip(cv2.transpose(pixels), -1),
    8: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


def upright(pixels: Pixels, exif_orientation: int) -> Pixels:
    """Apply an EXIF orientation to H W or H W 3; 1 changes nothing."""
    turn = _TURNS.get(exif_orientation)
    return pixels if turn is None else turn(pixels)


def to_rgb8(pixels: Pixels) -> NDArray[np.uint8]:
    """An image as a copy in 8-bit RGB, for display."""
    if pixels.dtype == np.uint8:
        scaled = pixels
    else:
        white = 65535.0 if pixels.dtype == np.uint16 else 1.0
        scaled = np.round(pixels * (255.0 / white)).astype(np.uint8)
    return scaled.copy() if scaled.ndim == 3 else np.stack([scaled] * 3, axis=2)
