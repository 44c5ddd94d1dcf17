"""`tiepoint evaluate`: how good keypoints are on pairs of images with known homographies."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

from tiepoint.cli import exit_codes
from tiepoint.errors import FormatError
from tiepoint.evaluation.settings import (
    GENERATED_COUNT,
    GENERATED_SEED,
    METHODS,
    PARTS,
    PoseSettings,
    Settings,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.table import Table

    from tiepoint.evaluation.methods import Method
    from tiepoint.evaluation.pairs import Failure, Pair

DEFAULTS, POSE_DEFAULTS = Settings(), PoseSettings()
Result = TypeVar("Result")
METHOD_NAMES = ",".join(METHODS)
TABLE_WIDTH = 132  # columns; a narrower terminal wraps the lines rather than lose figures

app = typer.Typer(
    help="Measure keypoints on pairs of images with known truth, beside SIFT and ORB.",
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
Seeds = Annotated[int, typer.Option(help="Homographies estimated per pair.", min=1)]
Limit = Annotated[int | None, typer.Option(help="Only the first so many pairs.", min=1)]
Workers = Annotated[int, typer.Option(help="Threads; the result is the same.", min=1)]
Details = Annotated[bool, typer.Option("--details", help="A second table with more metrics.")]
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
    features: Stored = [],  # noqa: B006 - typer copies it
    k: K = DEFAULTS.k,
    long_side: LongSide = DEFAULTS.long_side,
    seeds: Seeds = DEFAULTS.seeds,
    limit: Limit = None,
    workers: Workers = WORKERS,
    details: Details = False,
    json: Json = None,
) -> None:
    """Score real pairs with known homographies."""
    from tiepoint.evaluation.pairs import read_folders

    settings = Settings(k=k, long_side=long_side, seeds=seeds)
    chosen = _methods(methods, checkpoint, features)
    pairs, failures = read_folders(folders)
    about = {"kind": "homography", "folders": [str(folder) for folder in folders]}
    _evaluate(pairs[:limit], failures, chosen, settings, workers, details, json, about)


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
    details: Details = False,
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
    _evaluate(pairs, [], chosen, settings, workers, details, json, about)


@app.command()
def pose(
    folders: Annotated[
        list[Path], typer.Argument(help="Folders with a pairs.txt that holds cameras and poses.")
    ],
    checkpoint: Checkpoints = ["default"],  # noqa: B006 - typer copies it
    methods: MethodNames = METHOD_NAMES,
    features: Stored = [],  # noqa: B006 - typer copies it
    k: K = POSE_DEFAULTS.k,
    long_side: LongSide = POSE_DEFAULTS.long_side,
    seeds: Seeds = POSE_DEFAULTS.seeds,
    limit: Limit = None,
    workers: Workers = WORKERS,
    json: Json = None,
) -> None:
    """Score real pairs with known cameras by the relative pose that their matches give."""
    from tiepoint.evaluation import poses

    settings = PoseSettings(k=k, long_side=long_side, seeds=seeds)
    chosen = _methods(methods, checkpoint, features)
    pairs, failures = poses.read_pose_folders(folders)
    evaluation = _run(
        len(pairs[:limit]),
        lambda on_pair: poses.evaluate_poses(
            pairs[:limit], chosen, settings, failures=failures, workers=workers, on_pair=on_pair
        ),
    )
    tables = [poses.pose_table(evaluation)] if evaluation.records else []
    about = {"kind": "pose", "folders": [str(folder) for folder in folders]}
    text = poses.pose_json(evaluation, **about) if json and tables else None
    _finish(tables, evaluation.failures, json, text)


@app.command()
def speed(
    photos: Annotated[Path, typer.Option(help="Folder with photographs, searched below too.")],
    checkpoint: Checkpoints = ["default"],  # noqa: B006 - typer copies it
    methods: MethodNames = METHOD_NAMES,
    k: K = DEFAULTS.k,
    long_side: LongSide = DEFAULTS.long_side,
    limit: Annotated[int, typer.Option(help="Photographs.", min=1)] = 10,
    repeats: Annotated[int, typer.Option(help="Rounds over the photographs.", min=1)] = 3,
    json: Json = None,
) -> None:
    """Time the methods on the same photographs, taking turns; for an idle machine."""
    from tiepoint.evaluation import speed as timing
    from tiepoint.evaluation.generated import list_photos

    chosen = _methods(methods, checkpoint)
    try:
        files = list_photos(photos, "all")
    except FormatError as error:
        _stop(str(error), exit_codes.NOTHING_READABLE)
    images, failures = timing.load_images(files[:limit], long_side)
    if not images:
        _finish([], failures, None, None)
    rows = _run(
        repeats * len(images),
        lambda on_image: timing.measure_speed(images, chosen, k, repeats, on_image=on_image),
        unit="images",
    )
    settings = {"k": k, "long_side": long_side, "repeats": repeats}
    text = timing.speed_json(rows, chosen, failures, settings, kind="speed") if json else None
    _finish([timing.speed_table(rows, k, long_side)], failures, json, text)


def _methods(names: str, checkpoints: Sequence[str], stored: Sequence[str] = ()) -> list[Method]:
    from tiepoint.evaluation.methods import checkpoint_methods, method, stored_method

    chosen: list[Method] = []
    for name in filter(None, map(str.strip, names.split(","))):
        chosen += checkpoint_methods(checkpoints) if name == "tiepoint" else [method(name)]
    return [*chosen, *map(stored_method, stored)]


def _evaluate(
    pairs: Sequence[Pair],
    failures: Sequence[Failure],
    methods: Sequence[Method],
    settings: Settings,
    workers: int,
    details: bool,
    json: Path | None,
    about: dict[str, Any],
) -> None:
    from tiepoint.evaluation import report
    from tiepoint.evaluation.run import evaluate

    evaluation = _run(
        len(pairs),
        lambda on_pair: evaluate(
            pairs, methods, settings, failures=failures, workers=workers, on_pair=on_pair
        ),
    )
    tables = [report.table(evaluation)] if evaluation.records else []
    if tables and details:
        tables.append(report.detail_table(evaluation))
    text = report.as_json(evaluation, **about) if json and tables else None
    _finish(tables, evaluation.failures, json, text)


def _run(count: int, work: Callable[[Callable[[], None]], Result], unit: str = "pairs") -> Result:
    """Do the work under a progress bar; it is given what to call after each of so many."""
    from rich.console import Console
    from rich.progress import Progress

    errors = Console(stderr=True)
    with Progress(console=errors, disable=not errors.is_terminal, transient=True) as progress:
        task = progress.add_task(unit, total=count)
        return work(lambda: progress.advance(task))


def _finish(
    tables: Sequence[Table], failures: Sequence[Failure], json: Path | None, text: str | None
) -> None:
    """Print tables, write the report, and leave with a status that says whether all went well."""
    from rich.console import Console

    from tiepoint.evaluation.report import write_text

    for failure in failures:
        typer.echo(f"skipped {failure.group} {failure.name}: {failure.message}", err=True)
    if not tables:
        _stop("nothing could be read", exit_codes.NOTHING_READABLE)
    for table in tables:
        Console(width=max(Console().width, TABLE_WIDTH)).print(table)
    if json is not None and text is not None:
        write_text(json, text)
    if failures:
        _stop(f"{len(failures)} could not be read and were skipped", exit_codes.FAILED)


def _stop(message: str, code: int) -> NoReturn:
    typer.echo(f"tiepoint: {message}", err=True)
    raise typer.Exit(code)
