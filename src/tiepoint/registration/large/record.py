"""The result of `register_large` as a JSON file, and back."""

from __future__ import annotations

import json
import math
from os import PathLike
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from tiepoint._version import __version__
from tiepoint.config import LargeModel
from tiepoint.errors import FormatError, ImageError
from tiepoint.files.reading import read_json
from tiepoint.files.writing import write_bytes
from tiepoint.geometry import SizeHW
from tiepoint.registration.large.deformation import Deformation
from tiepoint.registration.large.georeference import Georeference
from tiepoint.registration.large.result import LargeRegistration, ResidualMap
from tiepoint.registration.large.transform import LargeTransform
from tiepoint.registration.result import Residuals

NAME, VERSION = "tiepoint_transform", 1
"""Member of the file that holds its version."""

MAX_BYTES = 200_000_000
MOST_SIDE_PX = 10_000_000
POINT_DIGITS = 4

Array = NDArray[np.float64]


def transform_json(registration: LargeRegistration) -> dict[str, Any]:
    """A result as plain values: the map, its points, its residuals, and the map positions.

    Points have the coordinates of B's map too, if it has a map position.
    """
    mapping, place = registration.mapping, registration.georeferences[1]
    return {
        NAME: VERSION,
        "version": __version__,
        "convention": "px, x right, y down, whole numbers at pixel centres; A to B",
        **registration.summary(),
        "matrix": None if mapping is None else mapping.matrix.tolist(),
        "deformation": None if mapping is None else _deformation_json(mapping.deformation),
        "exif_orientation": registration.exif_orientation,
        "georeferences": [
            None if place is None else place.to_json() for place in registration.georeferences
        ],
        "control_points": {
            "a": np.round(registration.xy_a, POINT_DIGITS).tolist(),
            "b": np.round(registration.xy_b, POINT_DIGITS).tolist(),
            "map": None if place is None else place.to_map(registration.xy_b).tolist(),
            "inlier": registration.inliers.tolist(),
        },
        "residual_map": registration.residual_map.to_json(),
    }


def save_transform(path: str | PathLike[str], registration: LargeRegistration) -> None:
    """Write a result as JSON; `load_transform` reads it.

    Raises:
        OutputError: The file cannot be written.
    """
    text = json.dumps(transform_json(registration), ensure_ascii=False, allow_nan=False)
    write_bytes(path, text.encode() + b"\n")


def load_transform(path: str | PathLike[str]) -> LargeRegistration:
    """Read a result that `save_transform` wrote; its `coarse` is None.

    Raises:
        FormatError: Not such a file, or a damaged one.
        ImageError: The file cannot be read.
    """
    try:
        values = read_json(path, most_bytes=MAX_BYTES)
        return _read(values)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise FormatError(
            f"{path}: not a transform by tiepoint register-large --transform "
            f"({type(error).__name__}: {error})"
        ) from error


def _read(values: Any) -> LargeRegistration:
    if values[NAME] != VERSION:
        raise ValueError(f"version {values[NAME]!r}, expected {VERSION}")
    success, model = values["success"], values["model"]
    if type(success) is not bool or model not in get_args(LargeModel):
        raise ValueError(f"success is {success!r}, model is {model!r}")
    points = values["control_points"]
    xy_a, xy_b = (_numbers(points[name], 2) for name in "ab")
    inliers = np.array(points["inlier"], bool)
    if not len(xy_a) == len(xy_b) == len(inliers):
        raise ValueError(f"{len(xy_a)} and {len(xy_b)} points, {len(inliers)} marks")
    sizes = tuple(_size_hw(size) for size in values["size_hw"])
    places = tuple(_georeference(place) for place in values["georeferences"])
    residuals = values["residual_map"]
    agreeing, compared = values["cells"]
    return LargeRegistration(
        success=success,
        reason=str(values["reason"]),
        model=model,
        mapping=_mapping(values) if success else None,
        coarse=None,
        xy_a=xy_a,
        xy_b=xy_b,
        inliers=inliers,
        residual_map=ResidualMap(
            _numbers(residuals["centres_xy"], 2),
            _numbers(residuals["offsets_px"], 2),
            _numbers(residuals["distances_px"]),
            np.array(residuals["counts"], np.int64),
        ),
        reprojection_px=_residuals(values["reprojection_px"]),
        left_out_px=_residuals(values["left_out_px"]),
        cells=(int(agreeing), int(compared)),
        coverage=float(values["coverage"]),
        names=(str(values["a"]), str(values["b"])),
        sizes_hw=(sizes[0], sizes[1]),
        georeferences=(places[0], places[1]),
        damaged=tuple((str(name), (float(x), float(y))) for name, x, y in values["damaged"]),
        exif_orientation=int(values["exif_orientation"]),
    )


def _mapping(values: Any) -> LargeTransform:
    matrix = _numbers(values["matrix"], 3)
    if matrix.shape != (3, 3) or np.linalg.det(matrix) == 0:
        raise ValueError(f"matrix has shape {matrix.shape}, expected 3x3 and not singular")
    return LargeTransform(matrix, _deformation(values["deformation"]))


def _deformation_json(deformation: Deformation | None) -> dict[str, Any] | None:
    if deformation is None:
        return None
    return {
        "kind": "cubic B-spline",
        "origin_xy": list(deformation.origin_xy),
        "spacing_px": deformation.spacing_px,
        "coefficients": deformation.coefficients.tolist(),
    }


def _deformation(values: Any) -> Deformation | None:
    if values is None:
        return None
    coefficients = np.array(values["coefficients"], np.float64)
    least = 4
    if coefficients.ndim != 3 or coefficients.shape[2] != 2 or min(coefficients.shape[:2]) < least:
        raise ValueError(f"coefficients have shape {coefficients.shape}, expected R C 2")
    spacing = float(values["spacing_px"])
    if not spacing > 0:
        raise ValueError(f"spacing_px is {spacing}, expected above 0")
    x, y = (float(value) for value in values["origin_xy"])
    return Deformation((x, y), spacing, coefficients)


def _georeference(values: Any) -> Georeference | None:
    if values is None:
        return None
    a, b, c, d, e, f = (float(value) for value in values["geotransform"])
    if b * f == c * e:
        raise ValueError("a geotransform that is singular")
    return Georeference((a, b, c, d, e, f), str(values["crs"]))


def _numbers(values: Any, columns: int | None = None) -> Array:
    numbers = np.array(values, np.float64)
    return numbers if columns is None else numbers.reshape(-1, columns)


def _residuals(values: Any) -> Residuals:
    return Residuals(
        *(math.nan if values[name] is None else float(values[name]) for name in Residuals._fields)
    )


def _size_hw(values: Any) -> SizeHW:
    height, width = values
    if type(height) is not int or type(width) is not int:
        raise ValueError(f"size_hw is {values!r}")
    if not (0 < height <= MOST_SIDE_PX and 0 < width <= MOST_SIDE_PX):
        raise ValueError(f"size_hw is {values!r}")
    return height, width
