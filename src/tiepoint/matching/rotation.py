"""Turned images: a matrix that turns descriptors, and which turn brings two images together.

The descriptors of an image and of the same image turned by 45 degrees differ by one orthogonal
matrix, nearly. It is found once for a checkpoint and lies beside it; its powers stand in for
turning the image, without a second pass of the network and without other weights.

Source: Bökman et al., "Steerers" (CVPR 2024), for the idea; no network was trained for it here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.config import ProcessorConfig
from tiepoint.errors import CheckpointError, ConfigError
from tiepoint.files import write_bytes
from tiepoint.keypoints import postprocess
from tiepoint.matching import neighbours
from tiepoint.network import engines, inputs
from tiepoint.weights.checkpoint import Checkpoint, locate
from tiepoint.weights.hub import STEERING_FILE

Float32 = NDArray[np.float32]
Grey = NDArray[np.uint8]

TURNS = 8
"""Steps of a whole turn, 45 degrees each; halfway between two, descriptors still match."""

PROBED = 300
"""Best keypoints of each image that decide about the turn."""

CLEARLY = 1.15
"""A turn must agree this much better than none: what stands upright stays so."""

FITTED = 300
"""Keypoints of each image that the fit looks at, at most."""

RIM_PX = 24
"""The fit keeps so far from the circle that every turn of an image shows."""

LEAST_FITTED = 100
"""Keypoints in all that a fit needs; a few thousand are better."""

_TENSOR, _WEIGHTS = "eighth_turn", "weights_sha256"


def best_turn(a: Float32, b: Float32, steering: Float32) -> int:
    """By how many eighths image A must be turned to match image B best.

    Args:
        a, b: Descriptors N_A D and N_B D, of the best `PROBED` keypoints.
        steering: D D, as `fit_steering` gives it.

    Returns:
        -3 ... 4, counterclockwise; 0 unless another turn is clearly better.
    """
    if len(a) == 0 or len(b) == 0:
        return 0
    turns = range(1 - TURNS // 2, TURNS // 2 + 1)
    agreement = {turn: _agreement(turned(a, steering, turn), b) for turn in turns}
    best = max(turns, key=lambda turn: (agreement[turn], -abs(turn), turn))
    return best if agreement[best] > CLEARLY * agreement[0] else 0


def turned(descriptors: Float32, steering: Float32, turn: int) -> Float32:
    """Descriptors N D as they would be if their image were turned by so many eighths."""
    if turn == 0:
        return descriptors
    matrix = np.linalg.matrix_power(steering.astype(np.float64), abs(turn))  # D D
    rotated = descriptors.astype(np.float64) @ (matrix.T if turn > 0 else matrix)  # N D
    result: Float32 = rotated.astype(np.float32)
    return result


def fit_steering(checkpoint: Checkpoint, images: Iterable[Grey]) -> Float32:
    """The matrix that turns a checkpoint's descriptors by 45 degrees.

    Args:
        images: `H W` uint8, a few dozen, from about 160 px on; their middle squares are used.

    Returns:
        D D float32, orthogonal: a descriptor d becomes `R @ d` when the image is turned
        counterclockwise by 45 degrees.

    Raises:
        ConfigError: The images have too few keypoints.

    Source:
        The orthogonal Procrustes problem: Schönemann, Psychometrika 1966.
    """
    network = engines.build(checkpoint, "openvino", "cpu", "f32")
    length, count = checkpoint.network.descriptor_decoder_dim, 0
    product = np.zeros((length, length))  # D D
    for image in images:
        views = _described_turns(checkpoint, network, image)  # 8 N D
        count += views.shape[1]
        for before, after in zip(views, np.roll(views, -1, axis=0), strict=True):
            product += after.T.astype(np.float64) @ before
    if count < LEAST_FITTED:
        raise ConfigError(
            f"the images have {count} keypoints to fit turns on, expected {LEAST_FITTED} at least; "
            "give more images, or larger ones"
        )
    left, _, right = np.linalg.svd(product)
    steering: Float32 = (left @ right).astype(np.float32)
    return steering


def save_steering(folder: Path, steering: Float32, weights_sha256: str) -> Path:
    """Lay the matrix beside the weights that it was fitted for; returns its file.

    Raises:
        FormatError: The folder cannot be written to.
    """
    from safetensors.numpy import save

    path = folder / STEERING_FILE
    write_bytes(path, save({_TENSOR: steering}, metadata={_WEIGHTS: weights_sha256}))
    return path


def load_steering(checkpoint: str, weights_sha256: str, length: int) -> Float32 | None:
    """The matrix that lies beside a checkpoint, if one does and it is that of these weights.

    Args:
        checkpoint: As `Features.meta` names it: a bundled name, a folder or a Hub id, of which
            the cache alone is asked.
        weights_sha256: Of the weights that made the descriptors.
        length: D.

    Returns:
        D D float32; None where there is none, or one for other weights.

    Raises:
        CheckpointError: A damaged file.
    """
    try:
        path = locate(checkpoint, local_files_only=True) / STEERING_FILE
    except CheckpointError:
        return None  # features outlive the folder of their checkpoint
    try:
        changed = path.stat().st_mtime_ns
    except FileNotFoundError:
        return None
    return _read_steering(path.resolve(), changed, weights_sha256, length)


@lru_cache(maxsize=16)
def _read_steering(path: Path, changed_ns: int, weights_sha256: str, length: int) -> Float32 | None:
    """`load_steering` from its file; a file that changes is read again."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            if (file.metadata() or {}).get(_WEIGHTS) != weights_sha256:
                return None
            matrix: Float32 = file.get_tensor(_TENSOR).astype(np.float32)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: not readable ({error}); run tiepoint steer again"
        ) from error
    if matrix.shape != (length, length) or not np.isfinite(matrix).all():
        raise CheckpointError(
            f"{path}: holds a matrix of shape {matrix.shape}, expected ({length}, {length}) and "
            "finite; run tiepoint steer again"
        )
    return matrix


def _agreement(a: Float32, b: Float32) -> float:
    """How well two sets of descriptors fit: mutual neighbours, near ones far more than others."""
    of_a, of_b = neighbours.by_cosine(a, b, second=False)
    mutual = of_b.index[of_a.index] == np.arange(len(a))  # N_A
    cosines = np.maximum(of_a.score[mutual].astype(np.float64), 0)
    return float((cosines**4).sum())


def _described_turns(checkpoint: Checkpoint, network: engines.Runtime, image: Grey) -> Float32:
    """Descriptors of the same places in all turns of an image: 8 N D."""
    side = min(image.shape)
    top, left = ((full - side) // 2 for full in image.shape)
    square = np.ascontiguousarray(image[top : top + side, left : left + side])
    middle = np.float32((side - 1) / 2)
    config = replace(checkpoint.detection, max_keypoints=4 * FITTED)
    offset, views = np.zeros((0, 2), np.float32), []
    for number in range(TURNS):
        degrees = 360 / TURNS * number
        matrix = cv2.getRotationMatrix2D((float(middle), float(middle)), degrees, 1.0)
        how, edge = cv2.INTER_CUBIC, cv2.BORDER_REFLECT
        view = cv2.warpAffine(square, matrix, (side, side), flags=how, borderMode=edge)
        pixels, placements = inputs.prepare([np.asarray(view)], ProcessorConfig(max_side=None))
        maps = network(pixels, placements, True)
        assert maps.descriptors is not None
        if number == 0:
            [found] = network.extract(maps, placements, config, checkpoint.sampling)
            offset = found.xy - middle  # N 2
            inner = np.hypot(*offset.T) < side / 2 - RIM_PX
            offset = offset[inner][:FITTED]
        turn = matrix[:, :2].astype(np.float32)  # 2 2
        places = offset @ turn.T + middle  # N 2
        views.append(postprocess.sample_at(maps.descriptors[0], places, checkpoint.sampling))
    return np.stack(views)
