"""Matches: a small frozen object of arrays, one per pair of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import ConfigError
from tiepoint.features.frozen import freeze
from tiepoint.features.result import Features

if TYPE_CHECKING:
    import cv2
    import pandas as pd

    from tiepoint.features import opencv


@dataclass(frozen=True, eq=False)
class Matches:
    """Pairs of keypoints of two images, best score first. The arrays are read-only.

    Attributes:
        pairs: M 2 int64, index in A and index in B.
        scores: M float32; the cosine of the two descriptors, or with "dual-softmax" or a learned
            matcher a probability.
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
        freeze(self)

    def __len__(self) -> int:
        return len(self.pairs)

    def __repr__(self) -> str:
        return f"Matches({len(self)} pairs)"

    def _repr_html_(self) -> str:
        from tiepoint.features import display

        return display.matches_html(self)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "meta": dict(self.meta)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        freeze(self)

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

    def to_dict(
        self, features_a: Features | None = None, features_b: Features | None = None
    ) -> dict[str, list[Any]]:
        """Columns of M plain numbers: index_a, index_b, score; and x_a, y_a, x_b, y_b, px, if the
        features of A and B are given.

        Raises:
            ConfigError: The matches index other features.
        """
        from tiepoint.features import tables

        columns = tables.columns_of_matches(self, features_a, features_b)
        return {name: column.tolist() for name, column in columns.items()}

    def to_dataframe(
        self, features_a: Features | None = None, features_b: Features | None = None
    ) -> pd.DataFrame:
        """The columns of `to_dict` as a DataFrame of pandas, one row per match.

        Raises:
            ConfigError: The matches index other features.
            MissingExtraError: pandas, of the extra `pandas`, is not installed.
        """
        from tiepoint.features import tables

        return tables.frame(tables.columns_of_matches(self, features_a, features_b))

    def to_opencv(self) -> tuple[cv2.DMatch, ...]:
        """M `cv2.DMatch`; see `features.opencv.to_matches`."""
        from tiepoint.features import opencv

        return opencv.to_matches(self)

    @classmethod
    def from_opencv(
        cls, matches: Sequence[cv2.DMatch], scores: opencv.MatchScores = "cosine"
    ) -> Matches:
        """Matches from those of OpenCV, best first.

        Args:
            matches: M matches, with the distances of unit descriptors (`cv2.NORM_L2`).
            scores: "cosine", or "dual-softmax" for distances that are 1 - probability.

        Raises:
            ConfigError: Other objects, such as the lists of `knnMatch`; a negative index.
        """
        from tiepoint.features import opencv

        return cls(*opencv.from_matches(matches, scores), meta={"settings": {"scores": scores}})


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
