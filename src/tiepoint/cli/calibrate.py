"""`tiepoint calibrate`: how sure a checkpoint's positions are, in px."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tiepoint.errors import ConfigError

app = typer.Typer(add_completion=False, rich_markup_mode=None)

SEED = 11

Folder = Annotated[
    Path, typer.Argument(metavar="CHECKPOINT", help="Folder of the checkpoint; config.json grows.")
]
Photos = Annotated[
    Path, typer.Option(help="Folder with photographs like those that will be matched.")
]
Count = Annotated[int, typer.Option(help="Pairs drawn from them.", min=1)]
Write = Annotated[bool, typer.Option("--write/--no-write", help="Only show the table.")]


@app.command()
def calibrate(checkpoint: Folder, photos: Photos, count: Count = 90, write: Write = True) -> None:
    """Fit the scale of Features.covariance and write it into the checkpoint's config.json.

    Prints, for eighths of the matches by what is stated: the standard deviation per axis that the
    scaled covariances state for the difference of two positions, and the measured one. Takes a
    few minutes.
    """
    from rich.console import Console
    from rich.progress import Progress

    from tiepoint.evaluation import calibration
    from tiepoint.evaluation.generated import generated_pairs
    from tiepoint.images.photographs import list_photos

    if not checkpoint.is_dir():
        raise ConfigError(f"{checkpoint}: no such folder; expected one with a checkpoint")
    if write:
        calibration.check_ours(checkpoint)
    checkpoint = checkpoint.resolve()  # a folder, also where a bundled one has its name
    pairs = generated_pairs(list_photos(photos, "all"), count, SEED)
    errors = Console(stderr=True)
    with Progress(console=errors, disable=not errors.is_terminal, transient=True) as progress:
        task = progress.add_task("pairs", total=len(pairs))
        found = calibration.calibrate(checkpoint, pairs, on_pair=lambda: progress.advance(task))
    typer.echo("stated px  measured px")
    for stated, measured in zip(found.stated_px, found.measured_px, strict=True):
        typer.echo(f"{stated:9.2f}  {measured:11.2f}")
    typer.echo(f"scale {found.scale:g} from {found.matches} matches")
    if write:
        typer.echo(f"wrote {calibration.store_scale(checkpoint, found.scale)}")
