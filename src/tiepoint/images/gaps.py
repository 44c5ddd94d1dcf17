"""Pixels without data: how GeoTIFF files mark them, what replaces them, what they exclude."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.geometry import SizeHW
from tiepoint.images.arrays import Array

Mask = NDArray[np.bool_]

NO_DATA = 42113
"""GDAL_NODATA, a TIFF tag with a number as text; libgdal.org, GeoTIFF driver."""

GAP_REACH_PX = 8
"""Width of the zone around pixels without data that has no keypoints, px of the input: a cell."""


GAP_WIDTH_PX = 3
"""Smallest width of a gap with such a zone, px of the input."""


def equal_to(stored: Array, text: object) -> Mask | None:
    """Pixels whose bands all have the value of the tag `NO_DATA`.

    Args:
        stored: H W or H W C, in the file's type and before any conversion.
        text: The tag; None if the file has none. Text that is no number marks nothing.

    Returns:
        H W; None if no value of the type can be equal.
    """
    try:
        value = float(str(text).strip("\0 "))
    except ValueError:
        return None
    if stored.dtype.kind == "f":
        with np.errstate(over="ignore"):
            value = float(stored.dtype.type(value))  # as the file rounds it
    is_equal = np.isnan(stored) if np.isnan(value) else stored == value
    return np.asarray(is_equal.all(axis=2) if is_equal.ndim == 3 else is_equal)


def valid_in(valid: Mask, size_hw: SizeHW) -> Mask:
    """Pixels of a resized image to which only pixels with data contribute."""
    if valid.shape == size_hw:
        return valid
    smaller = size_hw[0] <= valid.shape[0] and size_hw[1] <= valid.shape[1]
    how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    white = valid.view(np.uint8) * np.uint8(255)
    return np.asarray(cv2.resize(white, size_hw[::-1], interpolation=how) == 255)


def away_from_gaps(valid: Mask, size_hw: SizeHW) -> Mask:
    """Pixels of the network's input with data, farther than `GAP_REACH_PX` from gaps.

    Pixels in gaps narrower than `GAP_WIDTH_PX` exclude only themselves, because their neighbours
    replace them well: dead pixels must not empty an image.
    """
    known = np.ascontiguousarray(valid_in(valid, size_hw))
    square = np.ones((GAP_WIDTH_PX, GAP_WIDTH_PX), np.uint8)
    gaps = cv2.morphologyEx((~known).view(np.uint8), cv2.MORPH_OPEN, square)
    if not gaps.any():
        return known
    distance = cv2.distanceTransform(1 - gaps, cv2.DIST_L2, cv2.DIST_MASK_5)
    return np.asarray(known & (distance > GAP_REACH_PX))


def blanked(pixels: Array, valid: Mask) -> Array:
    """A copy of an image whose pixels without data have a value of one that has data, or 0."""
    copy = pixels.copy()
    copy[~valid] = pixels.reshape(valid.size, -1)[valid.argmax()] if valid.any() else 0
    return copy.reshape(pixels.shape)


def filled(grey: Array, valid: Mask) -> Array:
    """H W, each pixel without data with the value of the nearest one that has data; 0 if none has.

    The image continues across the border of a gap, so that the border itself is no structure.
    """
    if not valid.any():
        return np.zeros_like(grey)
    gaps = np.ascontiguousarray(~valid).view(np.uint8)
    _, labels = cv2.distanceTransformWithLabels(
        gaps, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    values = np.zeros(int(labels.max()) + 1, grey.dtype)
    values[labels[valid]] = grey[valid]
    return np.where(valid, grey, values[labels])
