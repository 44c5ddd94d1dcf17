"""`tiepoint steer`: make a checkpoint match images however they are turned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tiepoint.errors import ConfigError, ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

app = typer.Typer(add_completion=False, rich_markup_mode=None)

SCENE_SIDE_PX = 320

Folder = Annotated[
    Path, typer.Argument(metavar="CHECKPOINT", help="Folder of the checkpoint; gets a file more.")
]
Photos = Annotated[
    Path | None,
    typer.Option(
        help="Folder with images to fit on, as they will be matched; else scenes are drawn."
    ),
]
Count = Annotated[int, typer.Option(help="Images.", min=1)]
Seed = Annotated[int, typer.Option(help="Of the drawn scenes.", min=0)]


@app.command()
def steer(checkpoint: Folder, photos: Photos = None, count: Count = 60, seed: Seed = 0) -> None:
    """Fit how descriptors change when an image is turned, and lay it beside the weights.

    With it, matching tries eight turns of each pair of images and keeps the best: photographs that
    stand sideways or upside down match. The weights stay as they are, and it takes under a minute.
    """
    from tiepoint.matching.rotation import fit_steering, save_steering
    from tiepoint.weights.checkpoint import load_checkpoint

    if not checkpoint.is_dir():
        raise ConfigError(f"{checkpoint}: no such folder; expected one with a checkpoint")
    loaded = load_checkpoint(
        checkpoint.resolve()
    )  # a folder, also where a bundled one has its name
    images = sample_images(photos, count, seed)
    path = save_steering(checkpoint, fit_steering(loaded, images), loaded.sha256)
    typer.echo(f"wrote {path}")


def sample_images(photos: Path | None, count: int, seed: int) -> Iterator[NDArray[np.uint8]]:
    """Grey images to measure a checkpoint on: photographs, or drawn scenes."""
    return _scenes(count, seed) if photos is None else _photographs(photos, count)


def _scenes(count: int, seed: int) -> Iterator[NDArray[np.uint8]]:
    from tiepoint.training.scenes.pairs import DataConfig, training_pair

    config = DataConfig(size_hw=(SCENE_SIDE_PX, SCENE_SIDE_PX))
    for index in range(count):
        yield training_pair(config, seed, index).a.image


def _photographs(folder: Path, count: int) -> Iterator[NDArray[np.uint8]]:
    """Every so many of the images, at the size that a detector sees them."""
    from tiepoint.cli.report import complain
    from tiepoint.config import ProcessorConfig
    from tiepoint.evaluation.generated import list_photos
    from tiepoint.evaluation.pairs import grey_uint8
    from tiepoint.images.reading import read

    files = list_photos(folder, "all")
    for path in files[:: max(1, len(files) // count)][:count]:
        try:
            yield grey_uint8(read(path).pixels, ProcessorConfig().max_side)
        except ImageError as error:
            complain(f"left out: {error}")
