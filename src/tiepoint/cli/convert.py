"""`tiepoint convert`: weights -> a checkpoint folder; features -> files of another program."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tiepoint.cli import options
from tiepoint.cli.output import show
from tiepoint.errors import ConfigError

app = typer.Typer(add_completion=False, rich_markup_mode=None)

Source = Annotated[
    Path,
    typer.Argument(
        metavar="IN",
        help="Weights: Magic Leap's .pth, a .safetensors or a .bin file. With --to, features: "
        "an .h5 file or a store.",
    ),
]
Folder = Annotated[
    Path, typer.Argument(metavar="OUT", help="Checkpoint folder; with --to, the program's folder.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing checkpoint.")]
To = Annotated[
    str | None,
    typer.Option("--to", metavar="PROGRAM", help="Write features for opensfm, openmvg or micmac."),
]
MatchesFile = Annotated[
    Path | None,
    typer.Option("--matches", metavar="FILE.h5", help="With --to: matches of the same features."),
]


@options.command(
    app,
    "tiepoint convert superpoint_v1.pth my_checkpoint",
    "tiepoint convert features.h5 dataset --to opensfm --matches matches.h5",
)
def convert(
    source: Source,
    folder: Folder,
    to: To = None,
    matches: MatchesFile = None,
    overwrite: Overwrite = False,
) -> None:
    """Convert weights of other projects to a checkpoint, or features to another program's files.

    No code in a file is executed. Files of the same name in the program's folder are replaced.
    Exit status: 0 done, 2 unsuitable file or existing checkpoint.
    """
    if to is not None:
        from tiepoint.integrations.conversion import convert_features

        count = convert_features(source, folder, to, matches)  # type: ignore[arg-type] # checked
        show(f"{folder}: {count} files for {to}")
        return
    if matches is not None:
        raise ConfigError("--matches is for features: name the program with --to")
    from tiepoint.weights.checkpoint import load_checkpoint
    from tiepoint.weights.convert import convert as write

    write(source, folder, overwrite=overwrite)
    network = load_checkpoint(folder).network  # verifies the written files
    encoder = ", ".join(map(str, network.encoder_hidden_sizes))
    show(
        f"{folder}: encoder {encoder}; heads {network.decoder_hidden_size}; "
        f"descriptors {network.descriptor_decoder_dim}"
    )
