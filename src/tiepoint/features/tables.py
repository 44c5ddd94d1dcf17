"""Features and matches as columns, for pandas and other programs of tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import ConfigError, import_extra

if TYPE_CHECKING:
    import pandas as pd

    from tiepoint.features.matches import Matches
    from tiepoint.features.result import Features

POSITION = ("x", "y", "score")
SCALE = "scale_px"
COVARIANCE = ("cov_xx", "cov_xy", "cov_yy")
"""Names of the columns; `SCALE` and `COVARIANCE` are absent from features without them."""

Columns = dict[str, NDArray[Any]]


def columns_of(features: Features) -> Columns:
    """One column of N numbers for each name, without descriptors."""
    columns: Columns = {"x": features.xy[:, 0], "y": features.xy[:, 1], "score": features.scores}
    if features.scales_px is not None:
        columns[SCALE] = features.scales_px
    if features.covariance is not None:
        places = ((0, 0), (0, 1), (1, 1))
        columns |= {
            name: features.covariance[:, row, column]
            for name, (row, column) in zip(COVARIANCE, places, strict=True)
        }
    return columns


def columns_of_matches(
    matches: Matches, features_a: Features | None = None, features_b: Features | None = None
) -> Columns:
    """`index_a`, `index_b`, `score`; with the features also `x_a`, `y_a`, `x_b`, `y_b`, px.

    Raises:
        ConfigError: The matches index other features.
    """
    columns: Columns = {"index_a": matches.pairs[:, 0], "index_b": matches.pairs[:, 1]}
    for side, features in (("a", features_a), ("b", features_b)):
        if features is None:
            continue
        index = columns[f"index_{side}"]
        if len(index) and not 0 <= index.min() <= index.max() < len(features):
            raise ConfigError(
                f"matches name keypoint {index.max()} of image {side.upper()}, which has "
                f"{len(features)}: pass the features they were made from"
            )
        columns |= {f"x_{side}": features.xy[index, 0], f"y_{side}": features.xy[index, 1]}
    return {**columns, "score": matches.scores}


def covariance_from(columns: Columns) -> NDArray[Any] | None:
    """N 2 2 from the columns of `columns_of`; None if one is absent."""
    if not all(name in columns for name in COVARIANCE):
        return None
    xx, xy, yy = (columns[name] for name in COVARIANCE)
    return np.stack([xx, xy, xy, yy], axis=1).reshape(-1, 2, 2)


def frame(columns: Columns, **attributes: Any) -> pd.DataFrame:
    """Columns as a DataFrame; raises MissingExtraError without pandas."""
    pandas = import_extra("pandas", "a DataFrame", "pandas")
    made = pandas.DataFrame({name: np.array(values) for name, values in columns.items()})
    made.attrs.update(attributes)
    return made


def features_frame(features: Features, *, descriptors: bool) -> pd.DataFrame:
    """See `Features.to_dataframe`."""
    made = frame(columns_of(features), size_hw=features.size_hw, source=features.meta.get("source"))
    if descriptors and features.descriptors is not None:
        made["descriptor"] = list(features.descriptors.copy())
    return made


def features_dict(features: Features, *, descriptors: bool) -> dict[str, list[Any]]:
    """See `Features.to_dict`."""
    values = {name: column.tolist() for name, column in columns_of(features).items()}
    if descriptors and features.descriptors is not None:
        values["descriptor"] = features.descriptors.tolist()
    return values
