"""Shared by all formats: the pixel convention, `meta` as JSON values, checks and errors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tiepoint.checks import shown
from tiepoint.errors import ConfigError, FormatError
from tiepoint.features import Features, Matches, Provenance
from tiepoint.files.reading import JSON_DEPTH, check_json, parse_json

CONVENTION = "center0"
"""Pixel centres are whole numbers and (0, 0) is the first: tiepoint.geometry."""

PROVENANCE, PX_PER_INPUT_PX, TURNED = "provenance", "px_per_input_px", "turned_deg"
"""Entries of a file's `meta` that are fields of `Features` and `Matches`."""

ARRAYS = ("descriptors", "covariance", "scales_px")
"""Arrays of `Features` that may be None."""

MAX_KEYPOINTS = 2**24
"""Most keypoints of an image in a file, and one more than the largest index of a match."""
MAX_SIDE_PX = 2**31 - 1

ROWS_AT_A_TIME = 2**16
"""Rows of an array that are checked or written at a time."""

FREE_BYTES, MAX_EXPANSION = 64_000_000, 10
"""The arrays of a file may need this much memory, or this many times the file's own size. Features
hardly shrink when compressed; an archive of zeros shrinks a thousand times."""


class DamagedError(FormatError):
    """A file that is cut off, damaged, or not ours."""


Content = Literal["features", "matches", "tracks"]
_REMEDY: dict[Content, str] = {
    "features": "detect again",
    "matches": "match again",
    "tracks": "track again",
}


@dataclass(frozen=True)
class Summary:
    """Head of a features file, read without its descriptors.

    Attributes:
        keypoints: Number of keypoints.
        size_hw: (height, width) of the image, px.
        stored: `meta` as files hold it, see `stored_meta`.
    """

    keypoints: int
    size_hw: tuple[int, int]
    stored: dict[str, Any]

    @property
    def meta(self) -> dict[str, Any]:
        """As in `Features`."""
        typed = (PROVENANCE, PX_PER_INPUT_PX)
        return {name: value for name, value in self.stored.items() if name not in typed}

    @property
    def provenance(self) -> Provenance | None:
        """The weights and settings of the features; None for features from other programs."""
        values = self.stored.get(PROVENANCE)
        return None if values is None else Provenance.from_json(values)


def as_json(value: Any, name: str = "meta") -> Any:
    """A value of `meta` as JSON has it: tuples become lists, NumPy scalars plain numbers.

    Raises:
        FormatError: A value that JSON has no form for, NaN and infinity among them.
    """
    if type(value) in (str, int, bool, NoneType):  # most values, and NumPy's are none of these
        return value
    if isinstance(value, np.generic | np.ndarray):
        return as_json(value.tolist(), name)
    if isinstance(value, PathLike):
        return str(Path(value))
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise FormatError(f"{name}: key {key!r} is not text; files keep text keys only")
        return {key: as_json(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item, f"{name}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, float) and not np.isfinite(value):
        raise FormatError(f"{name} is {value}, which JSON cannot hold; use None or a text")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise FormatError(
        f"{name} is of type {type(value).__name__}; files keep None, numbers, texts, lists and "
        "dicts of these"
    )


def stored_meta(result: Features | Matches) -> dict[str, Any]:
    """`meta` as files hold it: with the typed fields that have no array of their own.

    Raises:
        FormatError: An entry of `meta` with the name of such a field.
    """
    typed: dict[str, Any]
    if isinstance(result, Matches):
        typed = {TURNED: result.turned_deg}
    else:
        made = result.provenance
        typed = {
            PX_PER_INPUT_PX: result.px_per_input_px,
            PROVENANCE: None if made is None else made.to_json(),
        }
    for name in typed:
        if name in result.meta:
            raise FormatError(
                f"meta has an entry {name!r}, which files keep for the field; rename it"
            )
    return {**result.meta, **{name: value for name, value in typed.items() if value is not None}}


def meta_text(result: Features | Matches) -> str:
    """`stored_meta` as one line of JSON.

    Raises:
        FormatError: JSON has no form for it, or it is nested too deep to be read again.
    """
    try:
        values = as_json(stored_meta(result))
        check_json(values)
    except (RecursionError, ValueError) as error:
        raise FormatError(f"meta: {error}; files keep {JSON_DEPTH} levels at most") from error
    return json.dumps(values)


def check_finite(features: Features) -> None:
    """Raise FormatError for features that no file keeps.

    Those are values that are not finite, more than `MAX_KEYPOINTS`, and sizes out of range.
    """
    if len(features) > MAX_KEYPOINTS:
        raise FormatError(
            f"{len(features)} keypoints, files keep up to {MAX_KEYPOINTS}; take the best of them"
        )
    if not all(1 <= side <= MAX_SIDE_PX for side in features.size_hw):
        raise FormatError(f"size_hw is {features.size_hw}, files keep 1 to {MAX_SIDE_PX} px")
    if features.px_per_input_px > MAX_SIDE_PX:
        raise FormatError(
            f"px_per_input_px is {features.px_per_input_px}, files keep up to {MAX_SIDE_PX}"
        )
    for name in ("xy", "scores", *ARRAYS):
        values = getattr(features, name)
        if values is not None and not all(np.isfinite(part).all() for part in in_parts(values)):
            raise FormatError(f"{name} hold NaN or infinity, which no file keeps; drop these rows")


def in_parts(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Rows of an array, some at a time, so that a mapped one stays on disk."""
    for start in range(0, len(values), ROWS_AT_A_TIME):
        yield values[start : start + ROWS_AT_A_TIME]


def summary_of(features: Features) -> Summary:
    """The summary of features in memory."""
    return Summary(len(features), features.size_hw, stored_meta(features))


def parse_meta(text: str, name: str) -> dict[str, Any]:
    """The reverse of `meta_text`; `name` is the file's, for errors."""
    try:
        meta = parse_json(text)
    except ValueError as error:
        raise damaged(name, f"meta is not JSON: {error}") from error
    if not isinstance(meta, dict):
        raise damaged(name, f"meta is a {type(meta).__name__}, expected an object")
    return meta


def check_convention(convention: object, name: str) -> None:
    """Raise unless a file follows our pixel convention; None is a file that names none."""
    if convention is None:
        raise FormatError(
            f'{name}: names no pixel convention, expected convention="{CONVENTION}"; '
            "not a features file that tiepoint wrote"
        )
    if convention != CONVENTION:
        raise FormatError(
            f'{name}: pixel convention is {convention!r}, expected "{CONVENTION}" (pixel centres '
            "are whole numbers); convert the coordinates, or detect again"
        )


def check_size(value: Any, name: str) -> tuple[int, int]:
    """(height, width) in px from a value of a file."""
    try:
        height, width = (int(side) for side in value)
    except (TypeError, ValueError, OverflowError) as error:
        raise damaged(name, f"size_hw is {shown(value)}, expected (height, width)") from error
    if min(height, width) < 1:
        raise damaged(name, f"size_hw is {shown((height, width))}, expected at least 1 px")
    if max(height, width) > MAX_SIDE_PX:
        raise damaged(
            name, f"size_hw is {shown((height, width))}, expected at most {MAX_SIDE_PX} px"
        )
    return height, width


def features_from(
    name: str,
    *,
    xy: ArrayLike,
    scores: ArrayLike,
    descriptors: ArrayLike | None,
    size_hw: Any,
    meta: dict[str, Any],
    covariance: ArrayLike | None = None,
    scales_px: ArrayLike | None = None,
) -> Features:
    """Features from what a file held, or a FormatError that states what does not fit."""
    meta = dict(meta)
    provenance, px_per_input_px = meta.pop(PROVENANCE, None), meta.pop(PX_PER_INPUT_PX, 1.0)
    try:
        return Features(
            xy=_positions(xy),
            scores=_float32(scores, "scores"),
            descriptors=None if descriptors is None else _float32(descriptors, "descriptors"),
            size_hw=check_size(size_hw, name),
            meta=meta,
            covariance=None if covariance is None else _float32(covariance, "covariance"),
            provenance=None if provenance is None else Provenance.from_json(provenance),
            px_per_input_px=_ratio(px_per_input_px),
            scales_px=None if scales_px is None else _float32(scales_px, "scales_px"),
        )
    except (ConfigError, ArithmeticError, TypeError, ValueError) as error:
        raise damaged(name, str(error)) from error


def require(keys: Sequence[str], held: Mapping[str, Any], name: str) -> None:
    """Raise unless a file holds all of these keys."""
    missing = [key for key in keys if key not in held]
    if missing:
        raise damaged(name, f"lacks {', '.join(missing)}")


@contextmanager
def as_damaged(
    name: str, errors: tuple[type[Exception], ...], holds: Content = "features"
) -> Iterator[None]:
    """Raise the errors of a reading library as a `FormatError` that names the file."""
    try:
        yield
    except FormatError:
        raise
    except errors as error:
        if isinstance(error, OSError) and error.errno is not None:
            unreadable(name, error)  # of the disk: the file may be whole
        raise damaged(name, str(error), holds) from error
    except (MemoryError, RecursionError, OverflowError) as error:
        raise damaged(name, str(error) or type(error).__name__, holds) from error
    except OSError as error:
        unreadable(name, error)


def damaged(name: str, reason: str, holds: Content = "features") -> DamagedError:
    """The error of a file that is cut off, damaged, or not ours."""
    return DamagedError(f"{name}: not a whole {holds} file ({reason}); {_REMEDY[holds]}")


def unreadable(name: str, error: OSError) -> NoReturn:
    """Raise for a file that the operating system does not give us."""
    reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
    raise FormatError(f"{name}: cannot be read ({reason}); check the path") from error


def check_expansion(memory_bytes: int, file_bytes: int) -> None:
    """Raise ValueError for arrays that are far larger than the file that declares them."""
    limit = max(FREE_BYTES, MAX_EXPANSION * file_bytes)
    if memory_bytes > limit:
        raise ValueError(
            f"declares arrays of {memory_bytes} bytes in a file of {file_bytes} bytes, the limit "
            f"is {limit}"
        )


def _positions(xy: ArrayLike) -> NDArray[np.float32]:
    array = _float32(xy, "xy")
    if len(array) > MAX_KEYPOINTS:
        raise ValueError(f"{len(array)} keypoints, the limit is {MAX_KEYPOINTS}")
    return array


def _ratio(px_per_input_px: Any) -> float:
    ratio = float(px_per_input_px)
    if not ratio <= MAX_SIDE_PX:
        raise ValueError(f"px_per_input_px is {ratio}, expected at most {MAX_SIDE_PX}")
    return ratio


def _float32(value: ArrayLike, name: str) -> NDArray[np.float32]:
    array = np.asarray(value)
    if array.size and array.dtype.kind not in "fiu":
        raise ValueError(f"{name} are an array of {array.dtype}, expected numbers")
    with np.errstate(over="raise"):
        numbers = array.astype(np.float32, copy=False)
    if not np.isfinite(numbers).all():
        raise ValueError(f"{name} hold NaN or infinity")
    return numbers
