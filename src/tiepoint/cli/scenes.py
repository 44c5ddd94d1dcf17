"""`tiepoint scenes`: sample training pairs and their statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tiepoint.cli import options
from tiepoint.cli.output import show
from tiepoint.errors import ConfigError
from tiepoint.training.scenes.settings import DataConfig

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_SIZE = "x".join(map(str, DataConfig().size_hw))
_COLUMNS = {
    "slope": "slope",
    "kurtosis": "kurtosis",
    "empty": "empty cells",
    "peaks": "peaks/100 cells",
    "contrast": "contrast",
    "spread": "spread",
    "corners_per_100_cells": "corners/100",
    "ignored_cells": "ignored cells",
    "common_view": "common view",
}


@options.command(app, "tiepoint scenes -o sheets --photos photos")
def scenes(
    output: Annotated[
        Path,
        typer.Option("--out", "-o", help="Output folder for contact sheets and report.json."),
    ],
    photos: Annotated[
        list[Path] | None,
        typer.Option("--photos", help="Folder of photographs for comparison; repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the random scenes.")] = 0,
    count: Annotated[
        int, typer.Option("--count", min=1, help="Number of pairs per kind of scene.")
    ] = 16,
    size: Annotated[
        str,
        typer.Option("--size", help="Height x width of a view in px: multiples of 8, at least 64."),
    ] = _SIZE,
) -> None:
    """Draw sample training pairs with their labels and print their statistics.

    Each kind of scene gets a contact sheet. Green rings are labelled corners, blue areas are
    ignored by the loss, and yellow numbers mark corresponding points of both views. report.json
    has the printed figures: 10, 50 and 90 % quantiles over the views.
    """
    from tiepoint.training.scenes.samples import write_samples

    config = DataConfig(size_hw=_size_hw(size), photos=tuple(map(str, photos or ())))
    report = write_samples(output, config, seed, count)
    show(_table(report))
    show(f"contact sheets and report.json are in {output}")


def _size_hw(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):
        raise ConfigError(f"--size is {text!r}, expected height x width in px, such as {_SIZE}")
    return int(parts[0]), int(parts[1])


def _table(report: dict[str, Any]) -> str:
    """One line per statistic, one column per kind."""
    kinds = [name for name, value in report.items() if isinstance(value, dict)]
    width = max(19, *(len(kind) + 2 for kind in kinds))  # quantiles take up to 17
    lines = [f"{'10 / 50 / 90 %':<18}" + "".join(f"{kind:>{width}}" for kind in kinds)]
    for name, title in _COLUMNS.items():
        cells = [_quantiles(report[kind].get(name)) for kind in kinds]
        lines.append(f"{title:<18}" + "".join(f"{cell:>{width}}" for cell in cells))
    flat = report["generated"]["in_cell_of_flat"]
    lines.append(f"corners per px of a cell: {flat[0]:.2f}..{flat[1]:.2f} of a flat distribution")
    return "\n".join(lines)


def _quantiles(values: list[float] | None) -> str:
    return " ".join(f"{value:.3g}" for value in values) if values else "-"
