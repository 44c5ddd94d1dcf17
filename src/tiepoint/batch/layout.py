"""Where the results of an input go, and which pictures are results of earlier runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from tiepoint.formats import FORMATS

OVERLAY_ENDING = ".png"
SINGLE_MARK = "_keypoints"


@dataclass(frozen=True)
class Target:
    """Where the results of one image go.

    Attributes:
        features: The features file; its ending picks the format.
        overlay: The picture with its keypoints, or None if it is not wanted.
    """

    features: Path
    overlay: Path | None


class Layout(Protocol):
    """A rule that gives each place its target."""

    def target(self, place: PurePosixPath) -> Target:
        """The target of the input with this place."""


@dataclass(frozen=True)
class FolderLayout:
    """`folder/<place>.npz`, overlay `folder/<place>.png`; the image's own ending stays.

    Attributes:
        folder: Made as needed.
        ending: Of the features files, with its dot.
        plot: Whether overlays are wanted.
    """

    folder: Path
    ending: str
    plot: bool = False

    def target(self, place: PurePosixPath) -> Target:
        """The target of the input with this place."""
        path = self.folder.joinpath(*place.parts)
        overlay = path.with_name(path.name + OVERLAY_ENDING) if self.plot else None
        return Target(path.with_name(path.name + self.ending), overlay)


@dataclass(frozen=True)
class SingleFile:
    """One file for one input; overlay `<name>_keypoints.png` beside it.

    Attributes:
        path: The features file.
        plot: Whether the overlay is wanted.
    """

    path: Path
    plot: bool = False

    def target(self, place: PurePosixPath) -> Target:
        """The one target."""
        overlay = self.path.with_name(self.path.stem + SINGLE_MARK + OVERLAY_ENDING)
        return Target(self.path, overlay if self.plot else None)


def is_overlay(path: Path) -> bool:
    """Whether a picture is an overlay: its features lie beside it.

    A folder that holds both images and results can so be given again.
    """
    if path.suffix.lower() != OVERLAY_ENDING:
        return False
    stem = path.stem
    owners = [stem] if "." in stem else []  # x.jpg.png belongs to x.jpg.npz
    if stem.endswith(SINGLE_MARK):
        owners.append(stem.removesuffix(SINGLE_MARK))
    return any(path.with_name(owner + ending).exists() for owner in owners for ending in FORMATS)
