"""Keypoints of bare heat maps, by the public steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tiepoint.config import DetectionConfig
from tiepoint.geometry import Placement
from tiepoint.keypoints import candidates, heat_mass, pixel_centres, refine, top_k
from tiepoint.keypoints.extraction import extract
from tiepoint.keypoints.result import Keypoints, Masks
from tiepoint.network.dense_maps import DenseMaps


def select(
    heatmap: np.ndarray, config: DetectionConfig, mask: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """xy N 2 and scores N of a heat map alone, without the image's own response."""
    heatmap = np.ascontiguousarray(heatmap)
    pixels = top_k(heatmap, candidates(heatmap, config, mask), config.max_keypoints)
    if config.subpixel:
        xy = refine(pixels, heat_mass(heatmap, pixels), None, config.nms_radius)
    else:
        xy = pixel_centres(pixels)
    return xy, heatmap[pixels]


def extract_batch(
    maps: DenseMaps[np.ndarray],
    inputs: np.ndarray,
    placements: Sequence[Placement],
    config: DetectionConfig,
    sampling: Any = "exact",
    masks: Masks = None,
) -> list[Keypoints[np.ndarray]]:
    """Keypoints of each image of a batch, in px of the input."""
    keypoints = []
    for index, placement in enumerate(placements):
        height, width = placement.resized_hw
        heatmap, dense = maps.of_image(index, placement)
        keypoints.append(
            extract(
                heatmap,
                dense,
                inputs[index, 0, :height, :width],
                config,
                sampling,
                None if masks is None else masks[index],
            )
        )
    return keypoints
