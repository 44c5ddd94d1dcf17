"""`tiepoint calibrate`: how certain a checkpoint's positions are, and what noise scores."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from tiepoint.cli import options
from tiepoint.cli.output import show
from tiepoint.cli.progress import with_progress
from tiepoint.errors import ConfigError
from tiepoint.files.paths import is_folder

app = typer.Typer(add_completion=False, rich_markup_mode=None)

SEED = 11

Folder = Annotated[
    Path,
    typer.Argument(
        metavar="CHECKPOINT", help="Folder of the checkpoint; its config.json gets both values."
    ),
]
Photos = Annotated[
    Path, typer.Option(help="Folder with photographs like those that will be matched.")
]
Count = Annotated[int, typer.Option(help="Number of pairs drawn from the photographs.", min=1)]
Write = Annotated[
    bool, typer.Option("--write/--no-write", help="Store both values, or only print them.")
]


@options.command(app, "tiepoint calibrate my_checkpoint --photos photos")
def calibrate(
    checkpoint: Folder,
    photos: Photos,
    count: Count = 90,
    write: Write = True,
    threads: options.Threads = None,
) -> None:
    """Measure covariance_scale and noise_floor, and write them into the checkpoint's config.json.

    The scale turns second moments of the heat map into Features.covariance. The noise floor is
    what generated images of noise score; keypoints must exceed it.

    Prints eight rows, from the most to the least certain matches: the standard deviation per axis
    of the difference of two positions, as the scaled covariances state it and as measured. Takes a
    few minutes.
    """
    from tiepoint.evaluation import calibration, noise_floor
    from tiepoint.evaluation.generated import generated_pairs
    from tiepoint.images.photographs import list_photos
    from tiepoint.weights.folder import COVARIANCE_KEY, NOISE_FLOOR_KEY

    if not is_folder(checkpoint):
        raise ConfigError(f"{checkpoint}: no such folder; expected one with a checkpoint")
    if write:
        calibration.check_ours(checkpoint)
    checkpoint = checkpoint.resolve()  # a folder, even where a bundled checkpoint has its name
    pairs = generated_pairs(list_photos(photos, "all"), count, SEED)
    measure = partial(calibration.calibrate, checkpoint, pairs, threads=threads)
    fit = with_progress("pairs", len(pairs), lambda done: measure(on_pair=done))
    show("stated px  measured px")
    for stated, measured in zip(fit.stated_px, fit.measured_px, strict=True):
        show(f"{stated:9.2f}  {measured:11.2f}")
    show(f"scale {fit.scale:g} from {fit.matches} matches")
    score = partial(noise_floor.measure_noise_floor, checkpoint, threads=threads)
    floor = with_progress("frames", noise_floor.FRAMES, lambda done: score(on_frame=done))
    show(f"noise floor {floor:g}")
    if write:
        values = {COVARIANCE_KEY: fit.scale, NOISE_FLOOR_KEY: floor}
        show(f"wrote {calibration.store(checkpoint, values)}")
