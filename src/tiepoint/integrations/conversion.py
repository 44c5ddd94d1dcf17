"""Files of features and matches -> the files of another program, for `tiepoint convert --to`."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Literal, get_args

from tiepoint.checks import check_choice
from tiepoint.errors import ConfigError
from tiepoint.features import Matches
from tiepoint.integrations import micmac, openmvg, opensfm

Program = Literal["opensfm", "openmvg", "micmac"]


def convert_features(
    features_file: str | PathLike[str],
    folder: str | PathLike[str],
    program: Program,
    matches_file: str | PathLike[str] | None = None,
) -> int:
    """Write the features and matches of many images for another program.

    Args:
        features_file: Features .h5 file or store.
        folder: OpenSfM's dataset, openMVG's matches folder or MicMac's folder of images.
        program: "opensfm", "openmvg" or "micmac".
        matches_file: Matches .h5 file; MicMac needs it.

    Returns:
        Number of files written.

    Raises:
        ConfigError: An unknown program, or no matches for MicMac.
        FormatError: A file cannot be read, or the program cannot have these images.
        OutputError: A file cannot be written.
        MissingExtraError: The extra `hdf5` is not installed.
    """
    from tiepoint.formats import read_matches_h5
    from tiepoint.formats.many_images import read_features

    check_choice("program", program, get_args(Program))
    features = read_features(features_file)
    matches: Mapping[tuple[str, str], Matches] = {}
    if matches_file is not None:
        matches = read_matches_h5(matches_file)
    if program == "micmac":
        if matches_file is None:
            raise ConfigError("MicMac has no file of keypoints: give the matches too")
        return len(micmac.write_matches(folder, features, matches))
    if program == "opensfm":
        written = [opensfm.write_features(folder, name, features[name]) for name in features]
        return len(written) + (len(opensfm.write_matches(folder, matches)) if matches_file else 0)
    count = len(openmvg.write_features(folder, features))
    if matches_file is not None:
        listed = Path(folder) / "sfm_data.json"
        names = list(features)
        ids = openmvg.view_ids(listed, names) if listed.is_file() else openmvg.ids_in_order(names)
        openmvg.write_matches(folder, matches, ids)
        count += 1
    return count
