"""Arrays -> pixels of an image: types, channels, alpha, gaps without data, upright."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import ImageError

Array = NDArray[Any]
Pixels = NDArray[Any]
"""H W or H W 3; uint8, uint16, float32, or float64 for large whole numbers."""

ChannelOrder = Literal["rgb", "bgr"]
Layout = Literal["hwc", "chw"]

RANGE_SLACK = 1e-3
"""Floats up to this far outside 0..1 are clipped, because resampling and float16 overshoot."""

MAX_VALUE = 1e37
"""Floats beyond this are no data, such as the lowest float32, and would overflow in sums."""

MAX_EXACT = 2**24
"""Larger whole numbers are not exact in float32."""

_CHANNELS = (1, 3, 4)
_FULL_SCALE = {1: 255, 2: 65535, 4: 1, 8: 1}  # bytes of uint8, uint16, float32, float64 -> white
_BAND_PX = 1 << 18
"""Pixels per band when blending alpha, so that the wide integers fit into the cache."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """Pixels with what a file or an array states about them.

    Attributes:
        pixels: H W or H W 3, blended with white.
        alpha: H W of the type of the pixels; None without alpha, or if all pixels are opaque.
        valid: H W bool, False without data, alpha aside; None if all pixels have data.
        exif_orientation: The orientation that is applied, 1 to 8.
    """

    pixels: Pixels
    alpha: Array | None = None
    valid: NDArray[np.bool_] | None = None
    exif_orientation: int = 1

    def upright(self, exif_orientation: int, *, applied: bool = False) -> Decoded:
        """The image turned by an EXIF orientation, unless that is applied already."""
        if applied or exif_orientation == 1:
            return replace(self, exif_orientation=exif_orientation)
        pixels = upright(self.pixels, exif_orientation)
        alpha = None if self.alpha is None else upright(self.alpha, exif_orientation)
        valid = None
        if self.valid is not None:  # OpenCV turns no bool
            valid = upright(self.valid.view(np.uint8), exif_orientation).view(np.bool_)
        return Decoded(pixels, alpha, valid, exif_orientation)

    def without(self, gaps: NDArray[np.bool_] | None) -> Decoded:
        """The image with more pixels without data, H W."""
        if gaps is None or not gaps.any():
            return self
        return replace(self, valid=~gaps if self.valid is None else self.valid & ~gaps)

    @property
    def seen(self) -> NDArray[np.bool_] | None:
        """H W bool: pixels with data that are not fully transparent; None if all are."""
        if self.alpha is None or self.alpha.all():
            return self.valid
        visible: NDArray[np.bool_] = self.alpha != 0
        return visible if self.valid is None else visible & self.valid


def from_array(
    array: Array, name: str, channel_order: ChannelOrder, *, layout: Layout, clip: bool = True
) -> Decoded:
    """Check an array and convert it to pixels.

    Args:
        array: `H W`, or colours last (`layout` "hwc") or first ("chw") with 1, 3 or 4 channels;
            bool, whole numbers or floats. A masked array has no data where a channel is masked.
        name: Name in error messages.
        channel_order: Order of the colours, "rgb" or "bgr"; alpha is last in both.
        clip: Whether floats up to `RANGE_SLACK` outside 0..1 are clipped to it; False for a part of
            an image, whose other parts decide it too.

    Returns:
        `H W` or `H W 3` RGB, C-contiguous; the array itself if it needs no conversion.

    Raises:
        ImageError: Another shape or type, or no pixels.
    """
    masked = None
    if isinstance(array, np.ma.MaskedArray):
        if array.mask is not np.ma.nomask:
            masked = _any_channel(_channels_last(np.ma.getmaskarray(array), name, layout))
        array = np.asarray(array.data)
    pixels = _supported_values(_channels_last(array, name, layout), name, clip)  # H W or H W C
    pixels = np.ascontiguousarray(pixels)
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if channels == 1:
        pixels = pixels.reshape(pixels.shape[:2])  # H W
    elif channel_order == "bgr":
        pixels = _rgb(pixels)
    image = with_alpha(pixels) if channels == 4 else Decoded(pixels)
    return image.without(masked).without(not_finite(pixels))


def _rgb(bgr: Pixels) -> Pixels:
    """H W 3 or H W 4 in OpenCV's order -> RGB or RGBA."""
    channels = bgr.shape[2]
    if bgr.dtype == np.float64:  # OpenCV swaps no float64
        return np.ascontiguousarray(bgr[..., [2, 1, 0, 3][:channels]])
    code = cv2.COLOR_BGR2RGB if channels == 3 else cv2.COLOR_BGRA2RGBA
    return np.asarray(cv2.cvtColor(bgr, code))


def _any_channel(values: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """H W or H W C -> H W."""
    return np.asarray(values.any(axis=2)) if values.ndim == 3 else values


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


def _supported_values(array: Array, name: str, clip: bool) -> Pixels:
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if kind == "u" and size in (1, 2):  # other byte order -> this machine's
        return array.astype(f"u{size}", copy=False)
    if kind == "f" and size in (2, 4, 8):
        if clip:
            return as_float32(array)
        with np.errstate(over="ignore"):
            return array.astype(np.float32, copy=False)
    if kind in "iu":
        return whole_as_floats(array)
    raise ImageError(
        f"{name}: type {array.dtype}, expected whole numbers, floats or bool; convert it to "
        "uint8, uint16 or float32"
    )


def as_float32(array: Array) -> NDArray[np.float32]:
    """Floats as float32; those up to `RANGE_SLACK` outside 0..1 are clipped to it."""
    with np.errstate(over="ignore"):  # beyond float32 they are infinite, so no data
        floats: NDArray[np.float32] = array.astype(np.float32, copy=False)
    low, high = float(floats.min()), float(floats.max())  # NaN if any value is
    outside = low < 0 or high > 1
    return np.clip(floats, 0, 1) if outside and in_unit_range(low, high) else floats


def in_unit_range(low: float, high: float) -> bool:
    """Whether values from `low` to `high` are in 0..1, up to `RANGE_SLACK`; False for NaN."""
    return low >= -RANGE_SLACK and high <= 1 + RANGE_SLACK


def whole_as_floats(array: Array) -> Pixels:
    """Whole numbers as float32 if that is exact, else as float64."""
    largest = max(-int(array.min()), int(array.max()))
    return array.astype(np.float32 if largest <= MAX_EXACT else np.float64)


def not_finite(pixels: Pixels) -> NDArray[np.bool_] | None:
    """H W bool: pixels with NaN, infinity or a value beyond `MAX_VALUE`; None if there are none."""
    if pixels.dtype.kind != "f":
        return None
    low, high = float(pixels.min()), float(pixels.max())  # NaN if any value is
    if low >= -MAX_VALUE and high <= MAX_VALUE:
        return None
    gaps = np.empty(pixels.shape[:2], bool)
    for band in bands(pixels.shape[:2]):
        gaps[band] = _any_channel(~(np.abs(pixels[band]) <= MAX_VALUE))
    return gaps


def bands(size_hw: tuple[int, ...]) -> Iterator[slice]:
    """Rows of an image in bands of about `_BAND_PX`."""
    height, width = size_hw[:2]
    rows = max(1, _BAND_PX // width)
    return (slice(top, min(top + rows, height)) for top in range(0, height, rows))


def with_alpha(pixels: Pixels, *, premultiplied: bool = False) -> Decoded:
    """H W C, alpha last -> the image on white with its alpha; see `blend_on_white`."""
    alpha = np.ascontiguousarray(pixels[..., -1])  # H W
    colour = pixels[..., 0] if pixels.shape[-1] == 2 else pixels[..., :-1]
    image = colour.copy()
    return Decoded(image, blend_on_white(image, alpha, premultiplied=premultiplied))


def is_black(image: Decoded) -> NDArray[np.bool_]:
    """H W bool: pixels whose colour is black before it is blended with white."""
    black: Array = np.zeros(1, image.pixels.dtype)
    if image.alpha is not None:
        black = _FULL_SCALE[image.pixels.dtype.itemsize] - image.alpha
        black = black[..., None] if image.pixels.ndim == 3 else black
    is_equal = image.pixels == black  # H W or H W 3
    return np.asarray(is_equal.all(axis=2) if is_equal.ndim == 3 else is_equal)


def blend_on_white(pixels: Pixels, alpha: Array, *, premultiplied: bool = False) -> Array | None:
    """Blend an image with white in place, rounding to nearest.

    Args:
        pixels: H W or H W 3. Floats outside 0..1 have no white, so they stay as they are.
        alpha: H W of the same type.
        premultiplied: Whether the colours are already multiplied by alpha.

    Returns:
        The alpha; None if all pixels are opaque.
    """
    full = _FULL_SCALE[pixels.dtype.itemsize]
    if all(bool((alpha[band] == full).all()) for band in bands(alpha.shape)):
        return None
    parts = (pixels, alpha)
    low, high = min(float(part.min()) for part in parts), max(float(part.max()) for part in parts)
    if full > 1 or in_unit_range(low, high):
        for band in bands(alpha.shape):
            share = alpha[band] if pixels.ndim == 2 else alpha[band][..., None]
            pixels[band] = _blend_with_white(pixels[band], share, full, premultiplied)
    return alpha


def _blend_with_white(colour: Array, alpha: Array, full: int, premultiplied: bool) -> Array:
    # full^2 + full/2 still fits the integer type of twice the width.
    wide = {1: np.uint16, 2: np.uint32, 4: np.float32, 8: np.float64}[colour.dtype.itemsize]
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


def upright_size(stored_hw: tuple[int, int], exif_orientation: int) -> tuple[int, int]:
    """Size of an image once its EXIF orientation is applied."""
    return stored_hw[::-1] if exif_orientation >= 5 else stored_hw


def stored_view(pixels: Array, exif_orientation: int) -> Array:
    """A view of an upright image, H W or H W C, whose rows are those of the file.

    Writing rows into it turns them without another copy of the image.
    """
    turned: dict[int, Callable[[Array], Array]] = {
        2: lambda upright: upright[:, ::-1],
        3: lambda upright: upright[::-1, ::-1],
        4: lambda upright: upright[::-1],
        5: lambda upright: upright.swapaxes(0, 1),
        6: lambda upright: upright.swapaxes(0, 1)[::-1],
        7: lambda upright: upright.swapaxes(0, 1)[::-1, ::-1],
        8: lambda upright: upright.swapaxes(0, 1)[:, ::-1],
    }
    turn = turned.get(exif_orientation)
    return pixels if turn is None else turn(pixels)
