"""Arguments shared by the commands that measure a checkpoint folder on sample images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tiepoint.errors import ConfigError
from tiepoint.files.paths import is_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from tiepoint.weights.checkpoint import Checkpoint

Folder = Annotated[
    Path, typer.Argument(metavar="CHECKPOINT", help="Checkpoint folder; a file is added to it.")
]
Photos = Annotated[
    Path | None,
    typer.Option(help="Folder with images like those to be matched. Default: drawn scenes."),
]
Count = Annotated[int, typer.Option(help="Number of images.", min=1)]
Seed = Annotated[int, typer.Option(help="Seed of the drawn scenes.", min=0)]


def load_folder(checkpoint: Path) -> Checkpoint:
    """Load a checkpoint from a folder, even where a bundled checkpoint has the same name."""
    from tiepoint.weights.checkpoint import load_checkpoint

    if not is_folder(checkpoint):
        raise ConfigError(f"{checkpoint}: no such folder; expected a checkpoint folder")
    return load_checkpoint(checkpoint.resolve())


def load_images(photos: Path | None, count: int, seed: int) -> Iterator[NDArray[np.uint8]]:
    """Images for the command; unreadable photographs are reported on stderr and left out."""
    from tiepoint.cli.report import complain
    from tiepoint.training.sample_images import sample_images

    return sample_images(photos, count, seed, on_skip=lambda error: complain(f"left out: {error}"))
