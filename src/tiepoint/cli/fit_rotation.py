"""`tiepoint fit-rotation`: make a checkpoint match rotated images."""

from __future__ import annotations

import typer

from tiepoint.cli import options
from tiepoint.cli.output import show
from tiepoint.cli.sample_options import Count, Folder, Photos, Seed, load_folder, load_images

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@options.command(app, "tiepoint fit-rotation my_checkpoint --photos photos")
def fit_rotation(
    checkpoint: Folder,
    photos: Photos = None,
    count: Count = 60,
    seed: Seed = 0,
    threads: options.Threads = None,
) -> None:
    """Fit how a checkpoint's descriptors change when an image is rotated.

    Adds rotation.safetensors to the folder; the weights do not change. With it, matching tries
    eight rotations of each pair and keeps the best, so sideways and upside-down photographs match.
    It takes under a minute.
    """
    from tiepoint.training.fit_rotation import fit_rotation as fit
    from tiepoint.weights.rotation import save_rotation

    loaded = load_folder(checkpoint)
    matrix = fit(loaded, load_images(photos, count, seed), threads=threads)
    show(f"wrote {save_rotation(checkpoint, matrix, loaded.sha256)}")
