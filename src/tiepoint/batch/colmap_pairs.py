"""Verified pairs of COLMAP's database: the geometry of each, found while others are matched."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiepoint.features import Features, Matches
from tiepoint.formats import colmap_tables
from tiepoint.formats.colmap import ColmapDatabase, TwoViewRow
from tiepoint.formats.colmap_tables import Camera
from tiepoint.geometry import Matrix
from tiepoint.registration.two_view import Geometry, verify

CONFIGURATIONS: dict[Geometry, int] = {
    "degenerate": 1,
    "calibrated": 2,
    "uncalibrated": 3,
    "planar or panoramic": 6,
}
"""COLMAP's numbers of the configurations that `verify` distinguishes."""

NAMES: dict[int, str] = {number: name for name, number in CONFIGURATIONS.items()}

IMAGES_KEPT = 64
"""Images whose keypoints stay in memory for their next pair."""

Names = tuple[str, str]


class StoredImage(NamedTuple):
    """An image as the database has it, in px of its file.

    Attributes:
        features: Without descriptors.
        intrinsics: 3x3; None without a known focal length.
        rays_px: N 2, px: the keypoints as a camera without distortion has them; None as well.
    """

    features: Features
    intrinsics: Matrix | None = None
    rays_px: NDArray[np.float64] | None = None


class VerifiedMatches:
    """The matches of a database, a store of `match_pairs`; `examine` verifies each pair."""

    def __init__(self, database: ColmapDatabase) -> None:
        self.path = database.path
        self._database = database
        self._images: OrderedDict[str, StoredImage] = OrderedDict()
        self._geometries: dict[Names, TwoViewRow] = {}

    def __contains__(self, names: object) -> bool:
        assert isinstance(names, tuple)
        return self._database.has_matches(*names)

    def meta(self, names: Names) -> Mapping[str, Any]:
        return self._database.pair_meta(*names) or {}

    def examine(self, names: Names) -> Callable[[Matches], None]:
        """Read two images; the function that it returns verifies their matches in any thread."""
        a, b = (self._image(name) for name in names)

        def keep_geometry(matches: Matches) -> None:
            self._geometries[names] = verified(a, b, matches)

        return keep_geometry

    def add(self, name_a: str, name_b: str, matches: Matches) -> None:
        geometry = self._geometries.pop((name_a, name_b))
        self._database.add_pair(name_a, name_b, matches.pairs, geometry, matches.meta)

    def close(self) -> None:
        return

    def _image(self, name: str) -> StoredImage:
        image = self._images.pop(name, None)
        if image is None:
            image = _read_image(self._database, name)
        self._images[name] = image  # the newest
        if len(self._images) > IMAGES_KEPT:
            self._images.popitem(last=False)
        return image


def _read_image(database: ColmapDatabase, name: str) -> StoredImage:
    features, camera = database.read(name, descriptors=False), database.camera(name)
    assert camera is not None
    if not camera.has_prior_focal or camera.intrinsics is None:
        return StoredImage(features)
    return StoredImage(features, camera.intrinsics, without_distortion(camera, features.xy))


def verified(a: StoredImage, b: StoredImage, matches: Matches) -> TwoViewRow:
    """The geometry of the matches of two images."""
    cameras = rays_px = None
    if a.intrinsics is not None and b.intrinsics is not None:
        cameras = a.intrinsics, b.intrinsics
        assert a.rays_px is not None and b.rays_px is not None
        rays_px = a.rays_px, b.rays_px
    result = verify(a.features, b.features, matches, cameras=cameras, rays_px=rays_px)
    return TwoViewRow(
        CONFIGURATIONS[result.geometry],
        matches.pairs[result.inliers],
        result.fundamental,
        result.essential,
        result.homography,
        None if result.pose is None else (result.pose.rotation, result.pose.translation),
    )


def without_distortion(camera: Camera, xy: NDArray[np.float32]) -> NDArray[np.float64]:
    """N 2 px, as a camera without distortion would have them."""
    intrinsics, distortion = camera.intrinsics, camera.distortion
    assert intrinsics is not None
    points = xy.astype(np.float64)
    if len(points) == 0 or not distortion.any():
        return points
    import cv2

    is_fisheye = camera.model == colmap_tables.FISHEYE
    undistort: Any = cv2.fisheye.undistortPoints if is_fisheye else cv2.undistortPoints
    ideal = undistort(points[:, None], intrinsics, distortion, P=intrinsics)  # N 1 2
    return np.nan_to_num(np.asarray(ideal, np.float64)[:, 0], nan=1e9, posinf=1e9, neginf=-1e9)
