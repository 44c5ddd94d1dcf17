"""What the nodes of a Ray cluster do: see whether the files are there, and make shards."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tiepoint._version import __version__
from tiepoint.batch.listing import Shard
from tiepoint.batch.records import ImageRecord
from tiepoint.batch.shards import ShardJob, shard_steps
from tiepoint.errors import TiepointError
from tiepoint.formats.shard_files import load_library

ATTEMPTS, PAUSE_S = 5, 0.5
"""A new file may be seen by other machines a moment later."""


@dataclass(frozen=True)
class Sight:
    """What every node must see as the machine of the command does.

    Attributes:
        folder: Working folder of the command, where relative paths begin.
        token: A file in the store that only this run has.
        sources: Some of the images and tars.
        version: Version of tiepoint.
    """

    folder: Path
    token: Path
    sources: tuple[str, ...]
    version: str


def look(sight: Sight) -> str | None:
    """Why this node cannot take part in a run, as words that follow its name; or None."""
    with suppress(OSError):  # without it absolute paths still lead somewhere
        os.chdir(sight.folder)
    if __version__ != sight.version:
        return f"has tiepoint {__version__} instead of {sight.version}; install the same"
    store = sight.folder / sight.token.parent
    if not _appears(sight.token):
        return f"does not see the store {store}; mount that disk there, under the same path"
    if not os.access(store, os.W_OK | os.X_OK):
        return f"cannot write to {store}; give it the right to"
    for source in sight.sources:
        if not _appears(Path(source)):
            path = sight.folder / source
            return f"does not see the image {path}; mount that disk there, under the same path"
    return None


def _appears(path: Path) -> bool:
    for _ in range(ATTEMPTS):
        if os.path.lexists(path):
            return True
        time.sleep(PAUSE_S)
    return False


class ShardWorker:
    """An actor that holds the network and makes one shard at a time.

    Args:
        job: Settings of the run.
        sight: What the node must see.
        cores: Cores of this worker.
    """

    def __init__(self, job: ShardJob, sight: Sight, cores: int) -> None:
        self._sight = sight
        if job.detector.engine == "openvino":  # torch takes Ray's OMP_NUM_THREADS
            job = replace(job, detector=job.detector.with_threads(cores))
        self._job = job

    def start(self) -> str | None:
        """Build the network; returns why this node cannot take part, or None."""
        reason = look(self._sight)
        if reason is not None:
            return reason
        try:
            load_library(self._job.manifest.format)
            for detection in self._job.detector.stream(iter([np.zeros((64, 64), np.uint8)])):
                detection.require()
        except TiepointError as error:
            return f"cannot detect: {error}"
        return None

    def make(self, shard: Shard) -> list[ImageRecord] | TiepointError:
        """The records of the images of a shard, or the error that stops the run."""
        try:
            return list(shard_steps(shard, self._job))
        except TiepointError as error:
            return error
