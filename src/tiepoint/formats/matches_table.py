"""Matches of one pair as CSV or Parquet: index_a, index_b, x_a, y_a, x_b, y_b, score.

A table for other programs; `matches_npz` is the format that tiepoint reads again.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np

from tiepoint.errors import FormatError
from tiepoint.features import Features, Matches
from tiepoint.features.tables import columns_of_matches
from tiepoint.files.writing import write_bytes
from tiepoint.formats import features_parquet

ENDINGS = (".csv", ".parquet")


def save_matches_table(
    matches: Matches, features_a: Features, features_b: Features, path: str | PathLike[str]
) -> None:
    """Write matches with the positions of their keypoints, one row each, best first.

    Args:
        matches: Matches of one pair of images.
        features_a, features_b: The features that were matched.
        path: Path with the ending .csv or .parquet; an existing file is replaced.

    Raises:
        ConfigError: The matches index other features.
        FormatError: Another ending.
        OutputError: The file cannot be written.
        MissingExtraError: .parquet needs the extra `parquet`.
    """
    ending = Path(path).suffix.lower()
    if ending not in ENDINGS:
        raise FormatError(f"{path}: the ending picks the format, one of {', '.join(ENDINGS)}")
    columns = columns_of_matches(matches, features_a, features_b)
    if ending == ".parquet":
        arrow = features_parquet.load_pyarrow()
        arrays = {name: arrow.array(np.ascontiguousarray(v)) for name, v in columns.items()}
        write_bytes(path, features_parquet.table_bytes(arrays))
        return
    # NumPy prints a float32 with the fewest digits that identify it.
    texts = [column.astype("U32").tolist() for column in columns.values()]
    lines = [",".join(columns), *map(",".join, zip(*texts, strict=True)), ""]
    write_bytes(path, "\n".join(lines).encode())
