"""A scene of the bank: views drawn from a seed and an index, and their keypoints with exact
positions in all views. Works without torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiepoint.architecture import CELL_PX
from tiepoint.detector import Detector
from tiepoint.geometry import SizeHW
from tiepoint.training.matcher.positions import OwnedView, elsewhere, owned_view
from tiepoint.training.matcher.settings import VIEWS, MatcherData
from tiepoint.training.scenes import draws
from tiepoint.training.scenes.basics import Grey, Rng
from tiepoint.training.scenes.composition import Scene, scene_of
from tiepoint.training.scenes.groups import view_group
from tiepoint.training.scenes.photometry import draw_exposure, expose
from tiepoint.training.scenes.render import render

WIDER_RADIUS_PX = 2
"""Difference between the two NMS radii, unless `MatcherData` has them."""


@dataclass(frozen=True, eq=False)
class DrawnScene:
    """The V views of a scene.

    Attributes:
        images: V `H W` uint8.
        views: Their geometry.
        cameras, focal: See `ViewGroup`.
        kind: One of `settings.KINDS`.
    """

    images: list[Grey]
    views: list[OwnedView]
    cameras: NDArray[np.float64]
    focal: float
    kind: str


@dataclass(frozen=True, eq=False)
class SceneFeatures:
    """The keypoints of a scene's V views, one view after another: T in all.

    Attributes:
        counts: V int64, keypoints of each view, best first.
        xy: T 2 float32, px.
        descriptors: T D float16.
        elsewhere: T V 2 float32, px: position in each view; see `positions.Elsewhere`. The own
            view has the keypoint's own position.
        doubtful: T V bool.
        size_hw: 2 int64, (height, width) of the views, px.
        cameras: V 3 4 float64; see `ViewGroup`.
        focal: 1 float64, px; 0 for a flat scene.
    """

    counts: NDArray[np.int64]
    xy: NDArray[np.float32]
    descriptors: NDArray[np.float16]
    elsewhere: NDArray[np.float32]
    doubtful: NDArray[np.bool_]
    size_hw: NDArray[np.int64]
    cameras: NDArray[np.float64]
    focal: NDArray[np.float64]


def draw_views(data: MatcherData, seed: int, index: int) -> DrawnScene:
    """The views of the scene of this index: always the same, in any process.

    Raises:
        FormatError: No such folder of photographs, or none of the part in it.
        ImageError: Most photographs cannot be read.
    """
    rng = np.random.default_rng([seed, index, 3])
    size_hw = _size(data, rng)
    scene = _scene(data, size_hw, rng)
    group = view_group(scene, data.geometry, size_hw, VIEWS, rng)
    bodies = [plane.body for plane in group.planes]
    images, views = [], []
    for to_view, order in zip(group.to_views, group.orders, strict=True):
        drawn = render(group.planes, to_view, order, scene.backdrop, size_hw, cover_px=1.5)
        exposed = expose(drawn.image, draw_exposure(rng, size_hw, data.photometry))
        images.append(exposed.image)
        views.append(owned_view(drawn.owner, exposed.covered, to_view, order, bodies))
    return DrawnScene(images, views, group.cameras, group.focal, scene.kind)


def scene_features(detector: Detector, data: MatcherData, seed: int, index: int) -> SceneFeatures:
    """Draw the scene of this index and detect in its views; raises as `draw_views`."""
    return detected(detector, draw_views(data, seed, index), data, seed, index)


def detected(
    detector: Detector, scene: DrawnScene, data: MatcherData, seed: int, index: int
) -> SceneFeatures:
    """Detect in the views of the drawn scene of this index, in one batch if the engine has them."""
    own = detector.checkpoint.detection.nms_radius
    radii = data.nms_radii or (own, own + WIDER_RADIUS_PX)
    radius = draws.pick(np.random.default_rng([seed, index, 4]), radii)
    features = detector(
        scene.images, nms_radius=radius, max_keypoints=data.max_keypoints, threshold=data.threshold
    )
    places, doubts = [], []
    for number, (found, view) in enumerate(zip(features, scene.views, strict=True)):
        xy = np.asarray(found.xy, np.float32)
        place = np.repeat(xy[:, None], len(scene.views), axis=1)  # N V 2
        doubt = np.zeros(place.shape[:2], bool)  # N V
        for target, other in enumerate(scene.views):
            if target != number:
                there = elsewhere(xy, view, other)
                place[:, target], doubt[:, target] = there.xy, there.doubtful
        places.append(place)
        doubts.append(doubt)
    assert all(found.descriptors is not None for found in features)
    return SceneFeatures(
        counts=np.array([len(found) for found in features], np.int64),
        xy=np.concatenate([found.xy for found in features]).astype(np.float32),
        descriptors=np.concatenate([f.descriptors for f in features]).astype(np.float16),
        elsewhere=np.concatenate(places),
        doubtful=np.concatenate(doubts),
        size_hw=np.array(scene.images[0].shape, np.int64),
        cameras=scene.cameras,
        focal=np.array([scene.focal]),
    )


def _size(data: MatcherData, rng: Rng) -> SizeHW:
    """(height, width) between the limits, in whole cells."""
    share = rng.random()
    sides = [
        CELL_PX * round((low + share * (high - low)) / CELL_PX)
        for low, high in zip(data.small_hw, data.large_hw, strict=True)
    ]
    if rng.random() < data.portrait_share:
        sides.reverse()
    return sides[0], sides[1]


def _scene(data: MatcherData, size_hw: SizeHW, rng: Rng) -> Scene:
    config = data.of_scenes(size_hw)
    if rng.random() < data.two_camera_share:
        return scene_of("boxes", config, rng)
    kinds, shares = zip(*config.shares().items(), strict=True)
    return scene_of(str(rng.choice(kinds, p=shares)), config, rng)
