"""MicMac: tie points as text in its Homol folder.

    Homol/Pastis<image a>/<image b>.txt   a line "x_a y_a x_b y_b weight" for each match

Each pair is written in both directions. Commands read text with `ExpTxt=1`. Pixel centres
are whole numbers in MicMac too.

Source: MicMac, `src/photogram/phgr_basic.cpp` and key NKS-Assoc-CplIm2Hom.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import numpy as np

from tiepoint.errors import FormatError
from tiepoint.features import Features, Matches
from tiepoint.files.writing import make_folder, write_bytes
from tiepoint.integrations.stored_pixels import check_orientation, check_plain_name

WEIGHT = 1.0
"""Weight of each tie point; a file may leave it out."""


def write_matches(
    folder: str | PathLike[str],
    features: Mapping[str, Features],
    matches: Mapping[tuple[str, str], Matches],
) -> list[Path]:
    """Write the matches of many pairs; returns the paths of the files.

    Pairs without matches are left out.

    Args:
        folder: Folder of the images, in which `Homol` is made.
        features: Name of each image -> its features.
        matches: (name a, name b) -> matches.

    Raises:
        FormatError: A name with a folder, features that are missing, or an image that is stored
            rotated.
        OutputError: A file cannot be written.
    """
    paths = []
    for names in matches:
        for name in names:
            check_plain_name(name, "MicMac")
            if name not in features:
                raise FormatError(f"{name}: has matches and no features; give both files of a run")
            check_orientation(name, features[name], "MicMac")
        pairs = matches[names].pairs
        if len(pairs) == 0:
            continue
        xy = [features[name].xy[pairs[:, side]] for side, name in enumerate(names)]
        for first, second in ((0, 1), (1, 0)):
            rows = np.hstack([xy[first], xy[second]]).tolist()  # M 4
            lines = [" ".join(f"{value:.6f}" for value in (*row, WEIGHT)) for row in rows]
            target = make_folder(Path(folder) / "Homol" / f"Pastis{names[first]}")
            paths.append(target / f"{names[second]}.txt")
            write_bytes(paths[-1], ("\n".join(lines) + "\n").encode())
    return paths
