"""`tiepoint quantize`: measure what `--precision int8` needs to know of a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tiepoint.cli.steer import Count, Photos, Seed, sample_images
from tiepoint.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

app = typer.Typer(add_completion=False, rich_markup_mode=None)

Folder = Annotated[
    Path, typer.Argument(metavar="CHECKPOINT", help="Folder of the checkpoint; gets a file more.")
]


@app.command()
def quantize(checkpoint: Folder, photos: Photos = None, count: Count = 60, seed: Seed = 0) -> None:
    """Measure how large the numbers between a checkpoint's layers get, for --precision int8.

    Lays quantization.json beside the weights, which stay as they are. It takes under a minute.
    """
    from tiepoint.network.openvino_graph import highest_inputs
    from tiepoint.weights.checkpoint import load_checkpoint
    from tiepoint.weights.quantization import (
        LEAST_CHANNELS,
        mean_highest,
        rounded_layers,
        save_ranges,
    )

    if not checkpoint.is_dir():
        raise ConfigError(f"{checkpoint}: no such folder; expected one with a checkpoint")
    loaded = load_checkpoint(
        checkpoint.resolve()
    )  # a folder, also where a bundled one has its name
    layers = rounded_layers(loaded.network)
    if not layers:
        raise ConfigError(
            f"{checkpoint}: no layer takes {LEAST_CHANNELS} inputs or more, so 8 bits would gain "
            "nothing; use --precision bf16 or f32"
        )
    highest = highest_inputs(loaded, _pixels(photos, count, seed))
    path = save_ranges(checkpoint, mean_highest(highest, layers), loaded.sha256)
    typer.echo(f"wrote {path}")


def _pixels(photos: Path | None, count: int, seed: int) -> Iterator[NDArray[np.float32]]:
    from tiepoint.config import ProcessorConfig
    from tiepoint.network import inputs

    for image in sample_images(photos, count, seed):
        yield inputs.prepare([image], ProcessorConfig())[0][0, 0]
