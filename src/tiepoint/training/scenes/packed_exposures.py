"""Exposures as rows of numbers, which processes and devices exchange at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.training.scenes.photometry import MOST_PATCHES, MOST_VERTICES, Exposure, Patch

PackedExposures = NDArray[np.void]
"""N rows of `EXPOSURE`; `np.concatenate` joins them."""

PATCH = np.dtype([
    ("drawn", "f4"),  # 1, or 0 where there is no patch
    ("is_box", "f4"),
    ("corners_xy", "f4", (4, 2)),  # whole px, as OpenCV draws a box; 0 for an ellipse
    ("xy", "f4", 2),
    ("half_wh", "f4", 2),
    ("angle_deg", "f4"),  # whole degrees, as OpenCV draws an ellipse
    ("grey", "f4"),
    ("noise", "f4"),
])  # fmt: skip

EXPOSURE = np.dtype([
    ("slope", "f4", 2),
    ("bump", "f4", 4),  # x, y, height, spread
    ("vignette", "f4"),
    ("shadow_xy", "f4", (MOST_VERTICES, 2)),  # the last vertex is repeated
    ("shadow_light", "f4"),  # 1 without a shadow
    ("shadow_blur_px", "f4"),
    ("patches", PATCH, MOST_PATCHES),
    ("blur_px", "f4"),
    ("motion_px", "f4"),  # 0 without motion
    ("motion_angle", "f4"),
    ("small_hw", "f4", 2),
    ("gamma", "f4"),
    ("contrast", "f4"),
    ("bias", "f4"),
    ("read", "f4"),
    ("shot", "f4"),
    ("grain", "f4"),  # 0 or 1
    ("pepper", "f4"),
    ("jpeg_left_top", "f4", 2),
    ("jpeg_quality", "f4"),  # 0 without compression
])  # fmt: skip
"""The fields of `Exposure` without its seed, all float32. An effect that a view lacks has the
numbers that change nothing."""


def pack_exposures(exposures: Sequence[Exposure]) -> PackedExposures:
    """One row for each exposure."""
    packed = np.zeros(len(exposures), EXPOSURE)
    packed["bump"][:, 3] = 1
    packed["shadow_light"] = 1
    packed["patches"]["half_wh"] = 1
    for row, exposure in zip(packed, exposures, strict=True):
        _fill(row, exposure)
    return packed


def _fill(row: Any, exposure: Exposure) -> None:
    for name in ("slope", "vignette", "blur_px", "small_hw", "gamma", "contrast", "bias", "read",
                 "shot", "grain", "pepper"):  # fmt: skip
        row[name] = getattr(exposure, name)
    bump, shadow, motion, jpeg = exposure.bump, exposure.shadow, exposure.motion, exposure.jpeg
    if bump:
        row["bump"] = bump.x, bump.y, bump.height, bump.spread
    if shadow:
        row["shadow_light"], row["shadow_blur_px"] = shadow.light, shadow.blur_px
        row["shadow_xy"] = shadow.corners_xy[-1]
        row["shadow_xy"][: len(shadow.corners_xy)] = shadow.corners_xy
    for number, patch in enumerate(exposure.patches):
        _fill_patch(row["patches"][number], patch)
    if motion:
        row["motion_px"], row["motion_angle"] = motion.length_px, motion.angle
    if jpeg:
        row["jpeg_left_top"], row["jpeg_quality"] = (jpeg.left, jpeg.top), jpeg.quality


def _fill_patch(place: Any, patch: Patch) -> None:
    for name in ("is_box", "xy", "half_wh", "grey", "noise"):
        place[name] = getattr(patch, name)
    place["drawn"], place["angle_deg"] = 1, round(patch.angle_deg)
    if patch.is_box:
        box = patch.xy, (2 * patch.half_wh[0], 2 * patch.half_wh[1]), patch.angle_deg
        place["corners_xy"] = np.rint(cv2.boxPoints(box))
