"""`tiepoint convert`: a file of weights -> a checkpoint folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)

Source = Annotated[
    Path,
    typer.Argument(metavar="IN", help="Magic Leap's .pth, or a .safetensors or .bin of weights."),
]
Folder = Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the checkpoint.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace a checkpoint that is already there.")
]


@app.command()
def convert(source: Source, folder: Folder, overwrite: Overwrite = False) -> None:
    """Convert weights of other projects to a checkpoint that tiepoint and transformers load.

    Runs nothing from the file. Exit status: 0 done, 2 the file does not fit or OUT is taken.
    """
    from tiepoint.weights.checkpoint import load_checkpoint
    from tiepoint.weights.convert import convert as write

    write(source, folder, overwrite=overwrite)
    network = load_checkpoint(folder).network  # read back: what was written is whole
    encoder = ", ".join(map(str, network.encoder_hidden_sizes))
    typer.echo(
        f"{folder}: encoder {encoder}; heads {network.decoder_hidden_size}; "
        f"descriptors {network.descriptor_decoder_dim}"
    )
