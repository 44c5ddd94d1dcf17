"""Stores made by a detector of tests, and the pictures, tars and memory files behind them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from support.fake_detector import FakeDetector
from tiepoint.batch.listing import Listing, Worker, list_sources
from tiepoint.batch.records import ImageRecord
from tiepoint.batch.shards import ShardJob
from tiepoint.batch.store_run import open_store, run_store
from tiepoint.formats.features_store import MANIFEST


def picture(width: int = 20) -> bytes:
    """A PNG in which the fake detector finds a keypoint per 10 px of width."""
    return bytes(cv2.imencode(".png", np.zeros((10, width, 3), np.uint8))[1].tobytes())


def pictures(folder: Path, names: Iterable[str]) -> Path:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(20 + 10 * (number % 7)))
    return folder


def numbered(count: int) -> list[str]:
    return [f"{number % 3}/{number:03}.png" for number in range(count)]


def tar(path: Path, members: Mapping[str, bytes] | Iterable[tuple[str, bytes]]) -> Path:
    pairs = members.items() if isinstance(members, Mapping) else members
    mode: Any = "w:gz" if path.suffix in (".gz", ".tgz") else "w"
    with tarfile.open(path, mode) as archive:
        for name, data in pairs:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def store_job(
    folder: Path, listing: Listing, detector: Any = None, *, retry_failed: bool = False,
    masks: Any = None, **settings: Any,
) -> ShardJob:  # fmt: skip
    detector = detector or FakeDetector()
    folder.mkdir(parents=True, exist_ok=True)
    manifest = open_store(
        folder,
        detector.provenance(),
        listing=listing,
        masks=masks and masks.path,
        **settings,
    )
    overwrite = settings.get("overwrite", False)
    return ShardJob(
        folder, manifest, detector, masks, overwrite=overwrite, retry_failed=retry_failed
    )


def fill(
    folder: Path, *arguments: str | Path, worker: str = "0/1", lines: Iterable[str] = (), **job: Any
) -> list[ImageRecord]:
    """A run into a store."""
    listing = Listing(list_sources([str(argument) for argument in arguments], lines))
    return list(run_store(listing, store_job(folder, listing, **job), Worker.parse(worker)))


def statuses(records: Iterable[ImageRecord]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for record in records:
        counts[record.status] = counts.get(record.status, 0) + 1
    return counts


def shard_bytes(folder: Path) -> dict[str, bytes]:
    """The shard files of a store."""
    names = [path for path in folder.iterdir() if path.suffix in (".h5", ".parquet")]
    return {path.name: path.read_bytes() for path in sorted(names)}


def names_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != MANIFEST)
