"""Run an exported model in other runtimes, and compare its keypoints with those of `Detector`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.config import DetectionConfig
from tiepoint.detector import Detector
from tiepoint.errors import is_installed
from tiepoint.export import runtimes
from tiepoint.export.model import COLMAP_MIN_SCORE, Profile, colmap_exponent, max_places
from tiepoint.export.runtimes import Arrays, Runtime
from tiepoint.images.quiet import opencv_quiet
from tiepoint.weights.checkpoint import Checkpoint

Float32 = NDArray[np.float32]

MAX_OFFSET_PX, MAX_SCORE_DIFFERENCE, MIN_COSINE = 0.01, 1e-3, 0.999
"""Largest differences of the same keypoint. Round-off on photographs is 10 times smaller."""

MIN_SAME = 0.995
"""Least share of the same keypoints. On photographs all are the same; where scores are equal or
at the threshold, round-off may decide otherwise."""

COLMAP_PX = 32
"""COLMAP pads the sides of images to multiples of this."""

ROWS = 256
"""Number of keypoints that are compared with all others at once."""


class Points(NamedTuple):
    """Keypoints of one image.

    Attributes:
        xy: N 2 px.
        scores: N, those of `Detector`.
        descriptors: N D.
    """

    xy: Float32
    scores: Float32
    descriptors: Float32


@dataclass(frozen=True)
class Agreement:
    """How far a runtime's keypoints are those of `Detector`, over all images.

    Attributes:
        runtime: Name of the runtime.
        keypoints: Number of keypoints, of `Detector` or of the runtime, whichever is higher.
        same: Number of keypoints that both have.
        max_offset_px: Largest distance of the same keypoint, px.
    """

    runtime: str
    keypoints: int
    same: int
    max_offset_px: float

    @property
    def total(self) -> int:
        """Number of keypoints that were compared."""
        return self.keypoints

    @property
    def is_good(self) -> bool:
        """Whether enough keypoints are the same."""
        return self.same >= MIN_SAME * self.keypoints

    def __str__(self) -> str:
        return (
            f"{self.runtime}: {self.same} of {self.keypoints} keypoints are those of Detector, "
            f"within {self.max_offset_px:.1g} px"
        )


def compare(
    runtimes: Iterable[tuple[str, Runtime]],
    checkpoint: Checkpoint,
    detection: DetectionConfig,
    profile: Profile,
    images: Iterable[NDArray[np.uint8]],
    *,
    threads: int | None = None,
) -> list[Agreement]:
    """Compare a model with `Detector` in float32, in each runtime.

    Args:
        runtimes: With the model loaded, and their names; see `runtimes_of`.
        images: `H W` or `H W 3` RGB, seen at their native size.
        threads: Maximum number of cores of `Detector`; None takes all.

    Raises:
        MissingExtraError: No engine of `Detector` is installed.
    """
    limit = max_places(detection)
    detector = Detector(checkpoint, device="cpu", precision="f32", threads=threads)
    settings: Any = {**vars(detection), "max_keypoints": limit, "max_side": None}
    loaded = dict(runtimes)
    counts = {name: np.zeros(2, np.int64) for name in loaded}
    offsets = dict.fromkeys(loaded, 0.0)
    for image in images:
        features = detector(image, **settings)
        assert features.descriptors is not None
        expected = Points(features.xy, features.scores, features.descriptors)
        for name, run in loaded.items():
            points = detect(run, image, detection, profile)
            same, offset_px = common(expected, points)
            counts[name] += same, max(len(expected.xy), len(points.xy))
            offsets[name] = max(offsets[name], offset_px)
    return [
        Agreement(name, int(keypoints), int(same), offsets[name])
        for name, (same, keypoints) in counts.items()
    ]


def runtimes_of(
    data: bytes, profile: Profile, threads: int | None
) -> Iterator[tuple[str, Runtime]]:
    """The installed runtimes with an ONNX file loaded, and their names.

    Args:
        data: The file's content.
        threads: Maximum number of cores of ONNX Runtime and OpenVINO; None takes all.
    """
    if is_installed("onnxruntime"):
        yield "ONNX Runtime", runtimes.onnx_runtime(data, threads)
    if is_installed("openvino"):
        yield "OpenVINO", runtimes.openvino(data, threads)
    if profile == "opencv" and hasattr(cv2, "ALIKED"):
        yield "OpenCV", _opencv(data)


def detect(
    run: Runtime, image: NDArray[np.uint8], detection: DetectionConfig, profile: Profile
) -> Points:
    """The keypoints of one image by a model.

    Args:
        image: `H W` or `H W 3` RGB.
        detection: The settings of the model.
    """
    if profile != "generic" and image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    channels = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
    pixels = channels[None].astype(np.float32) / np.float32(255)  # 1 C H W
    height, width = image.shape[:2]
    if profile == "generic":
        outputs = run({"image": pixels})
        count = int(outputs["count"][0])
        return Points(
            *(outputs[name][0, :count] for name in ("keypoints", "scores", "descriptors"))
        )
    if profile == "opencv":
        outputs = run({"image": pixels})
        xy: Float32 = (outputs["keypoints"] + 1) * _pair(width / 2, height / 2)
        return Points(xy, outputs["scores"].reshape(-1), outputs["descriptors"])
    return _as_colmap(run, pixels, detection)


def _as_colmap(run: Runtime, pixels: Float32, detection: DetectionConfig) -> Points:
    """As COLMAP runs the model on pixels 1 3 H W, but with its coordinates less half a pixel."""
    height, width = pixels.shape[2:]
    below, right = -height % COLMAP_PX, -width % COLMAP_PX
    padded = np.pad(pixels, ((0, 0), (0, 0), (0, below), (0, right)), mode="edge")
    outputs = run(
        {
            "image": padded,
            "max_keypoints": np.array(max_places(detection), np.int64),
            "min_score": np.array(COLMAP_MIN_SCORE, np.float32),
        }
    )
    sides = _pair(width + right - 1, height + below - 1)
    xy = (outputs["keypoints"][0] + 1) * sides / 2
    inside = ((xy >= -0.5) & (xy < _pair(width, height) - np.float32(0.5))).all(axis=1)
    inside &= outputs["scores"][0] >= np.float32(COLMAP_MIN_SCORE)
    scores = outputs["scores"][0] ** np.float32(1 / colmap_exponent(detection))
    return Points(xy[inside], scores[inside], outputs["descriptors"][0][inside])


def common(expected: Points, points: Points) -> tuple[int, float]:
    """The number of keypoints that are the same, and their largest distance, px."""
    if not len(expected.xy) or not len(points.xy):
        return 0, 0.0
    same, farthest = 0, 0.0
    for start in range(0, len(expected.xy), ROWS):
        rows = slice(start, start + ROWS)
        offsets = expected.xy[rows, None] - points.xy  # R N 2
        distance = np.sqrt((offsets**2).sum(axis=2))  # R N
        nearest = distance.argmin(axis=1)  # R
        shortest = distance.min(axis=1)
        difference = np.abs(expected.scores[rows] - points.scores[nearest])
        cosine = (expected.descriptors[rows] * points.descriptors[nearest]).sum(axis=1)
        good = (shortest <= MAX_OFFSET_PX) & (difference <= MAX_SCORE_DIFFERENCE)
        good &= cosine >= MIN_COSINE
        same += int(good.sum())
        farthest = max(farthest, float(shortest[good].max(initial=0)))
    return same, farthest


def _pair(x: float, y: float) -> Float32:
    return np.array([x, y], np.float32)


def _opencv(data: bytes) -> Runtime:
    """`cv2.ALIKED`, with its own preparation of images and its own coordinates."""

    def run(inputs: Arrays) -> Arrays:
        pixels = np.rint(inputs["image"][0] * 255).astype(np.uint8)  # 3 H W
        image = np.ascontiguousarray(pixels[::-1].transpose(1, 2, 0))  # H W 3, BGR
        height, width = image.shape[:2]
        settings = cv2.ALIKED.Params()
        settings.inputSize = (width, height)
        with opencv_quiet(), tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.onnx")
            path.write_bytes(data)
            keypoints, descriptors = cv2.ALIKED.create(str(path), settings).detectAndCompute(
                image, None
            )
        xy = np.array([one.pt for one in keypoints], np.float32).reshape(-1, 2)
        scores = np.array([one.response for one in keypoints], np.float32)
        none = np.zeros((0, 1), np.float32)
        return {
            "keypoints": xy * 2 / _pair(width, height) - 1,
            "scores": scores,
            "descriptors": none if descriptors is None else descriptors,
        }

    return run
