"""Points of a scene's texture: where they lie, and when another view has them too."""

from __future__ import annotations

import numpy as np
import pytest

from support import twins
from support.fake_pairs import shifted_flow
from tiepoint.geometry import apply_homography
from tiepoint.training.scenes import texture_labels, textures
from tiepoint.training.scenes.texture_labels import repeated_in, texture_points

SIZE = (64, 80)
CLEAR = np.zeros(SIZE, bool)


def blobs(*centres: tuple[float, float], contrast: float = 0.4) -> np.ndarray:
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    image = np.full(SIZE, 0.3)
    for at_x, at_y in centres:
        image += contrast * np.exp(-((x - at_x) ** 2 + (y - at_y) ** 2) / (2 * 1.8**2))
    return image.astype(np.float32)


def slow_points(clean: np.ndarray) -> list[tuple[int, int]]:
    """Whole px (x, y) that exceed their 24 neighbours and the least strength, one by one."""
    strength = np.sqrt(twins.structure(clean))
    found = []
    for y in range(2, clean.shape[0] - 2):
        for x in range(2, clean.shape[1] - 2):
            around = strength[y - 2 : y + 3, x - 2 : x + 3]
            if strength[y, x] > texture_labels.LEAST and strength[y, x] == around.max():
                found.append((x, y))
    return found


def test_points_are_those_of_the_slow_twin() -> None:
    values = textures.noise(np.random.default_rng(3), 96, 1.4)[: SIZE[0], : SIZE[1]]
    clean = np.clip(0.5 + 0.12 * values, 0, 1).astype(np.float32)
    found, slow = texture_points(clean, CLEAR), slow_points(clean)
    assert len(slow) > 20
    assert found.shape == (len(slow), 2)
    assert np.abs(found - np.array(slow)).max() <= 0.5  # within the px that the twin found


def test_a_blob_between_two_px_is_one_point() -> None:
    found = texture_points(blobs((30.5, 20.0)), CLEAR)
    near = np.hypot(*(found - [30.5, 20.0]).T) < 1
    assert near.sum() == 1


@pytest.mark.parametrize("contrast", [0.4, -0.25])
def test_a_blob_is_one_point_at_its_centre(contrast: float) -> None:
    found = texture_points(blobs((30.3, 20.8), (52.5, 41.0), contrast=contrast), CLEAR)
    centres = np.array([[30.3, 20.8], [52.5, 41.0]])
    near = np.hypot(*(found[:, None] - centres).transpose(2, 0, 1)).min(axis=0)
    assert (near < 0.05).all()


def test_faint_flat_and_covered_places_have_no_point() -> None:
    assert len(texture_points(np.full(SIZE, 0.5, np.float32), CLEAR)) == 0
    assert len(texture_points(blobs((30, 20), contrast=0.01), CLEAR)) == 0
    covered = CLEAR.copy()
    covered[18:23, 33:60] = True
    assert len(texture_points(blobs((30, 20)), covered)) == 0


def test_a_point_is_seen_again_where_the_flow_says_and_not_beside_it() -> None:
    flow = shifted_flow(SIZE, np.array([4.25, -3.5], np.float32))
    xy = np.array([[20.4, 30.2], [40.0, 40.0], [77.0, 30.0]])  # the last one leaves the view
    others = np.array([[24.9, 26.5], [44.25, 38.0]])
    seen = repeated_in(xy, flow, others)
    assert seen.visible.tolist() == [True, True, False]
    assert seen.repeated.tolist() == [True, False, False]
    assert repeated_in(xy, flow, np.zeros((0, 2))).repeated.tolist() == [False] * 3
    assert len(repeated_in(np.zeros((0, 2)), flow, others).repeated) == 0


def test_where_the_other_view_enlarges_its_px_count_less() -> None:
    matrix = np.array([[3.0, 0, -90], [0, 3.0, -90], [0, 0, 1]])
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    flow = apply_homography(matrix, np.stack([x, y], axis=-1).reshape(-1, 2).astype(float))
    flow = flow.reshape(*SIZE, 2).astype(np.float32)
    xy = np.array([[40.3, 40.0]])
    there = apply_homography(matrix, xy)
    for away_px, again in ((2.5, True), (3.5, False)):
        assert repeated_in(xy, flow, there + np.array([away_px, 0])).repeated.tolist() == [again]
