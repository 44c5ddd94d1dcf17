"""`tiepoint convert`: a file of weights -> a checkpoint folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tiepoint.cli import options
from tiepoint.cli.output import show

app = typer.Typer(add_completion=False, rich_markup_mode=None)

Source = Annotated[
    Path,
    typer.Argument(metavar="IN", help="Weights: Magic Leap's .pth, a .safetensors or a .bin file."),
]
Folder = Annotated[Path, typer.Argument(metavar="OUT", help="Checkpoint folder to write.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing checkpoint.")]


@options.command(app, "tiepoint convert superpoint_v1.pth my_checkpoint")
def convert(source: Source, folder: Folder, overwrite: Overwrite = False) -> None:
    """Convert weights of other projects to a checkpoint for tiepoint and transformers.

    No code in the file is executed. Exit status: 0 done, 2 unsuitable file or existing checkpoint.
    """
    from tiepoint.weights.checkpoint import load_checkpoint
    from tiepoint.weights.convert import convert as write

    write(source, folder, overwrite=overwrite)
    network = load_checkpoint(folder).network  # verifies the written files
    encoder = ", ".join(map(str, network.encoder_hidden_sizes))
    show(
        f"{folder}: encoder {encoder}; heads {network.decoder_hidden_size}; "
        f"descriptors {network.descriptor_decoder_dim}"
    )
