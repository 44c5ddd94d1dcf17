"""OpenSfM and ODM: features and matches in the folder of a dataset.

    features/<image>.features.npz    points N 4, descriptors N D, colors N 3
    matches/<image>_matches.pkl.gz   for each other image, M 2 indices

Points are (x, y, size, angle). Positions are relative to the centre of the image and divided by its
longer side: ((x + 0.5) - W / 2) / max(W, H). The size is divided by it too.

Source: OpenSfM, `opensfm/features.py` and `opensfm/dataset.py`. It unpickles matches with a list of
allowed names; the pickles here use only those.
"""

from __future__ import annotations

import gzip
import io
import pickle
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import FormatError
from tiepoint.features import Features, Matches
from tiepoint.files.writing import make_folder, write_bytes
from tiepoint.integrations.stored_pixels import check_orientation, check_plain_name, scales_px

VERSION = 3
"""Version of features files, which OpenSfM reads without unpickling."""

PICKLE_PROTOCOL = 4
"""Later protocols store arrays by a function that OpenSfM does not allow."""

UNKNOWN_COLOUR = 128


def write_features(
    folder: str | PathLike[str], name: str, features: Features, image: Any = None
) -> Path:
    """Write the features of one image; returns the path of the file.

    Args:
        folder: Folder of the dataset, which contains `images`.
        name: File name of the image, without a folder.
        features: Features with descriptors.
        image: The image, any source that `Detector` reads, for the colours of the points; None
            makes them grey.

    Raises:
        FormatError: No descriptors, a name with a folder, or an image that is stored rotated.
        ImageError: The image cannot be read.
        OutputError: The file cannot be written.
    """
    check_plain_name(name, "OpenSfM")
    check_orientation(name, features, "OpenSfM")
    if features.descriptors is None:
        raise FormatError(f"{name}: has no descriptors, which OpenSfM needs; detect again")
    height, width = features.size_hw
    longer = max(height, width)
    points = np.zeros((len(features), 4), np.float32)
    points[:, :2] = (features.xy.astype(np.float64) + 0.5 - np.array([width, height]) / 2) / longer
    points[:, 2] = scales_px(features) / longer
    content = io.BytesIO()
    np.savez_compressed(
        content,
        points=points,
        descriptors=features.descriptors,
        colors=_colours(features, image),
        segmentations=np.empty(0),
        instances=np.empty(0),
        segmentation_labels=np.empty(0, "U1"),
        OPENSFM_FEATURES_VERSION=np.array(VERSION),
    )
    path = make_folder(Path(folder) / "features") / f"{name}.features.npz"
    write_bytes(path, content.getvalue())
    return path


def write_matches(
    folder: str | PathLike[str], matches: Mapping[tuple[str, str], Matches]
) -> list[Path]:
    """Write the matches of many pairs; returns the paths of the files, one for each first image.

    Args:
        folder: Folder of the dataset.
        matches: (name a, name b) -> matches, such as `tiepoint.formats.read_matches_h5` returns.

    Raises:
        FormatError: A name with a folder.
        OutputError: A file cannot be written.
    """
    by_image: dict[str, dict[str, NDArray[np.int64]]] = {}
    for name_a, name_b in matches:
        check_plain_name(name_a, "OpenSfM")
        check_plain_name(name_b, "OpenSfM")
        pairs = np.array(matches[name_a, name_b].pairs, np.int64)
        by_image.setdefault(name_a, {})[name_b] = pairs
        by_image.setdefault(name_b, {})
    target = make_folder(Path(folder) / "matches")
    paths = []
    for name, others in by_image.items():
        content = gzip.compress(pickle.dumps(others, protocol=PICKLE_PROTOCOL), mtime=0)
        paths.append(target / f"{name}_matches.pkl.gz")
        write_bytes(paths[-1], content)
    return paths


def _colours(features: Features, image: Any) -> NDArray[np.uint8]:
    """N 3 uint8, R G B of the nearest pixel."""
    from tiepoint.images.reading import read
    from tiepoint.plotting import to_rgb8

    if image is None:
        return np.full((len(features), 3), UNKNOWN_COLOUR, np.uint8)
    pixels = to_rgb8(read(image))  # H W 3
    if pixels.shape[:2] != tuple(features.size_hw):
        raise FormatError(
            f"the image has {pixels.shape[1]}x{pixels.shape[0]} px and its features are of "
            f"{features.size_hw[1]}x{features.size_hw[0]} px; give the image they are from"
        )
    last = np.array(features.size_hw)[::-1] - 1  # x, y
    columns, rows = np.clip(np.rint(features.xy), 0, last).astype(int).T
    colours: NDArray[np.uint8] = pixels[rows, columns]
    return colours
