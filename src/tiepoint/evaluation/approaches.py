"""The methods of a comparison by name: checkpoints, learned matchers, SIFT, ORB.

A checkpoint detects as `register` does, so its verdict is that of `register`. OpenCV's methods see
the same image in grey, downscaled in the same way, and their features are placed in its px.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Unpack

import numpy as np

from tiepoint.config import DetectionOptions, ProcessorConfig
from tiepoint.detector import Detector
from tiepoint.evaluation.methods import BASELINES, Method
from tiepoint.evaluation.settings import LEARNED_SUFFIX
from tiepoint.evaluation.sizes import to_uint8
from tiepoint.features import Features, Matches
from tiepoint.geometry import resize_xy
from tiepoint.images.reading import SourceImage
from tiepoint.matching.learned.choice import matcher_of
from tiepoint.matching.match import match
from tiepoint.network.inputs import as_grey
from tiepoint.registration.register import registration_detector

ApproachSource = Callable[[str], "Approach"]
"""Name -> method; raises `TiepointError` for one that cannot be made."""


@dataclass(frozen=True)
class Approach:
    """A way from an image to features, and from those of two images to matches.

    Attributes:
        name: Its name in the table.
        detect: (image, k) -> at most k features with descriptors, px of the image, best first.
        pairing: Features of two images -> matches.
        settings: What decides the result, for the report.
    """

    name: str
    detect: Callable[[SourceImage, int], Features]
    pairing: Callable[[Features, Features], Matches]
    settings: Mapping[str, Any]


class Making(NamedTuple):
    """What all methods of a comparison share.

    Attributes:
        max_side: See `CompareSettings`.
        threads: Maximum number of CPU cores of the networks; None takes all.
    """

    max_side: int | None
    threads: int | None = None

    def __call__(self, name: str) -> Approach:
        """The method of a name: one of `BASELINES`; or a bundled checkpoint, a folder or a Hub id.

        Raises:
            CheckpointError: No such checkpoint, or a damaged one.
            ConfigError: A learned matcher is asked for, and the checkpoint has none.
        """
        if name in BASELINES:
            return of_opencv(BASELINES[name], self.max_side)
        checkpoint = name.removesuffix(LEARNED_SUFFIX)
        detector = registration_detector(checkpoint, max_side=self.max_side, threads=self.threads)
        return of_detector(name, detector, threads=self.threads)


def of_detector(
    name: str,
    detector: Detector,
    *,
    threads: int | None = None,
    **options: Unpack[DetectionOptions],
) -> Approach:
    """A checkpoint as a method, with the learned matcher if the name has `LEARNED_SUFFIX`.

    Args:
        threads: Maximum number of CPU cores of the learned matcher; None takes all.
        options: Settings of the detector; without a threshold of 0 the method is not `register`.

    Raises:
        ConfigError: The checkpoint has no learned matcher.
    """
    settings = detector.provenance(**options).to_json()

    def detect(image: SourceImage, k: int) -> Features:
        given: DetectionOptions = {**options, "max_keypoints": k}
        features: Features = detector(image, **given)
        return features

    if not name.endswith(LEARNED_SUFFIX):
        return Approach(name, detect, match, settings)
    matcher = matcher_of(detector.checkpoint, threads=threads)
    settings["matcher_sha256"] = matcher.checkpoint.sha256
    return Approach(name, detect, partial(match, method="learned", matcher=matcher), settings)


def of_opencv(method: Method, max_side: int | None) -> Approach:
    """SIFT or ORB as a method."""
    detect_grey = method.detect_exactly_k or method.detect

    def detect(image: SourceImage, k: int) -> Features:
        grey = as_grey(image.pixels, ProcessorConfig(max_side=max_side), image.valid).grey
        return placed(detect_grey(to_uint8(grey), k), image.size_hw)

    return Approach(method.name, detect, match, {**method.settings, "max_side": max_side})


def placed(features: Features, size_hw: tuple[int, int]) -> Features:
    """Features of a downscaled image in px of the original image of `size_hw`."""
    xy = resize_xy(features.xy, features.size_hw, size_hw).astype(np.float32)
    factor = max(size_hw) / max(features.size_hw)
    return replace(features, xy=xy, size_hw=size_hw, px_per_input_px=factor)
