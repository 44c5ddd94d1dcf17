"""`tiepoint detect`: arguments of the command line -> a run of `tiepoint.batch`."""

from __future__ import annotations

import codecs
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from tiepoint.cli import exit_codes, options, store, tiles
from tiepoint.cli.output import STDOUT, write_stdout
from tiepoint.cli.report import Report, image_report, stop
from tiepoint.config import DetectionOptions
from tiepoint.errors import ConfigError, OutputError
from tiepoint.files.paths import exists, is_folder

if TYPE_CHECKING:
    from tiepoint.batch import ImageRecord, Input, Store, Unreadable
    from tiepoint.detector import Detector
    from tiepoint.images.masks import MaskFolder
    from tiepoint.tiles.stream import TiledDetector

app = typer.Typer(add_completion=False, rich_markup_mode=None)

DEFAULT_OUT = Path("tiepoint-out")
DEFAULT_ENDING = ".npz"
COLLECTION_ENDING = ".h5"
OTHER_FILE_ENDINGS = frozenset(
    {".db", ".hdf5", ".mat", ".npy", ".pkl", ".pt", ".txt", ".xml", ".yaml", ".yml"}
)
"""Endings of other files. A name with one is refused, because a folder is hardly intended."""

COUNT_AT_MOST = 100_000
"""Images counted in advance for the progress bar; counting a million takes seconds."""

FeaturesFormat = Literal["npz", "json", "csv", "parquet", "geojson", "h5"]
"""Endings of features files, without their dot."""

Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT",
        help="Images, folders (searched recursively), globs, URLs; - reads a list from stdin. For "
        "a store also tars, and URLs of s3://, gs:// and the like.",
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        "--out",
        "-o",
        metavar="PATH",
        help="Folder for one features file per image; a .npz, .json, .csv, .parquet or .geojson "
        "file for one image; a .h5 file for all images; a .store folder for any number of images "
        "in shards; or - for the file of one image on stdout.",
    ),
]
Format = Annotated[
    FeaturesFormat | None,
    typer.Option(
        "--format",
        help="Format of the files in a folder, or h5 or parquet of those in a store. CSV and "
        "GeoJSON are without descriptors.",
        show_default="npz, in a store h5",
    ),
]
Plot = Annotated[
    bool, typer.Option("--plot", help="Also draw the keypoints over each image, as PNG.")
]
Half = Annotated[
    bool, typer.Option("--half", help="Store descriptors as float16, in half the space; .h5 only.")
]
Masks = Annotated[
    Path | None,
    typer.Option(
        "--masks",
        metavar="DIR",
        help="Folder of masks; black and transparent pixels get no keypoints. The mask of a/b.jpg "
        "is a/b.jpg.png, as in COLMAP. Images without a mask are used whole.",
    ),
]
Detection = Annotated[
    DetectionOptions,
    options.detection(*options.OF_KEYPOINTS, "descriptors"),
]


@options.command(
    app,
    "tiepoint detect photo.jpg -o photo.npz",
    "tiepoint detect photo.jpg -o photo.csv",
    "tiepoint detect photos -o features.h5",
    "find photos -name '*.jpg' | tiepoint detect - -o features.h5 --max-keypoints 4000",
    "tiepoint detect photos --masks masks --plot -o results",
    "tiepoint detect orthophoto.tif --tile --max-keypoints 50000 -o orthophoto.npz",
    "tiepoint detect s3://bucket/photos -o features.store --shard 3/16",
    "tiepoint detect photos -o features.store --ray auto",
)
def detect(
    inputs: Inputs,
    *,
    out: Out = DEFAULT_OUT,
    features_format: Format = None,
    plot: Plot = False,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    masks: Masks = None,
    half: Half = False,
    shards: store.Shards = None,
    shard: store.ShardOf = None,
    retry_failed: store.RetryFailed = False,
    ray: store.Ray = None,
    checkpoint: options.Checkpoint = options.CHECKPOINT,
    detection: Detection,
    tile: tiles.Tile = False,
    tile_px: tiles.TilePx = None,
    on_damage: tiles.OnDamage = None,
    channels: tiles.ChannelNumbers = None,
    engine: options.Engine = options.AUTO,
    device: options.Device = options.AUTO,
    precision: options.Precision = options.AUTO,
    threads: options.Threads = None,
    compiled: options.Compile = False,
) -> None:
    """Detect keypoints in images, and write a features file per image or one .h5 file for all.

    Existing results made with the same settings are skipped, so a stopped run resumes with the
    same command. Exit status: 0 all done, 1 some images failed, 2 wrong usage, 3 nothing
    readable, 130 interrupted.
    """
    of_store = store.StoreOptions(features_format, shards, shard, half, retry_failed, ray, threads)
    ignored: Counter[str] = Counter()
    if is_store := store.is_store_path(out):
        ending = of_store.check(out, plot=plot)
        images: Any = store.list_all(inputs, _lines_of_stdin(), ignored)
    else:
        of_store.refuse()
        ending = _format(out, features_format, plot=plot, half=half, as_json=as_json)
        images = _sources(inputs, out, ignored)
    from tiepoint.detector import Detector
    from tiepoint.images.masks import MaskFolder

    mask_folder = None if masks is None else MaskFolder(masks)
    _drop_unstored(detection, ending)
    of_tiles = tiles.TileOptions(tile, tile_px, on_damage, channels, detection)
    detector: Any = Detector(
        checkpoint, engine=engine, device=of_store.device(engine, device), precision=precision,
        threads=threads, compiled=compiled, **detection,
    )  # fmt: skip
    if is_store:
        raise typer.Exit(of_store.detect(
            out, images, of_tiles.detector(detector), mask_folder, ignored,
            overwrite=overwrite, as_json=as_json))  # fmt: skip
    into = _Into(_store(out, ending, plot=plot, half=half), overwrite, mask_folder)
    report = _report(inputs, out, ignored, as_json=as_json)
    tiled = of_tiles.detector(detector, report.show_part, out, ending)
    raise typer.Exit(into.detect(images, tiled, report))


class _Into(NamedTuple):
    """Where the results of a run go: files, not shards of a store."""

    results: AbstractContextManager[Store]
    overwrite: bool
    masks: MaskFolder | None

    def detect(
        self,
        images: Iterator[Input | Unreadable],
        detector: Detector | TiledDetector,
        report: Report[ImageRecord],
    ) -> int:
        """Run, and return the exit status."""
        from tiepoint.batch import run

        with self.results as store, report:
            report.follow(run(images, detector, store, overwrite=self.overwrite, masks=self.masks))
        return report.exit_code


def _report(
    inputs: list[str], out: Path, ignored: Counter[str], *, as_json: bool
) -> Report[ImageRecord]:
    has_table = out != STDOUT
    return image_report(
        as_json=as_json, has_table=has_table, count=lambda: _count(inputs), ignored=ignored
    )


def _drop_unstored(detection: DetectionOptions, ending: str) -> None:
    """Detect without descriptors for a format that has none."""
    from tiepoint.formats import WITHOUT_DESCRIPTORS

    if ending in WITHOUT_DESCRIPTORS:
        detection["descriptors"] = False


def _ending(out: Path, features_format: FeaturesFormat | None) -> str:
    """The ending of the features files; raises for an OUT and a format that contradict."""
    from tiepoint.formats import ALL_FORMATS

    ending = out.suffix.lower()
    wanted = None if features_format is None else f".{features_format}"
    if wanted == COLLECTION_ENDING != ending:
        raise ConfigError(
            f"-o {out} with --format h5: name one .h5 file for all images, or a .store folder"
        )
    if ending in ALL_FORMATS:
        if wanted not in (None, ending):
            raise ConfigError(f"-o {out} is a {ending} file, but --format is {wanted}: drop one")
        if is_folder(out):
            raise ConfigError(f"-o {out} is a folder with the ending of a file: rename it")
        return ending
    if ending in OTHER_FILE_ENDINGS:
        raise ConfigError(
            f"-o {out}: the ending picks the format, one of {', '.join(ALL_FORMATS)}; "
            "name a folder without an ending"
        )
    if exists(out) and not is_folder(out):
        raise ConfigError(
            f"-o {out} is a file; name a folder, or a file that ends in one of "
            f"{', '.join(ALL_FORMATS)}"
        )
    return wanted or DEFAULT_ENDING


def _format(
    out: Path, wanted: FeaturesFormat | None, *, plot: bool, half: bool, as_json: bool
) -> str:
    """The ending of the features files; raises for options that it does not go with."""
    from tiepoint.formats import FORMATS, features_parquet

    ending = _ending(out, wanted)
    if out == STDOUT and (as_json or plot):
        raise ConfigError("-o - writes the features to stdout: drop --json and --plot")
    if FORMATS.get(ending) is features_parquet:
        features_parquet.load_pyarrow()
    if plot and ending not in FORMATS:
        raise ConfigError(f"--plot: a {ending} file holds no images; give -o a folder")
    if half and ending in FORMATS:
        raise ConfigError(f"--half: {ending} files hold float32; give -o a .h5 file, or drop it")
    return ending


def _sources(inputs: list[str], out: Path, ignored: Counter[str]) -> Iterator[Input | Unreadable]:
    """The inputs; exits if there is none, or more than one for a single file."""
    from tiepoint.batch import expand
    from tiepoint.batch.ignored import sentence
    from tiepoint.formats import FORMATS

    sources = expand(inputs, _lines_of_stdin(), ignored)
    first = list(islice(sources, 2))
    if not first:
        notes = [f"no image found in {', '.join(inputs)}", sentence(ignored)]
        stop("; ".join(filter(None, notes)), exit_codes.NOTHING_READABLE)
    if len(first) > 1 and (out == STDOUT or out.suffix.lower() in FORMATS):
        raise ConfigError(f"-o {out} holds one image, but there are several: name a folder")
    return chain(first, sources)


@contextmanager
def _store(out: Path, ending: str, *, plot: bool, half: bool) -> Iterator[Store]:
    """Where results go; creates that folder, so that errors appear before any work."""
    from tiepoint.batch import FolderStore, H5Store, SingleFileStore
    from tiepoint.files.writing import make_folder
    from tiepoint.formats import FORMATS, H5Writer

    if out == STDOUT:
        with TemporaryDirectory() as temporary:
            one = SingleFileStore(Path(temporary, f"features{ending}"))
            yield one
            if one.file.exists():
                write_stdout(one.file.read_bytes())
        return
    single = out.suffix.lower() == ending
    folder = out.parent if single else out
    make_folder(folder, advice="choose another folder with -o")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"-o {out}: {folder} cannot be written to; choose another folder")
    if ending in FORMATS:
        yield SingleFileStore(out, plot) if single else FolderStore(out, ending, plot)
        return
    try:
        writer = H5Writer(out, half=half)
    except OutputError as error:  # most often another run
        stop(str(error), exit_codes.FAILED)
    try:
        yield H5Store(writer)
    finally:
        writer.suspend()  # an interrupted run resumes from its journal


def _lines_of_stdin() -> Iterator[str]:
    """Lines of stdin without a byte order mark, which Windows' programs write before a list."""
    stream = sys.stdin.buffer
    first = stream.readline()
    if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = (first + stream.read()).decode("utf-16", "replace")
        yield from text.splitlines(keepends=True)
        return
    yield os.fsdecode(first.removeprefix(codecs.BOM_UTF8))
    for line in stream:  # file names are bytes: they need not be valid text
        yield os.fsdecode(line)


def _count(inputs: list[str]) -> int | None:
    """The number of inputs; None if counting would take long or consume stdin."""
    from tiepoint.batch import expand

    if "-" in inputs:
        return None
    count = sum(1 for _ in islice(expand(inputs), COUNT_AT_MOST))
    return count if count < COUNT_AT_MOST else None
