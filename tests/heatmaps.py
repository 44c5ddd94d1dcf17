"""Heat maps and settings that tests of selection and of places share."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tiepoint.config import DetectionConfig

ALL = DetectionConfig(threshold=0.0, border=0, subpixel=False)

# Few distinct values make many ties, which is where rules differ.
heatmaps = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=14),
    elements=st.sampled_from([0.0, 0.25, 0.5, 0.75]).map(np.float32),
)


def empty_map() -> np.ndarray:
    return np.zeros((24, 32), dtype=np.float32)
