"""COLMAP's database -> cameras and points, by pycolmap's incremental mapping (extra `colmap`)."""

from __future__ import annotations

import signal
import tempfile
import threading
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from tiepoint.errors import ConfigError, FormatError, MissingExtraError, is_installed
from tiepoint.files.paths import exists, is_file, is_folder
from tiepoint.files.writing import make_folder, unwritable

SEED = 0
ONLY_ERRORS = 2
"""Level of pycolmap's log from which it prints."""


@dataclass(frozen=True)
class ModelSummary:
    """A reconstructed model.

    Attributes:
        folder: Its folder, with `cameras.bin`, `images.bin` and `points3D.bin`.
        images: Number of registered images.
        points: Number of 3-D points.
        observations: Number of keypoints that see a point.
        reprojection_px: Mean reprojection error, px.
        track_length: Mean number of images that see a point.
    """

    folder: Path
    images: int
    points: int
    observations: int
    reprojection_px: float
    track_length: float


def load_pycolmap() -> Any:
    """The module `pycolmap`.

    Raises:
        MissingExtraError: It is not installed.
    """
    # pycolmap brings its own zlib. Whichever loads first serves the whole process, and Python's
    # zlib aborts the process if it is the second (pycolmap 4.2.1).
    import zlib  # noqa: F401

    if not is_installed("pycolmap"):
        raise MissingExtraError("reconstruction", "colmap")
    handler = signal.getsignal(signal.SIGTERM)
    import pycolmap

    # The import makes SIGTERM print a stack trace and end the process without cleaning up.
    if threading.current_thread() is threading.main_thread() and handler is not None:
        signal.signal(signal.SIGTERM, handler)
    return pycolmap


def check_folder(folder: str | PathLike[str]) -> None:
    """Raise ConfigError unless a folder of models can be written: a new or an empty one."""
    path = Path(folder)
    if is_folder(path) and any(path.iterdir()):
        raise ConfigError(f"{path}: has files, expected a new or an empty folder for the models")
    if exists(path) and not is_folder(path):
        raise ConfigError(f"{path}: is a file, expected a folder for the models")


def reconstruct(
    database: str | PathLike[str],
    images: str | PathLike[str],
    folder: str | PathLike[str],
    *,
    refine_intrinsics: bool = True,
) -> list[ModelSummary]:
    """Estimate cameras and points from the verified matches of a database.

    pycolmap brings a database of an older version up to its own: it adds columns and tables.

    Args:
        database: COLMAP's database.
        images: Folder of the images, for the colours of the points.
        folder: New or empty folder; each model gets a folder of its own in it, "0" first.
        refine_intrinsics: Also estimate focal lengths and distortion.

    Returns:
        The models, that with most images first; none if no two images could start one.

    Raises:
        ConfigError: The folder has files.
        FormatError: No such database, or pycolmap cannot use it.
        OutputError: The folder cannot be written.
        MissingExtraError: The extra `colmap` is not installed.
    """
    target = Path(folder)
    check_folder(target)
    if not is_file(database):
        raise FormatError(f"{database}: no such database; write it with tiepoint colmap")
    pycolmap = load_pycolmap()
    pycolmap.logging.minloglevel = ONLY_ERRORS
    options = pycolmap.IncrementalPipelineOptions(
        ba_refine_focal_length=refine_intrinsics, ba_refine_extra_params=refine_intrinsics
    )
    for part in (options, options.mapper, options.triangulation):
        if hasattr(part, "random_seed"):  # since 4.0
            part.random_seed = SEED
    make_folder(target, advice="choose another folder")
    try:
        with tempfile.TemporaryDirectory(prefix=".tiepoint-", dir=target) as unfinished:
            try:
                models = pycolmap.incremental_mapping(database, images, unfinished, options)
            except (RuntimeError, ValueError) as error:
                raise FormatError(f"{database}: pycolmap cannot use it ({error})") from error
            ordered = sorted(models.values(), key=lambda model: -model.num_reg_images())
            for number, model in enumerate(ordered):
                part = make_folder(Path(unfinished, "ordered", str(number)))
                model.write(part)
            return [
                _summary(Path(unfinished, "ordered", str(number)).rename(target / str(number)), one)
                for number, one in enumerate(ordered)
            ]
    except OSError as error:
        raise unwritable(target, error) from error


def _summary(folder: Path, model: Any) -> ModelSummary:
    return ModelSummary(
        folder=folder,
        images=model.num_reg_images(),
        points=model.num_points3D(),
        observations=model.compute_num_observations(),
        reprojection_px=model.compute_mean_reprojection_error(),
        track_length=model.compute_mean_track_length(),
    )
