"""The methods compared: tiepoint's checkpoints, SIFT and ORB, all as image -> Features.

OpenCV's coordinates are corrected here. Detection in an image and in its mirror image shows their
errors, because a true position x comes back as W - 1 - x. SIFT's default pyramid reports every
point 0.25 px too far right and down (OpenCV 4.9 to 5.0). ORB's reports a point of level n at
s^n times its position in that level, off by up to 1.4 px.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.config import DetectionOptions, MatchMethod, RotationMode
from tiepoint.detector import Detector
from tiepoint.errors import ConfigError, FormatError
from tiepoint.evaluation.sizes import Grey, LoadedImages, size_hw_of
from tiepoint.features import Features, Matches
from tiepoint.geometry import resize_covariance, resize_xy
from tiepoint.matching.learned.choice import MatcherSource, matcher_of
from tiepoint.matching.learned.matcher import LearnedMatcher
from tiepoint.matching.match import match

REMEMBERED_IMAGES = 16
"""Images whose features are kept at a time, if two methods share them: about 40 MB."""

OVERSAMPLING = 4
"""Keypoints detected per keypoint matched: repeatability takes the k best of the common view."""

ORB_SCALE = 1.2  # cv2.ORB's default step between pyramid levels
ORB_FAST_THRESHOLDS = (20, 10, 5, 2, 1, 0)  # the first is cv2.ORB's default


Pairing = Callable[[Features, Features, RotationMode], Matches]
"""How the features of two images are matched; the mode as `MatchingConfig.rotation`."""


def nearest_neighbours(a: Features, b: Features, rotation: RotationMode) -> Matches:
    """Mutual nearest neighbours."""
    return match(a, b, rotation=rotation)


@dataclass(frozen=True)
class Method:
    """A way from an image to features, and from those of two images to matches.

    Attributes:
        name: Its name in the table.
        detect: (grey image `H W` uint8, k) -> Features with descriptors of unit length, best
            first: the first k are matched, up to `OVERSAMPLING` times as many in all.
        settings: Further settings that decide the result; listed in the report.
        stored: Name of an image -> its features, used instead of `detect`.
        pairing: (features A, features B, rotation mode) -> matches.
        detect_exactly_k: `detect` without oversampling, for timing; None times `detect`.
    """

    name: str
    detect: Callable[[Grey, int], Features]
    settings: Mapping[str, Any] = field(default_factory=dict)
    stored: Mapping[str, Features] | None = None
    pairing: Pairing = nearest_neighbours
    detect_exactly_k: Callable[[Grey, int], Features] | None = None

    def features(self, image: Grey, name: str, k: int) -> Features:
        """Features of an image at evaluation size, detected or stored under `name`.

        Raises:
            FormatError: The file lacks this image, or its descriptors.
        """
        if self.stored is None:
            return self.detect(image, k)
        if name not in self.stored:
            raise FormatError(
                f"method {self.name!r} has no features of {name or 'a drawn image'!r}; expected a "
                "file made from the same folder"
            )
        stored = self.stored[name]
        if stored.descriptors is None:
            raise FormatError(f"method {self.name!r}: the features of {name!r} lack descriptors")
        best = stored.take(_best_first(stored.xy, stored.scores))
        size_hw, covariance = size_hw_of(image), best.covariance
        if covariance is not None:
            covariance = resize_covariance(covariance, best.size_hw, size_hw)
        xy = resize_xy(best.xy, best.size_hw, size_hw)
        scales_px = best.scales_px
        if scales_px is not None:
            scales_px = scales_px * np.float32(max(size_hw) / max(best.size_hw))
        return replace(best, xy=xy, size_hw=size_hw, covariance=covariance, scales_px=scales_px)

    def features_of_pair(self, pair: LoadedImages, k: int) -> tuple[Features, Features]:
        """Features of both images of a pair; see `features`."""
        a = self.features(pair.image_a, pair.names[0], k)
        return a, self.features(pair.image_b, pair.names[1], k)


def method(name: str) -> Method:
    """One of `BASELINES` by its name; ConfigError for another name."""
    if name not in BASELINES:
        raise ConfigError(f"no method {name!r}; there are {', '.join(BASELINES)}")
    return BASELINES[name]


def checkpoint_methods(
    checkpoints: Sequence[str],
    *,
    matching: Sequence[MatchMethod] = ("nearest",),
    matcher: MatcherSource = None,
    layers: int | None = None,
    threads: int | None = None,
    **options: Unpack[DetectionOptions],
) -> list[Method]:
    """A method for each tiepoint checkpoint, a name or a folder, and each way of matching.

    Threshold and noise floor are 0, so that every image with k local maxima gives k keypoints.

    Args:
        matching: Ways of matching; "learned" is named "<checkpoint> + learned".
        matcher, layers: Learned matcher of all checkpoints, as for `match`; None takes each one's.
        threads, options: As for `Detector`.

    Raises:
        CheckpointError: No such checkpoint or matcher, or a damaged one.
        ConfigError: A checkpoint without a learned matcher, or a matcher of other weights.
    """
    methods = []
    options = {**options, "max_side": None, "threshold": 0.0, "noise_floor": 0.0}
    for checkpoint in checkpoints:
        detector = Detector(checkpoint, precision="f32", threads=threads, **options)
        name = detector.checkpoint.name if checkpoint == "default" else checkpoint
        detect: Callable[[Grey, int], Features] = partial(_tiepoint, detector, OVERSAMPLING)
        if len(matching) > 1:
            detect = _Remembered(detect)
        exact = partial(_tiepoint, detector, 1)
        settings = detector.provenance().to_json()
        for one in matching:
            row = Method(name, detect, settings, detect_exactly_k=exact)
            if one == "learned":
                learned = matcher_of(detector.checkpoint, matcher, layers=layers, threads=threads)
                row = _with_matcher(row, learned)
            methods.append(row)
    return methods


class _Remembered:
    """Detection whose last results are kept, for methods that differ in their matching only."""

    def __init__(self, detect: Callable[[Grey, int], Features]) -> None:
        self._detect, self._lock = detect, threading.Lock()
        self._results: OrderedDict[tuple[bytes, int], Features] = OrderedDict()

    def __call__(self, image: Grey, k: int) -> Features:
        pixels = np.ascontiguousarray(image)
        digest = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()
        with self._lock:
            features = self._results.get((digest, k))
        if features is None:
            features = self._detect(image, k)
            with self._lock:
                self._results[digest, k] = features
                if len(self._results) > REMEMBERED_IMAGES:
                    self._results.popitem(last=False)
        return features


def _with_matcher(row: Method, matcher: LearnedMatcher) -> Method:
    """The method with a learned matcher in place of nearest neighbours.

    Where the protocol has no rotation, the mode is "auto": the matcher is not trained on images
    that are turned further than the rotation matrix leaves them.
    """

    def pairing(a: Features, b: Features, rotation: RotationMode) -> Matches:
        mode = "auto" if rotation == "none" else rotation
        return match(a, b, method="learned", matcher=matcher, rotation=mode)

    checkpoint = matcher.checkpoint
    settings = {
        **row.settings,
        "matcher_sha256": checkpoint.sha256,
        "matcher_layers": matcher.layers,
        "matcher_min_probability": checkpoint.threshold,
    }
    return replace(row, name=f"{row.name} + learned", settings=settings, pairing=pairing)


def stored_method(text: str) -> Method:
    """Features from files as a method: `NAME=PATH`, of a store or an .h5 file in hloc's layout.

    Raises:
        ConfigError: `text` has another form.
        FormatError: The file cannot be read.
        MissingExtraError: The extra `hdf5` is not installed.
    """
    name, _, path = text.partition("=")
    if not name or not path:
        raise ConfigError(f"--features is {text!r}, expected NAME=PATH of features")
    from tiepoint.formats.many_images import read_features

    stored, stat = read_features(path), Path(path).stat()
    settings = {"file": path, "bytes": stat.st_size, "modified_ns": stat.st_mtime_ns}
    return Method(name, _not_detected, settings, stored)


def _not_detected(image: Grey, k: int) -> Features:
    raise AssertionError("stored features are looked up")


def _tiepoint(detector: Detector, oversampling: int, image: Grey, k: int) -> Features:
    return detector(image, max_keypoints=oversampling * k)


def _sift(image: Grey, k: int, *, precise: bool, oversampling: int = OVERSAMPLING) -> Features:
    """SIFT with RootSIFT descriptors (Arandjelovic and Zisserman, CVPR 2012).

    Contrast 0 admits every extremum, and the best by response are kept. Where the default
    threshold leaves k points, these are the same.
    """
    count = oversampling * k
    sift = cv2.SIFT.create(nfeatures=count, contrastThreshold=0.0, enable_precise_upscale=precise)
    keypoints, descriptors = sift.detectAndCompute(image, None)
    if not keypoints:
        return _best(np.empty((0, 2)), np.empty(0), np.empty((0, 128)), image, count)
    l1 = np.maximum(descriptors.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return _best(*_points(keypoints), np.sqrt(descriptors / l1), image, count)


def _orb(image: Grey, k: int) -> Features:
    """ORB with its bits as +-1/16, whose cosine is exactly 1 - Hamming / 128.

    ORB shares `nfeatures` among its pyramid levels. The first k keypoints are those for
    `nfeatures=k`; the further keypoints for a larger number follow.
    """
    first, more = _orb_exactly_k(image, k), _orb_exactly_k(image, OVERSAMPLING * k)
    known = set(map(bytes, first.xy))
    more = more.take(np.array([bytes(point) not in known for point in more.xy], dtype=bool))
    assert first.descriptors is not None and more.descriptors is not None
    return Features(
        np.concatenate([first.xy, more.xy]),
        np.concatenate([first.scores, more.scores]),
        np.concatenate([first.descriptors, more.descriptors]),
        first.size_hw,
    )


def _orb_exactly_k(image: Grey, count: int) -> Features:
    """At most `count` keypoints, best Harris response first; the threshold falls as needed."""
    keypoints: Sequence[Any] = ()
    bits: Any = None
    for threshold in ORB_FAST_THRESHOLDS:
        orb = cv2.ORB.create(nfeatures=count, fastThreshold=threshold)
        keypoints, bits = orb.detectAndCompute(image, None)
        if len(keypoints) >= count:
            break
    if bits is None:
        return _best(np.empty((0, 2)), np.empty(0), np.empty((0, 256)), image, count)
    xy, response = _points(keypoints)
    xy = orb_to_centre0(xy, [keypoint.octave for keypoint in keypoints], image.shape)
    signs = np.unpackbits(bits, axis=1).astype(np.float32) * 2 - 1  # N 256
    return _best(xy, response, signs / 16, image, count)


def orb_to_centre0(
    xy: NDArray[np.float64], levels: Sequence[int], shape: tuple[int, ...]
) -> NDArray[np.float64]:
    """N 2 px of the image from ORB's s^n x_level.

    A level's size is rounded to whole px, and the resize that makes it follows pixel centres.
    """
    scale = np.float64(np.float32(ORB_SCALE)) ** np.asarray(levels, np.float64)[:, None]  # N 1
    size_wh = np.array([shape[1], shape[0]], np.float64)  # 2
    level_wh = np.rint(size_wh / scale)  # N 2
    corrected: NDArray[np.float64] = (xy / scale + 0.5) * size_wh / level_wh - 0.5  # N 2
    return corrected


def _points(keypoints: Sequence[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    xy = np.array([keypoint.pt for keypoint in keypoints], np.float64)  # N 2
    return xy, np.array([keypoint.response for keypoint in keypoints], np.float64)  # N 2, N


def _best_first(xy: NDArray[Any], response: NDArray[Any]) -> NDArray[np.int64]:
    return np.lexsort((xy[:, 0], xy[:, 1], -response))


def _best(
    xy: NDArray[Any], scores: NDArray[Any], descriptors: NDArray[Any], image: Grey, count: int
) -> Features:
    """The `count` best as float32 features; descriptors of unit length."""
    best = _best_first(xy, scores)[:count]
    xy, scores, descriptors = (a[best].astype(np.float32) for a in (xy, scores, descriptors))
    return Features(xy, scores, descriptors, size_hw_of(image))


def _sift_method(name: str, *, precise: bool) -> Method:
    detect = partial(_sift, precise=precise)
    settings = {"descriptor": "RootSIFT", "precise_upscale": precise}
    return Method(name, detect, settings, detect_exactly_k=partial(detect, oversampling=1))


_ORB_SETTINGS = {"descriptor": "256 bits", "pixel_centres": "corrected"}
BASELINES = {
    "sift": _sift_method("sift", precise=True),
    "sift-opencv": _sift_method("sift-opencv", precise=False),
    "orb": Method("orb", _orb, _ORB_SETTINGS, detect_exactly_k=_orb_exactly_k),
}
"""OpenCV's methods. `sift-opencv` is SIFT as OpenCV ships it, off by a quarter of a pixel."""
