"""`stitch`: several overlapping images -> one panorama, and which images do not belong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.checks import check_choice
from tiepoint.config import RegistrationConfig, RegistrationOptions, SurfaceName, resolve
from tiepoint.errors import ConfigError, RegistrationError
from tiepoint.features.frozen import freeze
from tiepoint.geometry import SizeHW, corners_xy
from tiepoint.images.reading import SourceImage, read
from tiepoint.matching.match import match
from tiepoint.plotting import to_rgb8
from tiepoint.registration.appearance import picture_of
from tiepoint.registration.register import (
    Pictured,
    ordered,
    paired,
    registered,
    registration_detector,
)
from tiepoint.registration.result import Registration
from tiepoint.registration.stitching import blending, bundle
from tiepoint.registration.stitching.blending import Surface
from tiepoint.registration.stitching.bundle import Bundle, Kind
from tiepoint.registration.stitching.graph import (
    Link,
    largest_part,
    link_of,
    reasons_outside,
    spanning_tree,
)

if TYPE_CHECKING:
    from tiepoint.detector import Detector

WORSE = 1.3
"""Ratio of the median residuals up to which rotations, with fewer unknowns, are preferred."""

PLANE_DEGREES = 70.0
"""Field of view up to which a panorama is on a plane; beyond it the border is stretched."""

FIT_PX = 2.0
"""Distance at which a match weighs a quarter in the bundle, px of the input."""


@dataclass(frozen=True, eq=False)
class Panorama:
    """Images stitched into one. Check `left_out`.

    Attributes:
        picture: H W 3 uint8, RGB; black where no image is.
        valid: H W bool, where an image is.
        members: Indices of the images that it shows.
        left_out: Index -> why an image does not belong.
        kind: "rotation" of a camera around its centre, or a "homography" for each image.
        surface: "plane" or "sphere".
        residual_px: Median distance of matches after the adjustment, px.
        registrations: Pair of indices -> its registration, with the verdict.
    """

    picture: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    members: tuple[int, ...]
    left_out: Mapping[int, str]
    kind: Kind
    surface: Surface
    residual_px: float
    registrations: Mapping[tuple[int, int], Registration]

    def __post_init__(self) -> None:
        freeze(self)

    def __repr__(self) -> str:
        height, width = self.picture.shape[:2]
        return f"Panorama({len(self.members)} images, {width}x{height} px, {self.kind})"


def stitch(
    images: Sequence[Any],
    *,
    surface: SurfaceName = "auto",
    detector: Detector | None = None,
    checkpoint: str | Path = "default",
    config: RegistrationConfig | None = None,
    on_pair: Callable[[], None] = lambda: None,
    **overrides: Unpack[RegistrationOptions],
) -> Panorama:
    """Stitch overlapping images of a flat scene, or of a camera that turns.

    All pairs are registered, and the verdicts of `register` make a graph. Its largest part is
    stitched: bundle adjustment, then OpenCV's exposure compensation and multi-band blender.

    Args:
        images: Two or more, each any source that `Detector` reads.
        surface: "plane"; "sphere", for a field of view above 70 degrees; "auto" chooses.
        detector: None takes `registration_detector(checkpoint)`.
        config, overrides: Settings of the registration of pairs; the model is a homography.
        on_pair: Called after each pair.

    Raises:
        ImageError: An image cannot be read.
        ConfigError: Fewer than two images, one that is too large, another model, a setting out of
            range.
        RegistrationError: No two images belong together, or they fit on no surface.
    """
    settings = resolve(config or RegistrationConfig(), overrides)
    check_choice("surface", surface, get_args(SurfaceName))
    if settings.model != "homography":
        raise ConfigError(f"model is {settings.model!r}, expected 'homography' for a panorama")
    if len(images) < 2:
        raise ConfigError(f"{len(images)} images, expected two or more to stitch")
    detector = detector or registration_detector(checkpoint)
    sources = [_read(image) for image in images]
    registrations = _all_pairs(sources, detector, settings, on_pair)
    links = [link_of(*pair, one) for pair, one in registrations.items() if one.success]
    members = largest_part(len(sources), links)
    if len(members) < 2:
        best = max(registrations.values(), key=lambda one: int(one.inliers.sum()))
        raise RegistrationError(f"no two of the {len(sources)} images align: {best.reason}")
    names = [source.name for source in sources]
    left_out = reasons_outside(members, names, registrations)
    place = {image: index for index, image in enumerate(members)}
    inner = [replace(link, a=place[link.a], b=place[link.b]) for link in links if link.a in place]
    sizes = [sources[image].size_hw for image in members]
    unit_px = max(one.features_a.px_per_input_px for one in registrations.values())
    solved = _solved(sizes, inner, FIT_PX * unit_px)
    residual_px = float(np.median(bundle.offsets_px(solved, inner)))
    chosen, matrices, scale = _surface_of(solved, surface)
    canvas = blending.canvas_of(matrices, sizes, chosen, scale)
    pictures = [to_rgb8(sources[image]) for image in members]
    with_data = [sources[image].valid for image in members]
    picture, valid = blending.blended(pictures, with_data, matrices, canvas)
    return Panorama(
        picture, valid, tuple(members), left_out, solved.kind, chosen, residual_px, registrations
    )


def _read(image: Any) -> SourceImage:
    source = read(image)
    if max(source.size_hw) > blending.MAX_SIDE_PX:
        raise ConfigError(
            f"{source.name}: a side of {max(source.size_hw)} px, the limit of stitching is "
            f"{blending.MAX_SIDE_PX}: make it smaller"
        )
    return source


def _all_pairs(
    sources: Sequence[SourceImage],
    detector: Detector,
    settings: RegistrationConfig,
    on_pair: Callable[[], None],
) -> dict[tuple[int, int], Registration]:
    """Pair of indices -> its registration, from the first to the second."""
    most = settings.max_keypoints
    views = [Pictured(detector(one, max_keypoints=most), picture_of(one)) for one in sources]
    registrations = {}
    for a, b in combinations(range(len(views)), 2):
        first, second, names = ordered(views[a], views[b])
        matches = match(
            first.features, second.features, method=settings.method, layers=settings.layers
        )
        pair = paired(first, second, names, matches, settings)
        registrations[a, b] = registered(pair, guided=settings.guided)
        on_pair()
    return registrations


def _solved(sizes: Sequence[SizeHW], links: Sequence[Link], within_px: float) -> Bundle:
    """Rotations if they fit about as well as homographies, which have more unknowns."""
    middle, tree = spanning_tree(range(len(sizes)), links)
    free = bundle.adjusted(bundle.homographies(sizes, middle, tree), links, within_px)
    start = bundle.rotations(sizes, middle, tree)
    if start is None:
        return free
    turned = bundle.adjusted(start, links, within_px)
    of_free, of_turned = (float(np.median(bundle.offsets_px(one, links))) for one in (free, turned))
    return turned if of_turned <= WORSE * of_free + 0.05 * within_px else free


def _surface_of(solved: Bundle, surface: SurfaceName) -> tuple[Surface, NDArray[np.float64], float]:
    """The surface, the matrices to its frame, and canvas px for a unit of the surface.

    Raises:
        RegistrationError: A sphere needs a camera that turns.
    """
    if solved.kind == "homography":
        if surface == "sphere":
            raise RegistrationError(
                "a sphere needs a camera that turns, and these images show a plane: choose 'plane'"
            )
        return "plane", solved.matrices, 1.0
    matrices = _upright(solved)
    views = list(zip(matrices, solved.sizes_hw, strict=True))
    middle = np.mean([_corners(matrix, size).mean(axis=0) for matrix, size in views], axis=0)
    forward = middle / max(float(np.linalg.norm(middle)), 1e-9)
    corners = np.concatenate([_corners(matrix, size) for matrix, size in views])
    widest = float(np.degrees(np.arccos(np.clip(corners @ forward, -1, 1))).max())
    chosen: Surface = "plane" if widest * 2 <= PLANE_DEGREES else "sphere"
    if surface != "auto":
        chosen = surface
    towards = _facing(forward)
    scale = solved.focal * max(solved.sizes_hw[solved.fixed])
    return chosen, towards @ matrices, scale


def _upright(solved: Bundle) -> NDArray[np.float64]:
    """The matrices after the horizon is made level (OpenCV's wave correction)."""
    if len(solved.frames) < 3:
        return solved.matrices
    frames = [one.astype(np.float32) for one in solved.frames]
    level = cv2.detail.waveCorrect(frames, cv2.detail.WAVE_CORRECT_HORIZ)
    return replace(solved, frames=np.stack(level).astype(np.float64)).matrices


def _corners(matrix: NDArray[np.float64], size_hw: SizeHW) -> NDArray[np.float64]:
    """4 3: directions of the corners of an image, of length 1."""
    vectors = np.column_stack([corners_xy(size_hw), np.ones(4)]) @ matrix.T
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def _facing(forward: NDArray[np.float64]) -> NDArray[np.float64]:
    """3x3: the rotation about the vertical, then the horizontal axis, that makes z forward."""
    yaw = np.arctan2(forward[0], forward[2])
    turned = cv2.Rodrigues(np.array([0, -yaw, 0.0]))[0]
    pitch = np.arctan2(*(turned @ forward)[[1, 2]])
    return np.asarray(cv2.Rodrigues(np.array([pitch, 0, 0.0]))[0] @ turned, np.float64)
