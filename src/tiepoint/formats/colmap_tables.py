"""COLMAP's database: its tables, its cameras, and the arrays in its cells.

Source: https://colmap.github.io/database.html. COLMAP 4 opens a file with these five tables and
adds its own columns and tables.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tiepoint.checks import is_number, shown
from tiepoint.errors import ConfigError
from tiepoint.features import Features
from tiepoint.formats.fields import damaged
from tiepoint.geometry import Matrix, SizeHW, apply_homography, stored_matrix

SCHEMA = """
CREATE TABLE cameras (
    camera_id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    model INTEGER NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    params BLOB,
    prior_focal_length INTEGER NOT NULL);
CREATE TABLE images (
    image_id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    name TEXT NOT NULL UNIQUE,
    camera_id INTEGER NOT NULL,
    CONSTRAINT image_id_check CHECK(image_id >= 0 and image_id < 2147483647),
    FOREIGN KEY(camera_id) REFERENCES cameras(camera_id));
CREATE UNIQUE INDEX index_name ON images(name);
CREATE TABLE keypoints (
    image_id INTEGER PRIMARY KEY NOT NULL,
    rows INTEGER NOT NULL,
    cols INTEGER NOT NULL,
    data BLOB,
    FOREIGN KEY(image_id) REFERENCES images(image_id) ON DELETE CASCADE);
CREATE TABLE matches (
    pair_id INTEGER PRIMARY KEY NOT NULL,
    rows INTEGER NOT NULL,
    cols INTEGER NOT NULL,
    data BLOB);
CREATE TABLE two_view_geometries (
    pair_id INTEGER PRIMARY KEY NOT NULL,
    rows INTEGER NOT NULL,
    cols INTEGER NOT NULL,
    data BLOB,
    config INTEGER NOT NULL,
    F BLOB,
    E BLOB,
    H BLOB,
    qvec BLOB,
    tvec BLOB);
"""
"""The tables of COLMAP 3.7, the oldest form that current versions read completely."""

OWN_SCHEMA = """
CREATE TABLE IF NOT EXISTS tiepoint_keypoints (
    image_id INTEGER PRIMARY KEY NOT NULL,
    rows INTEGER NOT NULL,
    scores BLOB NOT NULL,
    covariance BLOB,
    cols INTEGER,
    descriptors BLOB,
    meta TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS tiepoint_pairs (
    pair_id INTEGER PRIMARY KEY NOT NULL,
    meta TEXT NOT NULL);
"""
"""tiepoint's own tables, which COLMAP ignores. Row i of the arrays belongs to keypoint i.

scores: N float32. covariance: N 3 float32 (xx, xy, yy), px^2. descriptors: N cols float32.
"""

REQUIRED = {
    "cameras": {"camera_id", "model", "width", "height", "params", "prior_focal_length"},
    "images": {"image_id", "name", "camera_id"},
    "keypoints": {"image_id", "rows", "cols", "data"},
    "matches": {"pair_id", "rows", "cols", "data"},
    "two_view_geometries": {"pair_id", "rows", "cols", "data", "config", "F", "E", "H"},
}
"""Table -> columns, without which a file is no database of COLMAP's."""

MAX_IMAGE_ID = 2_147_483_647

CENTRE = 0.5
"""COLMAP's coordinate of the centre of the first pixel."""

FOCAL_GUESS = 1.2
"""Focal length relative to the longer side where a file has none, as COLMAP's
`default_focal_length_factor`."""

MODELS = {
    "SIMPLE_PINHOLE": (0, 1, 0),
    "PINHOLE": (1, 2, 0),
    "SIMPLE_RADIAL": (2, 1, 1),
    "RADIAL": (3, 1, 2),
    "OPENCV": (4, 2, 4),
    "OPENCV_FISHEYE": (5, 2, 4),
}
"""Camera model -> its number, its focal lengths and its distortion parameters."""

FISHEYE = MODELS["OPENCV_FISHEYE"][0]
_BY_ID = {number: (focals, distortions) for number, focals, distortions in MODELS.values()}


@dataclass(frozen=True)
class Camera:
    """A row of `cameras`.

    Attributes:
        model: COLMAP's number of the model.
        size_wh: (width, height) of the stored image, px.
        params: Parameters in COLMAP's order; pixel centres are at +0.5.
        has_prior_focal: Whether the focal length is known, not guessed.
    """

    model: int
    size_wh: tuple[int, int]
    params: tuple[float, ...]
    has_prior_focal: bool

    @classmethod
    def from_blob(
        cls, model: int, size_wh: tuple[int, int], data: bytes, has_prior_focal: bool
    ) -> Camera:
        """A camera from its cells; ValueError for parameters that its model does not have."""
        params = tuple(np.frombuffer(data, "<f8").tolist())
        if model in _BY_ID:
            focals, distortions = _BY_ID[model]
            expected = focals + 2 + distortions
            if len(params) != expected or not all(map(math.isfinite, params)):
                raise ValueError(f"{len(params)} parameters, expected {expected} finite numbers")
        return cls(model, size_wh, params, has_prior_focal)

    @property
    def blob(self) -> bytes:
        """The parameters as a cell has them."""
        return np.array(self.params, "<f8").tobytes()

    @property
    def intrinsics(self) -> Matrix | None:
        """K, 3x3, with pixel centres at whole numbers; None for a model not in `MODELS`."""
        if self.model not in _BY_ID:
            return None
        focals = _BY_ID[self.model][0]
        cx, cy = self.params[focals : focals + 2]
        fx, fy = self.params[0], self.params[focals - 1]
        return np.array([[fx, 0, cx - CENTRE], [0, fy, cy - CENTRE], [0, 0, 1]], np.float64)

    @property
    def distortion(self) -> NDArray[np.float64]:
        """4: k1, k2, p1, p2, or k1 to k4 of a fisheye lens, as OpenCV has them."""
        values = np.zeros(4)
        focals, count = _BY_ID[self.model]
        values[:count] = self.params[focals + 2 :]
        return values


def camera_of(model: str, size_wh: tuple[int, int], focal_px: float | None) -> Camera:
    """A camera without distortion, with its principal point in the middle of the image.

    Args:
        model: One of `MODELS`.
        size_wh: (width, height) of the stored image, px.
        focal_px: Focal length, px; None guesses it from the size.
    """
    number, focals, distortions = MODELS[model]
    known = focal_px is not None
    focal = focal_px if focal_px is not None else FOCAL_GUESS * max(size_wh)
    middle = size_wh[0] / 2, size_wh[1] / 2
    return Camera(number, size_wh, (focal,) * focals + middle + (0.0,) * distortions, known)


def check_params(model: str, params: tuple[float, ...]) -> None:
    """Raise ConfigError unless a model of `MODELS` has these parameters."""
    if model not in MODELS:
        raise ConfigError(f"camera_model is {shown(model)}, expected one of {', '.join(MODELS)}")
    _, focals, distortions = MODELS[model]
    count = focals + 2 + distortions
    if params == ():
        return
    is_right = isinstance(params, tuple) and len(params) == count
    is_right = is_right and all(is_number(one) and math.isfinite(one) for one in params)
    if not is_right or min(params[:focals]) <= 0:
        names = ("f",) if focals == 1 else ("fx", "fy")
        raise ConfigError(
            f"camera_params is {shown(params)}, expected the {count} finite numbers of {model}: "
            f"{', '.join(names)} (px, above 0), cx, cy"
            + (f" and {distortions} of the distortion" if distortions else "")
        )


def upright(features: Features, exif_orientation: int) -> Features:
    """Features in px of an image as its file stores it -> in px of the upright image."""
    if exif_orientation == 1:
        return features
    size_hw = turned(features.size_hw, exif_orientation)
    matrix = np.linalg.inv(stored_matrix(size_hw, exif_orientation))
    xy = apply_homography(matrix, features.xy).astype(np.float32)  # N 2
    covariance, turn = features.covariance, matrix[:2, :2]
    if covariance is not None:
        covariance = (turn @ covariance @ turn.T).astype(np.float32)
    return replace(features, xy=xy, size_hw=size_hw, covariance=covariance)


def turned(size_hw: SizeHW, exif_orientation: int) -> SizeHW:
    """Size of the stored image from that of the upright one, or the reverse."""
    return size_hw[::-1] if exif_orientation >= 5 else size_hw


def pair_id_of(id_a: int, id_b: int) -> int:
    """COLMAP's number of a pair of images, whatever their order."""
    return MAX_IMAGE_ID * min(id_a, id_b) + max(id_a, id_b)


def blob(array: NDArray[Any], dtype: DTypeLike = "<f4") -> bytes:
    """The bytes of an array, rows first, little-endian."""
    return np.ascontiguousarray(array).astype(dtype).tobytes()


def array_of(data: object, shape: tuple[Any, Any], where: str) -> NDArray[np.float32]:
    """A finite float32 array of a cell; raises DamagedError unless it has this shape."""
    if not all(type(side) is int and side >= 0 for side in shape):
        raise damaged(where, f"a cell has the shape {shown(shape)}, expected whole numbers")
    expected = 4 * shape[0] * shape[1]
    if not isinstance(data, bytes) or len(data) != expected:
        have = f"{len(data)} bytes" if isinstance(data, bytes) else type(data).__name__
        raise damaged(where, f"a cell has {have}, expected {expected} bytes")
    values = np.frombuffer(data, "<f4").reshape(shape).astype(np.float32)
    if not np.isfinite(values).all():
        raise damaged(where, "a cell holds NaN or infinity")
    return values


def moved_fundamental(matrix: Matrix) -> Matrix:
    """A fundamental matrix between COLMAP's px from one between ours."""
    back = _shift(-CENTRE)
    moved: Matrix = back.T @ matrix @ back
    return moved


def moved_homography(matrix: Matrix) -> Matrix:
    """A homography between COLMAP's px from one between ours."""
    moved: Matrix = _shift(CENTRE) @ matrix @ _shift(-CENTRE)
    return moved


def quaternion_of(rotation: Matrix) -> NDArray[np.float64]:
    """4 (w, x, y, z), w >= 0: the unit quaternion of a rotation matrix.

    Source: Bar-Itzhack, New method for extracting the quaternion from a rotation matrix, 2000.
    """
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation
    table = np.array(
        [
            [xx - yy - zz, 0, 0, 0],
            [xy + yx, yy - xx - zz, 0, 0],
            [xz + zx, yz + zy, zz - xx - yy, 0],
            [zy - yz, xz - zx, yx - xy, xx + yy + zz],
        ]
    )
    x, y, z, w = np.linalg.eigh(table)[1][:, -1]  # of the lower triangle
    quaternion = np.array([w, x, y, z])
    return quaternion if w >= 0 else -quaternion


def _shift(by_px: float) -> Matrix:
    return np.array([[1, 0, by_px], [0, 1, by_px], [0, 0, 1]], np.float64)
