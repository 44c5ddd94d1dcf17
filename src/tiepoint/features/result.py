"""The results: small frozen objects of arrays, one per image or pair of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import ConfigError
from tiepoint.features.provenance import Provenance


@dataclass(frozen=True, eq=False)
class Features:
    """Keypoints of one image, best score first; ties by y, then x. The arrays are read-only.

    Attributes:
        xy: N 2 float32, px of the original upright image; pixel centres are whole numbers.
        scores: N float32, probabilities in 0..1.
        descriptors: N D float32 of unit length, or None if they were not requested.
        size_hw: (height, width) of the original upright image, px.
        meta: Record of the image: source, EXIF orientation, mask, and value_range, the values that
            became black and white if the image was stretched. Any JSON values may be added.
        covariance: N 2 2 float32 (x, y) of the positions, px^2 of the original image: the spread
            of the heat map, scaled to the scatter of positions (`tiepoint calibrate`). None for
            checkpoints without that scale.
        provenance: Weights and settings; None for features from other programs.
        px_per_input_px: Pixels of the original image per pixel of the network's input, at the
            largest scale; above 1 for downscaled images.
        scales_px: N float32, the same figure at the scale where each keypoint was found: its
            scale in px of the original image, as SIFT has it. The option `scales` is relative to
            the input, so 0.5 there is twice the `scales_px`. None for other programs' features.
    """

    xy: NDArray[np.float32]
    scores: NDArray[np.float32]
    descriptors: NDArray[np.float32] | None
    size_hw: tuple[int, int]
    meta: Mapping[str, Any] = field(default_factory=dict)
    covariance: NDArray[np.float32] | None = None
    provenance: Provenance | None = None
    px_per_input_px: float = 1.0
    scales_px: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        count = len(self.xy)
        if self.xy.shape != (count, 2) or self.scores.shape != (count,):
            raise ConfigError(
                f"features: xy has shape {self.xy.shape} and scores {self.scores.shape}, "
                "expected (N, 2) and (N,)"
            )
        described = self.descriptors
        if described is not None and (described.ndim != 2 or len(described) != count):
            raise ConfigError(
                f"features: descriptors have shape {described.shape}, expected ({count}, D)"
            )
        if self.covariance is not None and self.covariance.shape != (count, 2, 2):
            raise ConfigError(
                f"features: covariance has shape {self.covariance.shape}, expected ({count}, 2, 2)"
            )
        scales = self.scales_px
        if scales is not None and (scales.shape != (count,) or not (scales > 0).all()):
            raise ConfigError(
                f"features: scales_px have shape {scales.shape}, expected ({count},), all above 0"
            )
        if not self.px_per_input_px > 0:
            raise ConfigError(
                f"features: px_per_input_px is {self.px_per_input_px}, expected a number above 0"
            )
        _freeze(self)

    def __len__(self) -> int:
        return len(self.xy)

    def __repr__(self) -> str:
        height, width = self.size_hw
        length = "none" if self.descriptors is None else f"{self.descriptors.shape[1]}-D"
        return f"Features({len(self)} keypoints, descriptors {length}, image {width}x{height} px)"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "meta": dict(self.meta)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _freeze(self)  # pickling drops the flag

    def take(self, index: NDArray[Any] | slice) -> Features:
        """The features at `index` (an index array, a boolean mask or a slice), meta kept."""
        return replace(
            self,
            xy=self.xy[index],
            scores=self.scores[index],
            descriptors=None if self.descriptors is None else self.descriptors[index],
            covariance=None if self.covariance is None else self.covariance[index],
            scales_px=None if self.scales_px is None else self.scales_px[index],
        )

    def top(self, count: int) -> Features:
        """The best `count` keypoints."""
        return self.take(slice(0, max(0, count)))


@dataclass(frozen=True, eq=False)
class Matches:
    """Pairs of keypoints of two images, best score first. The arrays are read-only.

    Attributes:
        pairs: M 2 int64, index in A and index in B.
        scores: M float32; the cosine of the two descriptors, or with "dual-softmax" a probability.
        meta: Record of how the matches were made: settings, keypoints of each image, sources,
            version.
        turned_deg: Rotation of A that was matched, counterclockwise, a multiple of 45.
    """

    pairs: NDArray[np.int64]
    scores: NDArray[np.float32]
    meta: Mapping[str, Any] = field(default_factory=dict)
    turned_deg: int = 0

    def __post_init__(self) -> None:
        count = len(self.pairs)
        if self.pairs.shape != (count, 2) or self.scores.shape != (count,):
            raise ConfigError(
                f"matches: pairs have shape {self.pairs.shape} and scores {self.scores.shape}, "
                "expected (M, 2) and (M,)"
            )
        _freeze(self)

    def __len__(self) -> int:
        return len(self.pairs)

    def __repr__(self) -> str:
        return f"Matches({len(self)} pairs)"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "meta": dict(self.meta)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _freeze(self)

    def take(self, index: NDArray[Any] | slice) -> Matches:
        """The matches at `index` (an index array, a boolean mask or a slice), meta kept."""
        return replace(self, pairs=self.pairs[index], scores=self.scores[index])

    def reversed(self) -> Matches:
        """The same matches from B to A."""
        meta = dict(self.meta)
        for key in ("keypoints", "sources"):  # one entry per image
            if isinstance(meta.get(key), list):
                meta[key] = meta[key][::-1]
        turned_deg = 180 - (180 + self.turned_deg) % 360  # in -180 < t <= 180, like `match`
        return replace(self, pairs=self.pairs[:, ::-1], meta=meta, turned_deg=turned_deg)

    def top(self, count: int) -> Matches:
        """The best `count` matches."""
        return self.take(slice(0, max(0, count)))


def covariances_of(
    a: Features, b: Features, pairs: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """M 2 2 of each image's matched keypoints, px^2; None unless both images have them.

    Args:
        pairs: M 2, index in A and index in B.
    """
    if a.covariance is None or b.covariance is None:
        return None
    return a.covariance[pairs[:, 0]], b.covariance[pairs[:, 1]]


def _freeze(result: Features | Matches) -> None:
    """Replace arrays by read-only views; the caller's own arrays stay writable."""
    for name, value in result.__dict__.items():
        if isinstance(value, np.ndarray) and value.flags.writeable:
            view = value.view()
            view.flags.writeable = False
            object.__setattr__(result, name, view)
