"""valis: tiepoint as the feature detector of its slide registration.

    from tiepoint.integrations.valis import feature_detector
    matcher = valis.feature_matcher.Matcher(feature_detector=feature_detector())

valis takes objects of its class `FeatureDD`. Positions are (x, y) in px with whole numbers as pixel
centres, as in OpenCV.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import cv2
import numpy as np

from tiepoint.integrations.programs import load_module, make_detector, subclass

MAX_FEATURES = 7500
"""Number of keypoints that valis's own detectors keep."""


def feature_detector(
    checkpoint: str = "default", *, max_keypoints: int = MAX_FEATURES, **options: Any
) -> Any:
    """A feature detector for `feature_detector` of valis's matchers and `feature_detector_cls`.

    Args:
        checkpoint: As for `Detector`.
        max_keypoints: Number of best keypoints of each image.
        options: Further settings of `ProcessorConfig` and `DetectionConfig`.

    Raises:
        MissingProgramError: valis is not installed.
    """
    return feature_detector_class()(checkpoint, max_keypoints=max_keypoints, **options)


@cache
def feature_detector_class() -> type:
    """The class of `feature_detector`, a subclass of valis's `FeatureDD`."""
    module = load_module("valis.feature_detectors", "valis", "pip install valis-wsi")
    base = module.FeatureDD

    def initialise(self: Any, checkpoint: str = "default", **options: Any) -> None:
        base.__init__(self)
        self.kp_detector_name = self.kp_descriptor_name = "tiepoint"
        options = {"max_side": None, "max_keypoints": MAX_FEATURES, **options}
        self.detector = make_detector({"checkpoint": checkpoint, "options": options})

    members = {
        "__doc__": "Keypoints and descriptors of tiepoint.",
        "__init__": initialise,
        "_detect_and_compute": _detect_and_compute,
    }
    return subclass("TiepointFD", base, __name__, members)


def _detect_and_compute(
    self: Any, image: Any, mask: Any = None, *_: Any, **__: Any
) -> tuple[Any, Any]:
    """Image H W or H W 3, mask H W or None -> positions N 2 float64, descriptors N D float32."""
    pixels = np.asarray(image)
    covered = None
    if mask is not None:
        covered = (np.asarray(mask) > 0).astype(np.uint8) * 255
        if covered.shape != pixels.shape[:2]:  # valis downscales the image of a level only
            size_wh = (pixels.shape[1], pixels.shape[0])
            covered = cv2.resize(covered, size_wh, interpolation=cv2.INTER_NEAREST)
    features = self.detector(pixels, mask=covered)
    # valis multiplies the positions in place.
    return features.xy.astype(np.float64), np.array(features.descriptors)
