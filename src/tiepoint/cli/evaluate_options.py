"""Options that the commands of `tiepoint evaluate` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tiepoint.cli.options import Matcher, Settings, detection
from tiepoint.config import DetectionOptions, MatchingConfig, MatchingOptions
from tiepoint.evaluation.settings import PROFILES

Folders = Annotated[
    list[Path], typer.Argument(help="Folders with a pairs.txt, or with HPatches' i_* and v_*.")
]
PoseFolders = Annotated[
    list[Path], typer.Argument(help="Folders with a pairs.txt of cameras and poses.")
]
StereoFolders = Annotated[
    list[Path], typer.Argument(help="Folders with a pairs.txt of disparities.")
]
Photos = Annotated[Path, typer.Option(help="Folder with photographs, searched recursively.")]
Checkpoints = Annotated[
    list[str],
    typer.Option("--checkpoint", "-c", help="Checkpoint name or folder; repeat for further rows."),
]
Detection = Annotated[DetectionOptions, detection("scales", "phases")]
MethodNames = Annotated[
    str,
    typer.Option(
        help="Comma-separated: tiepoint (every --checkpoint), learned (the same with a learned "
        "matcher), sift, orb, sift-opencv (SIFT with OpenCV's quarter-pixel offset).",
    ),
]
Matching = Annotated[MatchingOptions, Settings(MatchingConfig, only=("layers",))]
LearnedMatcher = Matcher
Stored = Annotated[
    list[str],
    typer.Option(
        "--features",
        metavar="NAME=PATH",
        help="Features of the same images from an .h5 file (tiepoint's or hloc's layout), a store "
        "or a folder of features files as a further method; repeat for more.",
    ),
]
K = Annotated[int, typer.Option(help="Keypoints matched per image.", min=1)]
LongSide = Annotated[int, typer.Option(help="Larger images are downscaled to this, px.", min=1)]
Seeds = Annotated[int, typer.Option(help="Estimates per pair; their median counts.", min=1)]
ProfileName = Annotated[
    str,
    typer.Option(
        help=f"Named protocol: {', '.join(PROFILES)}; papers report HPatches by the latter two. "
        "--k, --long-side and --seeds override it.",
    ),
]
OwnK = Annotated[
    int | None, typer.Option(help="Keypoints matched per image. Default: the profile's.", min=1)
]
OwnLongSide = Annotated[
    int | None,
    typer.Option(
        help="Larger images are downscaled to this, px. Default: the profile's size.", min=1
    ),
]
OwnSeeds = Annotated[
    int | None,
    typer.Option(help="Estimates per pair; their median counts. Default: the profile's.", min=1),
]
Plots = Annotated[
    Path | None,
    typer.Option(help="Folder for pictures: share of pairs over the error, and worst pairs."),
]
Limit = Annotated[int | None, typer.Option(help="Evaluate only the first N pairs.", min=1)]
Details = Annotated[bool, typer.Option("--details", help="Print a second table of metrics.")]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="FILE",
        help="Write everything as JSON, pair by pair, to this file. Pairs done are kept in "
        "FILE.partial until then; after an interruption the same command resumes.",
    ),
]
WholeOut = Annotated[
    Path | None,
    typer.Option(
        "--out", "-o", metavar="FILE", help="Write everything as JSON, image by image, to a file."
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print everything on stdout as JSON instead of tables.")
]
