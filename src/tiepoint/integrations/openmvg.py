"""openMVG: features and matches in its matches folder.

    <image without ending>.feat   a line "x y scale orientation" for each keypoint
    <image without ending>.desc   number of keypoints as uint64, then N D float32
    matches.f.txt                 for each pair "I J", the number of matches, and lines "i j"

I and J are the view ids of `sfm_data.json`. Pixel centres are whole numbers, as in tiepoint.
`openMVG_main_SfM` reads `.feat` and `matches.f.txt` only. Its own matcher needs descriptors of a
type that is compiled into it, so match with tiepoint.

Source: openMVG, `features/feature.cpp`, `features/descriptor.hpp`, `matching/indMatch_utils.cpp`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from tiepoint.errors import FormatError
from tiepoint.features import Features, Matches
from tiepoint.files.reading import read_json
from tiepoint.files.writing import make_folder, write_bytes
from tiepoint.integrations.stored_pixels import check_orientation, scales_px, unique_stems

MAX_SFM_DATA_BYTES = 2**28
"""Largest `sfm_data.json` that is read; a view takes less than 1 kB."""

MATCHES_FILE = "matches.f.txt"
"""The first name that openMVG_main_SfM looks for."""


def write_features(folder: str | PathLike[str], features: Mapping[str, Features]) -> list[Path]:
    """Write `.feat` and, with descriptors, `.desc` of each image; returns the paths.

    Args:
        folder: The matches folder.
        features: Name of each image -> its features.

    Raises:
        FormatError: Two images whose names differ by folder or ending only, or an image that is
            stored rotated.
        OutputError: A file cannot be written.
    """
    target, paths = make_folder(folder), []
    for name, stem in unique_stems(features, "openMVG").items():
        found = features[name]
        check_orientation(name, found, "openMVG")
        rows = zip(found.xy.tolist(), scales_px(found).tolist(), strict=True)
        lines = [f"{x:.9g} {y:.9g} {scale:.9g} 0\n" for (x, y), scale in rows]
        paths.append(target / f"{stem}.feat")
        write_bytes(paths[-1], "".join(lines).encode())
        if found.descriptors is not None:
            values = np.ascontiguousarray(found.descriptors, "<f4").tobytes()
            paths.append(target / f"{stem}.desc")
            write_bytes(paths[-1], struct.pack("<Q", len(found)) + values)
    return paths


def write_matches(
    folder: str | PathLike[str],
    matches: Mapping[tuple[str, str], Matches],
    view_ids: Mapping[str, int],
) -> Path:
    """Write the matches of many pairs; returns the path of the file.

    Args:
        folder: The matches folder.
        matches: (name a, name b) -> matches; best of verified matches, because openMVG takes
            `matches.f.txt` as geometrically filtered.
        view_ids: Name of each image -> its id, as from `view_ids` or `ids_in_order`.

    Raises:
        FormatError: An image that `view_ids` does not have.
        OutputError: The file cannot be written.
    """
    missing = sorted({name for pair in matches for name in pair} - set(view_ids))
    if missing:
        raise FormatError(f"{missing[0]}: not among the {len(view_ids)} views; list it in openMVG")
    sections = []
    for name_a, name_b in matches:
        pairs, ids = matches[name_a, name_b].pairs, (view_ids[name_a], view_ids[name_b])
        if ids[0] > ids[1]:
            pairs, ids = pairs[:, ::-1], ids[::-1]
        lines = "".join(f"{i} {j}\n" for i, j in sorted(map(tuple, pairs.tolist())))
        sections.append((ids, f"{ids[0]} {ids[1]}\n{len(pairs)}\n{lines}"))
    path = make_folder(folder) / MATCHES_FILE
    write_bytes(path, "".join(text for _, text in sorted(sections)).encode())
    return path


def ids_in_order(names: Iterable[str]) -> dict[str, int]:
    """The view ids that openMVG's image listing gives: the names in order, from 0."""
    return {name: index for index, name in enumerate(sorted(names))}


def view_ids(sfm_data: str | PathLike[str], names: Iterable[str]) -> dict[str, int]:
    """The view ids in openMVG's `sfm_data.json`, of the given images.

    Args:
        sfm_data: The file.
        names: Names of images; their last parts are compared with the file names of the views.

    Raises:
        FormatError: Not such a file.
    """
    try:
        views: Any = read_json(sfm_data, most_bytes=MAX_SFM_DATA_BYTES)["views"]
        ids = {}
        for view in views:
            data = view["value"]["ptr_wrapper"]["data"]
            ids[PurePosixPath(data["filename"]).name] = int(data["id_view"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise FormatError(
            f"{sfm_data}: not readable as openMVG's sfm_data.json ({error})"
        ) from error
    known = {name: ids.get(PurePosixPath(name).name) for name in names}
    return {name: number for name, number in known.items() if number is not None}
