"""A detector of the form of `cv2.Feature2D`."""

# ruff: noqa: N802 - the names are OpenCV's

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.detector import Detector
from tiepoint.errors import ConfigError
from tiepoint.features import Features
from tiepoint.features.opencv import REGION_PX, from_keypoints, to_keypoints
from tiepoint.geometry import resize_xy
from tiepoint.images.reading import read
from tiepoint.keypoints import describe

Keypoints = tuple[cv2.KeyPoint, ...]
Descriptors = NDArray[np.float32]


class OpenCVFeature:
    """Detects and describes keypoints as the classes of OpenCV do, such as `cv2.SIFT`.

    Images are arrays `H W`, `H W 3` in BGR or `H W 4` in BGRA, as `cv2.imread` returns them.
    Masks are arrays `H W`; keypoints are allowed where they are not 0. `detect` and `compute`
    return what OpenCV's own return: tuples of keypoints, and None for no descriptors.

    Args:
        detector: Detector with its settings; None is `Detector()`.
    """

    def __init__(self, detector: Detector | None = None) -> None:
        self.detector = Detector() if detector is None else detector

    def detect(self, image: NDArray[Any], mask: NDArray[Any] | None = None) -> Keypoints:
        """The keypoints of an image, best first; see `features.opencv.to_keypoints`.

        Raises:
            ConfigError: The image is no array.
            ImageError: An array of a shape or type that no image has, or a mask of another size.
            EngineError: The engine failed.
        """
        return to_keypoints(self._features(image, mask, descriptors=False))

    def detectAndCompute(
        self, image: NDArray[Any], mask: NDArray[Any] | None = None
    ) -> tuple[Keypoints, Descriptors | None]:
        """The keypoints of an image and their descriptors, N D float32 of unit length.

        Raises:
            ConfigError, ImageError, EngineError: As `detect`.
        """
        features = self._features(image, mask, descriptors=True)
        keypoints, descriptors = features.to_opencv()
        return keypoints, descriptors if len(keypoints) else None

    def compute(
        self, image: NDArray[Any], keypoints: Sequence[cv2.KeyPoint]
    ) -> tuple[Keypoints, Descriptors | None]:
        """The descriptors at given keypoints, N D, sampled from the network's dense maps.

        Each keypoint is described at the scale of the detector that is nearest to its `size`. For
        keypoints of `detect` these are the descriptors of `detectAndCompute`. The angle has no
        effect, and all keypoints are kept, in their order.

        Raises:
            ConfigError, ImageError, EngineError: As `detect`; or a keypoint is not finite.
        """
        from_keypoints(keypoints, None)  # checks them
        if not keypoints:
            return (), None
        xy = np.array([point.pt for point in keypoints], np.float32)  # N 2
        sizes = np.array([point.size for point in keypoints], np.float64)
        source = read(_array(image), channel_order="bgr")
        levels = self.detector.dense_maps(source)
        steps_px = np.array([placement.px_per_input_px for *_, placement in levels])
        wanted_px = np.where(sizes > 0, sizes / REGION_PX, steps_px.min())
        level_of = np.abs(np.log(wanted_px[:, None] / steps_px)).argmin(axis=1)  # N
        descriptors = np.empty((len(keypoints), self.descriptorSize()), np.float32)
        for index, (_, dense, placement) in enumerate(levels):
            rows = level_of == index
            input_xy = resize_xy(xy[rows], placement.image_hw, placement.resized_hw)
            descriptors[rows] = describe(dense, input_xy, self.detector.checkpoint.sampling)
        return tuple(keypoints), descriptors

    def descriptorSize(self) -> int:
        """Length D of a descriptor."""
        return self.detector.checkpoint.network.descriptor_decoder_dim

    def descriptorType(self) -> int:
        """`cv2.CV_32F`."""
        return int(cv2.CV_32F)

    def defaultNorm(self) -> int:
        """`cv2.NORM_L2`, the norm for `cv2.BFMatcher`."""
        return int(cv2.NORM_L2)

    def empty(self) -> bool:
        """False: the weights are loaded."""
        return False

    def getDefaultName(self) -> str:
        """ "Feature2D.tiepoint"."""
        return "Feature2D.tiepoint"

    def __repr__(self) -> str:
        return f"OpenCVFeature({self.detector!r})"

    def _features(self, image: NDArray[Any], mask: Any, *, descriptors: bool) -> Features:
        return self.detector(_array(image), mask=mask, channel_order="bgr", descriptors=descriptors)


def _array(image: NDArray[Any]) -> NDArray[Any]:
    if not isinstance(image, np.ndarray):
        raise ConfigError(
            f"image is a {type(image).__name__}, expected an array as from cv2.imread, which "
            "returns None for files it cannot read"
        )
    return image
