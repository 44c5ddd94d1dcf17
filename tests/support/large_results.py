"""Results of `register_large` whose map is known, without any image."""

from __future__ import annotations

from typing import Any

import numpy as np

from tiepoint.registration.large.deformation import Deformation
from tiepoint.registration.large.georeference import Georeference
from tiepoint.registration.large.result import LargeRegistration, ResidualMap
from tiepoint.registration.large.transform import LargeTransform
from tiepoint.registration.result import Residuals

C, S = 1.1 * np.cos(0.4), 1.1 * np.sin(0.4)
MATRIX = np.array([[C, -S, 150.0], [S, C, -90.0], [0, 0, 1]])
BEND = Deformation((0.0, 0.0), 100.0, np.random.default_rng(1).normal(0, 6, (7, 8, 2)))
BENT = LargeTransform(MATRIX, BEND)
PLACE_A = Georeference((500_000.0, 2.0, 0.5, 5_000_000.0, -0.25, -2.0), "EPSG:25832")
PLACE_B = Georeference((499_000.0, 1.5, 0.0, 5_001_000.0, 0.0, -1.5), "EPSG:25832")
SIZES = (400, 500), (420, 520)


def result(transform: LargeTransform | None = BENT, **changes: Any) -> LargeRegistration:
    """A registration with this map, and 200 exact points."""
    known = transform or BENT
    rng = np.random.default_rng(2)
    xy_a = rng.uniform(0, (499, 399), (200, 2))
    xy_b = known.forward(xy_a)
    cells = ResidualMap(
        rng.uniform(0, 400, (4, 2)), rng.normal(0, 1, (4, 2)), rng.uniform(0, 1, 4),
        np.array([50, 50, 60, 40]),
    )  # fmt: skip
    values: dict[str, Any] = {
        "success": transform is not None,
        "reason": "ok" if transform is not None else "too little that is alike",
        "model": "smooth" if known.deformation is not None else "homography",
        "mapping": transform,
        "coarse": None,
        "xy_a": xy_a,
        "xy_b": xy_b,
        "inliers": np.arange(200) % 20 > 0,
        "residual_map": cells,
        "reprojection_px": Residuals(0.25, 0.5),
        "left_out_px": Residuals(0.5, 1.0),
        "cells": (4, 6),
        "coverage": 0.75,
        "names": ("a.tif", "b.tif"),
        "sizes_hw": SIZES,
        "damaged": (("B", (10.0, 20.0)),),
    }
    return LargeRegistration(**{**values, **changes})
