"""HDF5 in hloc's layout (extra `hdf5`): one file holds the features of many images.

A group per image, named by its path relative to the images' folder, with `/`:

    keypoints    N 2  x, y in px
    scores       N
    descriptors  D N  absent if none were asked for
    image_size   2    width, height in px
    covariance   N 2 2  px^2, where the checkpoint gives one; hloc passes over it

hloc computes keypoints of the original image as (x + 0.5) * scale - 0.5 and adds 0.5 only on the
way to COLMAP: pixel centres are whole numbers there as here, so nothing is converted. Groups that
tiepoint wrote say so in their attributes `convention` and `meta` (JSON). In others keypoints come
in any order, which reading brings into ours, best first; `meta` is then empty.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from tiepoint.errors import FormatError, MissingExtraError
from tiepoint.features import Features
from tiepoint.formats import fields
from tiepoint.formats.fields import Summary

ENDING = ".h5"
DATASETS = ("keypoints", "scores", "descriptors", "image_size", "covariance")

MAX_META_BYTES = 60_000
"""HDF5's own limit for an attribute is 64 KiB with its description."""

_UNNAMED = "image"
"""Key of a single image that came from no file."""
_BROKEN = (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError)
"""What h5py raises for damaged and foreign files."""
_NAMED_IN_ERRORS = 5
_DEEPEST = 100


class H5Features(Mapping[str, Features]):
    """The images of a file by name; each is read when it is asked for.

    Args:
        path: The file.

    Raises:
        FormatError: No such file, a damaged one, or one without keypoints.
        MissingExtraError: The extra `hdf5` is not installed.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        with opened(self.path) as file:
            self._names = tuple(image_names(file))
        if not self._names:
            raise fields.damaged(str(self.path), "no group has keypoints")
        self._known = frozenset(self._names)

    def __getitem__(self, name: str) -> Features:
        if name not in self._known:
            raise KeyError(name)
        with opened(self.path) as file:
            return read_group(file[name], f"{self.path}: {name}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def __repr__(self) -> str:
        return f"H5Features({str(self.path)!r}, {len(self)} images)"


def read_h5(path: str | PathLike[str]) -> H5Features:
    """The images of a file, tiepoint's or hloc's, as a mapping: name -> Features.

    Raises:
        FormatError: No such file, a damaged one, or one without keypoints; also when an image
            is asked for that is damaged.
        MissingExtraError: The extra `hdf5` is not installed.
    """
    return H5Features(path)


def encode(features: Features) -> bytes:
    """The bytes of a file with this one image, named as the file it came from."""
    source = features.meta.get("source")
    name = PurePath(source).name if isinstance(source, str) else ""
    buffer = io.BytesIO()
    with load_h5py().File(buffer, "w") as file:
        try:
            check_name(name)
        except FormatError:
            name = _UNNAMED
        write_group(file, name, features)
    return buffer.getvalue()


def read(path: Path) -> Features:
    """The features of a file with one image."""
    with opened(path) as file:
        name = _only_name(file, path)
        return read_group(file[name], f"{path}: {name}")


def summarise(path: Path) -> Summary:
    """The head of a file with one image, without its descriptors."""
    with opened(path) as file:
        name = _only_name(file, path)
        return summarise_group(file[name], f"{path}: {name}")


def check_name(name: str) -> None:
    """Raise unless a name is a relative path below the images' folder, with `/`."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\x00" in name:
        raise FormatError(
            f"image name {name!r}: expected a path below the images' folder, such as left/1.jpg, "
            "without '.', '..' or a '/' at either end"
        )
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise FormatError(
            f"image name {name!r}: not valid Unicode, which HDF5 needs; rename the file"
        ) from error


def check_meta(name: str, features: Features) -> bytes:
    """`meta` as the JSON that an attribute holds.

    Raises:
        FormatError: A value is none of JSON's, or it is too long for an attribute.
    """
    meta = fields.meta_text(features).encode()
    if len(meta) > MAX_META_BYTES:
        raise FormatError(
            f"{name}: meta takes {len(meta)} bytes, .h5 files hold at most {MAX_META_BYTES}; "
            "shorten it, or save as .npz"
        )
    return meta


def write_group(file: Any, name: str, features: Features, *, half: bool = False) -> None:
    """Write one image into an open file; what was there under its name is replaced.

    Args:
        file: h5py's, open for writing.
        name: As `check_name` takes it.
        features: Of that image.
        half: Descriptors as float16. Positions and scores stay float32: float16 would round
            positions to whole pixels from 1024 px on.

    Raises:
        FormatError: As from `check_meta`.
    """
    meta = check_meta(name, features)
    group = file.require_group(name)
    for key in DATASETS:  # not the whole group: another image's may lie in it
        if key in group:
            del group[key]
    height, width = features.size_hw
    group["keypoints"] = features.xy
    group["scores"] = features.scores
    group["image_size"] = np.array([width, height], dtype=np.int64)
    if features.descriptors is not None:
        kind = np.float16 if half else np.float32
        group["descriptors"] = np.ascontiguousarray(features.descriptors.T.astype(kind))  # D N
    if features.covariance is not None:
        group["covariance"] = features.covariance
    group.attrs["convention"] = np.bytes_(fields.CONVENTION)
    group.attrs["meta"] = np.bytes_(meta)


def read_group(group: Any, where: str) -> Features:
    """The features of one image's group; `where` names it in errors."""
    with _explained(where):
        summary = summarise_group(group, where)
        fields.require(["scores"], group, where)
        described = group["descriptors"][()].T if "descriptors" in group else None  # N D
        features = fields.features_from(
            where,
            xy=group["keypoints"][()],
            scores=group["scores"][()],
            descriptors=None if described is None else np.ascontiguousarray(described),
            size_hw=summary.size_hw,
            meta=summary.stored,
            covariance=group["covariance"][()] if _is_ours(group, "covariance") else None,
        )
        if "convention" in group.attrs:
            return features
        return features.take(np.lexsort((features.xy[:, 0], features.xy[:, 1], -features.scores)))


def _is_ours(group: Any, name: str) -> bool:
    """Whether a dataset is there and means what it means to us: other programs' may not."""
    return name in group and "convention" in group.attrs


def summarise_group(group: Any, where: str) -> Summary:
    """Count, size and `meta` of one image's group."""
    with _explained(where):
        fields.require(["keypoints", "image_size"], group, where)
        if "convention" in group.attrs:
            fields.check_convention(text_of(group, "convention"), where)
        size_wh = group["image_size"][()].tolist()
        size_hw = fields.check_size(size_wh[::-1], where)
        meta = fields.parse_meta(text_of(group, "meta"), where) if "meta" in group.attrs else {}
        return Summary(int(group["keypoints"].shape[0]), size_hw, meta)


def image_names(file: Any) -> Iterator[str]:
    """Names of the groups that hold keypoints, sorted within each folder."""
    waiting = [("", file)]
    while waiting:
        name, group = waiting.pop()
        if name.count("/") > _DEEPEST:
            raise ValueError(f"groups lie in each other {_DEEPEST} deep, perhaps in a circle")
        members = {key: group.get(key) for key in group}  # None for a link that leads nowhere
        if name and isinstance(members.get("keypoints"), load_h5py().Dataset):
            yield name
        below = sorted(key for key, item in members.items() if isinstance(item, load_h5py().Group))
        waiting += [(f"{name}/{key}" if name else key, members[key]) for key in reversed(below)]


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A file for reading.

    Raises:
        FormatError: No such file, no permission, or not HDF5.
    """
    h5py = load_h5py()
    try:
        path.open("rb").close()
    except OSError as error:  # h5py's own messages are for its developers
        fields.unreadable(str(path), error)
    with _explained(str(path)), h5py.File(path, "r") as file:
        yield file


def load_h5py() -> Any:
    """h5py.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError("reading and writing .h5 files", "hdf5") from error
    return h5py


@contextmanager
def _explained(where: str) -> Iterator[None]:
    try:
        yield
    except FormatError:
        raise
    except _BROKEN as error:
        raise fields.damaged(where, str(error)) from error


def text_of(group: Any, key: str) -> str:
    """An attribute of fixed length: libhdf5 crashes on damaged ones of variable length."""
    kind = group.attrs.get_id(key).dtype
    if kind.kind != "S":
        raise ValueError(f"attribute {key} is {kind}, expected text of fixed length")
    return bytes(group.attrs[key]).decode()


def _only_name(file: Any, path: Path) -> str:
    names = list(image_names(file))
    if not names:
        raise fields.damaged(str(path), "no group has keypoints")
    if len(names) > 1:
        listed = ", ".join(names[:_NAMED_IN_ERRORS])
        more = f" and {len(names) - _NAMED_IN_ERRORS} more" if len(names) > _NAMED_IN_ERRORS else ""
        raise FormatError(
            f"{path}: holds {len(names)} images: {listed}{more}; "
            f"take one with tiepoint.formats.read_h5({path.name!r})[name]"
        )
    return names[0]
