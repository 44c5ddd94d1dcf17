"""Features: a small frozen object of arrays, one per image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import ConfigError
from tiepoint.features.frozen import freeze
from tiepoint.features.provenance import Provenance

if TYPE_CHECKING:
    import cv2
    import pandas as pd


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
        freeze(self)

    def __len__(self) -> int:
        return len(self.xy)

    def __repr__(self) -> str:
        height, width = self.size_hw
        length = "none" if self.descriptors is None else f"{self.descriptors.shape[1]}-D"
        return f"Features({len(self)} keypoints, descriptors {length}, image {width}x{height} px)"

    def _repr_html_(self) -> str:
        from tiepoint.features import display

        return display.features_html(self)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "meta": dict(self.meta)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        freeze(self)  # pickling drops the flag

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

    def to_dict(self, *, descriptors: bool = False) -> dict[str, list[Any]]:
        """Columns of N plain numbers: x, y, score; scale_px, cov_xx, cov_xy, cov_yy where known;
        and `descriptor`, N lists of D, if asked for."""
        from tiepoint.features import tables

        return tables.features_dict(self, descriptors=descriptors)

    def to_dataframe(self, *, descriptors: bool = False) -> pd.DataFrame:
        """The columns of `to_dict` as a DataFrame of pandas, float32, one row per keypoint.

        Raises:
            MissingExtraError: pandas, of the extra `pandas`, is not installed.
        """
        from tiepoint.features import tables

        return tables.features_frame(self, descriptors=descriptors)

    def to_opencv(self) -> tuple[tuple[cv2.KeyPoint, ...], NDArray[np.float32] | None]:
        """N `cv2.KeyPoint` and N D descriptors; see `features.opencv.to_keypoints`."""
        from tiepoint.features import opencv

        return opencv.to_keypoints(
            self
        ), None if self.descriptors is None else self.descriptors.copy()

    @classmethod
    def from_opencv(
        cls,
        keypoints: Sequence[cv2.KeyPoint],
        descriptors: NDArray[Any] | None,
        size_hw: tuple[int, int],
    ) -> Features:
        """Features from keypoints of OpenCV, sorted by their response, best first.

        The order may change, so match after this call.

        Args:
            keypoints: N keypoints of any detector.
            descriptors: N D floats, which are brought to unit length; or None.
            size_hw: (height, width) of the image, px.

        Raises:
            ConfigError: Descriptors that are binary or of another number; values not finite.
        """
        from tiepoint.features import opencv

        arrays = opencv.from_keypoints(keypoints, descriptors)
        return cls(
            arrays.xy, arrays.scores, arrays.descriptors, size_hw, scales_px=arrays.scales_px
        )
