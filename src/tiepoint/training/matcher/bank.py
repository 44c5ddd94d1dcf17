"""The bank: features of generated scenes on disk, drawn once and used for all pairs.

`bank.json` counts the shards. A shard is written whole and then counted, so a killed run resumes at
the next one. Nothing in the folder is executed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiepoint.checks import check_whole, check_within, shown
from tiepoint.errors import ConfigError, FormatError, TrainingError
from tiepoint.files.paths import is_file
from tiepoint.files.reading import read_json
from tiepoint.files.writing import make_folder, remove_stale, write_bytes
from tiepoint.images.photographs import list_photos
from tiepoint.training.matcher.drawing import SceneFeatures
from tiepoint.training.matcher.settings import VIEWS, MatcherData
from tiepoint.training.matcher.workers import Drawing, drawn_scenes
from tiepoint.training.schedule import with_tuples
from tiepoint.weights.checkpoint import Checkpoint

RECORD_FILE = "bank.json"
SHARD_FILES, HELD_OUT_FILE = "scenes-{number:05d}.safetensors", "held-out.safetensors"
BANK_VERSION = 1
SHARD_SCENES = 64
"""Scenes per shard: a minute's work."""
HELD_OUT_SEED = 1 << 40
"""Added to the seed of the scenes that are not trained on."""

PER_KEYPOINT = ("xy", "descriptors", "elsewhere", "doubtful")
PER_SCENE = ("counts", "size_hw", "cameras", "focal")


@dataclass(frozen=True)
class BankRecord:
    """`bank.json`.

    Attributes:
        key: What decides the features: weights, settings, data, seed.
        shards, scenes: Number of shards that are complete, and of scenes in them.
        held_out: Whether the held-out scenes are complete.
        seconds: Time spent.
    """

    key: dict[str, Any]
    shards: int = 0
    scenes: int = 0
    held_out: bool = False
    seconds: float = 0.0


class BankBuilder:
    """Fills the bank in a folder, from where it was stopped.

    Args:
        folder: Folder of the bank; created if missing.
        checkpoint: Detector.
        scenes, held_out: Numbers of scenes to train on and of others.
        device: See `workers.Drawing`.

    Raises:
        TrainingError: The folder has a bank of other weights or settings, or a damaged one.
    """

    def __init__(
        self,
        folder: Path,
        checkpoint: Checkpoint,
        data: MatcherData,
        seed: int,
        scenes: int,
        held_out: int,
        device: str | None = None,
    ) -> None:
        self.folder, self.scenes, self._held_out = folder, scenes, held_out
        self._drawing = Drawing(checkpoint, data, seed, device)
        key = bank_key(checkpoint, data, seed, held_out)
        self.record = read_record(folder) or BankRecord(key)
        if differing := [name for name in key if self.record.key.get(name) != key[name]]:
            raise TrainingError(
                f"{folder}: has features of another run, {', '.join(differing)} differ; give "
                "another folder, or the checkpoint, --photos and --seed of that run"
            )

    @property
    def counted(self) -> int:
        """Number of scenes that are complete."""
        return self.record.scenes

    def fill(
        self,
        *,
        seconds: float | None,
        workers: int,
        stop: Event,
        echo: Callable[[str], None] = print,
    ) -> bool:
        """Draw the missing shards; False if `stop` was set before the end.

        Args:
            seconds: Budget, including time spent before; at least one shard is drawn. None has no
                limit but the number of scenes.
        """
        make_folder(self.folder)
        remove_stale(self.folder)
        if not self.record.held_out:
            drawing = self._drawing
            drawing = replace(
                drawing, data=_held_out_data(drawing.data), seed=drawing.seed + HELD_OUT_SEED
            )
            with closing(drawn_scenes(drawing, range(self._held_out), workers, stop)) as scenes:
                if not self._shard(scenes, self._held_out, None):
                    return False
            echo(f"features: {self._held_out} held-out scenes")
        left = range(self.counted, self.scenes)
        with closing(drawn_scenes(self._drawing, left, workers, stop)) as scenes:
            while self.counted < self.scenes:
                if seconds is not None and self.record.shards and self.record.seconds >= seconds:
                    break
                count = min(SHARD_SCENES, self.scenes - self.counted)
                if not self._shard(scenes, count, self.record.shards):
                    return False
                rate = self.counted / max(self.record.seconds, 1e-9)
                echo(f"features: {self.counted} of at most {self.scenes} scenes, {rate:.2f} per s")
        return True

    def _shard(self, scenes: Iterator[SceneFeatures], count: int, number: int | None) -> bool:
        """Draw, write and count one shard; None is that of the held-out scenes."""
        start = time.monotonic()
        drawn = list(islice(scenes, count))
        if len(drawn) < count:
            return False
        name = HELD_OUT_FILE if number is None else SHARD_FILES.format(number=number)
        write_shard(self.folder / name, drawn)
        record = replace(self.record, seconds=self.record.seconds + time.monotonic() - start)
        if number is None:
            self.record = replace(record, held_out=True)
        else:
            self.record = replace(record, shards=number + 1, scenes=record.scenes + count)
        contents = {"version": BANK_VERSION, **asdict(self.record)}
        write_bytes(self.folder / RECORD_FILE, (json.dumps(contents, indent=1) + "\n").encode())
        return True


def bank_key(checkpoint: Checkpoint, data: MatcherData, seed: int, held_out: int) -> dict[str, Any]:
    """What decides the features of a bank, as JSON has it."""
    key = {
        "checkpoint_sha256": checkpoint.sha256,
        "detection": asdict(checkpoint.detection),
        "data": asdict(data),
        "seed": seed,
        "held_out_scenes": held_out,
    }
    plain: dict[str, Any] = json.loads(json.dumps(key))
    return plain


def read_record(folder: Path) -> BankRecord | None:
    """The record of a bank; None without one.

    Raises:
        TrainingError: A damaged record, or one of another version.
    """
    path = folder / RECORD_FILE
    if not is_file(path):
        return None
    try:
        values = read_json(path)
        if values.pop("version") != BANK_VERSION:
            raise ValueError(f"another version than {BANK_VERSION}")
        record = BankRecord(**values)
        for name in ("shards", "scenes"):
            check_whole(name, getattr(record, name), minimum=0, maximum=10**9, unit="a count")
        check_within("seconds", record.seconds, 0, 1e12, "seconds")
        if not isinstance(record.key, dict) or not isinstance(record.held_out, bool):
            raise TypeError(f"key is {shown(record.key)}")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ConfigError) as error:
        raise TrainingError(
            f"{path}: not the record of a bank ({error}); delete the folder to draw it again"
        ) from error
    return record


def data_of(record: BankRecord) -> MatcherData:
    """The data of a bank."""
    return MatcherData.from_json(with_tuples(record.key["data"]))


def write_shard(path: Path, scenes: Sequence[SceneFeatures]) -> None:
    """Write scenes as one safetensors file, whole or not at all; raises OutputError."""
    from safetensors.numpy import save

    arrays: dict[str, NDArray[Any]] = {
        name: np.concatenate([getattr(scene, name) for scene in scenes]) for name in PER_KEYPOINT
    }
    arrays["doubtful"] = arrays["doubtful"].astype(np.uint8)
    arrays |= {name: np.stack([getattr(scene, name) for scene in scenes]) for name in PER_SCENE}
    write_bytes(path, save(arrays))


class Shard:
    """A shard, mapped into memory: only what is used is read.

    Raises:
        TrainingError: A damaged file, or arrays that do not fit one another.
    """

    def __init__(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        try:
            self._file: Any = safe_open(path, framework="numpy")
            file = self._file
            self.counts, self.size_hw, self.cameras, self.focal = map(file.get_tensor, PER_SCENE)
            self._slices = dict(zip(PER_KEYPOINT, map(file.get_slice, PER_KEYPOINT), strict=True))
            self._check()
        except (SafetensorError, OSError, ValueError, TypeError, AttributeError) as error:
            raise TrainingError(
                f"{path}: not a whole shard of features ({error}); delete the folder to draw it "
                "again"
            ) from error
        ends = self.counts.ravel().cumsum()
        self._ends = ends.reshape(-1, VIEWS)  # S V

    def __len__(self) -> int:
        return len(self.counts)

    def rows(self, name: str, scene: int, view: int) -> NDArray[Any]:
        """N values of one of `PER_KEYPOINT` for the keypoints of a view."""
        end = int(self._ends[scene, view])
        rows: NDArray[Any] = self._slices[name][end - int(self.counts[scene, view]) : end]
        return rows

    @property
    def size_bytes(self) -> int:
        """Size of the values of `PER_KEYPOINT`."""
        total, length = self._slices["descriptors"].get_shape()
        return int(total) * (2 * int(length) + 8 + 9 * VIEWS)

    def whole(self, name: str) -> NDArray[Any]:
        """The values of one of `PER_KEYPOINT` for all keypoints, scene by scene, view by view."""
        values: NDArray[Any] = self._file.get_tensor(name)
        return values

    def _check(self) -> None:
        scenes, total = len(self.counts), int(self.counts.sum())
        length = self._slices["descriptors"].get_shape()[-1]
        expected = {
            "counts": (scenes, VIEWS), "size_hw": (scenes, 2), "cameras": (scenes, VIEWS, 3, 4),
            "focal": (scenes, 1), "xy": (total, 2), "descriptors": (total, length),
            "elsewhere": (total, VIEWS, 2), "doubtful": (total, VIEWS),
        }  # fmt: skip
        for name, shape in expected.items():
            actual = tuple(self._file.get_slice(name).get_shape())
            if actual != shape:
                raise ValueError(f"{name} has shape {actual}, expected {shape}")
        if self.counts.min(initial=0) < 0 or self.size_hw.min(initial=1) < 1:
            raise ValueError("negative counts or sizes")


@dataclass(frozen=True, eq=False)
class BankView:
    """One view of a scene in the bank.

    Attributes:
        xy: N 2 float32, px.
        descriptors: N D float16.
        elsewhere: N V 2 float32, px; NaN where not visible.
        doubtful: N V bool.
        size_hw: (height, width), px.
    """

    xy: NDArray[np.float32]
    descriptors: NDArray[np.float16]
    elsewhere: NDArray[np.float32]
    doubtful: NDArray[np.bool_]
    size_hw: tuple[int, int]

    def __len__(self) -> int:
        return len(self.xy)


class Scenes:
    """The scenes of some shards, by number."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.shards = [Shard(path) for path in paths]
        self._first = np.cumsum([0, *(len(shard) for shard in self.shards)])

    def __len__(self) -> int:
        return int(self._first[-1])

    def view(self, scene: int, view: int) -> BankView:
        """A view of a scene."""
        shard, number = self._at(scene)
        xy, descriptors, elsewhere, doubtful = (
            shard.rows(name, number, view) for name in PER_KEYPOINT
        )
        height, width = (int(side) for side in shard.size_hw[number])
        return BankView(xy, descriptors, elsewhere, doubtful != 0, (height, width))

    def cameras(self, scene: int) -> tuple[NDArray[np.float64], float]:
        """`ViewGroup.cameras` and its focal length."""
        shard, number = self._at(scene)
        return shard.cameras[number], float(shard.focal[number, 0])

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self)))

    def _at(self, scene: int) -> tuple[Shard, int]:
        shard = int(np.searchsorted(self._first, scene, side="right")) - 1
        return self.shards[shard], scene - int(self._first[shard])


def open_scenes(folder: Path, shards: int) -> Scenes:
    """The scenes of the first shards of a bank; raises TrainingError as `Shard`."""
    return Scenes([folder / SHARD_FILES.format(number=number) for number in range(shards)])


def open_held_out(folder: Path) -> Scenes:
    """The held-out scenes of a bank; raises TrainingError as `Shard`."""
    return Scenes([folder / HELD_OUT_FILE])


def _held_out_data(data: MatcherData) -> MatcherData:
    """The data of held-out scenes: photographs of the development part, if there are any."""
    if data.part != "training":
        return data
    folders = []
    for folder in data.photos:
        try:
            list_photos(Path(folder), "development")
            folders.append(folder)
        except FormatError:  # a folder may have no such part
            continue
    return replace(data, photos=tuple(folders), part="development")
