"""Dense maps of one image -> its keypoints: all steps in their order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tiepoint.config import DescriptorSampling, DetectionConfig
from tiepoint.keypoints.descriptors import describe
from tiepoint.keypoints.positions import (
    covariance,
    heat_mass,
    hessian_response,
    pixel_centres,
    refine,
)
from tiepoint.keypoints.result import Keypoints
from tiepoint.keypoints.selection import Area, Pixels, candidates, top_k, within, zero_outside

Float32 = NDArray[np.float32]

Done = TypeVar("Done")
Value = TypeVar("Value")

MIN_ASYNC_PX = 2**17
"""Smaller maps stay on the calling thread: handing them over costs more than it saves."""

logger = logging.getLogger(__name__)


def extract(
    heatmap: Float32,
    dense: Sequence[Float32] | None,
    image: Float32,
    detection: DetectionConfig,
    sampling: DescriptorSampling,
    mask: NDArray[np.bool_] | None = None,
    executor: Executor | None = None,
    area: Area | None = None,
    chosen: Pixels | None = None,
) -> Keypoints[Float32]:
    """Dense maps of one image -> its keypoints, step by step.

    Args:
        heatmap, dense: See `DenseMaps.of_image`.
        image: H W in 0..1, the network's input without padding.
        mask: H W, where keypoints are allowed; None = everywhere.
        executor: Computes the Hessian response while pixels are selected; None: afterwards.
        area: Rows and columns of the chosen pixels; None = all. Pixels outside suppress those
            inside.
        chosen: Pixels that are chosen already, which become the keypoints in this order; None
            chooses them.
    """
    heatmap, image = np.ascontiguousarray(heatmap), np.ascontiguousarray(image)
    helper = executor if image.size >= MIN_ASYNC_PX else None
    pending = submit(helper, hessian_response, image) if detection.subpixel else None
    if chosen is None:
        found = candidates(heatmap, detection, mask)
        found = found if area is None else within(found, area)
        chosen = top_k(heatmap, found, detection.max_keypoints)
    pixels = chosen  # N
    around = heat_mass(heatmap, pixels)
    if pending is None:
        xy = pixel_centres(pixels)  # N 2
    else:
        response = pending()  # H W
        zero_outside(response, detection.border, mask)
        xy = refine(pixels, around, response, detection.nms_radius)  # N 2
    scale = detection.covariance_scale
    spread = None if scale is None else covariance(around, scale)  # N 2 2
    descriptors = None if dense is None else describe(dense, xy, sampling)  # N D
    return Keypoints(xy, heatmap[pixels], descriptors, spread)


def submit(
    executor: Executor | None, work: Callable[[Value], Done], value: Value
) -> Callable[[], Done]:
    """Start work on another thread; calling what is returned waits for it, or does it if no thread
    has started it."""
    if executor is None:
        return lambda: work(value)
    try:
        future = executor.submit(work, value)
    except RuntimeError:  # no thread can be started, or the interpreter exits
        logger.debug("no helper thread: the work is done by the caller")
        executor.shutdown(wait=False, cancel_futures=True)  # or it would keep the value
        return lambda: work(value)
    return lambda: work(value) if future.cancel() else future.result()
