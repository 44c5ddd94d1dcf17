"""Features of one image as Parquet (extra `parquet`): the columns of `features_csv`.

Descriptors are a column of lists, `descriptor`. The record of the image is in the metadata of the
schema, under `tiepoint`.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import FormatError, import_extra
from tiepoint.features import Features
from tiepoint.features.tables import COVARIANCE, POSITION, SCALE, Columns, columns_of
from tiepoint.files.reading import open_regular
from tiepoint.formats import fields, table_records
from tiepoint.formats.fields import Summary

DESCRIPTOR = "descriptor"
_MAX_LENGTH = 65_536
_SIGNATURE = b"PAR1"
_KEY = table_records.NAME.encode()
_NUMBERS = (*POSITION, SCALE, *COVARIANCE)


def encode(features: Features, *, descriptors: bool = True) -> bytes:
    """The file's bytes."""
    fields.check_finite(features)
    arrow = load_pyarrow()
    record = table_records.record_text(features)
    held = {name: np.ascontiguousarray(v, "<f4") for name, v in columns_of(features).items()}
    columns: dict[str, Any] = {name: arrow.array(values) for name, values in held.items()}
    if descriptors and features.descriptors is not None:
        length = features.descriptors.shape[1]
        if length == 0:  # pyarrow divides by it, which ends the process
            raise FormatError("descriptors have length 0, which Parquet has no type for")
        values = arrow.array(np.ascontiguousarray(features.descriptors, "<f4").reshape(-1))
        kind = arrow.list_(arrow.float32(), length)
        columns[DESCRIPTOR] = arrow.FixedSizeListArray.from_arrays(values, type=kind)
    return table_bytes(columns, {_KEY: record.encode()})


def table_bytes(columns: dict[str, Any], metadata: dict[bytes, bytes] | None = None) -> bytes:
    """The bytes of a file with these columns of equal length."""
    arrow = load_pyarrow()
    from pyarrow import parquet

    buffer = io.BytesIO()
    table = arrow.table(columns)
    parquet.write_table(table.replace_schema_metadata(metadata), buffer)
    return buffer.getvalue()


def read(path: Path) -> Features:
    """Features from a file."""
    features: Features = _read(path, whole=True)[1]
    return features


def summarise(path: Path) -> Summary:
    """The head of a file, without its columns."""
    return _read(path, whole=False)[0]


def is_begun(start: bytes) -> bool:
    """Whether a file that starts like this, cut off or not, is one of these."""
    return start[: len(_SIGNATURE)] == _SIGNATURE[: len(start)]


def load_pyarrow() -> Any:
    """pyarrow.

    Raises:
        MissingExtraError: It is not installed.
    """
    return import_extra("pyarrow", "reading and writing .parquet files", "parquet")


def _read(path: Path, *, whole: bool) -> tuple[Summary, Any]:
    arrow, name = load_pyarrow(), str(path)
    from pyarrow import parquet

    broken = (arrow.ArrowException, ValueError, KeyError, OSError)
    with fields.as_damaged(name, broken), open_regular(path) as file:
        data = file.read()
        if data[:4] != _SIGNATURE or data[-4:] != _SIGNATURE:
            raise fields.damaged(name, "cut off, or no Parquet file")
        table = parquet.ParquetFile(arrow.BufferReader(data))
        schema = table.schema_arrow
        text = (schema.metadata or {}).get(_KEY)
        if text is None:
            raise FormatError(
                f"{name}: not a features file that tiepoint wrote (no metadata "
                f"{table_records.NAME!r}); read other tables with pandas"
            )
        summary = table_records.parse_record(text.decode(), name)
        if table.metadata.num_rows != summary.keypoints:
            rows = table.metadata.num_rows
            raise fields.damaged(name, f"{rows} rows, its record states {summary.keypoints}")
        if not whole:
            return summary, None
        names = [each for each in schema.names if each in (*_NUMBERS, DESCRIPTOR)]
        _check_types(arrow, schema, names, summary.keypoints, len(data))
        held = table.read(columns=names, use_threads=False).combine_chunks()
        held.validate(full=True)
        columns: Columns = {n: _numbers(held[n]) for n in names if n != DESCRIPTOR}
        descriptors = _lists(held[DESCRIPTOR]) if DESCRIPTOR in names else None
        return summary, table_records.features_from(name, summary, columns, descriptors)


def _check_types(arrow: Any, schema: Any, names: list[str], rows: int, file_bytes: int) -> None:
    """Raise ValueError for other columns than numbers, and for those that need much memory."""
    values = 0
    for name in names:
        kind = schema.field(name).type
        length = 1
        if name == DESCRIPTOR and arrow.types.is_fixed_size_list(kind):
            kind, length = kind.value_type, kind.list_size
        if not arrow.types.is_floating(kind) or not 0 <= length <= _MAX_LENGTH:
            raise ValueError(f"column {name} is of type {schema.field(name).type}")
        values += length
    fields.check_expansion(4 * rows * values, file_bytes)


def _numbers(column: Any) -> NDArray[Any]:
    if column.null_count:
        raise ValueError("a column has empty cells")
    return np.asarray(column.to_numpy())


def _lists(column: Any) -> NDArray[Any]:
    if column.null_count:
        raise ValueError("descriptors have empty cells")
    length = column.type.list_size
    chunks = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    flat = np.concatenate(chunks) if chunks else np.zeros(0, np.float32)
    return flat.reshape(len(column), length)
