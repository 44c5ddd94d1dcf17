"""Noise floor: the score that a network gives to images without anything to see.

The images are generated: uniform or shaded grey with weak noise, as from a covered lens, a blank
slide or a dark room. What the network finds in them is noise, and its own pattern of cells and
borders. Strong noise is left out, because its corners score like those of faint photographs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.config import RegistrationConfig
from tiepoint.detector import Detector
from tiepoint.geometry import SizeHW

SEED = 17

SIZES_HW: tuple[SizeHW, ...] = ((64, 97), (240, 320), (480, 640))

MEANS = (0.0, 3.0, 16.0, 64.0, 128.0, 200.0, 250.0, 255.0)
"""Grey levels of 0..255. Half of the noise is clipped at 0 and at 255."""
NOISE = (0.0, 1.0, 2.0)
"""Standard deviations of the noise, grey levels. From 4 on its scores rise steeply, and a floor
above them would cost faint photographs (benchmarks/noise_floor.py)."""
SHADED = 2
"""Frames of each kind of shading, for each size and noise."""
MAX_SHADING = 40.0
"""Largest difference of brightness across a shaded frame, grey levels."""
MAX_VIGNETTING = 0.2
"""Largest relative loss of brightness at half the longer side from the centre."""
JPEG_QUALITY = (75, 95)
"""Lowest and highest quality. At low quality the corners of blocks are real corners."""

MARGIN = 1.5
"""The floor relative to the highest score of rank `RANK` in all frames, because other frames score
higher by chance. A floor three times as high costs a tenth of the true pairs of photographs at a
tenth of their contrast (benchmarks/noise_floor.py)."""

RANK = RegistrationConfig.min_inliers
"""Fewer keypoints of noise than this cannot register. The best score of all is mostly chance."""

Frame = NDArray[Any]

log = logging.getLogger(__name__)


def measure_noise_floor(
    checkpoint: str | Path,
    threshold: float | None = None,
    *,
    on_frame: Callable[[], None] = lambda: None,
    threads: int | None = None,
) -> float:
    """`DetectionConfig.noise_floor` for a checkpoint: fewer than `RANK` keypoints of a frame pass.

    Args:
        threshold: Upper limit of the floor, so that it changes no result at the checkpoint's
            threshold; None takes that of the checkpoint.
        on_frame: Called after each of `FRAMES`.
        threads: As for `Detector`.

    Returns:
        A score in 0..1, to two significant digits.
    """
    detector = Detector(
        checkpoint, device="cpu", precision="f32", max_side=None, threshold=0.0, noise_floor=0.0,
        max_keypoints=RANK, subpixel=False, descriptors=False, threads=threads,
        contrast="none",  # 16 bits too: a stretch would make strong noise of weak noise
    )  # fmt: skip
    limit = detector.checkpoint.detection.threshold if threshold is None else threshold
    highest = 0.0
    for detection in detector.stream(frames()):
        scores = detection.require().scores  # best first, `RANK` at most
        if len(scores) == RANK:
            highest = max(highest, float(scores[-1]))
        on_frame()
    floor = float(f"{MARGIN * highest:.2g}")
    if floor > limit:
        log.warning("noise reaches a score of %.2g; threshold %g is the floor", highest, limit)
    return min(floor, limit)


def frames() -> Iterator[Frame]:
    """`FRAMES` frames, the same in every run; H W, uint8 or uint16."""
    random = np.random.default_rng(SEED)
    for number, (size_hw, noise) in enumerate(product(SIZES_HW, NOISE)):
        shaded = [shade(random, size_hw) for shade in (sloped, vignetted) for _ in range(SHADED)]
        for offset, grey in enumerate([np.full(size_hw, mean) for mean in MEANS] + shaded):
            noisy = grey + random.normal(0, noise, size_hw)
            yield digitise(random, noisy, number + offset)


FRAMES = len(SIZES_HW) * len(NOISE) * (len(MEANS) + 2 * SHADED)


def sloped(random: np.random.Generator, size_hw: SizeHW) -> NDArray[np.float64]:
    """Brightness that grows evenly in one direction. Returns H W, 0..255."""
    y, x = (np.linspace(-0.5, 0.5, side) for side in size_hw)  # H, W
    angle, span = random.uniform(0, 2 * np.pi), random.uniform(0, MAX_SHADING)
    across = np.cos(angle) * x[None] + np.sin(angle) * y[:, None]  # H W
    grey: NDArray[np.float64] = random.uniform(MAX_SHADING, 255 - MAX_SHADING) + span * across
    return grey


def vignetted(random: np.random.Generator, size_hw: SizeHW) -> NDArray[np.float64]:
    """Brightness that falls with the squared distance from the centre. Returns H W, 0..255."""
    height, width = size_hw
    y, x = np.arange(height)[:, None], np.arange(width)[None]
    centre_y, centre_x = random.uniform(0.4, 0.6, 2) * size_hw
    distance = np.hypot(x - centre_x, y - centre_y) / (max(size_hw) / 2)  # H W
    loss = random.uniform(0, MAX_VIGNETTING)
    grey: NDArray[np.float64] = random.uniform(MAX_SHADING, 255) * (1 - loss * distance**2)
    return grey


def digitise(random: np.random.Generator, grey: NDArray[np.float64], number: int) -> Frame:
    """Round to 8 bits, or to 16 bits, or compress as JPEG, by turns."""
    if number % 4 == 3:
        return np.clip(np.rint(257 * grey), 0, 65535).astype(np.uint16)
    frame = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
    if number % 2 == 0:
        return frame
    quality = int(random.integers(*JPEG_QUALITY, endpoint=True))
    _, encoded = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE))
