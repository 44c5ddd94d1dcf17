"""A registration as plain values for JSON, with what made it; and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiepoint._version import __version__
from tiepoint.config import RegistrationConfig
from tiepoint.errors import FormatError
from tiepoint.features import Features, Matches
from tiepoint.registration.models import MODELS, PLANE_MODELS
from tiepoint.registration.result import Registration, Residuals

POINT_DIGITS = 3
"""Decimals of matched points, px."""
MOST_POINTS = 1_000_000
MOST_SIDE_PX = 10_000_000


@dataclass(frozen=True, eq=False)
class Record:
    """A registration read from JSON.

    Attributes:
        a, b: Names of the images, as they were given.
        registration: The result; its features have the matched points only, none if the record
            has no points.
        keypoints: Numbers of keypoints of A and B.
        matches, inliers: Numbers of matches and inliers.
        provenance: Weights and settings of the detection, or None.
        settings: Settings of the registration, or None.
        version, date: Of tiepoint, and the time in ISO 8601; None in records without them.
    """

    a: str
    b: str
    registration: Registration
    keypoints: tuple[int, int]
    matches: int
    inliers: int
    provenance: Mapping[str, Any] | None = None
    settings: Mapping[str, Any] | None = None
    version: str | None = None
    date: str | None = None

    @property
    def has_points(self) -> bool:
        """Whether the record has the matched points."""
        return len(self.registration.matches) > 0


def record_json(
    a: str, b: str, result: Registration, config: RegistrationConfig, *, points: bool = False
) -> dict[str, Any]:
    """The figures of a registration with what made it, as plain values.

    Args:
        a, b: Names of the images.
        result: The registration.
        config: Its settings.
        points: Add the positions of all matches and which of them are inliers.
    """
    made = result.features_a.provenance
    values = {
        "a": a,
        "b": b,
        **result.summary(),
        "version": __version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": asdict(config),
        "provenance": None if made is None else made.to_json(),
    }
    if points:
        values["points"] = {
            "a": np.round(result.xy_a.astype(np.float64), POINT_DIGITS).tolist(),
            "b": np.round(result.xy_b.astype(np.float64), POINT_DIGITS).tolist(),
            "inlier": result.inliers.tolist(),
        }
    return values


def read_record(values: Any) -> Record:
    """The reverse of `record_json`.

    Raises:
        FormatError: Values that are no registration.
    """
    try:
        return _read(values)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise FormatError(
            f"not a registration by tiepoint register --json ({type(error).__name__}: {error})"
        ) from error


def is_record(values: Any) -> bool:
    """Whether values look like a registration, whole or damaged."""
    return isinstance(values, dict) and {"success", "reason", "model", "a", "b"} <= set(values)


def _read(values: Any) -> Record:
    a_hw, b_hw = (_size_hw(size) for size in values["size_hw"])
    model, success, reason = values["model"], values["success"], values["reason"]
    if model not in MODELS or type(success) is not bool:
        raise ValueError(f"model is {model!r}, success is {success!r}")
    names = values["a"], values["b"]
    if not all(isinstance(text, str) for text in (*names, reason)):
        raise ValueError("names and reason that are no texts")
    xy_a, xy_b, inliers = _points(values.get("points"))
    scores = np.ones(len(xy_a), np.float32)
    pairs = np.stack([np.arange(len(xy_a))] * 2, axis=1)  # M 2
    residuals = values["reprojection_px"]
    registration = Registration(
        success=success,
        reason=reason,
        model=model,
        matrix=_matrix(values["matrix"], model) if success else None,
        features_a=Features(xy_a, scores, None, a_hw),
        features_b=Features(xy_b, scores, None, b_hw),
        matches=Matches(pairs, scores),
        inliers=inliers,
        coverage=_number(values["coverage"]),
        agreement=_number(values["agreement"]),
        reprojection_px=Residuals(_number(residuals["median"]), _number(residuals["rms"])),
        overlap_sd_px=_number(values["overlap_sd_px"]),
        corner_sd_px=_number(values["corner_sd_px"]),
    )
    count_a, count_b = map(_count, values["keypoints"])
    return Record(
        *names,
        registration,
        (count_a, count_b),
        _count(values["matches"]),
        _count(values["inliers"]),
        _object(values.get("provenance")),
        _object(values.get("settings")),
        _text(values.get("version")),
        _text(values.get("date")),
    )


def _points(
    values: Any,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    if values is None:
        none = np.empty((0, 2), np.float32)
        return none, none, np.empty(0, bool)
    xy_a, xy_b = (np.array(values[name], np.float64).reshape(-1, 2) for name in "ab")  # M 2
    inliers = values["inlier"]
    if not len(xy_a) == len(xy_b) == len(inliers) <= MOST_POINTS:
        raise ValueError(f"{len(xy_a)} and {len(xy_b)} points, {len(inliers)} marks")
    if not all(type(mark) is bool for mark in inliers):
        raise ValueError("marks of inliers that are not true or false")
    if not all((np.abs(xy) <= MOST_SIDE_PX).all() for xy in (xy_a, xy_b)):
        raise ValueError(f"points beyond {MOST_SIDE_PX} px")
    return xy_a.astype(np.float32), xy_b.astype(np.float32), np.array(inliers, bool)


def _matrix(values: Any, model: str) -> NDArray[np.float64]:
    matrix = np.array(values, np.float64)
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        raise ValueError(f"matrix has shape {matrix.shape}, expected 3x3 finite numbers")
    if model in PLANE_MODELS and not abs(np.linalg.det(matrix)) > 0:
        raise ValueError("matrix is singular")
    return matrix


def _size_hw(values: Any) -> tuple[int, int]:
    height, width = map(_count, values)
    if not (0 < height <= MOST_SIDE_PX and 0 < width <= MOST_SIDE_PX):
        raise ValueError(f"size_hw is {values!r}")
    return height, width


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"a number is {value!r}, expected a whole one")
    return value


def _number(value: Any) -> float:
    """A number; NaN for an unknown one."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"a figure is {value!r}, expected a number")
    return float(value)


def _object(value: Any) -> Mapping[str, Any] | None:
    return value if isinstance(value, dict) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
