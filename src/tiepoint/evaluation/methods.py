"""The methods compared: a tiepoint checkpoint, SIFT and ORB, all as image -> Features.

OpenCV's coordinates are put right here. Shown by detecting in an image and its mirror image,
where a true position x comes back as W - 1 - x: SIFT's default pyramid reports every point
0.25 px too far right and down (OpenCV 4.9 to 5.0), ORB's reports a point of level n at
s^n times its place in that level, off by up to 1.4 px.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.config import DetectionOptions
from tiepoint.detector import Detector
from tiepoint.errors import ConfigError, FormatError
from tiepoint.evaluation.pairs import Grey
from tiepoint.features import Features
from tiepoint.geometry import resize_covariance, resize_xy

POOL = 4
"""Repeatability takes the k best inside the common view: so many times k points are detected."""

ORB_SCALE = 1.2  # cv2.ORB's default step between pyramid levels
ORB_FAST_THRESHOLDS = (20, 10, 5, 2, 1, 0)  # the first is cv2.ORB's default


@dataclass(frozen=True)
class Method:
    """A way from an image to features.

    Attributes:
        name: Its row in the table.
        detect: (grey image `H W` uint8, k) -> Features with descriptors of unit length, best
            first: the first k are those that are matched, up to `POOL` times as many follow.
        settings: What else decides the result; goes into the report.
        stored: Features by the name of their image, in place of `detect`.
        exactly: Like `detect`, but k points and none beyond: what is timed. None times `detect`.
    """

    name: str
    detect: Callable[[Grey, int], Features]
    settings: Mapping[str, Any] = field(default_factory=dict)
    stored: Mapping[str, Features] | None = None
    exactly: Callable[[Grey, int], Features] | None = None

    def features(self, image: Grey, name: str, k: int) -> Features:
        """Features of an image at evaluation size.

        Args:
            image: `H W` uint8.
            name: By which a file of features knows it.
            k: As for `detect`.

        Raises:
            FormatError: The file does not have this image, or not its descriptors.
        """
        if self.stored is None:
            return self.detect(image, k)
        if name not in self.stored:
            raise FormatError(
                f"method {self.name!r} has no features of {name or 'a drawn image'!r}; expected a "
                "file made from the same folder"
            )
        found = self.stored[name]
        if found.descriptors is None:
            raise FormatError(f"method {self.name!r}: the features of {name!r} lack descriptors")
        size_hw = image.shape[0], image.shape[1]
        best = found.take(_best_first(found.xy, found.scores))
        around = best.covariance
        return replace(
            best,
            xy=resize_xy(best.xy, found.size_hw, size_hw),
            size_hw=size_hw,
            covariance=None
            if around is None
            else resize_covariance(around, found.size_hw, size_hw),
        )


def method(name: str) -> Method:
    """One of `BASELINES` by its name.

    Raises:
        ConfigError: Unknown name.
    """
    if name not in BASELINES:
        raise ConfigError(f"no method {name!r}; there are {', '.join(BASELINES)}")
    return BASELINES[name]


def checkpoint_methods(
    checkpoints: Sequence[str],
    nms_radius: int | None = None,
    scales: Sequence[float] | None = None,
) -> list[Method]:
    """A method for each tiepoint checkpoint, a name or a folder.

    The threshold is 0, so that k points are had wherever the image has so many local maxima.

    Args:
        nms_radius: px; None takes each checkpoint's own.
        scales: Parts of the image's size at which the network sees it; None likewise.

    Raises:
        CheckpointError: No such checkpoint, or a damaged one.
        ConfigError: The same checkpoint twice.
    """
    methods = []
    given: DetectionOptions = {"max_side": None, "threshold": 0.0}
    if nms_radius is not None:
        given["nms_radius"] = nms_radius
    if scales is not None:
        given["scales"] = scales
    for checkpoint in checkpoints:
        detector = Detector(checkpoint, precision="f32", **given)
        own_name = detector.checkpoint.name
        name = own_name if checkpoint == "default" else checkpoint
        settings = detector.provenance().to_json()
        detect, exactly = partial(_tiepoint, detector, POOL), partial(_tiepoint, detector, 1)
        methods.append(Method(name, detect, settings, exactly=exactly))
    return methods


def stored_method(text: str) -> Method:
    """Features from a file as a method: `NAME=FILE.h5`, in hloc's layout or tiepoint's.

    Raises:
        ConfigError: Not of this form.
        FormatError: The file cannot be read.
        MissingExtraError: The extra `hdf5` is not installed.
    """
    name, _, path = text.partition("=")
    if not name or not path:
        raise ConfigError(f"--features is {text!r}, expected NAME=FILE.h5")
    from tiepoint.formats import read_h5

    def nothing(image: Grey, k: int) -> Features:
        raise AssertionError("stored features are looked up")

    stored, stat = read_h5(path), Path(path).stat()
    about = {"file": path, "bytes": stat.st_size, "modified_ns": stat.st_mtime_ns}
    return Method(name, nothing, about, stored)


def _tiepoint(detector: Detector, pool: int, image: Grey, k: int) -> Features:
    return detector(image, max_keypoints=pool * k)


def _sift(image: Grey, k: int, *, precise: bool, pool: int = POOL) -> Features:
    """SIFT with RootSIFT descriptors (Arandjelovic and Zisserman, CVPR 2012).

    Contrast 0 admits every extremum and the best by response are kept: the same k points as with
    the default threshold wherever that leaves k.
    """
    sift = cv2.SIFT.create(
        nfeatures=pool * k, contrastThreshold=0.0, enable_precise_upscale=precise
    )
    keypoints, descriptors = sift.detectAndCompute(image, None)
    if not keypoints:
        return _features(np.empty((0, 2)), np.empty(0), np.empty((0, 128)), image)
    l1 = np.maximum(descriptors.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    xy, response = _points(keypoints)
    found = _features(xy, response, np.sqrt(descriptors / l1), image)
    return found.take(_best_first(xy, response)).top(pool * k)


def _orb(image: Grey, k: int) -> Features:
    """ORB; its bits as +-1/16, whose cosine is 1 - Hamming / 128 exactly.

    ORB shares out the number asked for among its levels. The first k points are what it finds
    when asked for k; what it finds beyond them when asked for more comes after.
    """
    first, beyond = _orb_asked_for(image, k), _orb_asked_for(image, POOL * k)
    known = set(map(bytes, first.xy))
    new = np.array([bytes(point) not in known for point in beyond.xy], dtype=bool)
    beyond = beyond.take(new)
    assert first.descriptors is not None
    assert beyond.descriptors is not None
    return Features(
        np.concatenate([first.xy, beyond.xy]),
        np.concatenate([first.scores, beyond.scores]),
        np.concatenate([first.descriptors, beyond.descriptors]),
        first.size_hw,
        first.meta,
    )


def _orb_asked_for(image: Grey, count: int) -> Features:
    """The threshold falls until `count` points are had, best Harris response first."""
    keypoints: Sequence[Any] = ()
    bits: Any = None
    for threshold in ORB_FAST_THRESHOLDS:
        orb = cv2.ORB.create(nfeatures=count, fastThreshold=threshold)
        keypoints, bits = orb.detectAndCompute(image, None)
        if len(keypoints) >= count:
            break
    if bits is None:
        return _features(np.empty((0, 2)), np.empty(0), np.empty((0, 256)), image)
    xy, response = _points(keypoints)
    xy = _orb_to_centre0(xy, [keypoint.octave for keypoint in keypoints], image.shape)
    signs = np.unpackbits(bits, axis=1).astype(np.float32) * 2 - 1  # N 256
    return _features(xy, response, signs / 16, image).take(_best_first(xy, response)).top(count)


def _orb_to_centre0(
    xy: NDArray[np.float64], levels: Sequence[int], shape: tuple[int, ...]
) -> NDArray[np.float64]:
    """From ORB's s^n x_level to px of the image.

    A level's size is rounded to whole px, and the resize that makes it is half-pixel exact.
    """
    scale = np.float64(np.float32(ORB_SCALE)) ** np.asarray(levels, np.float64)[:, None]  # N 1
    size_wh = np.array([shape[1], shape[0]], np.float64)  # 2
    level_wh = np.rint(size_wh / scale)  # N 2
    moved: NDArray[np.float64] = (xy / scale + 0.5) * size_wh / level_wh - 0.5  # N 2
    return moved


def _points(keypoints: Sequence[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    xy = np.array([keypoint.pt for keypoint in keypoints], np.float64)  # N 2
    return xy, np.array([keypoint.response for keypoint in keypoints], np.float64)  # N 2, N


def _best_first(xy: NDArray[Any], response: NDArray[Any]) -> NDArray[np.int64]:
    return np.lexsort((xy[:, 0], xy[:, 1], -response))


def _features(
    xy: NDArray[Any], scores: NDArray[Any], descriptors: NDArray[Any], image: Grey
) -> Features:
    return Features(
        xy.astype(np.float32),
        scores.astype(np.float32),
        descriptors.astype(np.float32),
        (image.shape[0], image.shape[1]),
    )


BASELINES = {
    "sift": Method(
        "sift",
        partial(_sift, precise=True),
        {"descriptor": "RootSIFT", "precise_upscale": True},
        exactly=partial(_sift, precise=True, pool=1),
    ),
    "sift-opencv": Method(
        "sift-opencv",
        partial(_sift, precise=False),
        {"descriptor": "RootSIFT", "precise_upscale": False},
        exactly=partial(_sift, precise=False, pool=1),
    ),
    "orb": Method(
        "orb",
        _orb,
        {"descriptor": "256 bits", "pixel_centres": "corrected"},
        exactly=_orb_asked_for,
    ),
}
"""OpenCV's methods. `sift-opencv` is SIFT as OpenCV ships it, its quarter pixel uncorrected."""
