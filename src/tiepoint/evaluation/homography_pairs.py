"""Pairs of images with a known homography: files, HPatches, and pairs at evaluation size."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import FormatError
from tiepoint.evaluation.pair_lists import PairFiles, files_of_line
from tiepoint.evaluation.settings import LARGE_SEQUENCES, FrameSize
from tiepoint.evaluation.sizes import LoadedImages, in_frame, size_hw_of
from tiepoint.evaluation.task import Failure, Pair, PairT
from tiepoint.files.paths import is_folder
from tiepoint.files.reading import read_bounded
from tiepoint.geometry import Matrix, SizeHW, apply_homography, corners_xy

_MAX_MATRIX_BYTES = 10_000
HPATCHES_GROUPS = {"i": "illumination", "v": "viewpoint"}


@dataclass(frozen=True, eq=False)
class LoadedHomography(LoadedImages):
    """Two images at evaluation size, and x_B ~ H x_A in px of these images (3x3 float64)."""

    homography: Matrix


class HomographyPair(Pair, Protocol):
    """A pair that is read or drawn on demand."""

    def load(self, frame: FrameSize | int) -> LoadedHomography:
        """Read or draw the pair at the size of a frame; raises TiepointError if it cannot be."""
        ...


@dataclass(frozen=True, eq=False)
class HomographyFiles(PairFiles):
    """Two image files and x_B ~ H x_A in px of these files."""

    homography: Matrix

    def load(self, frame: FrameSize | int) -> LoadedHomography:
        """See `HomographyPair.load`."""
        loaded = at_evaluation_size(*self.read(), self.homography, frame)
        return replace(loaded, names=self.names)


def at_evaluation_size(
    pixels_a: NDArray[Any], pixels_b: NDArray[Any], homography: Matrix, frame: FrameSize | int
) -> LoadedHomography:
    """Grey images, each resampled once, and the homography between them, carried along exactly.

    Args:
        pixels_a, pixels_b: As for `in_frame`.
        homography: 3x3, x_B ~ H x_A in px of these images.
        frame: Size of the images; a number is the longer side, px.

    Raises:
        FormatError: The homography sends a corner of image A to infinity.
    """
    if isinstance(frame, int):
        frame = FrameSize(long_side=frame)
    (image_a, to_a), (image_b, to_b) = in_frame(pixels_a, frame), in_frame(pixels_b, frame)
    truth = to_b @ homography @ np.linalg.inv(to_a)
    return LoadedHomography(image_a, image_b, _facing(truth, size_hw_of(image_a)))


def parse_line(folder: Path, group: str, fields: Sequence[str]) -> HomographyPair:
    """A line `imgA imgB h11 h12 h13 h21 ... h33` of `pairs.txt`; raises as `parse_matrix` does."""
    return HomographyFiles(*files_of_line(folder, group, fields), parse_matrix(fields[2:]))


def read_hpatches(folder: Path, group: str) -> tuple[list[HomographyPair], list[Failure]]:
    """HPatches' sequences `i_*` and `v_*` in a folder.

    A sequence holds `1.ppm` to `6.ppm` and `H_1_2` to `H_1_6`; the groups are
    `<group>/illumination` and `<group>/viewpoint`.
    """
    pairs: list[HomographyPair] = []
    failures: list[Failure] = []
    for sequence in sorted(path for path in folder.glob("[iv]_*") if is_folder(path)):
        subgroup = f"{group}/{HPATCHES_GROUPS[sequence.name[0]]}"
        for path in sorted(sequence.glob("H_1_*"), key=lambda path: (len(path.name), path.name)):
            number = path.name.removeprefix("H_1_")
            name = f"{sequence.name} 1 {number}"
            paths = sequence / "1.ppm", sequence / f"{number}.ppm"
            names = f"{sequence.name}/1.ppm", f"{sequence.name}/{number}.ppm"
            try:
                homography = parse_matrix(read_bounded(path, _MAX_MATRIX_BYTES).decode().split())
                pairs.append(HomographyFiles(subgroup, name, *paths, names, homography))
            except (FormatError, OSError, UnicodeDecodeError) as error:
                failures.append(Failure(subgroup, name, f"{path}: {error}"))
    return pairs, failures


def without_large(pairs: Sequence[PairT]) -> list[PairT]:
    """The pairs except those of HPatches' `LARGE_SEQUENCES`."""
    return [pair for pair in pairs if not LARGE_SEQUENCES & set(re.split(r"[ /]", pair.name))]


def parse_matrix(fields: Sequence[str]) -> Matrix:
    """3x3 from nine numbers, row by row.

    Raises:
        FormatError: Not nine finite numbers of an invertible matrix.
    """
    try:
        numbers = np.array([float(field) for field in fields])
    except ValueError as error:
        raise FormatError(f"{error}, expected the 9 numbers of a homography") from error
    if numbers.shape != (9,):
        raise FormatError(f"{numbers.size} numbers, expected the 9 of a homography")
    matrix = numbers.reshape(3, 3)
    if not np.isfinite(matrix).all() or np.linalg.matrix_rank(matrix) < 3:
        raise FormatError("the homography is not finite or cannot be inverted")
    return matrix


def _facing(homography: Matrix, a_hw: SizeHW) -> Matrix:
    """The homography with the sign that puts image A in front of the camera."""
    for signed in (homography, -homography):
        if np.isfinite(apply_homography(signed, corners_xy(a_hw))).all():
            return signed
    raise FormatError("the true homography sends a corner of image A to infinity: wrong numbers?")
