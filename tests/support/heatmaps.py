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


def as_heatmap(logits: np.ndarray) -> np.ndarray:
    """B 65 h w -> B H W float32, as a network's heat map comes."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    pixels = (powers / powers.sum(axis=1, keepdims=True))[:, :64]  # B 64 h w
    B, _, h, w = pixels.shape
    cells = pixels.reshape(B, 8, 8, h, w).transpose(0, 3, 1, 4, 2)  # B h row w column
    return cells.reshape(B, 8 * h, 8 * w).astype(np.float32)
