"""Run an exported matcher in other runtimes, and compare its matches with `LearnedMatcher`'s."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.detector import Detector
from tiepoint.errors import is_installed
from tiepoint.export import runtimes
from tiepoint.export.model import Profile
from tiepoint.export.runtimes import Arrays, Runtime
from tiepoint.features import Features
from tiepoint.images.quiet import opencv_quiet
from tiepoint.matching.learned.matcher import LearnedMatcher

KEYPOINTS = 400
"""Maximum number of keypoints of each image that is compared."""

MIN_SAME = 0.99
"""Least share of the same matches: at the threshold, or of nearly equal rivals, round-off may
decide otherwise."""

MAX_SCORE_DIFFERENCE = 1e-3

TURN_DEG, ZOOM = 12.0, 0.9
"""Second view of each image."""

Pairs = dict[tuple[int, int], float]
"""Indices in A and B -> probability of the match."""


@dataclass(frozen=True)
class MatchAgreement:
    """How far a runtime's matches are those of `LearnedMatcher`, over all pairs of images.

    Attributes:
        runtime: Name of the runtime.
        matches: Number of matches, of `LearnedMatcher` or of the runtime, whichever is higher.
        same: Number of matches that both have, with the same probability.
    """

    runtime: str
    matches: int
    same: int

    @property
    def total(self) -> int:
        """Number of matches that were compared."""
        return self.matches

    @property
    def is_good(self) -> bool:
        """Whether enough matches are the same."""
        return self.same >= MIN_SAME * self.matches

    def __str__(self) -> str:
        return f"{self.runtime}: {self.same} of {self.matches} matches are those of tiepoint"


def compare_matches(
    data: bytes,
    matcher: LearnedMatcher,
    detector: Detector,
    profile: Profile,
    images: Iterable[NDArray[np.uint8]],
    *,
    threshold: float,
    threads: int | None = None,
) -> list[MatchAgreement]:
    """Compare a model with a matcher in each runtime that is installed.

    Each image is matched with a turned and zoomed copy of itself.

    Args:
        data: The file's content.
        detector: Detector with the weights that the matcher was trained on.
        images: `H W` or `H W 3` RGB.
        threshold: Least probability of a match, that of the file.
        threads: Maximum number of cores of ONNX Runtime and OpenVINO; None takes all.
    """
    found = dict(_runtimes(data, profile, threads))
    counts = {name: np.zeros(2, np.int64) for name in found}
    for image in images:
        a, b = (detector(view, max_keypoints=KEYPOINTS) for view in (image, _second(image)))
        if len(a) == 0 or len(b) == 0:
            continue
        expected = _as_pairs(*_arrays(matcher, a, b, threshold))
        for name, run in found.items():
            pairs = _as_pairs(*_matched(run, a, b, profile))
            same = sum(
                abs(score - expected[pair]) <= MAX_SCORE_DIFFERENCE
                for pair, score in pairs.items()
                if pair in expected
            )
            counts[name] += max(len(pairs), len(expected)), same
    return [MatchAgreement(name, int(most), int(same)) for name, (most, same) in counts.items()]


def _second(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), TURN_DEG, ZOOM)
    turned: Any = cv2.warpAffine(image, turn, (width, height), borderMode=cv2.BORDER_REFLECT)
    return turned  # type: ignore[no-any-return]


def _arrays(
    matcher: LearnedMatcher, a: Features, b: Features, threshold: float
) -> tuple[NDArray[Any], NDArray[Any]]:
    found = matcher(a, b, threshold=threshold)
    return found.pairs, found.scores


def _matched(
    run: Runtime, a: Features, b: Features, profile: Profile
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Pairs M 2 and their probabilities M by a model."""
    inputs: dict[str, Any] = {}
    for number, features in enumerate((a, b)):
        height, width = features.size_hw
        xy = features.xy.astype(np.float32)
        if profile == "opencv":  # as `setPairInfo` does with the longer side for both sides
            xy = (xy / max(height, width) * 2 - 1).astype(np.float32)
        else:
            inputs[f"image_size{number}"] = np.array([[width, height]], np.float32)
        inputs[f"kpts{number}"] = xy[None]
        inputs[f"desc{number}"] = np.ascontiguousarray(features.descriptors, np.float32)[None]
    outputs = run(inputs)
    matches, scores = outputs["matches0"], outputs["mscores0"]
    if matches.ndim == 1:
        matches = np.stack([np.arange(len(matches)), matches], axis=1)
    kept = matches[:, 1] >= 0
    return matches[kept], scores[kept]


def _as_pairs(pairs: NDArray[Any], scores: NDArray[Any]) -> Pairs:
    rows = zip(pairs.tolist(), scores.tolist(), strict=True)
    return {(i, j): score for (i, j), score in rows}


def _runtimes(data: bytes, profile: Profile, threads: int | None) -> Iterator[tuple[str, Runtime]]:
    if is_installed("onnxruntime"):
        yield "ONNX Runtime", runtimes.onnx_runtime(data, threads)
    if is_installed("openvino"):
        yield "OpenVINO", runtimes.openvino(data, threads)
    if profile == "opencv" and hasattr(cv2, "LightGlueMatcher"):
        yield "OpenCV", _opencv(data)


def _opencv(data: bytes) -> Runtime:
    """`cv2.LightGlueMatcher`."""
    with opencv_quiet(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        path.write_bytes(data)
        matcher = cv2.LightGlueMatcher.create(str(path), 0.0)

    def run(inputs: Arrays) -> Arrays:
        points = [np.ascontiguousarray(inputs[f"kpts{i}"][0]) for i in range(2)]
        descriptors = [np.ascontiguousarray(inputs[f"desc{i}"][0]) for i in range(2)]
        with opencv_quiet():
            matcher.setPairInfo(*points)  # without sizes: they are normalised already
            found = matcher.match(*descriptors)
        pairs = np.array([(one.queryIdx, one.trainIdx) for one in found], np.int64).reshape(-1, 2)
        scores = np.array([1 - one.distance for one in found], np.float32)
        return {"matches0": pairs, "mscores0": scores}

    return run
