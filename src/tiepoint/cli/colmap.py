"""`tiepoint colmap`: a folder of images -> COLMAP's database, and a reconstruction."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import typer

from tiepoint.cli import exit_codes, options
from tiepoint.cli.output import show
from tiepoint.cli.pairs import checked_choice, choose
from tiepoint.cli.report import complain, image_report, stop, two_view_report
from tiepoint.config import DetectionOptions, DeviceName, MatchingOptions, PairConfig
from tiepoint.config import MatchingConfig as MatchingSettings
from tiepoint.errors import ConfigError, FormatError, OutputError

if TYPE_CHECKING:
    from tiepoint.batch import ImageRecord, Input, Unreadable
    from tiepoint.batch.colmap import CameraConfig, ColmapStore
    from tiepoint.detector import Detector
    from tiepoint.features import Features
    from tiepoint.formats.colmap import ColmapDatabase
    from tiepoint.matching.learned.matcher import LearnedMatcher

app = typer.Typer(add_completion=False, rich_markup_mode=None)

ENDING = ".db"


class _ToStore(Protocol):
    """Stores the features of images, and gives a record for each."""

    def __call__(
        self, inputs: Sequence[Input | Unreadable], store: ColmapStore, *, overwrite: bool
    ) -> Iterator[ImageRecord]: ...


Images = Annotated[
    Path, typer.Argument(metavar="IMAGES", help="Folder of the images, searched recursively.")
]
Out = Annotated[
    Path,
    typer.Option("--out", "-o", metavar="FILE.db", help="Database to write or to extend."),
]
Masks = Annotated[
    Path | None,
    typer.Option(
        "--masks",
        metavar="DIR",
        help="Folder of masks; black and transparent pixels get no keypoints. The mask of a/b.jpg "
        "is a/b.jpg.png.",
    ),
]
FeaturesPath = Annotated[
    Path | None,
    typer.Option(
        "--features",
        metavar="PATH",
        help="Take the features of this store, .h5 file or folder of features files, and detect "
        "nothing.",
    ),
]
CameraModel = Annotated[
    Literal["SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "OPENCV_FISHEYE"],
    typer.Option("--camera-model", help="Camera model of images that the database does not have."),
]
Cameras = Annotated[
    Literal["folder", "image"],
    typer.Option(
        "--cameras",
        help="One camera for the images of a folder with equal size and focal length, or one for "
        "each image.",
    ),
]
CameraParams = Annotated[
    str | None,
    typer.Option(
        "--camera-params",
        metavar="P,P,...",
        help="Parameters of all cameras in COLMAP's order and px, such as f,cx,cy,k.",
        show_default="focal length of the EXIF block, or 1.2 times the longer side",
    ),
]
Reconstruct = Annotated[
    Path | None,
    typer.Option(
        "--reconstruct",
        metavar="DIR",
        help="Then estimate cameras and points with pycolmap, into this new folder.",
    ),
]
MatchingDevice = Annotated[
    DeviceName,
    typer.Option(metavar="NAME", parser=str, help="Device for matching: cpu, cuda or cuda:N."),
]
Pairing = Annotated[dict[str, Any], options.Settings(PairConfig)]
Matching = Annotated[MatchingOptions, options.Settings(MatchingSettings)]
Detection = Annotated[DetectionOptions, options.detection(*options.OF_KEYPOINTS)]


@options.command(
    app,
    "tiepoint colmap photos -o database.db",
    "tiepoint colmap photos -o database.db --pairs sequential --window 5 --cameras image",
    "tiepoint colmap photos -o database.db --masks masks --reconstruct sparse",
)
def colmap(
    images: Images,
    *,
    out: Out,
    masks: Masks = None,
    features: FeaturesPath = None,
    pairing: Pairing,
    camera_model: CameraModel = "SIMPLE_RADIAL",
    cameras: Cameras = "folder",
    camera_params: CameraParams = None,
    reconstruct: Reconstruct = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    matching: Matching,
    matcher: options.Matcher = None,
    matching_device: MatchingDevice = "cpu",
    checkpoint: options.Checkpoint = options.CHECKPOINT,
    detection: Detection,
    engine: options.Engine = options.AUTO,
    device: options.Device = options.AUTO,
    precision: options.Precision = options.AUTO,
    threads: options.Threads = None,
    compiled: options.Compile = False,
) -> None:
    """Write keypoints and verified matches of a folder of images to COLMAP's database.

    An existing database is extended: images are found by name and keep their cameras. Nearest
    neighbours pass a ratio test of 0.9 unless --ratio is given; '--ratio none' omits it. A stopped
    run resumes with the same command. Exit status: 0 all done, 1 some images or pairs failed or
    no model, 2 wrong usage, 3 nothing readable, 130 interrupted.
    """
    from tiepoint.batch.colmap import ColmapStore, check_folder, matcher_of_run
    from tiepoint.matching.match import check_device

    check_folder(images)
    options.check_file("-o", out, [ENDING], overwrite=True)
    check_device(matching_device)
    _check_reconstruct(reconstruct)
    choice, config = checked_choice(PairConfig(**pairing)), _matching_config(matching)
    camera_config = _camera_config(camera_model, cameras, camera_params)
    images_to, made_by = _way_to_store(
        features, masks, checkpoint, engine=engine, device=device, precision=precision,
        threads=threads, compiled=compiled, **detection,
    )  # fmt: skip
    learned = matcher_of_run(config, made_by, matcher, device=matching_device, threads=threads)
    database = _open(out, camera_config)
    try:
        store = ColmapStore(database, images, camera_config)
        code = _store_images(store, images_to, overwrite=overwrite, as_json=as_json)
        matched = _match(
            database, images, choice, config, matching_device, learned,
            overwrite=overwrite, as_json=as_json, threads=threads,
        )  # fmt: skip
        database.close()
    finally:
        database.suspend()  # an interrupted run resumes from the partial file
    if reconstruct is not None:
        matched = max(matched, _reconstruct(out, images, reconstruct, as_json=as_json))
    raise typer.Exit(max(code, matched))


def _check_reconstruct(folder: Path | None) -> None:
    """Refuse a folder with files, and a missing pycolmap, before any work."""
    if folder is None:
        return
    from tiepoint.batch import reconstruction

    reconstruction.check_folder(folder)
    reconstruction.load_pycolmap()


def _matching_config(given: MatchingOptions) -> MatchingSettings:
    """The settings of the matches, with the ratio test that reconstruction needs."""
    from tiepoint.batch.colmap import MATCHING

    if given.get("scores") == "dual-softmax" or given.get("method") == "learned":
        # Both compare all neighbours themselves.
        return MatchingSettings(**given)
    return MatchingSettings(**{"ratio": MATCHING.ratio, **given})  # type: ignore[arg-type]


def _camera_config(
    model: str, sharing: Literal["folder", "image"], params: str | None
) -> CameraConfig:
    from tiepoint.batch.colmap import CameraConfig

    try:
        numbers = () if params is None else tuple(float(part) for part in params.split(","))
    except ValueError as error:
        raise ConfigError(
            f"--camera-params is {params!r}, expected numbers separated by commas"
        ) from error
    try:
        return CameraConfig(model, sharing, numbers)
    except ConfigError as error:
        raise ConfigError(str(error).replace("camera_params", "--camera-params")) from error


def _open(out: Path, cameras: CameraConfig) -> ColmapDatabase:
    from tiepoint.files.writing import make_folder
    from tiepoint.formats.colmap import ColmapDatabase

    make_folder(out.parent, advice="choose another folder with -o")
    try:
        return ColmapDatabase(out, share_cameras=cameras.sharing == "folder")
    except OutputError as error:  # most often another run, or a program that holds it
        stop(str(error), exit_codes.FAILED)


def _from_features(path: Path, masks: Path | None) -> tuple[_ToStore, Features | None]:
    """The way from stored features to the database; exits if they cannot be read."""
    from tiepoint.batch.stored import store_images
    from tiepoint.formats.many_images import read_features

    if masks is not None:
        raise ConfigError("--masks is for detection: drop it, or --features")
    try:
        features = read_features(path)
    except FormatError as error:
        stop(str(error), exit_codes.NOTHING_READABLE)

    def records(
        inputs: Sequence[Input | Unreadable], store: ColmapStore, *, overwrite: bool
    ) -> Iterator[ImageRecord]:
        return store_images(inputs, features, store, overwrite=overwrite)

    return records, next(iter(features.values()), None)


def _way_to_store(
    features: Path | None, masks: Path | None, checkpoint: str, **options: Any
) -> tuple[_ToStore, Detector | Features | None]:
    """The way from images, or from stored features, to the database, and what names the weights."""
    if features is not None:
        return _from_features(features, masks)
    from tiepoint.batch.colmap import detect_images
    from tiepoint.detector import Detector
    from tiepoint.images.masks import MaskFolder

    mask_folder = None if masks is None else MaskFolder(masks)
    detector = Detector(checkpoint, **options)

    def records(
        inputs: Sequence[Input | Unreadable], store: ColmapStore, *, overwrite: bool
    ) -> Iterator[ImageRecord]:
        return detect_images(inputs, detector, store, overwrite=overwrite, masks=mask_folder)

    return records, detector


def _store_images(
    store: ColmapStore, images_to: _ToStore, *, overwrite: bool, as_json: bool
) -> int:
    """Store the features of all images of the folder; returns the exit code.

    It exits without any image.
    """
    from collections import Counter

    from tiepoint.batch import expand
    from tiepoint.batch.colmap import check_sizes
    from tiepoint.batch.ignored import sentence

    ignored: Counter[str] = Counter()
    inputs = list(expand([str(store.folder)], ignored=ignored))
    if not inputs:
        notes = [f"no image found in {store.folder}", sentence(ignored)]
        stop("; ".join(filter(None, notes)), exit_codes.NOTHING_READABLE)
    check_sizes(inputs, store.database)
    with image_report(as_json=as_json, count=lambda: len(inputs), ignored=ignored) as report:
        report.follow(images_to(inputs, store, overwrite=overwrite))
    if report.was_stopped or report.exit_code == exit_codes.NOTHING_READABLE:
        raise typer.Exit(report.exit_code)
    return report.exit_code


def _match(
    database: ColmapDatabase,
    images: Path,
    choice: PairConfig,
    config: MatchingSettings,
    device: DeviceName,
    matcher: LearnedMatcher | None,
    *,
    overwrite: bool,
    as_json: bool,
    threads: int | None,
) -> int:
    """Match and verify pairs of the images that have features; returns the exit code."""
    from tiepoint.batch.colmap import DatabaseFeatures, match_images

    features = DatabaseFeatures(database)
    pairs = choose(features, choice, images, threads)
    if not pairs:
        complain(f"no pair to match in {len(features)} images")
        return exit_codes.DONE
    with two_view_report(as_json=as_json, count=lambda: len(pairs)) as report:
        records = match_images(
            database, pairs, config,
            device=device, matcher=matcher, overwrite=overwrite, threads=threads,
        )  # fmt: skip
        report.follow(records)
    if report.was_stopped:
        raise typer.Exit(report.exit_code)
    return min(report.exit_code, exit_codes.FAILED)


def _reconstruct(out: Path, images: Path, folder: Path, *, as_json: bool) -> int:
    """Reconstruct with pycolmap and print the models; returns the exit code."""
    from tiepoint.batch.reconstruction import reconstruct

    try:
        models = reconstruct(out, images, folder)
    except (FormatError, OutputError) as error:
        stop(str(error), exit_codes.FAILED)
    if not models:
        complain("no two images could start a model: they show too little in common")
        return exit_codes.FAILED
    for model in models:
        if as_json:
            typer.echo(json.dumps(vars(model), default=str))
            continue
        show(
            f"{model.folder}: {model.images} images registered, {model.points} points, mean "
            f"reprojection error {model.reprojection_px:.3f} px, mean track length "
            f"{model.track_length:.2f}"
        )
    return exit_codes.DONE
