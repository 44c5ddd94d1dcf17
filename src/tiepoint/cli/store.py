"""`tiepoint detect -o NAME.store`: the options of stores, and a run into one."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from tiepoint.cli import exit_codes
from tiepoint.cli.output import show
from tiepoint.cli.report import image_report, stop
from tiepoint.errors import ConfigError, FormatError, OutputError
from tiepoint.files.paths import exists, is_file, is_folder

if TYPE_CHECKING:
    from tiepoint.batch.listing import Listing, Worker
    from tiepoint.batch.records import ImageRecord
    from tiepoint.batch.shards import ShardJob
    from tiepoint.config import DeviceName, EngineName
    from tiepoint.detector import Detector
    from tiepoint.formats.shard_files import ShardFormat
    from tiepoint.images.masks import MaskFolder
    from tiepoint.tiles.stream import TiledDetector

ENDING = ".store"
FORMATS = ("h5", "parquet")

Shards = Annotated[
    int | None,
    typer.Option(
        "--shards",
        metavar="N",
        min=1,
        help="Number of shards of a new store.",
        show_default="one for 256 images",
    ),
]
ShardOf = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Work of this run, as run I of N (from 0) that share a store; for job arrays.",
        show_default="all",
    ),
]
RetryFailed = Annotated[
    bool,
    typer.Option(
        "--retry-failed",
        help="Try images again that failed in an earlier run into a store. Those that could not "
        "be reached are tried again anyway.",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Share the work of a store among the machines of a Ray cluster: auto for the cluster "
        "of this machine, or HOST:PORT. All must see the images and the store under the same "
        "paths.",
        show_default="this machine alone",
    ),
]


@dataclass(frozen=True)
class StoreOptions:
    """Options of a run that stores have a meaning for, as they are typed.

    Attributes:
        features_format: Format of the files, or None.
        shards: Number of shards, or None.
        shard: Worker, as "i/n", or None.
        half: Whether descriptors are float16.
        retry: Whether failures are tried again.
        ray: Address of a Ray cluster, or None.
        threads: Cores of each worker on a Ray cluster, or None.
    """

    features_format: str | None
    shards: int | None
    shard: str | None
    half: bool
    retry: bool
    ray: str | None = None
    threads: int | None = None

    def refuse(self) -> None:
        """Raise ConfigError if an option is given that only stores have."""
        given = {
            "--shards": self.shards is not None,
            "--shard": self.shard is not None,
            "--retry-failed": self.retry,
            "--ray": self.ray is not None,
        }
        for option, is_given in given.items():
            if is_given:
                raise ConfigError(f"{option} is for stores: give -o NAME{ENDING}")

    def check(self, out: Path, *, plot: bool) -> str:
        """The ending of a store; raises ConfigError for options that do not fit one."""
        if self.features_format not in (None, *FORMATS):
            raise ConfigError(
                f"--format {self.features_format}: the files of a store are {' or '.join(FORMATS)}"
            )
        if plot:
            raise ConfigError("--plot: a store holds no images; give -o a folder")
        if exists(out) and not is_folder(out):
            raise ConfigError(f"-o {out} is a file, expected a folder for a store; name another")
        self.worker()
        return ENDING

    def worker(self) -> Worker:
        """The worker; ConfigError for another form."""
        from tiepoint.batch.listing import Worker

        if self.shard is None:
            return Worker()
        try:
            return Worker.parse(self.shard)
        except ConfigError as error:
            raise ConfigError(f"--shard {self.shard}: {error}") from error

    def device(self, engine: EngineName, device: DeviceName) -> DeviceName:
        """The device of the network; connects to the Ray cluster if there is one."""
        if self.ray is None:
            return device
        from tiepoint.batch.ray_cluster import connect, device_on_ray

        connect(self.ray)
        return device_on_ray(engine, device)

    def detect(
        self,
        out: Path,
        listing: Listing,
        detector: Detector | TiledDetector,
        masks: MaskFolder | None,
        ignored: Counter[str],
        *,
        overwrite: bool,
        as_json: bool,
    ) -> int:
        """Detect in all images of a listing, or in those of one worker; returns the exit code."""
        from tiepoint.batch.shards import ShardJob
        from tiepoint.batch.store_run import open_store
        from tiepoint.files.writing import make_folder
        from tiepoint.tiles.stream import TiledDetector

        layout, worker = cast("ShardFormat | None", self.features_format), self.worker()
        make_folder(out, advice="choose another folder with -o")
        if not os.access(out, os.W_OK | os.X_OK):
            raise OutputError(f"-o {out}: cannot be written to; choose another folder")
        try:
            manifest = open_store(
                out, detector.provenance(), listing=listing, shards=self.shards, layout=layout,
                half=self.half, masks=None if masks is None else masks.path, overwrite=overwrite,
            )  # fmt: skip
        except FormatError as error:
            stop(str(error), exit_codes.FAILED)
        if isinstance(detector, TiledDetector):
            detector = detector.into(out, mapped=manifest.format == "h5")
        job = ShardJob(out, manifest, detector, masks, overwrite=overwrite, retry_failed=self.retry)

        if next(listing.shards(manifest.shards, worker), None) is None and not listing.unreadable:
            show(f"no image for run {worker.index} of {worker.count}", on_stderr=True)
            return exit_codes.DONE

        def count() -> int | None:
            return None if listing.tars else listing.count(manifest.shards, worker)

        with image_report(as_json=as_json, count=count, ignored=ignored) as report:
            report.follow(self._run(listing, job, worker))
        return report.exit_code

    def _run(self, listing: Listing, job: ShardJob, worker: Worker) -> Iterator[ImageRecord]:
        if self.ray is None:
            from tiepoint.batch.store_run import run_store

            return run_store(listing, job, worker)
        from tiepoint.batch.ray import run_on_ray

        return run_on_ray(listing, job, worker, threads=self.threads)


def is_store_path(out: Path) -> bool:
    """Whether `-o` names a store: by its ending, or because there is one."""
    return out.suffix.lower() == ENDING or is_file(out / "manifest.json")


def list_all(inputs: list[str], stdin: Iterable[str], ignored: Counter[str]) -> Listing:
    """All images of all workers; exits if there is none."""
    from tiepoint.batch.ignored import sentence
    from tiepoint.batch.listing import Listing, list_sources

    listing = Listing(list_sources(inputs, stdin, ignored))
    if not listing:
        notes = [f"no image found in {', '.join(inputs)}", sentence(ignored)]
        stop("; ".join(filter(None, notes)), exit_codes.NOTHING_READABLE)
    return listing


def describe(path: Path, *, as_json: bool) -> str:
    """What a store has: counts, weights, times, and each failure with its reason.

    Raises:
        FormatError: No store.
    """
    from tiepoint.formats.features_store import FailureRow, read_manifest, records

    manifest = read_manifest(path)
    shards = images = keypoints = size_bytes = 0
    seconds, failures = 0.0, list[FailureRow]()
    for record in records(path, manifest.identity):
        shards += 1
        images += len(record.images)
        keypoints += sum(row.keypoints for row in record.images)
        size_bytes += record.file_bytes
        seconds += record.seconds
        failures += record.failures
    facts = {
        "shards": shards, "images": images, "keypoints": keypoints, "bytes": size_bytes,
        "seconds": round(seconds, 3), "format": manifest.format,
        "provenance": manifest.provenance.to_json(),
        "failures": [failure._asdict() for failure in failures],
    }  # fmt: skip
    if as_json:
        return json.dumps(facts)
    made = manifest.provenance
    lines = [
        f"store        {path}: {shards} shards in .{manifest.format}, {size_bytes / 1e6:.1f} MB",
        f"images       {images}, {keypoints} keypoints, {seconds:.1f} s; {len(failures)} failed",
        f"checkpoint   {made.checkpoint}, {made.precision}",
        f"  SHA-256    {made.weights_sha256}",
    ]
    for failure in failures:
        when = "for now" if failure.is_temporary else "until --retry-failed"
        lines.append(f"failed {when}: {failure.reason}")
    return "\n".join(lines)
