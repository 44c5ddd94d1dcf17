"""`tiepoint samples`: two views of one scene, to try the other commands on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tiepoint.cli import options
from tiepoint.cli.output import show
from tiepoint.errors import ConfigError
from tiepoint.files.writing import make_folder, write_bytes
from tiepoint.images.samples import sample_views

app = typer.Typer(add_completion=False, rich_markup_mode=None)

Output = Annotated[Path, typer.Option("--out", "-o", help="Folder; default: the current one.")]


@options.command(
    app, "tiepoint samples", "tiepoint register coffee_a.jpg coffee_b.jpg -o aligned.png"
)
def samples(output: Output = Path(), overwrite: options.Overwrite = False) -> None:
    """Write two photographs of one scene, to try the other commands on.

    Exit status: 0 done, 2 another file has the name.
    """
    make_folder(output, advice="choose another folder with -o")
    contents = {output / view.name: view.read_bytes() for view in sample_views()}
    for path, content in contents.items():
        if not overwrite and path.exists() and path.read_bytes() != content:
            raise ConfigError(f"{path} is another file; choose a folder with -o, or --overwrite")
    for path, content in contents.items():
        write_bytes(path, content)
        show(str(path))
