"""Fit the matrix that rotates a checkpoint's descriptors by 45 degrees. Works without torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.config import ProcessorConfig
from tiepoint.errors import ConfigError
from tiepoint.keypoints import describe
from tiepoint.keypoints.extraction import extract
from tiepoint.matching.rotation import ROTATION_STEPS
from tiepoint.network.engine import Engine
from tiepoint.network.engines import build_engine, resolve_engine
from tiepoint.network.inputs import prepare
from tiepoint.weights.checkpoint import Checkpoint

Float32 = NDArray[np.float32]
Grey = NDArray[np.uint8]

MAX_KEYPOINTS = 300
"""Maximum number of keypoints per image that take part in the fit."""

RIM_PX = 24
"""Margin inside the circle that every rotation of an image shows."""

MIN_KEYPOINTS = 100
"""Minimum number of keypoints over all images; a few thousand are better."""


def fit_rotation(
    checkpoint: Checkpoint, images: Iterable[Grey], *, threads: int | None = None
) -> Float32:
    """Fit the matrix that rotates a checkpoint's descriptors by 45 degrees.

    Args:
        images: `H W` uint8, a few dozen of at least 160 px. Only the central square is used.
        threads: As for `Detector`.

    Returns:
        D D float32, orthogonal: descriptor d becomes `R @ d` when the image is rotated
        counterclockwise by 45 degrees.

    Raises:
        ConfigError: The images have too few keypoints.

    Source:
        The orthogonal Procrustes problem: Schönemann, Psychometrika 1966.
    """
    engine = build_engine(checkpoint, resolve_engine("auto", "cpu", "f32"), threads=threads)
    length, count = checkpoint.network.descriptor_decoder_dim, 0
    product = np.zeros((length, length))  # D D
    for image in images:
        views = _rotated_descriptors(checkpoint, engine, image)  # 8 N D
        count += views.shape[1]
        for before, after in zip(views, np.roll(views, -1, axis=0), strict=True):
            product += after.T.astype(np.float64) @ before
    if count < MIN_KEYPOINTS:
        raise ConfigError(
            f"the images have {count} keypoints to fit the rotation on, expected at least "
            f"{MIN_KEYPOINTS}; give more images, or larger ones"
        )
    left, _, right = np.linalg.svd(product)
    matrix: Float32 = (left @ right).astype(np.float32)
    return matrix


def _rotated_descriptors(checkpoint: Checkpoint, engine: Engine, image: Grey) -> Float32:
    """Descriptors 8 N D of the same scene points in all eight rotations of an image."""
    side = min(image.shape)
    top, left = ((full - side) // 2 for full in image.shape)
    square = np.ascontiguousarray(image[top : top + side, left : left + side])
    middle = np.float32((side - 1) / 2)
    config = replace(checkpoint.detection, max_keypoints=4 * MAX_KEYPOINTS)
    offset, views = np.zeros((0, 2), np.float32), []
    for step in range(ROTATION_STEPS):
        degrees = 360 / ROTATION_STEPS * step
        matrix = cv2.getRotationMatrix2D((float(middle), float(middle)), degrees, 1.0)
        how, edge = cv2.INTER_CUBIC, cv2.BORDER_REFLECT
        view = cv2.warpAffine(square, matrix, (side, side), flags=how, borderMode=edge)
        inputs, placements = prepare(
            [np.asarray(view)], ProcessorConfig(max_side=None, contrast="none")
        )
        maps = engine.run(inputs, placements, descriptors=True, phases=checkpoint.detection.phases)
        assert maps.descriptors is not None
        if step == 0:
            keypoints = extract(
                maps.heatmap[0, :side, :side], None, inputs[0, 0, :side, :side], config, "exact"
            )
            offset = keypoints.xy - middle  # N 2
            inner = np.hypot(*offset.T) < side / 2 - RIM_PX
            offset = offset[inner][:MAX_KEYPOINTS]
        xy = offset @ matrix[:, :2].astype(np.float32).T + middle  # N 2
        views.append(describe([one[0] for one in maps.descriptors], xy, checkpoint.sampling))
    return np.stack(views)
