"""A store: features of any number of images in a folder of shard files, each with a record.

    manifest.json    weights, settings and layout of the store
    00000.h5         features of the images of shard 0; .parquet in a store of that format
    00000.json       its record: images, failures with their reasons, times

An image belongs to the shard that the hash of its name gives, so that everyone who makes a part of
the store makes the same one. The images of a tar are a shard of their own, `tar-<hash>`. A record
is written when its file is whole and on the disk, so that a file without a record counts as not
made. Merging the parts is listing the records.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from logging import getLogger
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, get_args

from tiepoint.errors import ConfigError, FormatError
from tiepoint.features import Features, Provenance
from tiepoint.files.paths import is_file, is_folder
from tiepoint.files.reading import read_json
from tiepoint.files.writing import write_bytes
from tiepoint.formats import fields, shard_files
from tiepoint.formats.shard_files import ShardFormat

ENDING, MANIFEST = ".store", "manifest.json"
_ROW_BITS = 32

_log = getLogger(__name__)
_KIND, _VERSION = "tiepoint features", 1
_RECORD = re.compile(r"(?:\d{5,9}|tar-[0-9a-f]{16})\.json")
_MOST_RECORD_BYTES = 256_000_000
MOST_SHARDS = 10_000_000


class ImageRow(NamedTuple):
    """An image whose features are in the shard's file.

    Attributes:
        name: Name of the image.
        keypoints: Number of keypoints.
        height, width: Size of the image, px.
        source: Path or URL that it was read from, without credentials.
    """

    name: str
    keypoints: int
    height: int
    width: int
    source: str


class FailureRow(NamedTuple):
    """An image without features, and why.

    Attributes:
        name: Name of the image.
        reason: What went wrong and what to do.
        is_temporary: Whether the next run tries it again without being asked to.
    """

    name: str
    reason: str
    is_temporary: bool


@dataclass(frozen=True)
class Manifest:
    """What all shards of a store have in common.

    Attributes:
        shards: Number of shards into which names are hashed.
        format: Format of the files.
        half: Whether descriptors are float16.
        masks: Folder of the masks, or None.
        provenance: Weights and settings.
    """

    shards: int
    format: ShardFormat
    half: bool
    masks: str | None
    provenance: Provenance

    def differences(self, other: Manifest) -> list[str]:
        """Settings that differ, as "name: this value instead of the other's"."""
        names = [
            (name, getattr(self, name), getattr(other, name))
            for name in ("shards", "format", "half", "masks")
            if getattr(self, name) != getattr(other, name)
        ]
        names += [
            (name, self.provenance.entry(name), other.provenance.entry(name))
            for name in self.provenance.differences(other.provenance)
        ]
        return [f"{name} {mine!r} instead of {theirs!r}" for name, mine, theirs in names]

    @property
    def identity(self) -> str:
        """SHA-256 of everything that changes features; records state it."""
        provenance = self.to_json()["provenance"]
        for name in ("engine", "device", "tiepoint_version", "revision", "rotation_crc32"):
            del provenance[name]
        text = json.dumps({**self.to_json(), "provenance": provenance}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        head = {"kind": _KIND, "version": _VERSION, "convention": fields.CONVENTION}
        return {**head, **asdict(self), "provenance": fields.as_json(self.provenance.to_json())}


@dataclass(frozen=True)
class ShardRecord:
    """What a shard holds, and what it lacks.

    Attributes:
        shard: Name of the shard, "00012" or "tar-<hash>".
        store: Identity of the manifest that it was made for.
        source: What the shard was made from: digest of the names, or size and time of the tar.
        images: Images in the order of the file.
        failures: Images without features.
        file_bytes: Size of the file; 0 if there is none, because no image has features.
        started: Time, ISO 8601 in UTC.
        seconds: Time that the shard took, s.
    """

    shard: str
    store: str
    source: Mapping[str, Any]
    images: tuple[ImageRow, ...] = ()
    failures: tuple[FailureRow, ...] = ()
    file_bytes: int = 0
    started: str = ""
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON, with the counts first."""
        counts = {
            "shard": self.shard,
            "images_done": len(self.images),
            "images_failed": len(self.failures),
            "keypoints": sum(row.keypoints for row in self.images),
        }
        return {**counts, **vars(self)}


def is_store(path: str | PathLike[str]) -> bool:
    """Whether a path is a folder with the manifest of a store."""
    return is_folder(path) and is_file(Path(path) / MANIFEST)


def shard_path(folder: Path, shard: str, layout: ShardFormat) -> Path:
    """The file of a shard."""
    return folder / f"{shard}.{layout}"


def read_manifest(folder: str | PathLike[str]) -> Manifest:
    """The manifest of a store.

    Raises:
        FormatError: None there, a damaged one, or one of another program.
    """
    path = Path(folder) / MANIFEST
    with fields.as_damaged(str(path), (ValueError, TypeError, KeyError, ConfigError)):
        held = read_json(path)
        if not isinstance(held, dict) or held.get("kind") != _KIND:
            raise FormatError(f"{path}: not the manifest of a store that tiepoint wrote")
        if held["version"] != _VERSION:
            raise FormatError(f"{path}: version {held['version']}, expected {_VERSION}")
        fields.check_convention(held["convention"], str(path))
        shards, layout, half, masks = (held[k] for k in ("shards", "format", "half", "masks"))
        if type(shards) is not int or not 1 <= shards <= MOST_SHARDS:
            raise ValueError(f"shards is {shards!r}")
        if layout not in get_args(ShardFormat) or type(half) is not bool:
            raise ValueError(f"format is {layout!r}, half is {half!r}")
        if not isinstance(masks, str | None):
            raise ValueError(f"masks is {masks!r}")
        return Manifest(shards, layout, half, masks, Provenance.from_json(held["provenance"]))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a store.

    Raises:
        OutputError: It cannot be written.
    """
    text = json.dumps(manifest.to_json(), indent=2) + "\n"
    write_bytes(folder / MANIFEST, text.encode(), durable=True)


def read_record(folder: Path, shard: str) -> ShardRecord | None:
    """The record of a shard; None without one.

    Raises:
        DamagedError: Not a whole one.
        FormatError: It cannot be read.
    """
    path = folder / f"{shard}.json"
    broken = (ValueError, TypeError, KeyError)
    try:
        with fields.as_damaged(str(path), broken):
            held = read_json(path, most_bytes=_MOST_RECORD_BYTES)
            return _record_from(held, shard)
    except FormatError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def write_record(folder: Path, record: ShardRecord) -> None:
    """Write the record of a shard, which thereby counts as made.

    Raises:
        OutputError: It cannot be written.
    """
    text = json.dumps(record.to_json(), separators=(",", ":")) + "\n"
    write_bytes(folder / f"{record.shard}.json", text.encode(), durable=True)


def record_names(folder: Path) -> list[str]:
    """The names of the shards that have a record, sorted.

    Raises:
        FormatError: The folder cannot be read.
    """
    with fields.as_damaged(str(folder), ()):
        return sorted(path.stem for path in folder.iterdir() if _RECORD.fullmatch(path.name))


def records(folder: Path, identity: str) -> Iterator[ShardRecord]:
    """The records of a store's shards, sorted by name; those of other settings are left out.

    Raises:
        FormatError: One cannot be read.
    """
    for name in record_names(folder):
        record = read_record(folder, name)
        if record is not None and record.store == identity:
            yield record


class StoreFeatures(Mapping[str, Features]):
    """The images of a store by name, sorted within each folder; each is read when it is asked for.

    Attributes:
        path: Folder of the store.
        manifest: Its manifest.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        self.manifest = read_manifest(path)
        shard_files.load_library(self.manifest.format)
        self._shards: list[str] = []
        self._places: dict[str, int] = {}  # name -> shard and row in one number, to save memory
        twice = 0
        for record in records(self.path, self.manifest.identity):
            shard = len(self._shards) << _ROW_BITS
            self._shards.append(record.shard)
            for number, row in enumerate(record.images):
                twice += self._places.setdefault(row.name, shard + number) != shard + number
        if twice:
            _log.warning(
                "%s: %d names are in two shards, the first is read; was it made from several "
                "sources one by one? Give them in one command", path, twice,
            )  # fmt: skip
        names = sorted(self._places, key=in_folders)
        self._places = {name: self._places[name] for name in names}
        if not self._places:
            raise FormatError(f"{path}: no image has features yet; run tiepoint detect first")

    def __getitem__(self, name: str) -> Features:
        place = self._places[name]
        shard, row = self._shards[place >> _ROW_BITS], place & ((1 << _ROW_BITS) - 1)
        layout = self.manifest.format
        return shard_files.read_image(shard_path(self.path, shard, layout), layout, name, row)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}, {len(self)} images)"


def in_folders(name: str) -> str:
    """Key by which image names are sorted as in an HDF5 file, folder by folder."""
    return name.replace("/", "\0")


def _record_from(held: Any, shard: str) -> ShardRecord:
    if not isinstance(held, dict) or held["shard"] != shard or not isinstance(held["store"], str):
        raise ValueError(f"no record of shard {shard}")
    images = tuple(ImageRow(*row) for row in held["images"])
    for row in images:
        texts, numbers = (row.name, row.source), (row.keypoints, row.height, row.width)
        if any(type(one) is not str for one in texts) or any(
            type(number) is not int or number < 0 for number in numbers
        ):
            raise ValueError(f"an image is {row!r}")
    failures = tuple(FailureRow(*row) for row in held["failures"])
    for failure in failures:
        kinds = tuple(type(value) for value in failure)
        if kinds != (str, str, bool):
            raise ValueError(f"a failure is {failure!r}")
    file_bytes, seconds, started = held["file_bytes"], held["seconds"], held["started"]
    if type(file_bytes) is not int or not isinstance(held["source"], dict):
        raise ValueError(f"file_bytes is {file_bytes!r}")
    record = ShardRecord(shard, held["store"], held["source"], images, failures, file_bytes)
    return replace(record, started=str(started), seconds=float(seconds))
