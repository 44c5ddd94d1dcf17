"""`tiepoint evaluate`: how good keypoints are on pairs of images with known homographies."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from tiepoint.cli import exit_codes
from tiepoint.errors import FormatError
from tiepoint.evaluation.settings import (
    GENERATED_COUNT,
    GENERATED_SEED,
    METHODS,
    PARTS,
    Settings,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tiepoint.evaluation.methods import Method
    from tiepoint.evaluation.pairs import Failure, Pair

DEFAULTS = Settings()
METHOD_NAMES = ",".join(METHODS)
TABLE_WIDTH = 132  # columns; a narrower terminal wraps the lines rather than lose figures

app = typer.Typer(
    help="Measure keypoints on pairs of images with known homographies, beside SIFT and ORB.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)

Checkpoints = Annotated[
    list[str],
    typer.Option("--checkpoint", help="Checkpoint name or folder; repeat it for more rows."),
]
MethodNames = Annotated[
    str,
    typer.Option(
        "--methods",
        help="Comma-separated: tiepoint (every --checkpoint), sift, orb, sift-opencv (SIFT with "
        "OpenCV's quarter-pixel offset).",
    ),
]
K = Annotated[int, typer.Option("--k", help="Points matched per image.", min=1)]
LongSide = Annotated[
    int, typer.Option("--long-side", help="px; larger images are brought down to it.", min=1)
]
Seeds = Annotated[int, typer.Option(help="Homographies estimated per pair.", min=1)]
Limit = Annotated[int | None, typer.Option(help="Only the first so many pairs.", min=1)]
Workers = Annotated[int, typer.Option(help="Threads; the result is the same.", min=1)]
Json = Annotated[
    Path | None, typer.Option("--json", help="Write everything, pair by pair, to this file.")
]
WORKERS = min(os.cpu_count() or 1, 4)


@app.command()
def homography(
    folders: Annotated[
        list[Path], typer.Argument(help="Folders with a pairs.txt, or HPatches' i_* and v_*.")
    ],
    checkpoint: Checkpoints = ["default"],  # noqa: B006 - typer copies it
    methods: MethodNames = METHOD_NAMES,
    k: K = DEFAULTS.k,
    long_side: LongSide = DEFAULTS.long_side,
    seeds: Seeds = DEFAULTS.seeds,
    limit: Limit = None,
    workers: Workers = WORKERS,
    json: Json = None,
) -> None:
    """Score real pairs with known homographies."""
    from tiepoint.evaluation.pairs import read_folders

    settings = Settings(k=k, long_side=long_side, seeds=seeds)
    chosen = _methods(methods, checkpoint)
    pairs, failures = read_folders(folders)
    about = {"kind": "homography", "folders": [str(folder) for folder in folders]}
    _evaluate(pairs[:limit], failures, chosen, settings, workers, json, about)


@app.command()
def generated(
    photos: Annotated[Path, typer.Option(help="Folder with photographs, searched below too.")],
    part: Annotated[
        str, typer.Option(help=f"Part of the photographs, by name: {', '.join(PARTS)}.")
    ] = PARTS[0],
    seed: Annotated[int, typer.Option(help="Another seed makes other pairs.", min=0)] = (
        GENERATED_SEED
    ),
    checkpoint: Checkpoints = ["default"],  # noqa: B006 - typer copies it
    methods: MethodNames = METHOD_NAMES,
    k: K = DEFAULTS.k,
    long_side: LongSide = DEFAULTS.long_side,
    seeds: Seeds = DEFAULTS.seeds,
    limit: Limit = None,
    workers: Workers = WORKERS,
    json: Json = None,
) -> None:
    """Score 1,000 graded homographies with photometric change, drawn from photographs."""
    from tiepoint.evaluation.generated import generated_pairs, list_photos

    settings = Settings(k=k, long_side=long_side, seeds=seeds)
    chosen = _methods(methods, checkpoint)
    try:
        files = list_photos(photos, part)
    except FormatError as error:
        _stop(str(error), exit_codes.NOTHING_READABLE)
    pairs = generated_pairs(files, limit or GENERATED_COUNT, seed)
    about = {
        "kind": "generated",
        "photos": [path.relative_to(photos).as_posix() for path in files],
        "part": part,
        "seed": seed,
    }
    _evaluate(pairs, [], chosen, settings, workers, json, about)


def _methods(names: str, checkpoints: Sequence[str]) -> list[Method]:
    from tiepoint.evaluation.methods import checkpoint_methods, method

    chosen: list[Method] = []
    for name in filter(None, map(str.strip, names.split(","))):
        chosen += checkpoint_methods(checkpoints) if name == "tiepoint" else [method(name)]
    return chosen


def _evaluate(
    pairs: Sequence[Pair],
    failures: Sequence[Failure],
    methods: Sequence[Method],
    settings: Settings,
    workers: int,
    json: Path | None,
    about: dict[str, Any],
) -> None:
    from rich.console import Console
    from rich.progress import Progress

    from tiepoint.evaluation import report
    from tiepoint.evaluation.run import evaluate

    errors = Console(stderr=True)
    with Progress(console=errors, disable=not errors.is_terminal, transient=True) as progress:
        task = progress.add_task("pairs", total=len(pairs))
        evaluation = evaluate(
            pairs,
            methods,
            settings,
            failures=failures,
            workers=workers,
            on_pair=lambda: progress.advance(task),
        )
    for failure in evaluation.failures:
        typer.echo(f"skipped {failure.group} {failure.name}: {failure.message}", err=True)
    if not evaluation.records:
        _stop("no pair could be read", exit_codes.NOTHING_READABLE)
    Console(width=max(Console().width, TABLE_WIDTH)).print(report.table(evaluation))
    if json is not None:
        report.write_json(json, evaluation, **about)
    if evaluation.failures:
        _stop(f"{len(evaluation.failures)} could not be read and were skipped", exit_codes.FAILED)


def _stop(message: str, code: int) -> NoReturn:
    typer.echo(f"tiepoint: {message}", err=True)
    raise typer.Exit(code)
