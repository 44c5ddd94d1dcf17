"""`tiepoint calibrate`: how certain a checkpoint's positions are, in px."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tiepoint.cli.progress import with_progress
from tiepoint.errors import ConfigError

app = typer.Typer(add_completion=False, rich_markup_mode=None)

SEED = 11

Folder = Annotated[
    Path,
    typer.Argument(
        metavar="CHECKPOINT", help="Folder of the checkpoint; its config.json gets the scale."
    ),
]
Photos = Annotated[
    Path, typer.Option(help="Folder with photographs like those that will be matched.")
]
Count = Annotated[int, typer.Option(help="Number of pairs drawn from the photographs.", min=1)]
Write = Annotated[
    bool, typer.Option("--write/--no-write", help="Store the scale, or only print the table.")
]


@app.command()
def calibrate(checkpoint: Folder, photos: Photos, count: Count = 90, write: Write = True) -> None:
    """Fit the scale of Features.covariance and write it into the checkpoint's config.json.

    Prints eight rows, from the most to the least certain matches: the standard deviation per axis
    of the difference of two positions, as the scaled covariances state it and as measured. Takes a
    few minutes.
    """
    from tiepoint.evaluation import calibration
    from tiepoint.evaluation.generated import generated_pairs
    from tiepoint.images.photographs import list_photos

    if not checkpoint.is_dir():
        raise ConfigError(f"{checkpoint}: no such folder; expected one with a checkpoint")
    if write:
        calibration.check_ours(checkpoint)
    checkpoint = checkpoint.resolve()  # a folder, even where a bundled checkpoint has its name
    pairs = generated_pairs(list_photos(photos, "all"), count, SEED)
    fit = with_progress(
        "pairs", len(pairs), lambda done: calibration.calibrate(checkpoint, pairs, on_pair=done)
    )
    typer.echo("stated px  measured px")
    for stated, measured in zip(fit.stated_px, fit.measured_px, strict=True):
        typer.echo(f"{stated:9.2f}  {measured:11.2f}")
    typer.echo(f"scale {fit.scale:g} from {fit.matches} matches")
    if write:
        typer.echo(f"wrote {calibration.store_scale(checkpoint, fit.scale)}")
