"""Small pictures for a page: an overlay, matches, residuals."""

from __future__ import annotations

import io
import math
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tiepoint.features import Features, Matches
from tiepoint.geometry import SizeHW, apply_homography, fit_inside, resize_matrix, resize_xy
from tiepoint.plotting import SUBPIXEL_BITS, plot_matches, to_rgb8
from tiepoint.registration import warping
from tiepoint.registration.result import Registration

SIDE_PX = 640
"""Longer side of an image of a thumbnail, px."""
QUALITY = 78
ARROW_PX = 10.0
"""Length of an arrow of the median residual, px."""
MOST_LINES = 60
"""Lines between matches."""

ARROW, START = (190, 30, 45), (20, 60, 150)
"""RGB of arrows, and of the dots where they start."""

RGB = NDArray[np.uint8]


class Small(NamedTuple):
    """Both images reduced, and the registration between them."""

    a: RGB
    b: RGB
    registration: Registration


def small(image_a: Any, image_b: Any, registration: Registration) -> Small:
    """Reduce both images, and move matrix and points along.

    Args:
        image_a, image_b: `SourceImage` of the registration's sizes.
        registration: A result with a plane model or without a matrix.
    """
    a, b = (_reduced(to_rgb8(image)) for image in (image_a, image_b))
    a_hw, b_hw = _size_hw(a), _size_hw(b)
    full_a, full_b = registration.features_a, registration.features_b
    matrix = registration.matrix
    if matrix is not None:
        to_b, from_a = resize_matrix(full_b.size_hw, b_hw), resize_matrix(a_hw, full_a.size_hw)
        matrix = to_b @ matrix @ from_a
    moved = Registration(
        success=registration.success,
        reason=registration.reason,
        model=registration.model,
        matrix=matrix,
        features_a=_moved(full_a, a_hw),
        features_b=_moved(full_b, b_hw),
        matches=registration.matches,
        inliers=registration.inliers,
    )
    return Small(a, b, moved)


def overlay(pair: Small) -> RGB:
    """A in red over B in cyan."""
    return warping.overlay(pair.a, pair.b, pair.registration)


def matches(pair: Small) -> RGB:
    """A and B side by side, with lines between inliers."""
    one = pair.registration
    inliers = Matches(one.matches.pairs[one.inliers], one.matches.scores[one.inliers])
    return plot_matches(
        pair.a, pair.b, one.features_a, one.features_b, inliers,
        max_lines=MOST_LINES, max_side=SIDE_PX,
    )  # fmt: skip


def residuals(pair: Small) -> tuple[RGB, int]:
    """B in grey with an arrow for each inlier, and the factor by which arrows are longer.

    An arrow starts at the position that the model predicts and points to the matched one.
    """
    one = pair.registration
    xy_a, xy_b = one.xy_a[one.inliers], one.xy_b[one.inliers].astype(np.float64)
    assert one.matrix is not None
    predicted = apply_homography(one.matrix, xy_a)  # I 2
    offsets = xy_b - predicted  # I 2
    lengths = np.hypot(offsets[:, 0], offsets[:, 1])
    zoom = max(1, round(ARROW_PX / max(float(np.median(lengths)), 1e-3))) if len(lengths) else 1
    grey = cv2.cvtColor(pair.b, cv2.COLOR_RGB2GRAY)
    pale = 255 - (255 - grey.astype(np.float32)) * 0.45
    canvas = np.repeat(np.rint(pale).astype(np.uint8)[:, :, None], 3, axis=2)
    ends = predicted + zoom * offsets
    reach = 2 * math.hypot(*canvas.shape[:2])
    for arrow in np.stack([predicted, ends], axis=1):  # 2 2
        if np.isfinite(arrow).all() and np.abs(arrow).max() < reach:
            first, last = map(_fixed, arrow)
            cv2.line(canvas, first, last, ARROW, 1, cv2.LINE_AA, SUBPIXEL_BITS)
            dot = 2 << SUBPIXEL_BITS
            cv2.circle(canvas, first, dot, START, -1, cv2.LINE_AA, SUBPIXEL_BITS)
    return canvas, zoom


def jpeg(picture: RGB) -> bytes:
    """The picture as the bytes of a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(
        buffer, "JPEG", quality=QUALITY, optimize=True
    )
    return buffer.getvalue()


def _reduced(picture: RGB) -> RGB:
    size_hw = fit_inside(_size_hw(picture), SIDE_PX)
    if size_hw == _size_hw(picture):
        return picture
    resized = cv2.resize(picture, size_hw[::-1], interpolation=cv2.INTER_AREA)
    return np.asarray(resized, np.uint8)


def _fixed(xy: NDArray[np.float64]) -> tuple[int, int]:
    x, y = np.rint(xy * 2**SUBPIXEL_BITS).astype(int).tolist()
    return x, y


def _size_hw(picture: RGB) -> SizeHW:
    return picture.shape[0], picture.shape[1]


def _moved(features: Features, size_hw: SizeHW) -> Features:
    xy = resize_xy(features.xy, features.size_hw, size_hw).astype(np.float32)
    return Features(xy, features.scores, None, size_hw)
