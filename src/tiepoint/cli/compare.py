"""`tiepoint compare`: several methods on one pair of images, and whether they agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from tiepoint.cli import exit_codes, options
from tiepoint.cli.output import is_quiet
from tiepoint.cli.progress import with_progress
from tiepoint.cli.report import complain, stop
from tiepoint.config import (
    DetectionOptions,
    ProcessorConfig,
    RegistrationConfig,
    RegistrationOptions,
)
from tiepoint.errors import ImageError
from tiepoint.evaluation.settings import COMPARED, CompareSettings

app = typer.Typer(add_completion=False, rich_markup_mode=None)

METHOD_NAMES = ",".join(COMPARED)
TABLE_WIDTH = 132  # columns; a narrower terminal wraps the lines rather than lose figures

ImageA = Annotated[str, typer.Argument(metavar="A", help="First image; a path or URL.")]
ImageB = Annotated[str, typer.Argument(metavar="B", help="Second image; a path or URL.")]
Methods = Annotated[
    str,
    typer.Option(
        help="Comma-separated: bundled checkpoints, folders of checkpoints, Hub ids, each also "
        "with +learned for its learned matcher; sift, orb, sift-opencv.",
    ),
]
Plot = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.png", help="Write a picture: a row per method, lines between the inliers."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print everything on stdout as JSON.")]
Settings = Annotated[
    RegistrationOptions,
    options.Settings(
        RegistrationConfig,
        only=("model", "max_keypoints", "threshold_px", "min_inliers", "guided", "seed"),
    ),
]
Detection = Annotated[DetectionOptions, options.detection("max_side")]
Comparing = Annotated[
    dict[str, Any], options.Settings(CompareSettings, only=("agree_px", "repeats"))
]


@options.command(
    app,
    "tiepoint compare a.jpg b.jpg",
    "tiepoint compare a.jpg b.jpg --methods base,base+learned,runs/mine/checkpoint,sift",
    "tiepoint compare a.jpg b.jpg --plot methods.png --json > comparison.json",
)
def compare(
    a: ImageA,
    b: ImageB,
    *,
    methods: Methods = METHOD_NAMES,
    plot: Plot = None,
    as_json: Json = False,
    overwrite: options.Overwrite = False,
    comparing: Comparing,
    registration: Settings,
    detection: Detection,
    threads: options.Threads = None,
) -> None:
    """Register two images by several methods, and show which of them agree.

    There is no ground truth: each method has the verdict of `tiepoint register`, and its distance
    from the others. Exit status: 0 all methods ran, 1 a method failed, 2 wrong usage, 3 an image
    cannot be read.
    """
    if plot is not None:
        options.check_file("--plot", plot, (".png",), overwrite=overwrite, inputs=[a, b])
    config = RegistrationConfig(**registration)
    max_side = detection.get("max_side", ProcessorConfig.max_side)
    settings = CompareSettings(max_side, **comparing)
    names = [name for name in map(str.strip, methods.split(",")) if name]
    from tiepoint.evaluation import comparison_views as views
    from tiepoint.evaluation.compare import compare as run

    try:
        comparison = with_progress(
            "methods",
            len(names),
            lambda done: run(
                a, b, names, config=config, settings=settings, threads=threads, on_method=done
            ),
        )
    except ImageError as error:
        stop(str(error), exit_codes.NOTHING_READABLE)
    if plot is not None:
        from tiepoint.images.encoding import write_picture

        write_picture(plot, views.comparison_picture(comparison))
    if as_json:
        typer.echo(json.dumps(views.comparison_json(comparison), ensure_ascii=False))
    elif not is_quiet():
        from rich.console import Console

        Console(width=max(Console().width, TABLE_WIDTH)).print(views.comparison_table(comparison))
        for line in (*views.reasons(comparison), views.conclusion(comparison)):
            typer.echo(line)
    failed = [one for one in comparison.methods if one.error is not None]
    if failed:
        complain(f"{len(failed)} of {len(names)} methods failed")
        raise typer.Exit(exit_codes.FAILED)
