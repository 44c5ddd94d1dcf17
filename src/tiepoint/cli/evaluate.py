"""`tiepoint evaluate`: how good keypoints are on pairs of images with known ground truth."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, cast

import typer

from tiepoint._version import __version__
from tiepoint.cli import evaluate_options as options
from tiepoint.cli import exit_codes
from tiepoint.cli.evaluate_methods import check_times_detection, chosen_methods
from tiepoint.cli.options import Threads, check_file, command
from tiepoint.cli.output import STDOUT, is_quiet, write_stdout
from tiepoint.cli.progress import with_progress
from tiepoint.errors import ConfigError, FormatError, MissingExtraError, is_installed
from tiepoint.evaluation.settings import (
    GENERATED_COUNT,
    GENERATED_SEED,
    METHODS,
    PROFILES,
    FrameSize,
    HomographySettings,
    PoseSettings,
    StereoSettings,
)
from tiepoint.images.photographs import PARTS, list_photos
from tiepoint.network.cores import usable_cores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from tiepoint.evaluation.methods import Method
    from tiepoint.evaluation.resume import ResumeFile
    from tiepoint.evaluation.task import Failure, Pair, Task
    from tiepoint.images.photographs import Part

POSE_DEFAULTS, STEREO_DEFAULTS = PoseSettings(), StereoSettings()
METHOD_NAMES = ",".join(METHODS)
PAIRS_AT_ONCE = 4  # at most: each takes memory
TABLE_WIDTH = 132  # columns; a narrower terminal wraps the lines rather than lose figures

app = typer.Typer(
    help="Measure keypoints on pairs of images with known ground truth, next to SIFT and ORB.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)


@command(
    app,
    "tiepoint evaluate homography hpatches --profile classic",
    "tiepoint evaluate homography mine -c base -c small -o results.json --plots plots",
    "tiepoint evaluate homography mine --methods tiepoint,learned,sift",
)
def homography(
    folders: options.Folders,
    checkpoint: options.Checkpoints = ["default"],  # noqa: B006 - typer copies it
    methods: options.MethodNames = METHOD_NAMES,
    features: options.Stored = [],  # noqa: B006 - typer copies it
    profile: options.ProfileName = "tiepoint",
    k: options.OwnK = None,
    long_side: options.OwnLongSide = None,
    seeds: options.OwnSeeds = None,
    limit: options.Limit = None,
    threads: Threads = None,
    details: options.Details = False,
    out: options.Out = None,
    as_json: options.Json = False,
    plots: options.Plots = None,
    *,
    detection: options.Detection,
    matcher: options.LearnedMatcher = None,
    matching: options.Matching,
) -> None:
    """Score real pairs with known homographies."""
    from tiepoint.evaluation.homography import HOMOGRAPHY
    from tiepoint.evaluation.homography_pairs import without_large
    from tiepoint.evaluation.pair_lists import read_folders

    settings = _profile(profile, k, long_side, seeds)
    frames = [settings.frame, settings.repeat_frame]
    if features and any(frame is not None and frame.crop_hw is not None for frame in frames):
        raise ConfigError(f"--profile {profile} crops images, --features are of whole ones")
    chosen = chosen_methods(
        methods, checkpoint, detection, features, settings.nms_radius,
        matcher=matcher, layers=matching.get("layers"), threads=threads,
    )  # fmt: skip
    pairs, failures = read_folders(HOMOGRAPHY, folders)
    pairs = without_large(pairs) if settings.without_large else pairs
    run_info = {"kind": "homography", "folders": list(map(str, folders)), "profile": profile}
    _score(
        HOMOGRAPHY, pairs[:limit], chosen, settings, run_info, failures=failures, threads=threads,
        out=out, as_json=as_json, plots=plots, details=details or profile != "tiepoint",
    )  # fmt: skip


@command(app, "tiepoint evaluate generated --photos photos --limit 100")
def generated(
    photos: options.Photos,
    part: Annotated[
        str, typer.Option(help=f"Part of the photographs, by name: {', '.join(PARTS)}.")
    ] = PARTS[0],
    seed: Annotated[int, typer.Option(help="Seed; another one draws other pairs.", min=0)] = (
        GENERATED_SEED
    ),
    checkpoint: options.Checkpoints = ["default"],  # noqa: B006 - typer copies it
    methods: options.MethodNames = METHOD_NAMES,
    profile: options.ProfileName = "tiepoint",
    k: options.OwnK = None,
    long_side: options.OwnLongSide = None,
    seeds: options.OwnSeeds = None,
    limit: options.Limit = None,
    threads: Threads = None,
    details: options.Details = False,
    out: options.Out = None,
    as_json: options.Json = False,
    plots: options.Plots = None,
    *,
    detection: options.Detection,
    matcher: options.LearnedMatcher = None,
    matching: options.Matching,
) -> None:
    """Score 1,000 graded homographies with photometric change, drawn from photographs."""
    from tiepoint.evaluation.generated import generated_pairs
    from tiepoint.evaluation.homography import HOMOGRAPHY

    settings = _profile(profile, k, long_side, seeds)
    chosen = chosen_methods(
        methods, checkpoint, detection, nms_radius=settings.nms_radius,
        matcher=matcher, layers=matching.get("layers"), threads=threads,
    )  # fmt: skip
    files = _photos(photos, part)
    pairs = generated_pairs(files, limit or GENERATED_COUNT, seed)
    names = [path.relative_to(photos).as_posix() for path in files]
    run_info = {"kind": "generated", "photos": names, "part": part, "seed": seed}
    run_info["profile"] = profile
    _score(
        HOMOGRAPHY, pairs, chosen, settings, run_info, threads=threads, out=out, as_json=as_json,
        plots=plots, details=details or profile != "tiepoint",
    )  # fmt: skip


@command(app, "tiepoint evaluate pose scannet --methods tiepoint,sift")
def pose(
    folders: options.PoseFolders,
    checkpoint: options.Checkpoints = ["default"],  # noqa: B006 - typer copies it
    methods: options.MethodNames = METHOD_NAMES,
    features: options.Stored = [],  # noqa: B006 - typer copies it
    k: options.K = POSE_DEFAULTS.k,
    long_side: options.LongSide = POSE_DEFAULTS.long_side,
    seeds: options.Seeds = POSE_DEFAULTS.seeds,
    limit: options.Limit = None,
    threads: Threads = None,
    out: options.Out = None,
    as_json: options.Json = False,
    plots: options.Plots = None,
    *,
    detection: options.Detection,
    matcher: options.LearnedMatcher = None,
    matching: options.Matching,
) -> None:
    """Score real pairs with known cameras by the relative pose estimated from matches."""
    from tiepoint.evaluation.pair_lists import read_folders
    from tiepoint.evaluation.pose import POSE

    settings = PoseSettings(k=k, long_side=long_side, seeds=seeds)
    chosen = chosen_methods(
        methods, checkpoint, detection, features,
        matcher=matcher, layers=matching.get("layers"), threads=threads,
    )  # fmt: skip
    pairs, failures = read_folders(POSE, folders)
    run_info = {"kind": "pose", "folders": list(map(str, folders))}
    _score(
        POSE, pairs[:limit], chosen, settings, run_info, failures=failures, threads=threads,
        out=out, as_json=as_json, plots=plots,
    )  # fmt: skip


@command(app, "tiepoint evaluate stereo middlebury")
def stereo(
    folders: options.StereoFolders,
    checkpoint: options.Checkpoints = ["default"],  # noqa: B006 - typer copies it
    methods: options.MethodNames = METHOD_NAMES,
    features: options.Stored = [],  # noqa: B006 - typer copies it
    k: options.K = STEREO_DEFAULTS.k,
    threads: Threads = None,
    out: options.Out = None,
    as_json: options.Json = False,
    *,
    detection: options.Detection,
    matcher: options.LearnedMatcher = None,
    matching: options.Matching,
) -> None:
    """Score matches of real pairs with known depth, where no plane explains them."""
    from tiepoint.evaluation.pair_lists import read_folders
    from tiepoint.evaluation.stereo import STEREO

    chosen = chosen_methods(
        methods, checkpoint, detection, features,
        matcher=matcher, layers=matching.get("layers"), threads=threads,
    )  # fmt: skip
    pairs, failures = read_folders(STEREO, folders)
    run_info = {"kind": "stereo", "folders": list(map(str, folders))}
    _score(
        STEREO, pairs, chosen, StereoSettings(k=k), run_info, failures=failures, threads=threads,
        out=out, as_json=as_json,
    )  # fmt: skip


@command(app, "tiepoint evaluate speed --photos photos -c base -c small")
def speed(
    photos: options.Photos,
    checkpoint: options.Checkpoints = ["default"],  # noqa: B006 - typer copies it
    methods: options.MethodNames = METHOD_NAMES,
    k: options.K = STEREO_DEFAULTS.k,
    long_side: options.LongSide = STEREO_DEFAULTS.frame.long_side or 640,
    limit: Annotated[int, typer.Option(help="Number of photographs.", min=1)] = 10,
    repeats: Annotated[int, typer.Option(help="Rounds over the photographs.", min=1)] = 3,
    threads: Threads = None,
    out: options.WholeOut = None,
    as_json: options.Json = False,
    *,
    detection: options.Detection,
) -> None:
    """Time the methods in turn on the same photographs; for an idle machine."""
    from tiepoint.evaluation import speed as timing
    from tiepoint.evaluation.summary import document

    _check_out(out, as_json=as_json)
    check_times_detection(methods)
    chosen = chosen_methods(methods, checkpoint, detection, threads=threads)
    images, failures = timing.load_images(_photos(photos, "all")[:limit], long_side)
    if not images:
        _show([], failures)
    measure = partial(timing.measure_speed, images, chosen, k, repeats)
    rows = with_progress("images", repeats * len(images), lambda done: measure(on_image=done))
    table = timing.speed_table(rows, k, long_side)
    _show([table], failures, as_json=as_json or out == STDOUT)
    settings = {"k": k, "long_side": long_side, "repeats": repeats}
    values = list(map(asdict, rows))
    text = document(settings, chosen, values, [], failures, {"kind": "speed"})
    _write(out, text, as_json=as_json)
    _stop_if(failures)


def _profile(
    profile: str, k: int | None, long_side: int | None, seeds: int | None
) -> HomographySettings:
    if profile not in PROFILES:
        raise ConfigError(f"no profile {profile!r}; there are {', '.join(PROFILES)}")
    settings = PROFILES[profile]
    if settings.estimator == "poselib" and not is_installed("poselib"):
        raise MissingExtraError(f"--profile {profile}", "pose")
    frame = FrameSize(long_side=long_side) if long_side else settings.frame
    return replace(settings, k=k or settings.k, seeds=seeds or settings.seeds, frame=frame)


def _photos(folder: Path, part: str) -> list[Path]:
    try:
        return list_photos(folder, cast("Part", part))  # checks it
    except FormatError as error:
        _stop(str(error), exit_codes.NOTHING_READABLE)


def _score(
    task: Task[Any, Any, Any, Any],
    pairs: Sequence[Pair],
    methods: Sequence[Method],
    settings: Any,
    run_info: dict[str, Any],
    *,
    failures: Sequence[Failure] = (),
    threads: int | None,
    out: Path | None,
    as_json: bool,
    plots: Path | None = None,
    details: bool = False,
) -> None:
    """Run a task, then print its tables, write its report and draw its pictures."""
    from tiepoint.evaluation import summary
    from tiepoint.evaluation.run import evaluate

    _check_out(out, as_json=as_json)
    resume = None
    if out not in (None, STDOUT):
        resume = _resume_file(out, pairs, methods, {**run_info, "settings": asdict(settings)})
    measure = partial(
        evaluate,
        task,
        pairs,
        methods,
        settings,
        failures=failures,
        workers=min(usable_cores(threads), PAIRS_AT_ONCE),
        resume=resume,
    )
    evaluation = with_progress("pairs", len(pairs), lambda done: measure(on_pair=done))
    tables = [summary.table(evaluation)] if evaluation.records else []
    if tables and details:
        from tiepoint.evaluation.homography import detail_table

        tables.append(detail_table(evaluation))
    _show(tables, evaluation.failures, as_json=as_json or out == STDOUT)
    _write(out, summary.as_json(evaluation, **run_info), as_json=as_json)
    if resume is not None:
        resume.finish()
    if plots is not None:
        from tiepoint.evaluation.pictures import draw_pictures

        draw_pictures(evaluation, pairs, plots)
    _stop_if(evaluation.failures)


def _resume_file(
    out: Path, pairs: Sequence[Pair], methods: Sequence[Method], run_info: dict[str, Any]
) -> ResumeFile:
    from tiepoint.evaluation.resume import ENDING, ResumeFile, fingerprint

    decisive = {**run_info, "version": __version__, "pairs": fingerprint(pairs)}
    decisive["methods"] = {method.name: dict(method.settings) for method in methods}
    resume = ResumeFile(out.with_name(out.name + ENDING), decisive)
    if resume.done:
        typer.echo(f"{len(resume.done)} pairs taken from {resume.path}", err=True)
    if resume.moved_to is not None:
        typer.echo(f"{resume.moved_to}: measured under other settings, kept there", err=True)
    return resume


def _check_out(out: Path | None, *, as_json: bool) -> None:
    if as_json and out == STDOUT:
        raise ConfigError("--json and -o - both write to stdout: drop one")
    if out not in (None, STDOUT):
        check_file("-o", out, (".json",), overwrite=True)


def _write(out: Path | None, text: str, *, as_json: bool) -> None:
    from tiepoint.files.writing import make_folder, write_bytes

    if as_json:
        typer.echo(text)
    if out == STDOUT:
        write_stdout(text.encode())
    elif out is not None:
        make_folder(out.parent)
        write_bytes(out, text.encode())


def _show(tables: Sequence[Table], failures: Sequence[Failure], *, as_json: bool = False) -> None:
    """List the failures and print the tables; stop where there are none."""
    from rich.console import Console

    for one in failures:
        typer.echo(f"skipped {one.group} {one.name}: {one.message}", err=True)
    if not tables:
        _stop("nothing could be read", exit_codes.NOTHING_READABLE)
    for table in () if as_json or is_quiet() else tables:
        Console(width=max(Console().width, TABLE_WIDTH)).print(table)


def _stop_if(failures: Sequence[Failure]) -> None:
    if failures:
        _stop(f"{len(failures)} could not be read and were skipped", exit_codes.FAILED)


def _stop(message: str, code: int) -> NoReturn:
    typer.echo(f"tiepoint: {message}", err=True)
    raise typer.Exit(code)
