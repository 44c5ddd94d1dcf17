"""Options that the commands of `tiepoint evaluate` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tiepoint.evaluation.settings import PROFILES

Checkpoints = Annotated[
    list[str],
    typer.Option(
        "--checkpoint",
        "--model",
        "-c",
        help="Checkpoint name or folder; repeat it for more rows.",
    ),
]
Scales = Annotated[
    str | None,
    typer.Option(
        metavar="S,S,...",
        help="Parts of the image's size at which checkpoints look at it; else each one's own.",
    ),
]
MethodNames = Annotated[
    str,
    typer.Option(
        "--methods",
        help="Comma-separated: tiepoint (every --checkpoint), sift, orb, sift-opencv (SIFT with "
        "OpenCV's quarter-pixel offset).",
    ),
]
Stored = Annotated[
    list[str],
    typer.Option(
        "--features",
        metavar="NAME=FILE.h5",
        help="Features of the same images from a file, tiepoint's or hloc's, as a further method; "
        "repeat it for more.",
    ),
]
K = Annotated[int, typer.Option("--k", help="Points matched per image.", min=1)]
LongSide = Annotated[
    int, typer.Option("--long-side", help="px; larger images are brought down to it.", min=1)
]
Seeds = Annotated[int, typer.Option(help="Estimates per pair, whose median counts.", min=1)]
ProfileName = Annotated[
    str,
    typer.Option(
        "--profile",
        help=f"{', '.join(PROFILES)}: named protocols; the latter two are those in which HPatches "
        "is reported. --k, --long-side and --seeds go before the profile's own.",
    ),
]
OwnK = Annotated[
    int | None, typer.Option("--k", help="Points matched per image; else the profile's.", min=1)
]
OwnLongSide = Annotated[
    int | None,
    typer.Option(
        "--long-side",
        help="px; larger images are brought down to it; else as the profile has it.",
        min=1,
    ),
]
OwnSeeds = Annotated[
    int | None,
    typer.Option(
        "--seeds", help="Estimates per pair, whose median counts; else the profile's.", min=1
    ),
]
Plots = Annotated[
    Path | None,
    typer.Option(
        "--plots", help="Folder for pictures: shares of pairs over the error, and the worst pairs."
    ),
]
Limit = Annotated[int | None, typer.Option(help="Only the first so many pairs.", min=1)]
Workers = Annotated[int, typer.Option(help="Threads; the result is the same.", min=1)]
Details = Annotated[bool, typer.Option("--details", help="A second table with more metrics.")]
Json = Annotated[
    Path | None,
    typer.Option(
        "--json",
        help="Write everything, pair by pair, to this file. Until then what is done lies in "
        "FILE.partial: after an interruption the same command goes on from there.",
    ),
]
WholeJson = Annotated[
    Path | None, typer.Option("--json", help="Write everything, image by image, to this file.")
]
