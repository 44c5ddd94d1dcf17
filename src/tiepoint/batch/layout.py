"""Where the results of an input go, and which pictures are results of earlier runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from tiepoint.features import Features
from tiepoint.formats import FORMATS, H5Writer, Summary, load, save, summarise

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

    @property
    def label(self) -> str:
        """What messages call it."""
        return str(self.features)

    def exists(self) -> bool:
        """Whether something stands where the features go."""
        return self.features.exists()

    def summarise(self) -> Summary:
        """The head of the features that are there."""
        return summarise(self.features)

    def load(self) -> Features:
        """The features that are there."""
        return load(self.features)

    def save(self, features: Features) -> None:
        """Write the features, whole or not at all."""
        save(features, self.features)


@dataclass(frozen=True)
class TargetInFile(Target):
    """A place inside the one file of a whole run.

    Attributes:
        writer: Of that file.
        name: Of the image in it.
    """

    writer: H5Writer
    name: str

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"{self.features}: {self.name}"

    def exists(self) -> bool:
        """Whether the file, or what an interrupted run left, holds the image."""
        return self.name in self.writer

    def summarise(self) -> Summary:
        """The head of the features that are there."""
        return self.writer.summarise(self.name)

    def load(self) -> Features:
        """The features that are there."""
        return self.writer.read(self.name)

    def save(self, features: Features) -> None:
        """Keep the features until the file is written."""
        self.writer.add(self.name, features)


class Layout(Protocol):
    """A rule that gives each place its target."""

    def target(self, place: PurePosixPath) -> Target:
        """The target of the input with this place."""

    def finish(self) -> None:
        """Called once, after the last input."""


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

    def finish(self) -> None:
        """Nothing is left to do."""


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

    def finish(self) -> None:
        """Nothing is left to do."""


@dataclass(frozen=True)
class OneFileForAll:
    """One HDF5 file for all inputs, each under its place.

    Attributes:
        writer: Of that file; whoever made it suspends it if the run does not come to its end.
    """

    writer: H5Writer

    def target(self, place: PurePosixPath) -> Target:
        """The place in the file; overlays need a folder."""
        return TargetInFile(self.writer.path, None, self.writer, str(place))

    def finish(self) -> None:
        """Write the file."""
        self.writer.close()


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
