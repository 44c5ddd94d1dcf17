"""Writing the features of many images to one HDF5 file; see `tiepoint.formats.hloc_features`."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from functools import partial
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

from tiepoint.errors import FormatError
from tiepoint.features import Features
from tiepoint.formats import features_npz, fields, hdf5, hloc_features
from tiepoint.formats.fields import Summary
from tiepoint.formats.hloc_features import DATASETS

LARGE_BYTES = 1 << 28
"""Features above this size do not go through the journal, which would hold them in memory."""


class H5Writer(hdf5.GroupWriter[str]):
    """Collects features of many images for one file, by way of a journal that survives kills.

    Images that the file holds already stay in it. As a context manager it closes at the end. After
    an exception it suspends instead, and the next writer of the same path resumes from the journal.

    Args:
        path: The file to write; its journal is next to it until it is closed.
        half: Descriptors as float16: half the size, with a relative error of 0.0005.

    Raises:
        FormatError: The file or its journal is damaged or foreign.
        OutputError: The journal cannot be written, or another run is writing the file.
        MissingExtraError: The extra `hdf5` is not installed.
    """

    _title, _holds = b"tiepoint journal 1\n", "features"

    def __init__(self, path: str | PathLike[str], *, half: bool = False) -> None:
        super().__init__(path)
        self._half = half
        self._dataset_like: set[str] = set()  # folders with the name of a data set
        for name in (*self._journal, *self._stored):
            self._dataset_like.update(dataset_folders(name))

    def __contains__(self, name: object) -> bool:
        return name in self._journal or name in self._stored

    def __len__(self) -> int:
        return len({*self._stored, *self._journal})

    def summarise(self, name: str) -> Summary:
        """Count, image size and `meta` of a finished image.

        Raises:
            KeyError: There is none of that name.
            FormatError: It is damaged.
        """
        if name in self._journal:
            return fields.summary_of(self.read(name))
        return hloc_features.summarise_group(self._stored_group(name), f"{self.path}: {name}")

    def read(self, name: str) -> Features:
        """Features of a finished image; raises as `summarise`."""
        if name in self._journal:
            return features_npz.decode(BytesIO(self._journal.read(name)), f"{self.partial}: {name}")
        return hloc_features.read_group(self._stored_group(name), f"{self.path}: {name}")

    def add(self, name: str, features: Features) -> None:
        """Store the features of one image; they replace earlier ones of the same name.

        Features of more than `LARGE_BYTES`, and all before them, go into the file at once. They
        are written some rows at a time, so mapped arrays stay on disk.

        Args:
            name: Path of the image relative to the images' folder, with `/`.
            features: Features of that image.

        Raises:
            FormatError: The name is no such path or clashes with another image's, or `meta` holds
                what JSON cannot or is too long.
            OutputError: The journal or the file cannot be written (its `__cause__` is the OSError).
        """
        check_place(name, self, self._dataset_like)
        hdf5.json_attribute(name, fields.meta_text(features))  # refused now, not at the end
        if hloc_features.data_bytes(features) > LARGE_BYTES:
            fields.check_finite(features)  # before the file is copied
            self._write_now(partial(self._write_features, name=name, features=features))
        else:
            self._journal.add(name, features_npz.encode(features))
        self._dataset_like.update(dataset_folders(name))

    def _groups_of(self, path: Path) -> Mapping[str, str]:
        return hloc_features.H5Features(path).groups

    def _write_group(self, file: Any, name: str) -> str:
        return self._write_features(file, name, self.read(name))

    def _write_features(self, file: Any, name: str, features: Features) -> str:
        hloc_features.write_group(file, name, features, half=self._half)
        return name


def check_place(name: str, images: Container[str], folders: Container[str]) -> None:
    """Raise unless an image's group can be written: no data of another image is in its place.

    Args:
        name: Name of the image.
        images: Names of the images that the file has.
        folders: `dataset_folders` of these names.

    Raises:
        FormatError: No relative path, or a clash.
    """
    hdf5.check_name(name)
    parts = name.split("/")
    parents = ["/".join(parts[:end]) for end in range(1, len(parts)) if parts[end] in DATASETS]
    clashes = [parent for parent in parents if parent in images]
    clashes += [path for key in DATASETS if (path := f"{name}/{key}") in folders]
    if clashes:
        raise FormatError(
            f"image name {name!r}: its group would be in the place of the data of "
            f"{clashes[0]!r}; rename one of the two"
        )


def dataset_folders(name: str) -> Iterator[str]:
    """The folders of an image that have the name of a data set, so that none is written there."""
    parts = name.split("/")
    for end in range(1, len(parts)):
        if parts[end] in DATASETS:
            yield "/".join(parts[: end + 1])
