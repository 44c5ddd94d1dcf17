"""Features of many images in one HDF5 file, in hloc's layout (extra `hdf5`).

A group per image, named by its path relative to the images' folder, with `/`:

    keypoints    N 2    x, y in px
    scores       N      probabilities
    descriptors  D N    absent if none were asked for
    image_size   2      width, height in px
    covariance   N 2 2  px^2, if the checkpoint gives one; hloc ignores it
    scales       N      `Features.scales_px`

hloc computes keypoints of the original image as (x + 0.5) * scale - 0.5 and adds 0.5 only on the
way to COLMAP. Pixel centres are whole numbers in both programs, so nothing is converted. Groups
that tiepoint wrote have the attributes `convention` and `meta` (JSON). Groups of other programs
have keypoints in any order; reading sorts them best first, and their `meta` is empty.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from tiepoint.errors import FormatError
from tiepoint.features import Features
from tiepoint.files.writing import replacing, unwritable
from tiepoint.formats import fields, hdf5, hdf5_reading, hdf5_writing
from tiepoint.formats.fields import Summary

DATASETS = ("keypoints", "scores", "descriptors", "image_size", "covariance", "scales")

_UNNAMED = "image"
"""Name of a single image that came from no file."""
_NAMED_IN_ERRORS = 5


class H5Features(hdf5.GroupMapping[str, Features]):
    """The images of a file by name; see `read_h5`."""

    _holds, _unit, _dataset = "features", "images", "keypoints"

    def _list_groups(self, file: Any) -> Iterator[tuple[str, str]]:
        return ((name, name) for name in image_names(file))

    def _read_group(self, group: Any, where: str) -> Features:
        return read_group(group, where)


def read_h5(path: str | PathLike[str]) -> H5Features:
    """The images of a file, tiepoint's or hloc's, as a mapping: name -> Features.

    Raises:
        FormatError: No such file, a damaged one, or one without keypoints. Asking the mapping for a
            damaged image raises it too.
        MissingExtraError: The extra `hdf5` is not installed.
    """
    return H5Features(path)


def encode(features: Features) -> bytes:
    """The bytes of a file with this one image, under the name of its source file."""
    buffer = io.BytesIO()
    with hdf5_reading.load_h5py().File(buffer, "w") as file:
        write_group(file, _own_name(features), features)
    return buffer.getvalue()


def write(path: Path, features: Features) -> None:
    """Write what `encode` returns, whole or not at all, some rows at a time.

    Raises:
        OutputError: The file cannot be written.
    """
    try:
        with replacing(path) as partial, hdf5_writing.writing(partial, "w") as file:
            write_group(file, _own_name(features), features)
    except RuntimeError as error:  # of h5py
        raise unwritable(path, error) from error


def _own_name(features: Features) -> str:
    """The name of the source file, or one for an image that came from none."""
    source = features.meta.get("source")
    name = PurePath(source).name if isinstance(source, str) else ""
    try:
        hdf5.check_name(name)
    except FormatError:
        return _UNNAMED
    return name


def read(path: Path) -> Features:
    """The features of a file with one image."""
    with _only_group(path) as (group, where):
        return read_group(group, where)


def summarise(path: Path) -> Summary:
    """The head of a file with one image, without its descriptors."""
    with _only_group(path) as (group, where):
        return summarise_group(group, where)


def write_group(file: Any, name: str, features: Features, *, half: bool = False) -> None:
    """Write one image into an open file; it replaces an earlier one of the same name.

    Args:
        file: File of h5py, open for writing.
        name: Name that `hdf5.check_name` accepts.
        features: Features of that image.
        half: Descriptors as float16. Positions and scores stay float32: float16 would round
            positions to whole pixels from 1024 px on.

    Raises:
        FormatError: Values that are not finite, or JSON has no form for `meta`, or it is too long
            for an attribute.
        OSError: The disk is full.
    """
    fields.check_finite(features)
    meta = hdf5.json_attribute(name, fields.meta_text(features))
    hdf5_writing.reserve(file, data_bytes(features) + meta.nbytes)
    group = file.require_group(name)
    hdf5_reading.members(group)  # raises for a damaged list, in which no name is found below
    for key in DATASETS:  # not the whole group: it may contain that of another image
        if key in group:
            del group[key]
    height, width = features.size_hw
    group["keypoints"] = features.xy
    group["scores"] = features.scores
    group["image_size"] = np.array([width, height], dtype=np.int64)
    if features.descriptors is not None:
        dtype = np.float16 if half else np.float32
        shape, start = features.descriptors.T.shape, 0
        stored = group.create_dataset("descriptors", shape, dtype)  # D N
        for part in fields.in_parts(features.descriptors):
            stored[:, start : start + len(part)] = part.T.astype(dtype)
            start += len(part)
    if features.covariance is not None:
        group["covariance"] = features.covariance
    if features.scales_px is not None:
        group["scales"] = features.scales_px
    group.attrs["convention"] = np.bytes_(fields.CONVENTION)
    group.attrs["meta"] = meta


def data_bytes(features: Features) -> int:
    """Size of the arrays."""
    arrays = (getattr(features, name) for name in ("xy", "scores", *fields.ARRAYS))
    return sum(one.nbytes for one in arrays if one is not None)


def read_group(group: Any, where: str) -> Features:
    """The features of one image's group; `where` names it in errors."""
    with fields.as_damaged(where, hdf5.BROKEN):
        summary, held = summarise_group(group, where), hdf5_reading.members(group)
        fields.require(["scores"], held, where)
        is_ours = "convention" in group.attrs
        # Covariances and scales of another program may mean something else.
        ours = ["covariance", "scales"] if is_ours else []
        names = ["keypoints", "scores", "descriptors", *ours]
        arrays = hdf5_reading.arrays(group, [name for name in names if name in held])
        descriptors = arrays["descriptors"].T if "descriptors" in arrays else None  # N D
        features = fields.features_from(
            where,
            xy=arrays["keypoints"],
            scores=arrays["scores"],
            descriptors=None if descriptors is None else np.ascontiguousarray(descriptors),
            size_hw=summary.size_hw,
            meta=summary.stored,
            covariance=arrays.get("covariance"),
            scales_px=arrays.get("scales"),
        )
        if is_ours:
            return features
        return features.take(np.lexsort((features.xy[:, 0], features.xy[:, 1], -features.scores)))


def summarise_group(group: Any, where: str) -> Summary:
    """Count, size and `meta` of one image's group."""
    with fields.as_damaged(where, hdf5.BROKEN):
        fields.require(["keypoints", "image_size"], hdf5_reading.members(group), where)
        if "convention" in group.attrs:
            fields.check_convention(hdf5_reading.text_attribute(group, "convention"), where)
        size_wh = hdf5_reading.arrays(group, ["image_size"])["image_size"].reshape(-1)[:3].tolist()
        size_hw = fields.check_size(size_wh[::-1], where)
        text = hdf5_reading.text_attribute(group, "meta") if "meta" in group.attrs else "{}"
        count = hdf5_reading.length(group, "keypoints")
        return Summary(count, size_hw, fields.parse_meta(text, where))


def image_names(file: Any) -> Iterator[str]:
    """Names of the groups that hold keypoints, sorted within each folder."""
    return hdf5_reading.groups_with(file, "keypoints")


@contextmanager
def _only_group(path: Path) -> Iterator[tuple[Any, str]]:
    """The group of a file with one image, and its name for errors."""
    with hdf5.opened(path) as file:
        names = list(image_names(file))
        if not names:
            raise fields.damaged(str(path), "no group has keypoints")
        if len(names) > 1:
            listed = ", ".join(names[:_NAMED_IN_ERRORS])
            others = len(names) - _NAMED_IN_ERRORS
            raise FormatError(
                f"{path}: holds {len(names)} images: {listed}"
                f"{f' and {others} more' if others > 0 else ''}; "
                f"take one with tiepoint.formats.read_h5({path.name!r})[name]"
            )
        yield hdf5_reading.group_at(file, names[0]), f"{path}: {names[0]}"
