"""`tiepoint adapt`: fine-tune a checkpoint on a user's own images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tiepoint.cli import options
from tiepoint.cli.train import (
    Compile,
    Minutes,
    Seed,
    Steps,
    Threads,
    Workers,
    compiles,
    default_workers,
    finish,
    prepare,
)
from tiepoint.training.presets import ADAPT
from tiepoint.training.scenes.settings import DataConfig

app = typer.Typer(add_completion=False, rich_markup_mode=None)

PHOTO_SHARE = 0.7
"""The rest of the pairs are drawn scenes, whose exact corners keep the detector from drifting."""

Photos = Annotated[
    Path, typer.Argument(metavar="PHOTOS_DIR", help="Folder with images; they need no labels.")
]
Out = Annotated[
    Path, typer.Option("--out", "-o", help="Folder of the run: state, log, checkpoint.")
]
AllPhotos = Annotated[
    bool,
    typer.Option("--all", help="Train on every image; else a fifth, by name, stays held out."),
]


@app.command()
def adapt(
    photos: Photos,
    out: Out,
    checkpoint: options.Checkpoint = options.CHECKPOINT,
    all_photos: AllPhotos = False,
    device: options.Device = options.AUTO,
    minutes: Minutes = ADAPT.minutes,
    steps: Steps = None,
    seed: Seed = 0,
    workers: Workers = None,
    threads: Threads = None,
    compile_network: Compile = None,
) -> None:
    """Fine-tune a checkpoint on images of your own kind: infrared, satellite, microscopy.

    The images need no labels: what both views of a warped pair show at one place is a label.
    Writes what `tiepoint train` writes; a stopped run goes on with its --resume.
    """
    drawing = default_workers() if workers is None else workers
    runs = prepare(threads)
    data = DataConfig(
        photos=(str(photos),),
        photo_share=PHOTO_SHARE,
        part="all" if all_photos else "training",
    )
    finish(
        lambda: runs.adapt(
            data, out, checkpoint=checkpoint, minutes=None if steps else minutes, steps=steps,
            seed=seed, workers=drawing, device=device, say=typer.echo,
            compiled=compiles(compile_network, None if steps else minutes),
        )
    )  # fmt: skip
