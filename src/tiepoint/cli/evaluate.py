"""`tiepoint evaluate`: how good keypoints are on pairs of images with known homographies."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, cast

import typer

from tiepoint._version import __version__
from tiepoint.cli import exit_codes
from tiepoint.cli.evaluate_options import (
    Checkpoints,
    Details,
    Json,
    K,
    Limit,
    LongSide,
    MethodNames,
    OwnK,
    OwnLongSide,
    OwnSeeds,
    Plots,
    ProfileName,
    Scales,
    Seeds,
    Stored,
    WholeJson,
    Workers,
)
from tiepoint.cli.evaluate_output import finish, run, stop
from tiepoint.cli.options import parse_scales
from tiepoint.errors import ConfigError, FormatError, MissingExtraError, is_installed
from tiepoint.evaluation.settings import (
    GENERATED_COUNT,
    GENERATED_SEED,
    METHODS,
    PROFILES,
    Frame,
    PoseSettings,
    Settings,
)
from tiepoint.images.photographs import PARTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tiepoint.evaluation.methods import Method
    from tiepoint.evaluation.pairs import Failure, Pair
    from tiepoint.evaluation.partial import Partial
    from tiepoint.images.photographs import Part

DEFAULTS, POSE_DEFAULTS = PROFILES["tiepoint"], PoseSettings()
METHOD_NAMES = ",".join(METHODS)
PLOTTED_PX = 10.0

app = typer.Typer(
    help="Measure keypoints on pairs of images with known truth, beside SIFT and ORB.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)

WORKERS = min(os.cpu_count() or 1, 4)


@app.command()
def homography(
    folders: Annotated[
        list[Path], typer.Argument(help="Folders with a pairs.txt, or HPatches' i_* and v_*.")
    ],
    checkpoint: Checkpoints = ["default"],  # noqa: B006 - typer copies it
    scales: Scales = None,
    methods: MethodNames = METHOD_NAMES,
    features: Stored = [],  # noqa: B006 - typer copies it
    profile: ProfileName = "tiepoint",
    k: OwnK = None,
    long_side: OwnLongSide = None,
    seeds: OwnSeeds = None,
    limit: Limit = None,
    workers: Workers = WORKERS,
    details: Details = False,
    json: Json = None,
    plots: Plots = None,
) -> None:
    """Score real pairs with known homographies."""
    from tiepoint.evaluation.pairs import read_folders, without_large

    settings = _settings(profile, k, long_side, seeds)
    frames = [settings.frame, settings.repeat_frame]
    if features and any(frame is not None and frame.crop_hw is not None for frame in frames):
        raise ConfigError(f"--profile {profile} cuts images out, --features are of whole ones")
    chosen = _methods(methods, checkpoint, scales, features, settings.nms_radius)
    pairs, failures = read_folders(folders)
    pairs = without_large(pairs) if settings.without_large else pairs
    about = {"kind": "homography", "folders": list(map(str, folders)), "profile": profile}
    _evaluate(
        pairs[:limit], failures, chosen, settings, workers, _Output(details, json, plots), about
    )


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
    scales: Scales = None,
    methods: MethodNames = METHOD_NAMES,
    profile: ProfileName = "tiepoint",
    k: OwnK = None,
    long_side: OwnLongSide = None,
    seeds: OwnSeeds = None,
    limit: Limit = None,
    workers: Workers = WORKERS,
    details: Details = False,
    json: Json = None,
    plots: Plots = None,
) -> None:
    """Score 1,000 graded homographies with photometric change, drawn from photographs."""
    from tiepoint.evaluation.generated import generated_pairs
    from tiepoint.images.photographs import list_photos

    settings = _settings(profile, k, long_side, seeds)
    chosen = _methods(methods, checkpoint, scales, nms_radius=settings.nms_radius)
    try:
        files = list_photos(photos, cast("Part", part))  # checks it
    except FormatError as error:
        stop(str(error), exit_codes.NOTHING_READABLE)
    pairs = generated_pairs(files, limit or GENERATED_COUNT, seed)
    about = {
        "kind": "generated",
        "photos": [path.relative_to(photos).as_posix() for path in files],
        "part": part,
        "seed": seed,
        "profile": profile,
    }
    _evaluate(pairs, [], chosen, settings, workers, _Output(details, json, plots), about)


@app.command()
def pose(
    folders: Annotated[
        list[Path], typer.Argument(help="Folders with a pairs.txt that holds cameras and poses.")
    ],
    checkpoint: Checkpoints = ["default"],  # noqa: B006 - typer copies it
    scales: Scales = None,
    methods: MethodNames = METHOD_NAMES,
    features: Stored = [],  # noqa: B006 - typer copies it
    k: K = POSE_DEFAULTS.k,
    long_side: LongSide = POSE_DEFAULTS.long_side,
    seeds: Seeds = POSE_DEFAULTS.seeds,
    limit: Limit = None,
    workers: Workers = WORKERS,
    json: Json = None,
    plots: Plots = None,
) -> None:
    """Score real pairs with known cameras by the relative pose that their matches give."""
    from tiepoint.evaluation import poses

    settings = PoseSettings(k=k, long_side=long_side, seeds=seeds)
    chosen = _methods(methods, checkpoint, scales, features)
    pairs, failures = poses.read_pose_folders(folders)
    about = {"kind": "pose", "folders": [str(folder) for folder in folders]}
    partial = _partial(json, pairs[:limit], chosen, settings, about)
    evaluation = run(
        len(pairs[:limit]),
        lambda on_pair: poses.evaluate_poses(
            pairs[:limit], chosen, settings, failures=failures, workers=workers, partial=partial,
            on_pair=on_pair,
        ),
    )  # fmt: skip
    tables = [poses.pose_table(evaluation)] if evaluation.records else []
    text = poses.pose_json(evaluation, **about) if json and tables else None

    def draw(folder: Path) -> None:
        from tiepoint.evaluation.pictures import SHARES_FILE, draw_shares

        errors = {method.name: poses.errors_deg(evaluation, method.name) for method in chosen}
        draw_shares(errors, max(settings.auc_deg), "degrees", folder / SHARES_FILE)

    finish(
        tables, evaluation.failures, json, text, partial, None if plots is None else (draw, plots)
    )


@app.command()
def stereo(
    folders: Annotated[
        list[Path], typer.Argument(help="Folders with a pairs.txt that names disparities.")
    ],
    checkpoint: Checkpoints = ["default"],  # noqa: B006 - typer copies it
    scales: Scales = None,
    methods: MethodNames = METHOD_NAMES,
    features: Stored = [],  # noqa: B006 - typer copies it
    k: K = DEFAULTS.k,
    workers: Workers = WORKERS,
    json: Json = None,
) -> None:
    """Score matches of real pairs with known depth, where no plane explains them."""
    from tiepoint.evaluation import stereo as depth

    settings = Settings(k=k)
    chosen = _methods(methods, checkpoint, scales, features)
    pairs, failures = depth.read_stereo_folders(folders)
    about = {"kind": "stereo", "folders": [str(folder) for folder in folders]}
    partial = _partial(json, pairs, chosen, settings, about)
    evaluation = run(
        len(pairs),
        lambda on_pair: depth.evaluate_stereo(
            pairs, chosen, settings, failures=failures, workers=workers, partial=partial,
            on_pair=on_pair,
        ),
    )  # fmt: skip
    tables = [depth.stereo_table(evaluation)] if evaluation.records else []
    text = depth.stereo_json(evaluation, **about) if json and tables else None
    finish(tables, evaluation.failures, json, text, partial)


@app.command()
def speed(
    photos: Annotated[Path, typer.Option(help="Folder with photographs, searched below too.")],
    checkpoint: Checkpoints = ["default"],  # noqa: B006 - typer copies it
    scales: Scales = None,
    methods: MethodNames = METHOD_NAMES,
    k: K = DEFAULTS.k,
    long_side: LongSide = DEFAULTS.frame.long_side or 640,
    limit: Annotated[int, typer.Option(help="Photographs.", min=1)] = 10,
    repeats: Annotated[int, typer.Option(help="Rounds over the photographs.", min=1)] = 3,
    json: WholeJson = None,
) -> None:
    """Time the methods on the same photographs, taking turns; for an idle machine."""
    from tiepoint.evaluation import speed as timing
    from tiepoint.images.photographs import list_photos

    chosen = _methods(methods, checkpoint, scales)
    try:
        files = list_photos(photos, "all")
    except FormatError as error:
        stop(str(error), exit_codes.NOTHING_READABLE)
    images, failures = timing.load_images(files[:limit], long_side)
    if not images:
        finish([], failures, None, None)
    rows = run(
        repeats * len(images),
        lambda on_image: timing.measure_speed(images, chosen, k, repeats, on_image=on_image),
        unit="images",
    )
    settings = {"k": k, "long_side": long_side, "repeats": repeats}
    text = timing.speed_json(rows, chosen, failures, settings, kind="speed") if json else None
    finish([timing.speed_table(rows, k, long_side)], failures, json, text)


class _Output(NamedTuple):
    """What else to show and to write."""

    details: bool
    json: Path | None
    plots: Path | None


def _settings(profile: str, k: int | None, long_side: int | None, seeds: int | None) -> Settings:
    """A profile's settings, with what is given in place of its own."""
    if profile not in PROFILES:
        raise ConfigError(f"no profile {profile!r}; there are {', '.join(PROFILES)}")
    settings = PROFILES[profile]
    if settings.estimator == "poselib" and not is_installed("poselib"):
        raise MissingExtraError(f"--profile {profile}", "pose")
    if long_side is not None:
        settings = replace(settings, frame=Frame(long_side=long_side))
    given = {"k": k, "seeds": seeds}
    return replace(settings, **{name: n for name, n in given.items() if n is not None})  # type: ignore[arg-type]


def _methods(
    names: str,
    checkpoints: Sequence[str],
    scales: str | None,
    stored: Sequence[str] = (),
    nms_radius: int | None = None,
) -> list[Method]:
    from tiepoint.evaluation.methods import checkpoint_methods, method, stored_method

    chosen: list[Method] = []
    seen_at = parse_scales(scales)
    for name in filter(None, map(str.strip, names.split(","))):
        own = name == "tiepoint"
        found = checkpoint_methods(checkpoints, nms_radius, seen_at) if own else [method(name)]
        chosen += found
    return [*chosen, *map(stored_method, stored)]


def _partial(
    json: Path | None,
    pairs: Sequence[Any],
    methods: Sequence[Method],
    settings: Any,
    about: dict[str, Any],
) -> Partial | None:
    """Where an evaluation notes the pairs that are done: beside its report, if it writes one."""
    if json is None:
        return None
    from tiepoint.evaluation.partial import ENDING, Partial, fingerprint

    decides = {
        **about,
        "version": __version__,
        "pairs": fingerprint(pairs),
        "settings": asdict(settings),
        "methods": {method.name: dict(method.settings) for method in methods},
    }
    partial = Partial(json.with_name(json.name + ENDING), decides)
    if partial.done:
        typer.echo(f"{len(partial.done)} pairs taken from {partial.path}", err=True)
    if partial.put_aside is not None:
        typer.echo(f"{partial.put_aside}: measured under other settings, kept there", err=True)
    return partial


def _evaluate(
    pairs: Sequence[Pair],
    failures: Sequence[Failure],
    methods: Sequence[Method],
    settings: Settings,
    workers: int,
    output: _Output,
    about: dict[str, Any],
) -> None:
    from tiepoint.evaluation import report
    from tiepoint.evaluation.run import evaluate

    partial = _partial(output.json, pairs, methods, settings, about)
    evaluation = run(
        len(pairs),
        lambda on_pair: evaluate(
            pairs, methods, settings, failures=failures, workers=workers, partial=partial,
            on_pair=on_pair,
        ),
    )  # fmt: skip
    tables = [report.table(evaluation)] if evaluation.records else []
    if tables and (output.details or about["profile"] != "tiepoint"):  # others report areas
        tables.append(report.detail_table(evaluation))
    text = report.as_json(evaluation, **about) if output.json and tables else None

    def draw(folder: Path) -> None:
        from tiepoint.evaluation.pictures import SHARES_FILE, draw_shares, draw_worst

        errors = {method.name: report.errors_px(evaluation, method.name) for method in methods}
        draw_shares(errors, PLOTTED_PX, "px", folder / SHARES_FILE)
        draw_worst(evaluation, pairs, folder)

    pictures = None if output.plots is None else (draw, output.plots)
    finish(tables, evaluation.failures, output.json, text, partial, pictures)
