"""Stores: where a run keeps the features of each image; and which pictures are overlays."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tiepoint.errors import FormatError
from tiepoint.features import Features
from tiepoint.files.paths import is_file
from tiepoint.files.writing import special_kind
from tiepoint.formats import FORMATS, H5Writer, Summary, is_remnant, load, save, summarise

OVERLAY_ENDING = ".png"
SINGLE_MARK = "_keypoints"
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"\0\0\0\0IEND\xaeB`\x82"


class Store:
    """Keeps the features of each image by its name, in a file of its own.

    Subclasses define `path`, and whatever else differs.
    """

    def path(self, name: PurePosixPath) -> Path:
        """Features file of the image; its ending defines the format."""
        raise NotImplementedError

    def overlay(self, name: PurePosixPath) -> Path | None:
        """Picture with the keypoints, or None if none is requested."""
        return None

    def label(self, name: PurePosixPath) -> str:
        """Name of the features in messages."""
        return str(self.path(name))

    def exists(self, name: PurePosixPath) -> bool:
        """Whether features of the image, or another file, are in its place.

        Raises:
            FormatError: Something that is no file, and may never end when it is read.
        """
        path = self.path(name)
        if not path.exists():
            return False
        if kind := special_kind(path):
            raise FormatError(f"{path}: {kind}, expected a features file; move it away")
        return True

    def is_remnant(self, name: PurePosixPath) -> bool:
        """Whether damaged features are the rest of ours, and no other file."""
        return is_remnant(self.path(name))

    def summarise(self, name: PurePosixPath) -> Summary:
        """Head of the stored features."""
        return summarise(self.path(name))

    def load(self, name: PurePosixPath) -> Features:
        """The stored features."""
        return load(self.path(name))

    def save(self, name: PurePosixPath, features: Features) -> None:
        """Store the features, whole or not at all."""
        save(features, self.path(name))

    def close(self) -> None:
        """Complete the results; called once, after the last input."""
        return


@dataclass(frozen=True)
class FolderStore(Store):
    """`folder/<name>.npz` and overlay `folder/<name>.png`; the image's own ending stays.

    Attributes:
        folder: Output folder, made as needed.
        ending: Ending of the features files, with its dot.
        plot: Whether overlays are requested.
    """

    folder: Path
    ending: str
    plot: bool = False

    def path(self, name: PurePosixPath) -> Path:
        return self._file(name, self.ending)

    def overlay(self, name: PurePosixPath) -> Path | None:
        return self._file(name, OVERLAY_ENDING) if self.plot else None

    def _file(self, name: PurePosixPath, ending: str) -> Path:
        path = self.folder.joinpath(*name.parts)
        return path.with_name(path.name + ending)


@dataclass(frozen=True)
class SingleFileStore(Store):
    """One file for one input, and overlay `<name>_keypoints.png` next to it.

    Attributes:
        file: Features file.
        plot: Whether the overlay is requested.
    """

    file: Path
    plot: bool = False

    def path(self, name: PurePosixPath) -> Path:
        return self.file

    def overlay(self, name: PurePosixPath) -> Path | None:
        overlay = self.file.with_name(self.file.stem + SINGLE_MARK + OVERLAY_ENDING)
        return overlay if self.plot else None


@dataclass(frozen=True)
class H5Store(Store):
    """One HDF5 file for all images, without overlays.

    Attributes:
        writer: Writer of that file. The caller suspends it if the run does not reach its end.
    """

    writer: H5Writer

    def path(self, name: PurePosixPath) -> Path:
        return self.writer.path

    def label(self, name: PurePosixPath) -> str:
        return f"{self.writer.path}: {name}"

    def exists(self, name: PurePosixPath) -> bool:
        return str(name) in self.writer

    def is_remnant(self, name: PurePosixPath) -> bool:
        return True  # a group of this image in the file of features

    def summarise(self, name: PurePosixPath) -> Summary:
        return self.writer.summarise(str(name))

    def load(self, name: PurePosixPath) -> Features:
        return self.writer.read(str(name))

    def save(self, name: PurePosixPath, features: Features) -> None:
        self.writer.add(str(name), features)

    def close(self) -> None:
        self.writer.close()


def is_whole_overlay(path: Path) -> bool:
    """Whether there is a picture, and no empty or truncated PNG."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_PNG_START))
            file.seek(-min(len(_PNG_END), file.seek(0, os.SEEK_END)), os.SEEK_END)
            end = file.read()
    except OSError:
        return special_kind(path) is not None
    is_begun = not start.strip(b"\0") or _PNG_START.startswith(start)
    return end == _PNG_END or not is_begun


def is_overlay(path: Path) -> bool:
    """Whether a picture is an overlay, because its features are next to it.

    A folder that holds both images and results can therefore be given again.
    """
    if path.suffix.lower() != OVERLAY_ENDING:
        return False
    stem = path.stem
    owners = [stem] if "." in stem else []  # x.jpg.png belongs to x.jpg.npz
    if stem.endswith(SINGLE_MARK):
        owners.append(stem.removesuffix(SINGLE_MARK))
    names = [path.with_name(owner + ending) for owner in owners for ending in FORMATS]
    return any(map(_is_features, names))


def _is_features(path: Path) -> bool:
    """Whether a file is one of features, and no other data about a picture."""
    try:
        return is_file(path) and is_remnant(path)
    except OSError:
        return True
