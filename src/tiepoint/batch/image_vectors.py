"""Features of many images -> a vector for each, made once and kept beside the features.

    <features>.similar/
        head.json        what the vectors were made from
        vocabulary.npz   centres and projection
        vectors.f16      a row for each image, in the order of the names; it grows during the run

An interrupted run continues where it stopped. Vectors of other features are made again.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from logging import getLogger
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from tiepoint.batch.left_out import LeftOut
from tiepoint.errors import ConfigError, FormatError, OutputError, TiepointError
from tiepoint.features import Features
from tiepoint.files.lock import LockedError, WriteLock
from tiepoint.files.reading import read_json
from tiepoint.files.writing import make_folder, unwritable, write_bytes
from tiepoint.formats import H5Features
from tiepoint.formats.features_store import MANIFEST, StoreFeatures, records
from tiepoint.matching.image_vectors import (
    Projection,
    Vocabulary,
    checked_descriptors,
    learned_centres,
    with_projection,
)
from tiepoint.matching.similar import Vectors
from tiepoint.network.cores import usable_cores
from tiepoint.streaming import read_ahead

_log = getLogger(__name__)

ENDING = ".similar"
SAMPLE = 2048
"""Images that the vocabulary is learned from. Smaller collections have no projection, and their
vectors are made in memory."""

_PER_IMAGE = 100  # descriptors of the sample
_AT_ONCE = 256  # vectors between two writes
_SEED = 0
_VERSION = 1
_EMPTY = "no keypoints, or none that differ from the other images'"


def image_vectors(
    features: Mapping[str, Features],
    left_out: LeftOut,
    *,
    threads: int | None = None,
    on_image: Callable[[], None] = lambda: None,
) -> Vectors:
    """The vectors of all images, which `similar_pairs` compares.

    The vocabulary comes from a sample of the images, drawn with a fixed seed. The result depends on
    neither the number of threads nor interruptions.

    Args:
        features: Features by image name, read one by one. The vectors of a large store or .h5 file
            are kept in a folder beside it.
        left_out: Counts the images without a vector.
        threads: Number of threads; None takes one per core.
        on_image: Called after each image.

    Returns:
        n G in the order of the features; zeros for an image without a vector. float16, mapped from
        the file, if they are kept.

    Raises:
        ConfigError: Descriptors of several lengths.
        OutputError: The disk is full, or another run is writing the vectors. If there cannot be
            such a folder, they are made in memory, with a warning in the log.
    """
    make = _Maker(features, list(features), left_out, usable_cores(threads), on_image)
    path = getattr(features, "path", None)
    with threadpool_limits(1, user_api="blas"):  # its sums then depend on the shapes alone
        if len(features) <= SAMPLE or not isinstance(features, StoreFeatures | H5Features):
            return make.in_memory()
        return make.kept(Path(f"{path}{ENDING}"), _fingerprint(features))


class _Read(NamedTuple):
    """An image that was read: its features, or the reason why there are none."""

    name: str
    features: Features | str


@dataclass(frozen=True)
class _Maker:
    """Makes the vectors of a collection."""

    features: Mapping[str, Features]
    names: Sequence[str]
    left_out: LeftOut
    workers: int
    on_image: Callable[[], None]

    def in_memory(self) -> Vectors:
        """All vectors as an array."""
        vocabulary = self.vocabulary()
        if vocabulary is None:
            vocabulary = Vocabulary(np.zeros((1, 1), np.float32))
        is_small = vocabulary.projection is None
        rows = np.zeros(
            (len(self.names), vocabulary.length), np.float32 if is_small else np.float16
        )
        for row, vector in enumerate(self._made(vocabulary, self.names)):
            if vector is not None:
                rows[row] = vector
        return rows

    def kept(self, folder: Path, fingerprint: str) -> Vectors:
        """All vectors in a file, which an earlier run may have begun."""
        try:
            lock = WriteLock(make_folder(folder) / "vectors.f16")
        except LockedError:
            raise
        except OutputError as error:
            _log.warning("image vectors are not kept, so the next run makes them again: %s", error)
            return self.in_memory()
        try:
            vocabulary = _stored_vocabulary(folder, fingerprint)
            if vocabulary is None:
                vocabulary = self.vocabulary()
                if vocabulary is None:
                    return self.in_memory()  # which counts the reasons
                _store_vocabulary(folder, fingerprint, vocabulary)
            with _writing(folder / "vectors.f16"):
                self._complete(folder / "vectors.f16", vocabulary)
            shape = (len(self.names), vocabulary.length)
            return np.memmap(folder / "vectors.f16", np.float16, "r", shape=shape)
        finally:
            lock.release()

    def _complete(self, path: Path, vocabulary: Vocabulary) -> None:
        row_bytes = 2 * vocabulary.length
        with path.open("ab") as file:
            done = min(file.tell() // row_bytes, len(self.names))
            file.truncate(done * row_bytes)  # a kill may leave a part of a row
        self._again(path, vocabulary, done)
        for _ in range(done):
            self.on_image()
        made = self._made(vocabulary, self.names[done:])
        with path.open("ab") as file:
            while some := list(islice(made, _AT_ONCE)):
                zeros = np.zeros(vocabulary.length, np.float16)
                rows = [zeros if vector is None else vector.astype(np.float16) for vector in some]
                file.write(np.stack(rows).tobytes())
                file.flush()

    def _again(self, path: Path, vocabulary: Vocabulary, done: int) -> None:
        """Try images without a vector again, because the disk may have failed, and report them."""
        if done == 0:
            return
        rows = np.memmap(path, np.float16, "r+", shape=(done, vocabulary.length))
        empty = [start + int(row) for start in range(0, done, 8192)
                 for row in np.flatnonzero(~rows[start : start + 8192].any(axis=1))]  # fmt: skip
        made = self._made(vocabulary, [self.names[row] for row in empty], report=False)
        for row, vector in zip(empty, made, strict=True):
            if vector is not None:
                rows[row] = vector
        rows.flush()

    def _made(
        self, vocabulary: Vocabulary, names: Iterable[str], *, report: bool = True
    ) -> Iterator[NDArray[np.float32] | None]:
        """The vector of each image; None, with the reason counted, if it has none."""

        def vector(read: _Read) -> NDArray[np.float32] | str:
            if isinstance(read.features, str):
                return read.features
            try:
                made = vocabulary.vector(read.features)
            except TiepointError as error:
                return str(error)
            return made if made.any() else _EMPTY

        for read, made in read_ahead(self._read(names), vector, self.workers):
            if isinstance(made, str):
                self.left_out.add(read.name, made)
            yield None if isinstance(made, str) else made
            if report:
                self.on_image()

    def _read(self, names: Iterable[str]) -> Iterator[_Read]:
        """The images one by one, in the thread of the caller, which a database demands."""
        for name in names:
            try:
                yield _Read(name, self.features[name])
            except TiepointError as error:
                yield _Read(name, str(error))

    def vocabulary(self) -> Vocabulary | None:
        """The vocabulary of the collection; None if no image has descriptors."""
        rng = np.random.default_rng(_SEED)
        count = min(SAMPLE, len(self.names))
        chosen = np.sort(rng.choice(len(self.names), count, replace=False))
        names = [self.names[row] for row in chosen]

        sample: list[NDArray[np.float32]] = []
        for read in self._read(names):
            if isinstance(read.features, str):
                continue  # reported when its vector is made
            with suppress(TiepointError):
                descriptors = checked_descriptors(read.features)
                rows = np.linspace(0, len(descriptors) - 1, min(_PER_IMAGE, len(descriptors)))
                sample.append(descriptors[rows.astype(np.int64)])
        if not sample:
            return None
        if len({one.shape[1] for one in sample}) > 1:
            raise ConfigError("the images have descriptors of different lengths: detect again")
        vocabulary = learned_centres(np.concatenate(sample))
        if len(self.names) <= SAMPLE:
            return vocabulary
        silent = _Maker(self.features, names, LeftOut(""), self.workers, lambda: None)
        made = [one for one in silent._made(vocabulary, names) if one is not None]
        return with_projection(vocabulary, np.stack(made)) if made else vocabulary


def _fingerprint(features: StoreFeatures | H5Features) -> str:
    """A digest of the names and of what was stored when, without reading the features."""
    digest = hashlib.sha256(f"{_VERSION} {len(features)}".encode())
    for name in features:
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
    with _readable(features.path):
        if isinstance(features, StoreFeatures):
            digest.update((features.path / MANIFEST).read_bytes())
            for record in records(features.path, features.manifest.identity):
                digest.update(f"{record.shard} {record.file_bytes} {record.started}\0".encode())
        else:
            status = Path(features.path).stat()
            digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror}); check the path") from error


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from error


def _stored_vocabulary(folder: Path, fingerprint: str) -> Vocabulary | None:
    """The vocabulary of an earlier run on the same features; None if there is no whole one."""
    try:
        head: Any = read_json(folder / "head.json")
        if not isinstance(head, dict) or head.get("made_from") != fingerprint:
            return None
        stored = (folder / "vocabulary.npz").read_bytes()
        if hashlib.sha256(stored).hexdigest() != head.get("vocabulary"):
            return None
        with np.load(io.BytesIO(stored), allow_pickle=False) as arrays:
            projection = Projection(arrays["mean"], arrays["matrix"]) if "mean" in arrays else None
            return Vocabulary(arrays["centres"], projection)
    except (FormatError, OSError, ValueError, KeyError):
        return None


def _store_vocabulary(folder: Path, fingerprint: str, vocabulary: Vocabulary) -> None:
    buffer = io.BytesIO()
    projection = {} if vocabulary.projection is None else vocabulary.projection._asdict()
    np.savez(buffer, centres=vocabulary.centres, **projection)
    stored = buffer.getvalue()
    head = {"made_from": fingerprint, "vocabulary": hashlib.sha256(stored).hexdigest()}
    vectors = folder / "vectors.f16"
    try:
        vectors.unlink(missing_ok=True)  # of other features
    except OSError as error:
        raise unwritable(vectors, error) from error
    write_bytes(folder / "vocabulary.npz", stored)
    write_bytes(folder / "head.json", json.dumps(head).encode())
