"""One shard: its images -> its file and its record. The same input gives the same bytes.

`make_shard` depends on its arguments alone, and they can be pickled: any number of processes and
machines may call it, each for shards of its own. A lock refuses a second writer of one shard.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tiepoint.batch import remote, tars
from tiepoint.batch.fingerprint import IMAGE, contents_fingerprint, is_same_source
from tiepoint.batch.listing import Shard
from tiepoint.batch.patience import is_temporary, patiently
from tiepoint.batch.records import ImageRecord
from tiepoint.errors import ImageError, OutputError, TiepointError
from tiepoint.features import Features
from tiepoint.files.lock import WriteLock
from tiepoint.formats import DamagedError
from tiepoint.formats.features_store import (
    FailureRow,
    ImageRow,
    Manifest,
    ShardRecord,
    read_record,
    shard_path,
    write_record,
)
from tiepoint.formats.shard_files import Add, read_image, shard_writer
from tiepoint.images.download import fetch
from tiepoint.images.masks import MaskFolder, read_masked
from tiepoint.images.reading import NamedBytes
from tiepoint.images.urls import is_url, without_credentials
from tiepoint.streaming import read_ahead

if TYPE_CHECKING:
    from tiepoint.config import DetectionOptions
    from tiepoint.detector import Detector
    from tiepoint.tiles.stream import TiledDetector

READERS = 8
"""Remote images requested at a time, because each answer takes a tenth of a second."""

EARLIER = "an earlier run; --retry-failed tries it again"


@dataclass(frozen=True)
class ShardJob:
    """What all shards of a run have in common.

    Attributes:
        folder: Folder of the store.
        manifest: Its manifest, of the detector's weights and settings.
        detector: Detector of all images.
        masks: Masks of the images; an image without one is used whole.
        options: Detection settings, which replace those of the detector.
        overwrite: Make shards again that are there.
        retry_failed: Try again what failed in an earlier run, whatever the reason.
    """

    folder: Path
    manifest: Manifest
    detector: Detector | TiledDetector
    masks: MaskFolder | None = None
    options: DetectionOptions = field(default_factory=dict)  # type: ignore[assignment]
    overwrite: bool = False
    retry_failed: bool = False


class _Item(NamedTuple):
    """An image of a shard on its way.

    Attributes:
        name: Name of the image.
        source: Path or URL, for messages.
        data: What the detector takes; None for features of an earlier run; or the error.
    """

    name: str
    source: str
    data: Any


def make_shard(shard: Shard, job: ShardJob) -> ShardRecord:
    """Make the file of a shard, or what it lacks, and its record.

    An image that cannot be read is a row of the record. What an earlier run made with the same
    settings is kept, so that only new images and those that failed for the moment are processed.

    Args:
        shard: The shard.
        job: Settings of the run.

    Returns:
        The record, which is also next to the file.

    Raises:
        LockedError: Another run is writing this shard.
        OutputError: The disk is full or read-only.
    """
    steps = shard_steps(shard, job)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            record: ShardRecord = end.value
            return record


def shard_steps(shard: Shard, job: ShardJob) -> Generator[ImageRecord, None, ShardRecord]:
    """As `make_shard`; yields the record of each image when it is known.

    An image counts as done when the shard does: a kill in between repeats the shard.
    """
    path = shard_path(job.folder, shard.name, job.manifest.format)
    lock = WriteLock(path)
    try:
        before, redone = _earlier(shard, job, path)
        made_from = source_of(shard)
        if before is not None and shard.tar is not None and before.source != made_from:
            if "bytes" in made_from:
                before, redone = None, "the tar changed"
            else:  # away, which is no reason to lose its features
                made_from = dict(before.source)
        work = _Shard(shard, job, path, before, redone)
        if before is not None and not work.has_work:
            yield from _skipped(shard, before, path)
            return before
        started, start = datetime.now(UTC), time.perf_counter()
        record = yield from work.make()
        record = replace(
            record,
            source=made_from,
            started=started.isoformat(timespec="seconds"),
            seconds=round(time.perf_counter() - start, 3),
        )
        write_record(job.folder, record)
        return record
    finally:
        lock.release()


def source_of(shard: Shard) -> dict[str, Any]:
    """What a shard is made from, as its record states it."""
    if shard.tar is None:
        return {"listed": len(shard.sources)}
    head = {"tar": without_credentials(shard.tar.source), "prefix": str(shard.tar.prefix)}
    try:
        return {**head, **patiently(lambda: tars.stamp(shard.tar))}  # type: ignore[arg-type]
    except ImageError:  # making the shard meets it again
        return head


def _earlier(shard: Shard, job: ShardJob, path: Path) -> tuple[ShardRecord | None, str | None]:
    """The record of a whole shard that can be kept, and why an earlier one cannot."""
    if job.overwrite:
        return None, None
    try:
        record = read_record(job.folder, shard.name)
    except DamagedError:
        return None, "the output was damaged"
    if record is None or record.store != job.manifest.identity:
        return None, None
    try:
        size = path.stat().st_size
    except OSError:
        size = 0
    return (record, None) if size == record.file_bytes else (None, "the output was damaged")


def _skipped(shard: Shard, record: ShardRecord, path: Path) -> Iterator[ImageRecord]:
    sources = dict(shard.sources)
    for row in record.images:
        yield ImageRecord(
            row.source, "skipped", path, keypoints=row.keypoints, size_hw=(row.height, row.width)
        )
    for failure in record.failures:
        source = without_credentials(sources.get(failure.name, failure.name))
        yield ImageRecord(source, "failed", error=f"{failure.reason} ({EARLIER})")


class _Shard:
    """The making of one shard."""

    def __init__(
        self, shard: Shard, job: ShardJob, path: Path, before: ShardRecord | None,
        redone: str | None,
    ) -> None:  # fmt: skip
        from tiepoint.tiles.stream import TiledDetector

        self._is_tiled = isinstance(job.detector, TiledDetector)
        self._shard, self._job, self._path, self._redone = shard, job, path, redone
        images = () if before is None else before.images
        self._rows = {row.name: (number, row) for number, row in enumerate(images)}
        self._failed_before = () if before is None else before.failures
        self._given_up = {
            failure.name: failure
            for failure in self._failed_before
            if not failure.is_temporary and not job.retry_failed
        }
        self._listed = dict(reversed(shard.sources))  # of equal names the first
        self._refused = list(self._refusals())
        self._images: list[ImageRow] = []
        self._failures: list[FailureRow] = []

    @property
    def has_work(self) -> bool:
        """Whether images are left to process, or failures to note."""
        left = any(n not in self._rows and n not in self._given_up for n in self._listed)
        refused, before = set(self._refused), set(self._failed_before)
        again = any(failure.name not in self._given_up for failure in before - refused)
        return left or again or not refused <= before

    def _refusals(self) -> Iterator[FailureRow]:
        """Images whose name belongs to another image."""
        for name, source in self._shard.sources:
            shown = without_credentials(source)
            if self._listed[name] != source:
                yield FailureRow(name, f"{shown}: {_clash(name)}", False)
            elif name in self._rows and not is_same_source(self._rows[name][1].source, source):
                other = self._rows[name][1].source
                yield FailureRow(name, f"{shown}: {_clash(name)}, {other}", False)

    def make(self) -> Generator[ImageRecord, None, ShardRecord]:
        """Write the file; returns the record, without times."""
        layout, half = self._job.manifest.format, self._job.manifest.half
        with shard_writer(self._path, layout, half=half) as add:
            yield from self._fill(add)
        file_bytes = self._path.stat().st_size if self._images else 0
        if not self._images:
            self._path.unlink()
        return ShardRecord(
            self._shard.name, self._job.manifest.identity, {},
            tuple(self._images), tuple(self._failures), file_bytes,
        )  # fmt: skip

    def _fill(self, add: Add) -> Iterator[ImageRecord]:
        items = self._of_tar() if self._shard.tar is not None else self._of_names()
        start = time.perf_counter()
        for item, result in self._results(items):
            milliseconds = 1000 * (time.perf_counter() - start)
            yield self._stored(item, result, add, milliseconds)
            start = time.perf_counter()
        for failure in self._refused:
            self._failures.append(failure)
            yield ImageRecord(failure.reason.partition(": ")[0], "failed", error=failure.reason)

    def _stored(
        self, item: _Item, result: Features | TiepointError | None, add: Add, milliseconds: float
    ) -> ImageRecord:
        """Add an image to the file, or to the failures."""
        if isinstance(result, TiepointError):
            return self._failed(item, str(result), temporary=is_temporary(result))
        is_new = result is not None
        try:
            if result is None:
                result = self._kept(item.name)
            add(item.name, result)
        except OutputError:
            raise
        except TiepointError as error:  # features that cannot be read again are made again
            return self._failed(item, str(error), temporary=not is_new or is_temporary(error))
        height, width = result.size_hw
        row = ImageRow(item.name, len(result), height, width, item.source)
        self._images.append(row)
        return ImageRecord(
            item.source, "done" if is_new else "skipped", self._path, keypoints=row.keypoints,
            size_hw=result.size_hw, milliseconds=milliseconds if is_new else None,
            redone=self._redone if is_new else None,
        )  # fmt: skip

    def _failed(self, item: _Item, reason: str, *, temporary: bool) -> ImageRecord:
        self._failures.append(FailureRow(item.name, reason, temporary))
        return ImageRecord(item.source, "failed", error=reason)

    def _kept(self, name: str) -> Features:
        number, _ = self._rows[name]
        return read_image(self._path, self._job.manifest.format, name, number)

    def _results(
        self, items: Iterable[_Item]
    ) -> Iterator[tuple[_Item, Features | TiepointError | None]]:
        """Each item with its features, its error, or None for those of an earlier run; in order."""
        waiting: deque[_Item] = deque()

        def sources() -> Iterator[Any]:
            for item in items:
                waiting.append(item)
                if item.data is not None and not isinstance(item.data, TiepointError):
                    yield item.data

        masks = self._job.masks if self._is_tiled else None  # others are in the images already
        mask = None if masks is None else lambda _: masks.of(waiting[-1].name)
        # A generator, because the results of a list depend on its length by round-off.
        for detection in self._job.detector.stream(sources(), mask=mask, **self._job.options):
            while waiting[0].data is None or isinstance(waiting[0].data, TiepointError):
                item = waiting.popleft()
                yield item, item.data
            item = waiting.popleft()
            features = detection.features
            if features is not None:
                features = replace(features, meta=_meta(features, item))
            yield item._replace(data=None), detection.error or features
        for item in waiting:
            yield item, item.data

    def _of_names(self) -> Iterator[_Item]:
        """The images of a shard of names; those of earlier runs stay in it."""
        rows = self._rows.values()
        gone = [(row.name, row.source) for _, row in rows if row.name not in self._listed]
        ordered = sorted([*self._listed.items(), *gone])
        for (name, source), data in read_ahead(ordered, self._data_of_pair, READERS):
            shown = source if data is not None else self._rows[name][1].source
            yield _Item(name, without_credentials(shown), data)

    def _data_of_pair(self, pair: tuple[str, str]) -> Any:
        name, source = pair
        known = self._known(name)
        if known is not None:
            return None if isinstance(known, ImageRow) else known
        return self._masked(name, patiently_read(source))

    def _known(self, name: str) -> ImageRow | ImageError | None:
        """The row of an image with features, or the error of one that is not tried again."""
        if name in self._rows:
            return self._rows[name][1]
        given_up = self._given_up.get(name)
        return None if given_up is None else ImageError(given_up.reason)

    def _of_tar(self) -> Iterator[_Item]:
        """The images of a tar, in its order."""
        tar = self._shard.tar
        assert tar is not None
        shown, seen = without_credentials(tar.source), set[str]()
        try:
            with closing(tars.members(tar)) as members:  # type: ignore[type-var]
                for member in members:
                    name, source = str(tar.prefix / member.name), f"{shown}/{member.name}"
                    if name in seen:
                        error = ImageError(f"{source}: {_clash(name)}")
                        yield _Item(name, source, error)
                        continue
                    seen.add(name)
                    yield _Item(name, source, self._of_member(name, source, member.data))
        except ImageError as error:
            yield _Item(str(tar.prefix) if tar.prefix.name else shown, shown, error)
            for _, row in self._rows.values():
                if row.name not in seen:
                    yield _Item(row.name, row.source, None)

    def _of_member(self, name: str, source: str, data: bytes | ImageError) -> Any:
        known = self._known(name)
        if isinstance(known, ImageRow):
            return None
        if known is not None or isinstance(data, ImageError):
            return known or data
        return self._masked(name, NamedBytes(data, source))

    def _masked(self, name: str, data: Any) -> Any:
        """The image with its mask, if it has one; in tiles both are read later, in windows."""
        if self._job.masks is None or self._is_tiled or isinstance(data, TiepointError):
            return data
        try:
            mask = self._job.masks.of(name)
            return data if mask is None else read_masked(data, mask, "rgb")
        except ImageError as error:
            return error


def patiently_read(source: str) -> str | NamedBytes | ImageError:
    """What the detector reads itself: the path of a local file, or the bytes of a remote one."""
    try:
        if is_url(source):
            return NamedBytes(patiently(lambda: fetch(source)), without_credentials(source))
        if remote.is_remote(source):
            data = patiently(lambda: remote.read_bytes(source))
            return NamedBytes(data, without_credentials(source))
    except ImageError as error:
        return error
    return source


def _meta(features: Features, item: _Item) -> dict[str, Any]:
    """`meta` with the fingerprint of the image."""
    known = isinstance(item.data, str | bytes)
    state = contents_fingerprint(item.data) if known else None
    return dict(features.meta) if state is None else {**features.meta, IMAGE: state}


def _clash(name: str) -> str:
    return f"the name {name} belongs to another image; give the folder above both"
