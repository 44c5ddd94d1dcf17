"""Batches of tables -> batches of tables, for Ray Data, Daft, Spark, Dask and others."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tiepoint.batch.shards import patiently_read
from tiepoint.checks import check_known
from tiepoint.config import DetectionOptions
from tiepoint.errors import ConfigError, ImageError, TiepointError
from tiepoint.formats.shard_files import COLUMNS, arrow_schema, row_of
from tiepoint.images.reading import NamedBytes
from tiepoint.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    from tiepoint.detector import Detector
    from tiepoint.features import Features

INPUTS = ("bytes", "image", "path")
"""Columns of images, of which the first that is there is taken."""

ERROR = "error"

_OF_DETECTOR = ("engine", "device", "precision", "compiled", "threads")
_SQL = {"text": "string", "whole": "int", "list": "array<float>"}

_detectors: dict[str, Detector] = {}
_lock = threading.Lock()


class DetectBatch:
    """Detects in the images of a batch. Picklable; each process loads the network once.

    A batch is a mapping of columns, a table or record batch of pyarrow, or a DataFrame of pandas,
    and so is the result. The result has a row for each image: the columns of the Parquet files of
    a store (`formats.shard_files.COLUMNS`), and `error`, which is None for an image that was read.
    Other columns of the batch are left out.

    Args:
        checkpoint: As for `Detector`.
        column: Column of the images: bytes of files, paths, URLs, or arrays. None takes "bytes",
            "image" or "path". Their names are in the column "name" or "path", if there is one.
        options: As for `Detector`, such as `max_keypoints`, `threads` and `device`.

    Raises:
        ConfigError: An unknown option.
    """

    SPARK_SCHEMA: ClassVar[str] = ", ".join(
        f"{name} {_SQL[kind]}" for name, kind in {**COLUMNS, ERROR: "text"}.items()
    )
    """The columns of the result in Spark's language."""

    def __init__(
        self,
        checkpoint: str | Path | Checkpoint = "default",
        *,
        column: str | None = None,
        **options: Any,
    ) -> None:
        check_known(options, (*DetectionOptions.__annotations__, *_OF_DETECTOR))
        is_folder = isinstance(checkpoint, str | Path) and Path(checkpoint).is_dir()
        self._checkpoint = Path(checkpoint).resolve() if is_folder else checkpoint  # type: ignore[arg-type]
        self._column, self._options = column, options
        self._id = uuid.uuid4().hex  # of all its copies in other processes

    def __call__(self, batch: Any) -> Any:
        """Detect in a batch.

        Args:
            batch: Columns of B rows.

        Returns:
            The result, of the same type, with B rows in the same order.

        Raises:
            ConfigError: The batch has no column of images, or a setting is out of range.
            CheckpointError: There is no such checkpoint.
        """
        library = type(batch).__module__.partition(".")[0]
        if library == "pyarrow":
            return self._arrow(batch)
        if library == "pandas":
            return self._pandas(batch)
        if not isinstance(batch, Mapping):
            raise ConfigError(
                f"a batch is a mapping of columns, a pyarrow table or a pandas DataFrame, "
                f"got {type(batch).__name__}"
            )
        rows = self._rows(batch)
        return {name: _objects(row[name] for row in rows) for name in (*COLUMNS, ERROR)}

    @staticmethod
    def arrow_schema() -> Any:
        """The columns of the result; raises MissingExtraError without pyarrow."""
        import pyarrow as arrow

        return arrow_schema().append(arrow.field(ERROR, arrow.string()))

    def _arrow(self, batch: Any) -> Any:
        import pyarrow as arrow

        names = batch.schema.names
        rows = self._rows({name: batch.column(name).to_pylist() for name in self._used(names)})
        schema = self.arrow_schema()
        columns = [arrow.array([row[f.name] for row in rows], f.type) for f in schema]
        return type(batch).from_arrays(columns, schema=schema)

    def _pandas(self, batch: Any) -> Any:
        import pandas as pd

        rows = self._rows({name: batch[name].tolist() for name in self._used(batch.columns)})
        columns = {}
        for name, kind in {**COLUMNS, ERROR: "text"}.items():
            dtype = "Int32" if kind == "whole" else object
            columns[name] = pd.Series([row[name] for row in rows], batch.index, dtype)
        return pd.DataFrame(columns)

    def _used(self, names: Sequence[str]) -> list[str]:
        """The columns of a batch that matter."""
        wanted = {self._images(names), "name", "path"}
        return [name for name in names if name in wanted]

    def _images(self, names: Sequence[str]) -> str:
        """The column of the images."""
        wanted = INPUTS if self._column is None else (self._column,)
        found = next((name for name in wanted if name in names), None)
        if found is None:
            raise ConfigError(
                f"the batch has no column {' or '.join(wanted)}, but {', '.join(map(str, names))}; "
                "column= names the one with the images"
            )
        return found

    def _rows(self, batch: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
        """The rows of the result."""
        names = list(batch)
        images = batch[self._images(names)]
        labels: Sequence[Any] = batch.get("name", batch.get("path", [None] * len(images)))
        items = [_source(image, label) for image, label in zip(images, labels, strict=True)]
        shown = ["" if label is None else str(label) for label in labels]
        return [_row(name, result) for name, result in zip(shown, self._detect(items), strict=True)]

    def _detect(self, items: Sequence[Any]) -> Iterator[Features | TiepointError]:
        """The features or the error of each item, in order."""
        good = [item for item in items if not isinstance(item, TiepointError)]
        if good:
            # From an iterator: results of a list depend on its length by round-off.
            detections = self._detector().stream(iter(good))
        for item in items:
            if isinstance(item, TiepointError):
                yield item
                continue
            detection = next(detections)
            yield detection.error or detection.require()

    def _detector(self) -> Detector:
        from tiepoint.detector import Detector

        with _lock:
            if self._id not in _detectors:
                _detectors[self._id] = Detector(self._checkpoint, **self._options)
            return _detectors[self._id]


def _source(image: Any, label: Any) -> Any:
    """What the detector takes, or the error."""
    if image is None or (isinstance(image, float) and np.isnan(image)):
        return ImageError("the row has no image")
    if isinstance(image, str):
        return patiently_read(image)
    if isinstance(image, bytes | bytearray | memoryview):
        data = bytes(image)
        return data if label is None else NamedBytes(data, str(label))
    if not isinstance(image, list):
        return image
    try:
        return np.asarray(image)
    except ValueError as error:
        return ImageError(f"the row's list is no image ({error}); expected rows of one length")


def _row(name: str, result: Features | TiepointError) -> dict[str, Any]:
    if not isinstance(result, TiepointError):
        try:
            return {**row_of(name, result), ERROR: None}
        except TiepointError as error:
            result = error
    return {**dict.fromkeys(COLUMNS), "name": name, ERROR: str(result)}


def _objects(values: Iterator[Any]) -> np.ndarray[Any, np.dtype[np.object_]]:
    """Cells of any kind, which NumPy shall not stack."""
    cells = list(values)
    column = np.empty(len(cells), object)
    column[:] = cells
    return column
