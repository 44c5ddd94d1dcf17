"""Images -> COLMAP's database: detect, match, verify; resumable like `run` and `match_pairs`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal, Unpack, get_args

import numpy as np

from tiepoint.batch.colmap_pairs import NAMES, VerifiedMatches
from tiepoint.batch.inputs import Input, Unreadable, expand
from tiepoint.batch.pair_choice import Means, choose_pairs
from tiepoint.batch.pairs import match_pairs
from tiepoint.batch.records import ImageRecord, TwoViewRecord
from tiepoint.batch.run import run
from tiepoint.batch.stores import Store
from tiepoint.checks import check_choice
from tiepoint.config import DeviceName, MatchingConfig, PairConfig
from tiepoint.errors import ConfigError, ImageError
from tiepoint.features import Features
from tiepoint.files.paths import is_folder
from tiepoint.formats import Summary, colmap_tables
from tiepoint.formats.colmap import ColmapDatabase, orientation_of
from tiepoint.formats.colmap_tables import Camera, camera_of, check_params
from tiepoint.images.lens import read_lens
from tiepoint.images.masks import MaskFolder
from tiepoint.matching.learned.choice import (
    MatcherSource,
    checked_matcher,
    matcher_for,
    matcher_of,
)
from tiepoint.matching.learned.matcher import LearnedMatcher

if TYPE_CHECKING:
    from tiepoint.config import DetectionOptions
    from tiepoint.detector import Detector

CameraSharing = Literal["folder", "image"]
"""Which images share a camera."""

MATCHING = MatchingConfig(ratio=0.9)
"""Default for reconstruction. Without a ratio test, matches between repeated structures agree over
many images and bend a model (benchmarks/reconstruction.py, entry-P10)."""


@dataclass(frozen=True)
class CameraConfig:
    """Cameras of the images that the database does not have yet.

    Attributes:
        model: COLMAP's name of the camera model, one of `colmap_tables.MODELS`.
        sharing: "folder": one camera for the images of a folder with equal size and focal length;
            "image": one for each image.
        params: Parameters of all cameras in COLMAP's order and px; empty takes the focal length
            of the EXIF block, or 1.2 times the longer side.
    """

    model: str = "SIMPLE_RADIAL"
    sharing: CameraSharing = "folder"
    params: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.params, Sequence | np.ndarray):
            object.__setattr__(self, "params", tuple(self.params))
        check_choice("cameras", self.sharing, get_args(CameraSharing))
        check_params(self.model, self.params)

    def camera(self, source: Path, stored_hw: tuple[int, int]) -> Camera:
        """The camera of an image file with this size, before its EXIF orientation.

        Raises:
            ImageError: The header cannot be read.
        """
        size_wh = stored_hw[1], stored_hw[0]
        if self.params:
            number = colmap_tables.MODELS[self.model][0]
            return Camera(number, size_wh, self.params, has_prior_focal=True)
        return camera_of(self.model, size_wh, read_lens(source).focal_px)


@dataclass(frozen=True)
class ColmapStore(Store):
    """Features in COLMAP's database, without overlays.

    Attributes:
        database: The database. The caller suspends it if the run does not reach its end.
        folder: Folder of the images; names are relative to it.
        cameras: Cameras of new images.
    """

    database: ColmapDatabase
    folder: Path
    cameras: CameraConfig

    def path(self, name: PurePosixPath) -> Path:
        return self.database.path

    def label(self, name: PurePosixPath) -> str:
        return f"{self.database.path}: {name}"

    def exists(self, name: PurePosixPath) -> bool:
        return self.database.has_keypoints(str(name))

    def is_remnant(self, name: PurePosixPath) -> bool:
        return False  # transactions leave none

    def summarise(self, name: PurePosixPath) -> Summary:
        return self.database.summarise(str(name))

    def load(self, name: PurePosixPath) -> Features:
        return self.database.read(str(name))

    def save(self, name: PurePosixPath, features: Features) -> None:
        source = self.folder.joinpath(*name.parts)
        orientation = features.meta.get("exif_orientation", 1)
        stored_hw = colmap_tables.turned(features.size_hw, orientation)
        self.database.add(str(name), features, self.cameras.camera(source, stored_hw))


def detect_images(
    inputs: Iterable[Input | Unreadable],
    detector: Detector,
    store: ColmapStore,
    *,
    overwrite: bool = False,
    masks: MaskFolder | None = None,
    **options: Unpack[DetectionOptions],
) -> Iterator[ImageRecord]:
    """Detect keypoints in images and store them in the database; see `run`.

    Raises:
        FormatError: The database has other images under these names.
        OutputError: It cannot be written, or another program holds it.
    """
    items = list(inputs)
    check_sizes(items, store.database)
    yield from run(items, detector, store, overwrite=overwrite, masks=masks, **options)


def check_sizes(inputs: Iterable[Input | Unreadable], database: ColmapDatabase) -> None:
    """Refuse a database whose images of the same names have other sizes, before any work.

    Raises:
        FormatError: The first such image. Images that cannot be read are left to the run.
    """
    known = set(database.names())
    for item in inputs:
        name = str(item.name) if isinstance(item, Input) else ""
        camera = database.camera(name) if name in known else None
        if camera is None:
            continue
        try:
            width, height = read_lens(item.source).size_wh
        except ImageError:
            continue
        if sorted(camera.size_wh) != sorted((width, height)):  # Pillow may have turned it
            database.check_size(name, camera, (height, width))


class DatabaseFeatures(Mapping[str, Features]):
    """Name -> features of the images in a database, in px of the upright images.

    A learned matcher compares positions too, and descriptors are those of the upright image.
    """

    def __init__(self, database: ColmapDatabase) -> None:
        self._database = database
        self._names = dict.fromkeys(database.names_with_features())

    def __getitem__(self, name: str) -> Features:
        if name not in self._names:
            raise KeyError(name)
        features = self._database.read(name)
        return colmap_tables.upright(features, orientation_of(features.meta))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def match_images(
    database: ColmapDatabase,
    pairs: Iterable[tuple[str, str]],
    config: MatchingConfig | None = None,
    *,
    device: DeviceName = "cpu",
    matcher: MatcherSource = None,
    overwrite: bool = False,
    threads: int | None = None,
) -> Iterator[TwoViewRecord]:
    """Match pairs of images in the database and verify their geometry; see `match_pairs`.

    Args:
        pairs: Names of two images each.
        config: Settings of the matches; None takes `MATCHING`.
        device, matcher: As for `tiepoint.match`.
        threads: Number of pairs matched at a time; None takes one per core.

    Raises:
        OutputError: The database cannot be written, or another program holds it.
    """
    features, store = DatabaseFeatures(database), VerifiedMatches(database)
    ordered = ((min(names), max(names)) for names in pairs)
    settings = config or MATCHING
    for record in match_pairs(
        features, ordered, store, settings,
        device=device, matcher=matcher, overwrite=overwrite, threads=threads, examine=store.examine,
    ):  # fmt: skip
        inliers = geometry = None
        if record.status in ("done", "skipped"):
            known = database.geometry(record.image_a, record.image_b)
            if known is not None:
                geometry, inliers = NAMES.get(known[0], str(known[0])), known[1]
        yield TwoViewRecord(**vars(record), inliers=inliers, geometry=geometry)


def export_colmap(
    images: str | Path,
    path: str | Path,
    *,
    detector: Detector | None = None,
    masks: str | Path | None = None,
    pairs: PairConfig | None = None,
    matching: MatchingConfig | None = None,
    matcher: MatcherSource = None,
    cameras: CameraConfig | None = None,
    overwrite: bool = False,
    **options: Unpack[DetectionOptions],
) -> list[ImageRecord | TwoViewRecord]:
    """Write the keypoints and verified matches of a folder of images to COLMAP's database.

    Args:
        images: Folder of the images, with all below it.
        path: The database. An existing one is extended: images are found by name and keep their
            cameras, results of the same settings are skipped.
        detector: Detector of all images; None takes `Detector()`.
        masks: Folder of masks, named as COLMAP's; see `MaskFolder`.
        pairs: Pairs to match; None matches all.
        matching: Settings of the matches; None takes `MATCHING`.
        matcher: Learned matcher, for `MatchingConfig(method="learned")`; as for `tiepoint.match`.
        cameras: Cameras of new images.
        overwrite: Replace keypoints and matches of other settings and other programs.
        options: Detection settings, which replace those of the detector.

    Returns:
        A record for each image and each pair. Check their `status`: one bad image harms no other.

    Raises:
        ConfigError: No such folder, or a setting out of range.
        FormatError: A file that is no database of COLMAP's, or has other images of these names.
        OutputError: It cannot be written, another run is writing it, or another program holds it.
    """
    check_folder(images)
    if detector is None:
        from tiepoint.detector import Detector

        detector = Detector()
    matcher = matcher_of_run(matching or MATCHING, detector, matcher)
    cameras = cameras or CameraConfig()
    folder = None if masks is None else MaskFolder(Path(masks))
    database = ColmapDatabase(path, share_cameras=cameras.sharing == "folder")
    try:
        store = ColmapStore(database, Path(images), cameras)
        records: list[ImageRecord | TwoViewRecord] = [
            *detect_images(
                expand([str(images)]), detector, store,
                overwrite=overwrite, masks=folder, **options,
            )
        ]  # fmt: skip
        means = Means(images=Path(images))
        chosen = choose_pairs(DatabaseFeatures(database), pairs or PairConfig(), means=means)
        records += match_images(database, chosen, matching, matcher=matcher, overwrite=overwrite)
        database.close()
    finally:
        database.suspend()
    return records


def matcher_of_run(
    config: MatchingConfig,
    made_by: Detector | Features | None,
    matcher: MatcherSource = None,
    *,
    device: DeviceName = "cpu",
    threads: int | None = None,
) -> LearnedMatcher | None:
    """The learned matcher of a run, before any work; None for nearest neighbours.

    Args:
        made_by: The detector of the run, or features of its weights; None if there are none.

    Raises:
        ConfigError: A matcher for another method or of other weights, or none is found.
        CheckpointError: No such matcher, or a damaged one.
    """
    layers = config.layers
    given = checked_matcher(config.method, matcher, layers=layers, device=device, threads=threads)
    if config.method != "learned" or made_by is None:
        return given
    if isinstance(made_by, Features):
        return matcher_for(made_by, made_by, given, layers=layers, device=device, threads=threads)
    return matcher_of(made_by.checkpoint, given, layers=layers, device=device, threads=threads)


def check_folder(images: str | Path) -> None:
    """Raise ConfigError unless the images are given as one folder, as COLMAP has them."""
    if not is_folder(images):
        raise ConfigError(
            f"{images}: expected the folder of the images, because COLMAP finds them by their path "
            "below one folder"
        )
