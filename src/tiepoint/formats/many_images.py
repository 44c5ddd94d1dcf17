"""Features of many images, in whatever files they are: name -> features."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path, PurePath

from tiepoint.errors import FormatError
from tiepoint.features import Features
from tiepoint.files.paths import is_folder
from tiepoint.formats import FORMATS, fields, hdf5, load, read_h5
from tiepoint.formats.features_store import StoreFeatures, in_folders, is_store


class FilesFeatures(Mapping[str, Features]):
    """The images of files with one image each; a file is read when its image is asked for.

    Attributes:
        path: The folder, or the one file.
        files: Name of the image -> its file.
    """

    def __init__(self, path: Path, files: Mapping[str, Path]) -> None:
        self.path, self.files = path, files

    def __getitem__(self, name: str) -> Features:
        return load(self.files[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}, {len(self)} images)"


def read_features(path: str | PathLike[str]) -> Mapping[str, Features]:
    """The features of one or many images, from any of the places where `tiepoint detect` puts them.

    Args:
        path: An .h5 file; a store; a folder of features files, as `-o FOLDER` gives, with the
            names of the images below it; or a features file of one image, under its file name.

    Returns:
        Name of the image -> features, read when they are asked for.

    Raises:
        FormatError: Nothing there, no features in it, a folder that cannot be listed, or an
            unknown ending. Asking for a damaged image raises it too.
        MissingExtraError: The format needs an extra that is not installed.
    """
    place = Path(path)
    if is_store(place):
        return StoreFeatures(place)
    if is_folder(place):
        return FilesFeatures(place, _files_below(place))
    if place.suffix.lower() == hdf5.ENDING:
        return read_h5(place)
    features = load(place)
    source = features.meta.get("source")
    name = PurePath(source).name if isinstance(source, str) else ""
    return FilesFeatures(place, {name or place.stem: place})


def _refuse(error: OSError) -> None:
    """Raise for a folder that cannot be listed, whose images would be missing."""
    fields.unreadable(str(error.filename), error)


def _files_below(folder: Path) -> dict[str, Path]:
    """Name of each image -> its features file, sorted."""
    files: dict[str, Path] = {}
    for place, _, names in os.walk(folder, onerror=_refuse):
        for name in names:
            stem, ending = os.path.splitext(name)  # noqa: PTH122 - a million times
            if ending.lower() not in FORMATS or name.startswith("."):
                continue
            image = (Path(place) / stem).relative_to(folder).as_posix()
            if image in files:
                raise FormatError(f"{folder}: has two files of {image}; keep one of them")
            files[image] = Path(place) / name
    if not files:
        raise FormatError(
            f"{folder}: neither a store nor a folder with features files; expected what tiepoint "
            "detect -o wrote"
        )
    return {image: files[image] for image in sorted(files, key=in_folders)}
