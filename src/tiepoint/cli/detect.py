"""`tiepoint detect`: arguments of the command line -> a run of `tiepoint.batch`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tiepoint.cli import exit_codes, options
from tiepoint.errors import ConfigError, FormatError

if TYPE_CHECKING:
    from tiepoint.batch import Input, Layout, Unreadable

app = typer.Typer(add_completion=False, rich_markup_mode=None)

DEFAULT_OUT = Path("tiepoint-out")
DEFAULT_ENDING = ".npz"
OTHER_FILE_ENDINGS = frozenset(
    {".db", ".hdf5", ".mat", ".npy", ".pkl", ".pt", ".txt", ".xml", ".yaml", ".yml"}
)
"""A name that ends so is surely meant to be a file: a folder of that name would surprise."""

COUNT_AT_MOST = 100_000
"""Images counted ahead for the progress bar; counting a million takes seconds."""


class FeaturesFormat(StrEnum):
    """Endings of features files, without their dot."""

    NPZ = "npz"
    JSON = "json"
    CSV = "csv"


Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT",
        help="Images, folders with all below them, globs, URLs; - reads a list from stdin.",
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        "--out",
        "-o",
        help="Folder for the results; or a .npz, .json, .csv file for one image, "
        "or a .h5 file for all of them.",
    ),
]
Format = Annotated[
    FeaturesFormat | None,
    typer.Option("--format", help="In a folder; npz if not given. CSV holds x, y and score."),
]
Plot = Annotated[
    bool, typer.Option("--plot", help="Also draw the keypoints over each image, as PNG.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace results that are already there.")
]
Json = Annotated[bool, typer.Option("--json", help="Print a JSON object per image, for machines.")]
Half = Annotated[
    bool, typer.Option("--half", help="In a .h5 file: descriptors as float16, half the size.")
]
MasksOption = Annotated[
    Path | None,
    typer.Option(
        "--masks",
        metavar="DIR",
        help="Folder with masks, black where no keypoints may lie; that of a/b.jpg is "
        "a/b.jpg.png, as COLMAP names them. Images without one are used whole.",
    ),
]
NoDescriptors = Annotated[bool, typer.Option("--no-descriptors", help="Positions and scores only.")]


@app.command()
def detect(
    inputs: Inputs,
    out: Out = DEFAULT_OUT,
    features_format: Format = None,
    plot: Plot = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    checkpoint: options.Checkpoint = options.CHECKPOINT,
    engine: options.Engine = options.AUTO,
    device: options.Device = options.AUTO,
    precision: options.Precision = options.AUTO,
    threads: options.Threads = None,
    compiled: options.Compile = False,
    max_side: options.MaxSide = options.MAX_SIDE,
    scales: options.Scales = None,
    max_keypoints: options.MaxKeypoints = None,
    threshold: options.Threshold = None,
    nms_radius: options.NmsRadius = None,
    spread: options.Spread = False,
    masks: MasksOption = None,
    no_descriptors: NoDescriptors = False,
    half: Half = False,
) -> None:
    """Find keypoints in images and write a features file for each, or one .h5 file for all.

    Results that are there already, made with the same settings, are left as they are, so a
    stopped run can be started again. Exit status: 0 all done, 1 some images failed, 2 wrong
    usage, 3 nothing readable, 130 interrupted.
    """
    side = options.parse_max_side(max_side)
    ending = _ending(out, features_format)
    _check_h5(ending, plot=plot, half=half)
    found = _found(inputs, out)
    from tiepoint.batch import run
    from tiepoint.cli.report import Report
    from tiepoint.detector import Detector
    from tiepoint.images.masks import MaskFolder

    folder = None if masks is None else MaskFolder(masks)
    detector = Detector(
        checkpoint,
        engine=engine,
        device=device,
        precision=precision,
        threads=threads,
        compiled=compiled,
        max_side=side,
        spread=spread,
        descriptors=not no_descriptors and ending != ".csv",  # which holds none
        **options.given(
            scales=options.parse_scales(scales),
            max_keypoints=max_keypoints,
            threshold=threshold,
            nms_radius=nms_radius,
        ),
    )
    with (
        _layout(out, ending, plot=plot, half=half) as layout,
        Report(as_json=as_json, count=lambda: _count(inputs)) as report,
    ):
        report.follow(run(found, detector, layout, overwrite=overwrite, masks=folder))
    raise typer.Exit(report.exit_code)


def _ending(out: Path, features_format: FeaturesFormat | None) -> str:
    """The ending of the features files; raises for an OUT and a format that do not fit."""
    from tiepoint.formats import ALL_FORMATS

    ending = out.suffix.lower()
    wanted = None if features_format is None else f".{features_format}"
    if ending in ALL_FORMATS:
        if wanted not in (None, ending):
            raise ConfigError(f"-o {out} is a {ending} file, --format says {wanted}: drop one")
        if out.is_dir():
            raise ConfigError(f"-o {out} is a folder, and its ending says file: rename it")
        return ending
    if ending in OTHER_FILE_ENDINGS:
        raise ConfigError(
            f"-o {out}: the ending picks the format, one of {', '.join(ALL_FORMATS)}; "
            "a folder for results needs a name without an ending"
        )
    if out.exists() and not out.is_dir():
        raise ConfigError(
            f"-o {out} is a file; name a folder, or a file that ends in one of "
            f"{', '.join(ALL_FORMATS)}"
        )
    return wanted or DEFAULT_ENDING


def _check_h5(ending: str, *, plot: bool, half: bool) -> None:
    """Raise for options that a .h5 file, or only a .h5 file, cannot have."""
    from tiepoint.formats import FORMATS

    if plot and ending not in FORMATS:
        raise ConfigError(f"--plot: a {ending} file holds no pictures; give -o a folder")
    if half and ending in FORMATS:
        raise ConfigError(f"--half: {ending} files hold float32; give -o a .h5 file, or drop it")


def _found(inputs: list[str], out: Path) -> Iterator[Input | Unreadable]:
    """The inputs; leaves if there is none, or more than one for a single file."""
    from tiepoint.batch import expand
    from tiepoint.formats import FORMATS

    found = expand(inputs, _lines_of_stdin())
    first = list(islice(found, 2))
    if not first:
        typer.echo(f"tiepoint: no image found in {', '.join(inputs)}", err=True)
        raise typer.Exit(exit_codes.NOTHING_READABLE)
    if len(first) > 1 and out.suffix.lower() in FORMATS:
        raise ConfigError(
            f"-o {out} is one file for one image, and there are several: name a folder"
        )
    return chain(first, found)


@contextmanager
def _layout(out: Path, ending: str, *, plot: bool, half: bool) -> Iterator[Layout]:
    """Where results go; makes that folder, so that a wrong one shows before any work."""
    from tiepoint.batch import FolderLayout, OneFileForAll, SingleFile
    from tiepoint.files import make_folder
    from tiepoint.formats import FORMATS, H5Writer

    single = out.suffix.lower() == ending
    folder = out.parent if single else out
    make_folder(folder, advice="choose another folder with -o")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise FormatError(f"-o {out}: {folder} cannot be written to; choose another folder")
    if ending in FORMATS:
        yield SingleFile(out, plot) if single else FolderLayout(out, ending, plot)
        return
    writer = H5Writer(out, half=half)
    try:
        yield OneFileForAll(writer)
    finally:
        writer.suspend()  # an interrupted run goes on from its journal


def _lines_of_stdin() -> Iterator[str]:
    for line in sys.stdin.buffer:  # file names are bytes: they need not be valid text
        yield os.fsdecode(line)


def _count(inputs: Iterable[str]) -> int | None:
    """How many inputs there are, or None where counting would take long or use up stdin."""
    from tiepoint.batch import expand

    arguments = list(inputs)
    if "-" in arguments:
        return None
    count = sum(1 for _ in islice(expand(arguments), COUNT_AT_MOST))
    return count if count < COUNT_AT_MOST else None
