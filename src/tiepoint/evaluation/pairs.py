"""Pairs of images with a known homography, read from folders, brought to evaluation size."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import FormatError, TiepointError
from tiepoint.evaluation.settings import LARGE_SEQUENCES, Frame
from tiepoint.geometry import SizeHW, apply_homography, corners_xy, resize_matrix
from tiepoint.images import read
from tiepoint.network.inputs import resize, to_grey

PAIRS_FILE = "pairs.txt"
HPATCHES_GROUPS = {"i": "illumination", "v": "viewpoint"}

Grey = NDArray[np.uint8]
Named = TypeVar("Named", bound="NamedPair")


class NamedPair(Protocol):
    """What a pair of any kind is known by."""

    @property
    def group(self) -> str:
        """Which row of the table it belongs to."""
        ...

    @property
    def name(self) -> str:
        """Unique in its group."""
        ...


@dataclass(frozen=True, eq=False)
class LoadedPair:
    """Two images at evaluation size, and the truth between them.

    Attributes:
        image_a, image_b: `H W` uint8, grey.
        homography: 3x3 float64, x_B ~ H x_A in px of these two images.
        names: Of the two images in a file of features; empty where the pair was drawn.
    """

    image_a: Grey
    image_b: Grey
    homography: NDArray[np.float64]
    names: tuple[str, str] = ("", "")


class Pair(NamedPair, Protocol):
    """A pair that is loaded when its turn comes."""

    def load(self, frame: Frame | int) -> LoadedPair:
        """Read or draw the pair at the size of a frame; a number stands for its longer side, px.

        Raises:
            TiepointError: It cannot be read.
        """
        ...


@dataclass(frozen=True)
class Failure:
    """A pair, or a whole folder, that could not be read."""

    group: str
    name: str
    message: str


@dataclass(frozen=True, eq=False)
class PairFiles:
    """Two image files and x_B ~ H x_A in px of these files.

    Attributes:
        names: Of the images, relative to the set's folder, with `/`.
    """

    group: str
    name: str
    path_a: Path
    path_b: Path
    homography: NDArray[np.float64]
    names: tuple[str, str] = ("", "")

    def load(self, frame: Frame | int) -> LoadedPair:
        """See `Pair.load`."""
        pixels_a, pixels_b = read(self.path_a).pixels, read(self.path_b).pixels
        loaded = at_evaluation_size(pixels_a, pixels_b, self.homography, frame)
        return replace(loaded, names=self.names)


def at_evaluation_size(
    pixels_a: NDArray[Any],
    pixels_b: NDArray[Any],
    homography: NDArray[np.float64],
    frame: Frame | int,
) -> LoadedPair:
    """Grey, each image resampled once, the truth carried along exactly.

    Args:
        pixels_a, pixels_b: `H W` or `H W 3` RGB; uint8, uint16, or float32 in 0..1.
        homography: 3x3, x_B ~ H x_A in px of these images.
        frame: The size; a number stands for its longer side, px.

    Raises:
        FormatError: The homography sends a corner of image A to infinity.
    """
    if isinstance(frame, int):
        frame = Frame(long_side=frame)
    (image_a, to_a), (image_b, to_b) = framed(pixels_a, frame), framed(pixels_b, frame)
    truth = to_b @ homography @ np.linalg.inv(to_a)
    return LoadedPair(image_a, image_b, _facing(truth, size_hw_of(image_a)))


def framed(pixels: NDArray[Any], frame: Frame) -> tuple[Grey, NDArray[np.float64]]:
    """An image at the size of a frame.

    Args:
        pixels: `H W` or `H W 3` RGB; uint8, uint16, or float32 in 0..1.

    Returns:
        image: `H W` uint8.
        matrix: 3x3, from px of `pixels` to px of the image.
    """
    from_hw = size_hw_of(pixels)
    if frame.long_side is not None:
        image = grey_uint8(pixels, frame.long_side)
        return image, resize_matrix(from_hw, size_hw_of(image))
    if frame.crop_hw is None:
        assert frame.short_side is not None
        scale = frame.short_side / min(from_hw)
        crop_hw = to_hw = round(from_hw[0] * scale), round(from_hw[1] * scale)
    else:
        crop_hw = frame.crop_hw
        scale = max(crop_hw[0] / from_hw[0], crop_hw[1] / from_hw[1])
        height, width = (round(side * scale) for side in from_hw)
        to_hw = max(height, crop_hw[0]), max(width, crop_hw[1])
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(to_grey(pixels), to_hw[::-1], interpolation=how)
    top, left = (to_hw[0] - crop_hw[0]) // 2, (to_hw[1] - crop_hw[1]) // 2
    cut = resized[top : top + crop_hw[0], left : left + crop_hw[1]]
    moved = np.array([[1.0, 0, -left], [0, 1, -top], [0, 0, 1]])
    image = np.rint(np.clip(cut, 0, 1) * 255).astype(np.uint8)
    return image, moved @ resize_matrix(from_hw, to_hw)


def read_folders(folders: Sequence[Path]) -> tuple[list[PairFiles], list[Failure]]:
    """The pairs of several folders, each its own group, in the order given.

    Returns:
        pairs: What can be evaluated.
        failures: Lines and folders that could not be read.
    """
    pairs: list[PairFiles] = []
    failures: list[Failure] = []
    for folder, group in zip(folders, group_names(folders), strict=True):
        try:
            found, broken = read_folder(folder, group)
        except TiepointError as error:
            found, broken = [], [Failure(group, "", str(error))]
        pairs += found
        failures += broken
    return with_own_names(pairs), failures


def with_own_names(pairs: Sequence[Named]) -> list[Named]:
    """The pairs, those that come again in their group with a number behind their name."""
    counts: Counter[tuple[str, str]] = Counter()
    named = []
    for pair in pairs:
        counts[pair.group, pair.name] += 1
        again = counts[pair.group, pair.name]
        named.append(pair if again == 1 else replace(pair, name=f"{pair.name} #{again}"))  # type: ignore[type-var]
    return named


def group_names(folders: Sequence[Path]) -> list[str]:
    """A name for each folder: its own, or its path where several have the same."""
    names = [folder.resolve().name for folder in folders]
    return [
        name if names.count(name) == 1 else str(folder)
        for folder, name in zip(folders, names, strict=True)
    ]


def without_large(pairs: Sequence[PairFiles]) -> list[PairFiles]:
    """The pairs that are not of HPatches' `LARGE_SEQUENCES`."""
    return [pair for pair in pairs if not LARGE_SEQUENCES & set(re.split(r"[ /]", pair.name))]


def read_folder(folder: Path, group: str) -> tuple[list[PairFiles], list[Failure]]:
    """The pairs of one folder: a `pairs.txt`, or HPatches' `i_*` and `v_*` sequences.

    `pairs.txt` holds a line `imgA imgB h11 h12 h13 h21 ... h33` per pair, paths relative to it;
    empty lines and lines that start with `#` are passed over. An HPatches sequence holds
    `1.ppm` to `6.ppm` and `H_1_2` to `H_1_6`; its groups are `<group>/illumination` and
    `<group>/viewpoint`.

    Raises:
        FormatError: No such folder, neither layout, or no pairs.
    """
    if not folder.is_dir():
        raise FormatError(f"{folder}: no such folder; expected one with {PAIRS_FILE} or HPatches")
    listed = (folder / PAIRS_FILE).is_file()
    items = list(_listed(folder, group) if listed else _hpatches(folder, group))
    pairs = [item for item in items if isinstance(item, PairFiles)]
    failures = [item for item in items if isinstance(item, Failure)]
    if not pairs and not failures:
        raise FormatError(
            f"{folder}: no pairs; expected {PAIRS_FILE} with a line 'imgA imgB' and 9 numbers per "
            "pair, or HPatches' folders i_* and v_* with H_1_2 ... in them"
        )
    return pairs, failures


def _listed(folder: Path, group: str) -> Iterator[PairFiles | Failure]:
    path = folder / PAIRS_FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        where = f"{path}, line {number}"
        name = " ".join(fields[:2])
        try:
            if len(fields) != 11:
                raise FormatError(
                    f"{where}: {len(fields)} fields, expected 11: imgA imgB and the 9 numbers of "
                    "the homography, row by row"
                )
            homography = _matrix(fields[2:], where)
        except FormatError as error:
            yield Failure(group, name, str(error))
            continue
        paths = folder / fields[0], folder / fields[1]
        yield PairFiles(group, name, *paths, homography, (fields[0], fields[1]))


def _hpatches(folder: Path, group: str) -> Iterator[PairFiles | Failure]:
    for sequence in sorted(path for path in folder.glob("[iv]_*") if path.is_dir()):
        subgroup = f"{group}/{HPATCHES_GROUPS[sequence.name[0]]}"
        for path in sorted(sequence.glob("H_1_*"), key=lambda path: (len(path.name), path.name)):
            other = path.name.removeprefix("H_1_")
            name = f"{sequence.name} 1 {other}"
            try:
                homography = _matrix(path.read_text(encoding="utf-8").split(), str(path))
            except (FormatError, OSError, UnicodeDecodeError) as error:
                yield Failure(subgroup, name, f"{path}: {error}")
                continue
            images = sequence / "1.ppm", sequence / f"{other}.ppm"
            names = f"{sequence.name}/1.ppm", f"{sequence.name}/{other}.ppm"
            yield PairFiles(subgroup, name, *images, homography, names)


def _matrix(fields: Sequence[str], where: str) -> NDArray[np.float64]:
    try:
        numbers = np.array([float(field) for field in fields])
    except ValueError as error:
        raise FormatError(f"{where}: {error}, expected the 9 numbers of a homography") from error
    if numbers.shape != (9,):
        raise FormatError(f"{where}: {numbers.size} numbers, expected the 9 of a homography")
    matrix = numbers.reshape(3, 3)
    if not np.isfinite(matrix).all() or np.linalg.matrix_rank(matrix) < 3:
        raise FormatError(f"{where}: the homography is not finite or cannot be inverted")
    return matrix


def _facing(homography: NDArray[np.float64], a_hw: SizeHW) -> NDArray[np.float64]:
    """The homography with the sign by which image A lies before the camera, not behind it."""
    for sign in (1.0, -1.0):
        signed = sign * homography
        if np.isfinite(apply_homography(signed, corners_xy(a_hw))).all():
            return signed
    raise FormatError("the true homography sends a corner of image A to infinity: wrong numbers?")


def grey_uint8(pixels: NDArray[Any], long_side: int | None) -> Grey:
    """`H W` uint8, brought down to a longer side of so many px."""
    return np.rint(to_grey(resize(pixels, long_side)) * 255).astype(np.uint8)  # H W


def size_hw_of(pixels: NDArray[Any]) -> SizeHW:
    """(height, width)."""
    return pixels.shape[0], pixels.shape[1]
