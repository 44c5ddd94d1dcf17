"""A run over many images into a store: the shards of one worker, in order."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tiepoint.batch.listing import Listing, Shard, Worker, shard_name
from tiepoint.batch.records import ImageRecord
from tiepoint.batch.shards import ShardJob, shard_steps
from tiepoint.checks import check_whole
from tiepoint.errors import ConfigError, FormatError
from tiepoint.features import Provenance
from tiepoint.files.lock import LockedError, WriteLock
from tiepoint.files.writing import remove_stale
from tiepoint.formats.features_store import (
    MANIFEST,
    MOST_SHARDS,
    Manifest,
    is_store,
    read_manifest,
    record_names,
    shard_path,
    write_manifest,
)
from tiepoint.formats.fields import as_json
from tiepoint.formats.shard_files import ShardFormat, load_library
from tiepoint.images.urls import without_credentials

MANIFEST_WAIT_S = 60.0
"""Time to wait for another run that writes the manifest, s."""


def open_store(
    folder: Path,
    provenance: Provenance,
    *,
    listing: Listing,
    shards: int | None = None,
    layout: ShardFormat | None = None,
    half: bool = False,
    masks: Path | None = None,
    overwrite: bool = False,
) -> Manifest:
    """The manifest of a store, which is written if there is none.

    Args:
        folder: Folder of the store, which exists.
        provenance: Weights and settings of the run.
        listing: Images of the run; their number decides that of the shards.
        shards: Number of shards; None takes that of the store, or the default.
        layout: Format of the files; None takes that of the store, or HDF5.
        half: Descriptors as float16.
        masks: Folder of the masks.
        overwrite: Replace a store of other settings. Its shards stay until they are made again,
            and are not read.

    Raises:
        ConfigError: Parquet files with descriptors as float16, or a number of shards out of range.
        MissingExtraError: The format needs an extra that is not installed.
        FormatError: The store was made with other weights or settings; or its manifest is damaged.
        OutputError: It cannot be written.
    """
    if shards is not None:
        check_whole("shards", shards, minimum=1, maximum=MOST_SHARDS, unit="shards")
    there = read_manifest(folder) if is_store(folder) and not overwrite else None
    chosen = layout or (there.format if there else "h5")
    if half and chosen == "parquet":
        raise ConfigError("half: .parquet files hold float32; drop it, or take h5")
    load_library(chosen)
    lock = _patient_lock(folder / MANIFEST)
    try:  # once more, because another run may have just written it
        there = read_manifest(folder) if is_store(folder) and not overwrite else None
        wanted = Manifest(
            shards=shards or (there.shards if there else listing.default_shards()),
            format=chosen,
            half=half,
            masks=None if masks is None else str(masks),
            provenance=Provenance(**as_json(provenance.to_json())),
        )
        if there is None:
            _replace(folder, wanted)
            return wanted
        if differences := there.differences(wanted):
            raise FormatError(
                f"{folder}: was made with other settings: {', '.join(differences)}; name another "
                "store, or --overwrite replaces it"
            )
        return there
    finally:
        lock.release()


def run_store(
    listing: Listing, job: ShardJob, worker: Worker | None = None
) -> Iterator[ImageRecord]:
    """Make the shards of a worker that are not made yet.

    A shard that another run is making is passed over, and tried once more at the end.

    Args:
        listing: All images, of all workers.
        job: Settings of the run.
        worker: Which shards are made; None makes all.

    Yields:
        A record for each image, shard by shard.

    Raises:
        FormatError: The store has images of another tar under equal names.
        OutputError: The disk is full or read-only.
    """
    yield from begin(listing, job)
    busy: list[Shard] = []
    for shard in listing.shards(job.manifest.shards, worker or Worker()):
        try:
            yield from shard_steps(shard, job)
        except LockedError:
            busy.append(shard)
    job = replace(job, overwrite=False)  # what the other run has made by now is new
    for shard in busy:
        try:
            yield from shard_steps(shard, job)
        except LockedError as error:
            yield from refused(shard, str(error), "another run is writing the shard")


def begin(listing: Listing, job: ShardJob) -> Iterator[ImageRecord]:
    """The records of what cannot be read, before any shard.

    Raises:
        FormatError: The store has images of another tar under equal names.
    """
    _refuse_other_tars(listing, job)
    remove_stale(job.folder)
    for item in listing.unreadable:
        yield ImageRecord(item.source, "failed", error=item.reason)


def refused(shard: Shard, error: str, reason: str) -> Iterator[ImageRecord]:
    """The records of the images of a shard that is not made; see `ImageRecord`."""
    sources = [source for _, source in shard.sources]
    for source in sources or [shard.tar.source if shard.tar is not None else shard.name]:
        yield ImageRecord(without_credentials(source), "refused", error=error, reason=reason)


def _refuse_other_tars(listing: Listing, job: ShardJob) -> None:
    """Names without a prefix are unique within one tar only."""
    own = {shard_name(tar) for tar in listing.tars}
    if not any(not tar.prefix.name for tar in listing.tars) or job.overwrite:
        return
    others = [name for name in record_names(job.folder) if name not in own]
    if others:
        path = shard_path(job.folder, others[0], job.manifest.format)
        raise FormatError(
            f"{job.folder}: has images of other sources, such as {path.name}, and a single tar's "
            "names have no prefix that keeps them apart; give all sources in one command, or name "
            "another store"
        )


def _patient_lock(path: Path) -> WriteLock:
    end = time.monotonic() + MANIFEST_WAIT_S
    while True:
        try:
            return WriteLock(path)
        except LockedError:
            if time.monotonic() > end:
                raise


def _replace(folder: Path, wanted: Manifest) -> None:
    """Write the manifest, unless another run of the same command has just done so."""
    if is_store(folder):
        try:
            if read_manifest(folder).identity == wanted.identity:
                return
        except FormatError:
            pass
    write_manifest(folder, wanted)
