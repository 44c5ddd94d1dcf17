"""Files of a shard: features of some hundred images, written one after the other.

HDF5 has hloc's layout, see `hloc_features`. Parquet (extra `parquet`) has a row and a row group for
each image, with these columns:

    name                string
    height, width       int32, px
    x, y, score         lists of N float32
    scale_px, cov_xx, cov_xy, cov_yy
                        lists of N float32, or null
    descriptors         list of N * D float32, keypoint by keypoint; or null
    descriptor_length   int32, D; or null
    meta                string, JSON

Neither has a time in it, so that the same features in the same order give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tiepoint.features import Features
from tiepoint.features.tables import (
    COVARIANCE,
    POSITION,
    SCALE,
    Columns,
    columns_of,
    covariance_from,
)
from tiepoint.files.reading import open_regular
from tiepoint.files.writing import replacing, unwritable
from tiepoint.formats import (
    features_parquet,
    fields,
    hdf5,
    hdf5_reading,
    hdf5_writing,
    hloc_features,
)
from tiepoint.formats.hloc_features_writer import check_place, dataset_folders

ShardFormat = Literal["h5", "parquet"]
"""Ending of the files, without its dot."""

Add = Callable[[str, Features], None]
"""(name of an image, its features) -> stored as the next image of the file."""

_KEY, _LAYOUT = b"tiepoint", b'{"convention": "center0", "layout": "images 1"}'

LISTS = (*POSITION, SCALE, *COVARIANCE, "descriptors")
COLUMNS: dict[str, Literal["text", "whole", "list"]] = {
    "name": "text", "height": "whole", "width": "whole", **dict.fromkeys(LISTS, "list"),
    "descriptor_length": "whole", "meta": "text",
}  # fmt: skip
"""Columns of Parquet, and of `DetectBatch`; lists are of float32."""

_SINGLE = ("height", "width", "descriptor_length", "meta")


def load_library(layout: ShardFormat) -> None:
    """Raise MissingExtraError unless the library of a format is installed."""
    if layout == "h5":
        hdf5_reading.load_h5py()
    else:
        features_parquet.load_pyarrow()


@contextmanager
def shard_writer(path: Path, layout: ShardFormat, *, half: bool = False) -> Iterator[Add]:
    """Write a file of several images, whole and on the disk at the end, or not at all.

    Args:
        path: The file, which replaces an earlier one.
        layout: Its format.
        half: Descriptors as float16, in HDF5 only.

    Yields:
        A function that adds the features of an image. It raises a `FormatError` for a name that is
        no relative path or clashes with that of another image, and for values that no file keeps.

    Raises:
        OutputError: The file cannot be written.
    """
    with replacing(path, durable=True) as partial:
        if layout == "h5":
            with _h5_writer(path, partial, half=half) as add:
                yield add
        else:
            with _parquet_writer(partial) as add:
                yield add


def read_image(path: Path, layout: ShardFormat, name: str, row: int) -> Features:
    """The features of one image.

    Args:
        path: The file.
        layout: Its format.
        name: Name of the image.
        row: Number of images added before it.

    Raises:
        FormatError: The file cannot be read, is damaged, or does not have this image.
    """
    if layout == "parquet":
        return _read_row(path, name, row)
    where = f"{path}: {name}"
    with hdf5.opened(path) as file, fields.as_damaged(where, hdf5.BROKEN):
        return hloc_features.read_group(hdf5_reading.group_at(file, name), where)


@contextmanager
def _h5_writer(path: Path, partial: Path, *, half: bool) -> Iterator[Add]:
    images, folders = set[str](), set[str]()

    def add(name: str, features: Features) -> None:
        fields.check_finite(features)  # now, because nothing may be left of a refused image
        hdf5.json_attribute(name, fields.meta_text(features))
        check_place(name, images, folders)
        images.add(name)
        folders.update(dataset_folders(name))
        with _errors_of_h5py(path):
            hloc_features.write_group(file, name, features, half=half)

    with hdf5_writing.writing(partial, "w") as file:
        yield add


@contextmanager
def _errors_of_h5py(path: Path) -> Iterator[None]:
    try:
        yield
    except hdf5.BROKEN as error:
        raise unwritable(path, error) from error


@contextmanager
def _parquet_writer(partial: Path) -> Iterator[Add]:
    arrow = features_parquet.load_pyarrow()
    from pyarrow import parquet

    schema = _schema_of_file()

    def add(name: str, features: Features) -> None:
        row = row_of(name, features)
        hdf5.check_name(name)
        cells = {column: arrow.array([row[column]], schema.field(column).type) for column in row}
        writer.write_table(arrow.table(cells, schema=schema))

    with open(partial, "xb") as file:  # noqa: PTH123 - pyarrow closes no file of ours
        writer = parquet.ParquetWriter(
            file, schema, use_dictionary=False, write_statistics=False, store_schema=True
        )
        with _closing(writer):
            yield add


@contextmanager
def _closing(writer: Any) -> Iterator[None]:
    try:
        yield
    finally:
        writer.close()


def _schema_of_file() -> Any:
    return arrow_schema().with_metadata({_KEY: _LAYOUT})


def arrow_schema() -> Any:
    """The columns of a file, as a schema of pyarrow's."""
    arrow = features_parquet.load_pyarrow()
    kinds = {"text": arrow.string(), "whole": arrow.int32(), "list": arrow.list_(arrow.float32())}
    return arrow.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])


def row_of(name: str, features: Features) -> dict[str, Any]:
    """One image as a row: text, whole numbers, and arrays of float32; None for what is absent.

    Raises:
        FormatError: Values that are not finite, or `meta` that JSON has no form for.
    """
    fields.check_finite(features)
    height, width = features.size_hw
    held: Columns = columns_of(features)
    length = None
    if features.descriptors is not None:
        held["descriptors"] = features.descriptors.reshape(-1)
        length = features.descriptors.shape[1]
    lists = {
        column: np.ascontiguousarray(held[column], np.float32) if column in held else None
        for column in LISTS
    }
    single = {"name": name, "height": height, "width": width, "descriptor_length": length}
    values = {**single, **lists, "meta": fields.meta_text(features)}
    return {column: values[column] for column in COLUMNS}


def _read_row(path: Path, name: str, row: int) -> Features:
    arrow, where = features_parquet.load_pyarrow(), f"{path}: {name}"
    from pyarrow import parquet

    broken = (arrow.ArrowException, ValueError, LookupError, OSError, TypeError)
    with fields.as_damaged(where, broken), open_regular(path) as stream:
        file = parquet.ParquetFile(arrow.PythonFile(stream, mode="r"))
        kept = file.schema_arrow.metadata or {}
        if kept.get(_KEY) != _LAYOUT or not file.schema_arrow.equals(arrow_schema()):
            raise ValueError("no file of images that tiepoint wrote")
        group = file.metadata.row_group(row)
        stored = [group.column(index) for index in range(group.num_columns)]
        values = sum(column.num_values for column in stored)
        fields.check_expansion(4 * values, path.stat().st_size)
        table = file.read_row_group(row, use_threads=False)
        cells = {column: table.column(column)[0] for column in table.column_names}
        if cells["name"].as_py() != name:
            raise ValueError(f"row {row} is of {cells['name'].as_py()!r}")
        columns: Columns = {
            column: cell.values.to_numpy(zero_copy_only=False)
            for column in LISTS
            if (cell := cells[column]).is_valid
        }
        return _features(where, columns, {key: cells[key].as_py() for key in _SINGLE})


def _features(where: str, columns: Columns, single: dict[str, Any]) -> Features:
    """Features from the columns of one image, or an error that states what does not fit."""
    fields.require(POSITION, columns, where)
    descriptors = columns.get("descriptors")
    if descriptors is not None:
        descriptors = descriptors.reshape(len(columns["x"]), single["descriptor_length"])
    return fields.features_from(
        where,
        xy=np.stack([columns["x"], columns["y"]], axis=1),
        scores=columns["score"],
        descriptors=descriptors,
        covariance=covariance_from(columns),
        scales_px=columns.get(SCALE),
        size_hw=(single["height"], single["width"]),
        meta=fields.parse_meta(single["meta"], where),
    )
