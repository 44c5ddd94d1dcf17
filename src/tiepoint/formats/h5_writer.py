"""Writing the features of many images to one HDF5 file, by way of a journal that survives kills."""

from __future__ import annotations

from io import BytesIO
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tiepoint.errors import FormatError
from tiepoint.features import Features
from tiepoint.formats import h5, npz
from tiepoint.formats.fields import Summary, summary_of
from tiepoint.formats.journal import PARTIAL, Journal, rewritten

_TITLE = b"tiepoint journal 1\n"


class H5Writer:
    """Collects features of many images for one file; see `tiepoint.formats.h5` for its layout.

    Images that the file holds already stay in it. As a context manager it closes at the end, and
    after an exception it suspends instead: the next writer of the same path goes on from there.

    Args:
        path: Of the file; its journal lies beside it until it is closed.
        half: Descriptors as float16, half the size, with a relative error of 0.0005.

    Raises:
        FormatError: The file or its journal is damaged, foreign, or being written by another
            process; or the folder cannot be written.
        MissingExtraError: The extra `hdf5` is not installed.
    """

    def __init__(self, path: str | PathLike[str], *, half: bool = False) -> None:
        h5.load_h5py()
        self.path = Path(path)
        self.partial = self.path.with_name(self.path.name + PARTIAL)
        self._half = half
        self._stored: Any = None
        self._stored_names: frozenset[str] = frozenset()
        self._data_like: set[str] = set()
        self._journal = Journal(self.partial, _TITLE)
        for name in self._journal:
            self._note_groups(name)
        try:
            if self.path.exists():
                self._open_stored()
        except BaseException:
            self.suspend()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.suspend()

    def __contains__(self, name: object) -> bool:
        return name in self._journal or name in self._stored_names

    def __len__(self) -> int:
        return len(self._stored_names.union(self._journal))

    def summarise(self, name: str) -> Summary:
        """Count, image size and `meta` of an image that is finished.

        Raises:
            KeyError: There is none of that name.
            FormatError: It is damaged.
        """
        if name in self._journal:
            features = self.read(name)
            return summary_of(features)
        if name not in self._stored_names:
            raise KeyError(name)
        return h5.summarise_group(self._stored[name], f"{self.path}: {name}")

    def read(self, name: str) -> Features:
        """The features of an image that is finished; raises as `summarise`."""
        if name in self._journal:
            return npz.decode(BytesIO(self._journal.read(name)), f"{self.partial}: {name}")
        if name not in self._stored_names:
            raise KeyError(name)
        return h5.read_group(self._stored[name], f"{self.path}: {name}")

    def add(self, name: str, features: Features) -> None:
        """Keep one image's features; earlier ones of the same name are replaced.

        Args:
            name: Its path relative to the images' folder, with `/`.
            features: Of that image.

        Raises:
            FormatError: The name is no such path or clashes with another's, `meta` holds what
                JSON cannot or is too long, or the disk is full (its `__cause__` is the OSError).
        """
        self._check_name(name)
        h5.check_meta(name, features)
        self._journal.add(name, npz.encode(features))
        self._note_groups(name)

    def close(self) -> None:
        """Put what was added into the file and remove the journal.

        Raises:
            FormatError: The file cannot be written; the journal is kept.
        """
        try:
            if self._journal:
                self._assemble()
                self._journal.remove()
        finally:
            self.suspend()

    def suspend(self) -> None:
        """Stop without touching the file; the journal keeps what was added."""
        self._journal.release()
        self._close_stored()

    def _assemble(self) -> None:
        self._close_stored()  # Windows replaces no open file
        with rewritten(self.path) as file:
            for name in self._journal:
                h5.write_group(file, name, self.read(name), half=self._half)

    def _open_stored(self) -> None:
        names = h5.H5Features(self.path)
        self._stored = h5.load_h5py().File(self.path, "r")
        self._stored_names = frozenset(names)
        for name in names:
            self._note_groups(name)

    def _check_name(self, name: str) -> None:
        h5.check_name(name)
        parts = name.split("/")
        above = ["/".join(parts[:end]) for end in range(1, len(parts)) if parts[end] in h5.DATASETS]
        clash = [other for other in above if other in self]
        clash += [part for key in h5.DATASETS if (part := f"{name}/{key}") in self._data_like]
        if clash:
            raise FormatError(
                f"image name {name!r}: its place in the file is that of the data of {clash[0]!r}; "
                "rename one of the two"
            )

    def _note_groups(self, name: str) -> None:
        """Remember folders that are called as a data set is, so that none is put there."""
        parts = name.split("/")
        for end in range(1, len(parts)):
            if parts[end] in h5.DATASETS:
                self._data_like.add("/".join(parts[: end + 1]))

    def _close_stored(self) -> None:
        if self._stored is not None:
            self._stored.close()
            self._stored = None
