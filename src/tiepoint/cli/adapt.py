"""`tiepoint adapt`: fine-tune a checkpoint on a user's own images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from tiepoint.cli import options, train
from tiepoint.training.presets import ADAPT, adaptation_data
from tiepoint.training.setup import should_compile

app = typer.Typer(add_completion=False, rich_markup_mode=None)

Photos = Annotated[
    Path, typer.Argument(metavar="PHOTOS_DIR", help="Folder with images; they need no labels.")
]
Out = Annotated[
    Path, typer.Option("--out", "-o", help="Folder of the run: state, log and checkpoint.")
]
AllPhotos = Annotated[
    bool,
    typer.Option(
        "--all", help="Train on every image. Default: a fifth, chosen by name, is held out."
    ),
]


@options.command(
    app,
    "tiepoint adapt images -o my_run --minutes 60",
    "tiepoint detect images -o features.h5 -c my_run/checkpoint",
)
def adapt(
    photos: Photos,
    out: Out,
    checkpoint: options.Checkpoint = options.CHECKPOINT,
    all_photos: AllPhotos = False,
    device: options.Device = options.AUTO,
    minutes: train.Minutes = ADAPT.minutes,
    steps: train.Steps = None,
    seed: train.Seed = 0,
    workers: train.Workers = None,
    threads: train.Threads = None,
    compile_network: train.Compile = None,
) -> None:
    """Fine-tune a checkpoint on images of your own kind: infrared, satellite, microscopy.

    The images need no labels: both views of a warped pair show the same points, whose positions
    are known. Writes what `tiepoint train` writes; resume a stopped run by `tiepoint train
    --resume`.
    """
    execution = train.prepare_execution(workers, device, threads)
    from tiepoint.training import runs

    minutes = None if steps else minutes
    execution = replace(execution, compiled=should_compile(compile_network, minutes=minutes))
    data = adaptation_data([str(photos)], "all" if all_photos else "training")
    train.finish(
        lambda: runs.adapt(
            data, out, checkpoint=checkpoint, minutes=minutes, steps=steps, seed=seed,
            execution=execution,
        )
    )  # fmt: skip
