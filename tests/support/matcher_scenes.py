"""Scenes of the matcher's bank without drawing or detecting: points of a plane in four views."""

from __future__ import annotations

import numpy as np

from tiepoint.geometry import apply_homography, inside
from tiepoint.training.matcher.drawing import SceneFeatures
from tiepoint.training.matcher.settings import VIEWS, MatcherPreset, MatcherStage

SIZE_HW = 120, 160


def fake_scene(
    seed: int, points: int = 60, length: int = 16, noise: float = 0.25, spurious: int = 10
) -> SceneFeatures:
    """Each view shows the same points, moved and zoomed, and others that no view shares."""
    random = np.random.default_rng(seed)
    height, width = SIZE_HW
    world = random.uniform((0, 0), (width, height), (points, 2))
    codes = random.normal(size=(points, length))
    views = []
    for _ in range(VIEWS):
        zoom, shift = np.exp(random.uniform(-0.3, 0.3)), random.uniform(-25, 25, 2)
        views.append(np.array([[zoom, 0, shift[0]], [0, zoom, shift[1]], [0, 0, 1]]))
    counts, xy, descriptors, elsewhere = [], [], [], []
    for view in views:
        there = apply_homography(view, world)
        shown = np.flatnonzero(inside(there, SIZE_HW))
        own = np.concatenate(
            [there[shown], random.uniform((0, 0), (width - 1, height - 1), (spurious, 2))]
        )
        code = np.concatenate([codes[shown], random.normal(size=(spurious, length))])
        code += noise * random.normal(size=code.shape)
        places = np.full((len(own), VIEWS, 2), np.nan)
        for number, other in enumerate(views):
            place = apply_homography(other, world[shown])
            place[~inside(place, SIZE_HW)] = np.nan
            places[: len(shown), number] = place
        order = random.permutation(len(own))
        counts.append(len(own))
        xy.append(own[order])
        descriptors.append((code / np.linalg.norm(code, axis=1, keepdims=True))[order])
        elsewhere.append(places[order])
    cameras = np.zeros((VIEWS, 3, 4))
    cameras[:, :, :3] = views
    total = sum(counts)
    return SceneFeatures(
        counts=np.array(counts),
        xy=np.concatenate(xy).astype(np.float32),
        descriptors=np.concatenate(descriptors).astype(np.float16),
        elsewhere=np.concatenate(elsewhere).astype(np.float32),
        doubtful=np.zeros((total, VIEWS), bool),
        size_hw=np.array(SIZE_HW),
        cameras=cameras,
        focal=np.zeros(1),
    )


def tiny_preset(**changes: object) -> MatcherPreset:
    """A recipe of seconds for `fake_scene`."""
    from tiepoint.matching.learned.architecture import MatcherConfig

    values = {
        "steps": 6, "scenes": 4, "held_out": 2, "learning_rate": 5e-3, "warm_up_steps": 5,
        "bf16": False, "average": 0.98, **changes,
    }  # fmt: skip
    return MatcherPreset(
        "tiny",
        MatcherConfig(16, width=16, heads=1, layers=2),
        (MatcherStage(counts=(24, 32), step_keypoints=128),),
        **values,  # type: ignore[arg-type]
    )
