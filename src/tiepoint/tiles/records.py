"""The tiles that are done: a file from which an interrupted detection resumes.

A journal has the rows of each tile that is done, and first of all what they were made from: the
image, the mask, the weights and the settings. A file of something else starts again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from logging import getLogger
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import FormatError, ImageError, OutputError
from tiepoint.features import Provenance
from tiepoint.files.journal import Journal
from tiepoint.files.paths import is_folder
from tiepoint.files.reading import parse_json
from tiepoint.files.writing import make_folder
from tiepoint.geometry import SizeHW
from tiepoint.images.opening import is_mapped
from tiepoint.images.windows import Window, WindowSource, strips
from tiepoint.keypoints.result import Keypoints

Float32 = NDArray[np.float32]

FLUSH_S = 30.0
"""Longest time whose tiles a power failure costs, s; a killed process loses none."""

SAMPLES, SAMPLE_PX = 4, 64
"""Places along each axis, and the side of the windows there, whose pixels identify an image."""

_TITLE = b"tiepoint tiles 1\n"
_MADE_FROM = "made from"
_WHOLE, _DAMAGED = b"\0", b"\1"

_log = getLogger(__name__)


class TileRecords:
    """Rows of the tiles that are done.

    Args:
        path: The file; None takes a temporary one, which the end removes.
        made_from: What decides the rows, as JSON values.

    Raises:
        FormatError: A file of another program.
        OutputError: The file cannot be written, or another run is writing it.
    """

    def __init__(self, path: str | os.PathLike[str] | None, made_from: Mapping[str, Any]) -> None:
        self._temporary = TemporaryDirectory(prefix="tiepoint-") if path is None else None
        where = Path(self._temporary.name, "tiles") if self._temporary else Path(path or "")
        make_folder(where.parent)
        self._journal, self._lock = Journal(where, _TITLE, path=where), threading.Lock()
        self._flushed = time.monotonic()
        try:
            self._resume(made_from)
        except BaseException:
            self.close()
            raise

    def __contains__(self, key: str) -> bool:
        return key in self._journal

    @property
    def folder(self) -> Path | None:
        """Folder of the file; None for a temporary one."""
        return None if self._temporary else self._journal.path.parent

    def add(self, key: str, rows: NDArray[Any] | None) -> None:
        """Keep the rows of a tile; None for one that cannot be read.

        Raises:
            OutputError: The disk is full or read-only.
        """
        payload = _DAMAGED if rows is None else rows.tobytes() + _WHOLE
        with self._lock:
            self._journal.add(key, payload)
            if self._temporary is None and time.monotonic() > self._flushed + FLUSH_S:
                self._journal.flush()
                self._flushed = time.monotonic()

    def read(self, key: str, dtype: np.dtype[Any]) -> NDArray[Any] | None:
        """The rows of a tile; None for one that could not be read.

        Raises:
            FormatError: The file was changed by another program.
        """
        with self._lock:
            payload = self._journal.read(key)
        if payload == _DAMAGED:
            return None
        if payload[-1:] != _WHOLE or (len(payload) - 1) % dtype.itemsize:
            raise FormatError(f"{self._journal.path}: tile {key} is damaged; delete the file")
        return np.frombuffer(payload, dtype, (len(payload) - 1) // dtype.itemsize)

    def remove(self) -> None:
        """Delete the file, because the result has everything."""
        self._journal.remove()

    def close(self) -> None:
        """Close the file, which stays for the next run, and let others write it."""
        self._journal.release()
        if self._temporary is not None:
            with suppress(OSError):
                self._temporary.cleanup()

    def _resume(self, made_from: Mapping[str, Any]) -> None:
        """Keep the tiles of an earlier run of the same kind, and forget others."""
        wanted = json.loads(json.dumps(made_from))
        if len(self._journal):
            differences = _differences(self._earlier(), wanted)
            if not differences:
                return
            _log.warning(
                "%s: the tiles in it are of another run (%s), so all are detected again",
                self._journal.path, ", ".join(differences),
            )  # fmt: skip
            self._journal.remove()
        self._journal.add(_MADE_FROM, json.dumps(wanted).encode())

    def _earlier(self) -> Any:
        """What the tiles were made from; None if the file does not have it."""
        try:
            return parse_json(self._journal.read(_MADE_FROM).decode())
        except (KeyError, ValueError):
            return None


def forget(path: Path) -> None:
    """Delete the tiles of an image, unless a run has them, or the file is of another program."""
    if path.exists():
        with suppress(FormatError, OutputError, OSError):
            journal = Journal(path, _TITLE, path=path)
            try:
                journal.remove()
            finally:
                journal.release()


def made_from(
    image: WindowSource,
    source: Any,
    mask: tuple[WindowSource, Any] | None,
    provenance: Provenance,
    **settings: Any,
) -> dict[str, Any]:
    """What decides the rows of tiles, as JSON values.

    Args:
        image: The image.
        source: What it was opened from.
        mask: The same of its mask, or None.
        provenance: Weights and settings; engine and device change results by round-off only.
        settings: Further settings.
    """
    weights = {
        name: getattr(provenance, name)
        for name in ("weights_sha256", "rules", "precision", "tiepoint_version")
    }
    return {
        "image": _identity(image, source),
        "mask": None if mask is None else _identity(*mask),
        **weights,
        **provenance.settings,
        **settings,
    }


def _identity(image: WindowSource, source: Any) -> dict[str, Any]:
    """Size and type of an image, size and time of its files, and a digest of pixels.

    The digest has all pixels of an image in memory, and else some.
    """
    state: dict[str, Any] = {"size_hw": list(image.size_hw), "dtype": str(image.dtype)}
    for path in _files_of(image, source):
        with suppress(OSError, ValueError):  # a URL, or a path that only its reader knows
            status = path.stat()
            # Sums, in which the change of any file shows.
            for name, value in (("bytes", status.st_size), ("modified_ns", status.st_mtime_ns)):
                state[name] = state.get(name, 0) + value
    digest = hashlib.sha256()
    arrays = [] if is_mapped(source) else getattr(image, "arrays", [])
    for array in arrays:
        for rows in strips((len(array), math.prod(array.shape[1:]))):
            digest.update(np.ascontiguousarray(array[rows.slices[0]]).tobytes())
    for window in () if arrays else _samples(image.size_hw):
        try:
            read = image.read(window)
        except ImageError:
            digest.update(b"damaged")
            continue
        for values in (read.pixels, read.seen):
            digest.update(b"" if values is None else np.ascontiguousarray(values).tobytes())
    return {**state, "pixels_sha256": digest.hexdigest()}


def _files_of(image: WindowSource, source: Any) -> Iterable[Path]:
    """The files that an image is read from, as far as they are known."""
    if not isinstance(source, str | os.PathLike):
        return []
    path = Path(os.fsdecode(source))
    if is_folder(path):  # of zarr
        return path.rglob("*")
    return map(Path, getattr(image, "files", [path]))


def _samples(size_hw: SizeHW) -> Iterator[Window]:
    """Windows on a grid over an image."""
    height, width = (min(SAMPLE_PX, length) for length in size_hw)
    tops, lefts = (
        np.linspace(0, max(0, length - SAMPLE_PX), SAMPLES).astype(int) for length in size_hw
    )
    for top in tops:
        for left in lefts:
            yield Window(int(top), int(left), height, width)


def _differences(before: Any, now: dict[str, Any]) -> list[str]:
    """Entries that differ, as "name: before, now"."""
    if not isinstance(before, dict):
        return ["it has no settings"]
    texts = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):  # of the image or the mask
            names = [part for part in sorted({*old, *new}) if old.get(part) != new.get(part)]
            texts.append(f"another {name}: {' and '.join(names)}")
        else:
            texts.append(f"{name}: {old}, now {new}")
    return texts


def keypoint_rows(descriptor_length: int | None, *, covariance: bool) -> np.dtype[Any]:
    """The type of a keypoint as a row; positions are in px of the input."""
    fields: list[Any] = [("xy", "<f4", (2,)), ("score", "<f4")]
    if descriptor_length is not None:
        fields.append(("descriptor", "<f4", (descriptor_length,)))
    if covariance:
        fields.append(("covariance", "<f4", (2, 2)))
    return np.dtype(fields)


def rows_of(keypoints: Keypoints[Float32], window: Window, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Keypoints in px of a window -> rows in px of the input."""
    rows = np.zeros(len(keypoints.scores), dtype)
    rows["xy"] = keypoints.xy + np.array([window.left, window.top], np.float32)
    rows["score"] = keypoints.scores
    if keypoints.descriptors is not None:
        rows["descriptor"] = keypoints.descriptors
    if keypoints.covariance is not None:
        rows["covariance"] = keypoints.covariance
    return rows


def keypoints_of(rows: NDArray[Any]) -> Keypoints[Float32]:
    """The reverse of `rows_of`, in px of the input."""
    names = rows.dtype.names or ()
    return Keypoints(*(
        np.ascontiguousarray(rows[name]) if name in names else None
        for name in ("xy", "score", "descriptor", "covariance")
    ))  # type: ignore[arg-type]  # fmt: skip
