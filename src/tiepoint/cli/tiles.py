"""Options of commands that detect in tiles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tiepoint.cli.output import STDOUT
from tiepoint.config import DetectionOptions, ProcessorConfig
from tiepoint.errors import ConfigError

if TYPE_CHECKING:
    from tiepoint.detector import Detector
    from tiepoint.tiles.run import Progress

Tile = Annotated[
    bool,
    typer.Option(
        "--tile",
        help="Detect tile by tile at the native size, in bounded memory, with the keypoints of the "
        "image as a whole. GeoTIFF and the like (extra geo) and images of microscopes (extra bio) "
        "are read in windows. A stopped run resumes at the tile where it was.",
    ),
]
TilePx = Annotated[
    int | None,
    typer.Option(metavar="PX", min=64, help="Side of a tile, px; a multiple of 8.",
                 show_default="1024"),
]  # fmt: skip
OnDamage = Annotated[
    Literal["raise", "skip"] | None,
    typer.Option(
        help="A tile that cannot be read: raise ends the image, skip records it and continues.",
        show_default="raise",
    ),
]
ChannelNumbers = Annotated[
    str | None,
    typer.Option(
        "--channels",
        metavar="N,N,...",
        help="Channel or band of the image, from 0 on; of several the mean is taken.",
        show_default="(colour, or the first one)",
    ),
]


class TileOptions:
    """The tile options of a command.

    Args:
        tile, tile_px, on_damage, channels: As given; None is not given.
        detection: The settings of the detector. With tiles, a `max_side` that is the default
            becomes the native size.

    Raises:
        ConfigError: An option that needs `--tile`, or channels that are no numbers.
    """

    def __init__(
        self,
        tile: bool,
        tile_px: int | None,
        on_damage: Literal["raise", "skip"] | None,
        channels: str | None,
        detection: DetectionOptions,
    ) -> None:
        self._tile = tile
        self._given = {
            "tile_px": tile_px, "on_damage": on_damage, "channels": _channels_of(channels)
        }  # fmt: skip
        for name, value in self._given.items():
            if value is not None and not tile:
                raise ConfigError(f"--{name.replace('_', '-')} needs --tile")
        if tile:
            side = detection.get("max_side")
            if side not in (None, ProcessorConfig().max_side):
                raise ConfigError(
                    f"max_side is {side}, but tiles show an image at its native size; leave it out"
                )
            detection["max_side"] = None

    def detector(
        self,
        detector: Detector,
        progress: Progress | None = None,
        out: Path = STDOUT,
        ending: str = "",
    ) -> Any:
        """The detector, in tiles if the command is.

        Args:
            detector: The detector of images or tiles.
            progress: Shows the tiles of an image.
            out: Where results go; the tiles that are done are next to them.
            ending: Ending of the features files. An .h5 file takes all keypoints of any image.
        """
        if not self._tile:
            return detector
        from tiepoint.formats.hdf5 import ENDING
        from tiepoint.tiles.stream import TiledDetector

        given: Any = {name: value for name, value in self._given.items() if value is not None}
        folder = out.parent if out.suffix.lower() == ending else out
        try:
            return TiledDetector(
                detector, progress=progress, states=None if out == STDOUT else folder,
                mapped=ending == ENDING, **given,
            )  # fmt: skip
        except ConfigError as error:
            raise ConfigError(str(error).replace("tile_px", "--tile-px")) from error


def _channels_of(text: str | None) -> tuple[int, ...] | None:
    """The numbers of "0,2"; raises ConfigError for another form."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() for part in parts):
        raise ConfigError(f"--channels is {text!r}, expected numbers from 0 on, such as 0 or 0,2")
    return tuple(map(int, parts))
