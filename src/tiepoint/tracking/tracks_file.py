"""Tracks <-> tracks.h5 (extra `hdf5`): appended while the video runs, readable after any end."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tiepoint._version import __version__
from tiepoint.config import TrackingConfig
from tiepoint.features.frozen import freeze
from tiepoint.features.provenance import Provenance
from tiepoint.files.writing import behind_links, unwritable
from tiepoint.formats import hdf5_reading, hdf5_writing
from tiepoint.formats.fields import CONVENTION, as_json, check_convention, parse_meta
from tiepoint.formats.hdf5 import opened
from tiepoint.tracking.result import TrackedFrame

FORMAT = "tiepoint tracks 1"

CHUNK_ROWS: Mapping[str, int] = {"frames": 256, "observations": 4096, "tracks": 512}
"""Rows of a chunk of each table: up to 32 KB."""

FLUSH_S = 2.0
"""Interval at which rows reach the file, s; a killed process loses no more."""

TABLES: Mapping[str, Mapping[str, tuple[Any, tuple[int, ...]]]] = {
    "frames": {
        "time_s": (np.float64, ()),
        "size_hw": (np.int32, (2,)),
        "start": (np.int64, ()),
        "count": (np.int32, ()),
        "motion": (np.float64, (3, 3)),
        "is_keyframe": (np.uint8, ()),
        "is_cut": (np.uint8, ()),
        "is_broken": (np.uint8, ()),
    },
    "observations": {
        "frame": (np.int64, ()),
        "id": (np.int64, ()),
        "xy": (np.float32, (2,)),
        "score": (np.float32, ()),
    },
    "tracks": {
        "id": (np.int64, ()),
        "first": (np.int64, ()),
        "last": (np.int64, ()),
        "length": (np.int64, ()),
        "static": (np.uint8, ()),
    },
}
"""Table -> column -> type and shape of a row."""


@dataclass(frozen=True, eq=False)
class Tracks:
    """The tracks of a video, from a tracks.h5. The arrays are read-only.

    Attributes:
        time_s: F float64, time of each frame, s; NaN where it is unknown.
        size_hw: F 2 int32, (height, width) of each frame, px; 0 of broken frames.
        motion: F 3 3 float64, last readable frame -> this one, px; NaN where it is unknown.
        is_keyframe, is_cut, is_broken: F bool.
        frame: M int64, frame of each observation, in ascending order.
        id: M int64, track of each observation.
        xy: M 2 float32, px of the upright frame.
        score: M float32.
        first, last: T int64, frames of each track, by its id.
        length: T int64, its number of observations.
        static: T bool, whether it is an overlay.
        is_complete: Whether the video was tracked to its end.
        meta: Source, settings, provenance, version.
    """

    time_s: NDArray[np.float64]
    size_hw: NDArray[np.int32]
    motion: NDArray[np.float64]
    is_keyframe: NDArray[np.bool_]
    is_cut: NDArray[np.bool_]
    is_broken: NDArray[np.bool_]
    frame: NDArray[np.int64]
    id: NDArray[np.int64]
    xy: NDArray[np.float32]
    score: NDArray[np.float32]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    length: NDArray[np.int64]
    static: NDArray[np.bool_]
    is_complete: bool
    meta: Mapping[str, Any]

    def __post_init__(self) -> None:
        freeze(self)

    def __len__(self) -> int:
        return len(self.length)

    def __repr__(self) -> str:
        return f"Tracks({len(self)} tracks, {len(self.id)} points, {len(self.time_s)} frames)"

    def of_frame(self, index: int) -> slice:
        """The observations of one frame, as a slice of `frame`, `id`, `xy` and `score`."""
        start, end = np.searchsorted(self.frame, [index, index + 1])
        return slice(int(start), int(end))


class TracksWriter:
    """Appends frames to a tracks.h5. Memory does not grow with the number of frames.

    Used as a context: the file is complete if no exception ends it, and readable in any case.

    Args:
        path: The file; an existing one is replaced.
        source: Name of the video.
        config: Settings of the tracks.
        provenance: Provenance of the keypoints.

    Raises:
        MissingExtraError: h5py is not installed.
        OutputError: The file cannot be written.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        source: str,
        config: TrackingConfig,
        provenance: Provenance | None = None,
    ) -> None:
        self.path = behind_links(path)
        self._rows: dict[str, dict[str, list[Any]]] = {}  # those that are not in the file
        self._stored = dict.fromkeys(TABLES, 0)  # number of rows in the file
        self._live: dict[int, list[int]] = {}  # id -> first, last, length, static
        self._frames = self._observations = 0
        self._flushed = time.monotonic()
        try:
            with ExitStack() as opened_file:
                self._file = opened_file.enter_context(hdf5_writing.writing(self.path, "w"))
                self._fill(source, config, provenance)
                self._opened = opened_file.pop_all()
        except (OSError, RuntimeError) as error:
            raise unwritable(Path(path), error) from error

    def _fill(self, source: str, config: TrackingConfig, provenance: Provenance | None) -> None:
        """Write the tables, without rows, and the attributes."""
        hdf5_writing.reserve(self._file, 0)
        for table, columns in TABLES.items():
            self._rows[table] = {name: [] for name in columns}
            for name, (kind, shape) in columns.items():
                sizes = {"maxshape": (None, *shape), "chunks": (CHUNK_ROWS[table], *shape)}
                self._file.create_dataset(f"{table}/{name}", (0, *shape), kind, **sizes)
        meta = {
            "source": source,
            "settings": asdict(config),
            "provenance": None if provenance is None else provenance.to_json(),
            "tiepoint_version": __version__,
        }
        self._attribute("format", FORMAT)
        self._attribute("pixel_convention", CONVENTION)
        self._attribute("meta", json.dumps(as_json(meta)))
        self._attribute("complete", "no")
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(complete=kind is None)

    def add(self, frame: TrackedFrame) -> None:
        """Append a frame; its index must follow that of the last one.

        Raises:
            OutputError: The disk is full, or the file cannot be written.
        """
        assert frame.index == self._frames, "frames are added in order"
        motion = np.full((3, 3), np.nan) if frame.motion is None else frame.motion
        self._append("frames", time_s=frame.time_s, size_hw=frame.size_hw or (0, 0),
                     start=self._observations, count=len(frame), motion=motion,
                     is_keyframe=frame.is_keyframe, is_cut=frame.is_cut,
                     is_broken=frame.error is not None)  # fmt: skip
        rows = self._rows["observations"]
        rows["frame"].append(np.full(len(frame), frame.index))
        for name, values in (("id", frame.ids), ("xy", frame.xy), ("score", frame.scores)):
            rows[name].append(values)
        for track, age, static in zip(
            frame.ids.tolist(), frame.ages.tolist(), frame.static.tolist(), strict=True
        ):
            first = self._live[track][0] if track in self._live else frame.index
            self._live[track] = [first, frame.index, age, static]
        self._end(frame.ended.tolist())
        self._frames, self._observations = self._frames + 1, self._observations + len(frame)
        if time.monotonic() - self._flushed > FLUSH_S:
            self._flush()

    def close(self, *, complete: bool = True) -> None:
        """Write what is left. A file that is not complete has all frames up to the last one.

        Raises:
            OutputError: The disk is full; the file has the frames that were written before.
        """
        self._end(list(self._live))
        try:
            with self._opened:
                self._flush(complete=complete)
        except OSError as error:
            raise unwritable(self.path, error) from error

    def _attribute(self, name: str, text: str) -> None:
        self._file.attrs[name] = np.bytes_(text.encode())

    def _append(self, table: str, **values: Any) -> None:
        for name, value in values.items():
            kind, shape = TABLES[table][name]
            self._rows[table][name].append(np.asarray(value, kind).reshape(1, *shape))

    def _end(self, ids: list[int]) -> None:
        for track in ids:
            first, last, length, static = self._live.pop(track)
            self._append(
                "tracks", id=track, first=first, last=last, length=length, static=static
            )  # fmt: skip

    def _flush(self, *, complete: bool = False) -> None:
        """Move the rows into the file. If that fails, they remain for the next attempt.

        Raises:
            OutputError: The disk is full; the file has the rows of the last time.
        """
        parts = [
            part for rows in self._rows.values() for column in rows.values() for part in column
        ]
        try:
            hdf5_writing.reserve(self._file, 2 * sum(part.nbytes for part in parts))
            for table, columns in self._rows.items():
                for name, added in columns.items():
                    if added:
                        values, start = np.concatenate(added), self._stored[table]
                        dataset = self._file[f"{table}/{name}"]
                        dataset.resize(start + len(values), axis=0)
                        dataset[start:] = values
            if complete:
                self._attribute("complete", "yes")
            self._file.flush()
        except (OSError, RuntimeError) as error:
            raise unwritable(self.path, error) from error
        for table, kinds in TABLES.items():
            empty: dict[str, list[Any]] = {name: [] for name in kinds}
            stored = len(self._file[f"{table}/{next(iter(kinds))}"])
            self._rows[table], self._stored[table] = empty, stored  # no interrupt comes in between
        self._flushed = time.monotonic()


def load_tracks(path: str | PathLike[str]) -> Tracks:
    """Read a tracks.h5 of `tiepoint track`, also one whose run was interrupted or killed.

    Raises:
        FormatError: No such file, damaged, or of another format.
        MissingExtraError: h5py is not installed.
    """
    with opened(Path(path), "tracks") as file:
        if hdf5_reading.text_attribute(file, "format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT!r}")
        check_convention(hdf5_reading.text_attribute(file, "pixel_convention"), str(path))
        meta = parse_meta(hdf5_reading.text_attribute(file, "meta"), str(path))
        complete = hdf5_reading.text_attribute(file, "complete") == "yes"
        tables = {}
        for table, columns in TABLES.items():
            held = hdf5_reading.arrays(hdf5_reading.group_at(file, table), columns)
            rows = min(map(len, held.values()))  # a killed process may have written some columns
            tables[table] = {
                name: _checked(held[name][:rows], f"{table}/{name}", *columns[name])
                for name in columns
            }
        return _tracks_of(tables, meta, complete=complete)


def _checked(values: NDArray[Any], name: str, kind: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    if values.shape[1:] != shape or values.dtype != kind:
        raise ValueError(f"{name} is {values.dtype} of shape {values.shape}")
    return values


def _tracks_of(
    tables: Mapping[str, Mapping[str, NDArray[Any]]], meta: Mapping[str, Any], *, complete: bool
) -> Tracks:
    """Figures of tracks come from the observations: those of a killed run are not in the table."""
    frames, rows, ended = tables["frames"], tables["observations"], tables["tracks"]
    count = int(min(len(rows["id"]), (frames["start"] + frames["count"]).max(initial=0)))
    rows = {name: values[:count] for name, values in rows.items()}
    frame, ids = rows["frame"], rows["id"]
    if count and (ids.min() < 0 or ids.max() >= count):
        raise ValueError("observations/id is out of range")
    if count and (frame[0] < 0 or frame[-1] >= len(frames["start"]) or (np.diff(frame) < 0).any()):
        raise ValueError("observations/frame is out of range or order")
    length = np.bincount(ids)
    first, last = np.zeros(len(length), np.int64), np.zeros(len(length), np.int64)
    last[ids] = frame  # of equal indices the last value stays
    first[ids[::-1]] = frame[::-1]
    static = np.zeros(len(length), bool)
    static[ended["id"][ended["static"] > 0]] = True
    return Tracks(
        time_s=frames["time_s"],
        size_hw=frames["size_hw"],
        motion=frames["motion"],
        is_keyframe=frames["is_keyframe"] > 0,
        is_cut=frames["is_cut"] > 0,
        is_broken=frames["is_broken"] > 0,
        frame=frame,
        id=ids,
        xy=rows["xy"],
        score=rows["score"],
        first=first,
        last=last,
        length=length,
        static=static,
        is_complete=complete,
        meta=meta,
    )
