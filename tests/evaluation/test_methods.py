"""SIFT, ORB and checkpoints as methods of an evaluation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tiepoint.errors import CheckpointError, ConfigError, FormatError
from tiepoint.evaluation import methods
from tiepoint.evaluation.methods import OVERSAMPLING, checkpoint_methods, method, stored_method
from tiepoint.features import Features
from tiepoint.matching.match import match

K = 300


@pytest.fixture(scope="module")
def photograph(photographs: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(photographs[0][40:283, 120:441])  # 243 321, odd on purpose


Detect = Callable[[NDArray[np.uint8], int], Features]


def detectors() -> list[Detect]:
    return [
        method("sift").detect,
        method("orb").detect,
        checkpoint_methods(["base"])[0].detect,
    ]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_k_points_and_a_pool_beyond_them_come_best_first_with_unit_descriptors(
    photograph: NDArray[np.uint8], which: int
) -> None:
    found = detectors()[which](photograph, K)
    assert K < len(found) <= OVERSAMPLING * K
    assert found.size_hw == photograph.shape
    if which != 1:  # ORB ranks what it finds when asked for k before what it finds beyond
        assert (np.diff(found.scores) <= 0).all()
    assert found.descriptors is not None
    np.testing.assert_allclose(np.linalg.norm(found.descriptors, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_the_same_image_gives_the_same_features(photograph: NDArray[np.uint8], which: int) -> None:
    detect = detectors()[which]
    one, two = detect(photograph, K), detect(photograph, K)
    np.testing.assert_array_equal(one.xy, two.xy)
    np.testing.assert_array_equal(one.descriptors, two.descriptors)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_blank_image_gives_empty_or_matchable_features(which: int) -> None:
    found = detectors()[which](np.full((64, 80), 128, np.uint8), K)
    assert found.descriptors is not None
    assert len(match(found, found)) <= len(found)
    if which < 2:
        assert found.xy.shape == (0, 2)


def mirror_offset(detect: Detect, image: NDArray[np.uint8], axis: int) -> NDArray[np.float64]:
    """Half the distance of points of the mirror image, mirrored back, from those of the image.

    A detector whose coordinates are right finds them in the same place, whatever the image.
    """
    size = image.shape[1 - axis]
    a = detect(image, 500).xy.astype(np.float64)
    b = detect(np.ascontiguousarray(np.flip(image, 1 - axis)), 500).xy.astype(np.float64)
    b[:, axis] = size - 1 - b[:, axis]
    offset = a[:, None] - b[None]  # N M 2
    distance = np.hypot(offset[..., 0], offset[..., 1])  # N M
    near = distance.min(axis=1) < 1.5
    assert near.mean() > 0.8
    return offset[near, distance.argmin(axis=1)[near], axis] / 2


@pytest.mark.parametrize("axis", [0, 1])
def test_sift_gives_pixel_centres_by_the_mirror(photograph: NDArray[np.uint8], axis: int) -> None:
    offsets = mirror_offset(method("sift").detect, photograph, axis)
    assert abs(np.median(offsets)) < 0.002
    assert abs(offsets.mean()) < 0.02


@pytest.mark.parametrize("axis", [0, 1])
def test_orb_gives_pixel_centres_by_the_mirror_and_opencvs_own_does_not(
    photograph: NDArray[np.uint8], axis: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    detect = method("orb").detect
    corrected = np.abs(mirror_offset(detect, photograph, axis)) < 0.005
    monkeypatch.setattr(methods, "orb_to_centre0", lambda xy, levels, shape: xy)
    as_shipped = np.abs(mirror_offset(detect, photograph, axis)) < 0.005
    assert corrected.mean() > 0.6  # the rest met a point of another level
    assert as_shipped.mean() < 0.4  # the first level is right


@pytest.mark.parametrize("axis", [0, 1])
def test_opencvs_own_sift_is_a_quarter_pixel_off_by_the_mirror(
    photograph: NDArray[np.uint8], axis: int
) -> None:
    offsets = mirror_offset(method("sift-opencv").detect, photograph, axis)
    assert np.median(offsets) == pytest.approx(0.25, abs=0.005)


def test_orbs_correction_leaves_the_first_level_and_moves_the_last(
    photograph: NDArray[np.uint8],
) -> None:
    xy = np.array([[100.0, 50.0], [100.0, 50.0]])
    moved = methods.orb_to_centre0(xy, [0, 7], photograph.shape)
    np.testing.assert_array_equal(moved[0], [100, 50])
    np.testing.assert_allclose(moved[1] - xy[1], [1.29, 1.29], atol=0.6)


def test_orb_cosines_are_hamming_distances(photograph: NDArray[np.uint8]) -> None:
    found = method("orb").detect(photograph, 50).top(50).descriptors
    assert found is not None
    bits = found > 0
    hamming = (bits[:, None] != bits[None]).sum(axis=2)
    np.testing.assert_array_equal(found @ found.T, (1 - hamming / 128).astype(np.float32))


def test_orb_matches_first_what_it_finds_when_asked_for_k(photograph: NDArray[np.uint8]) -> None:
    asked, pooled = (
        method("orb").detect_exactly_k(photograph, K),
        method("orb").detect(photograph, K),
    )
    assert len(asked) > 0.9 * K  # its levels are small here
    np.testing.assert_array_equal(pooled.xy[: len(asked)], asked.xy)
    assert (np.diff(asked.scores) <= 0).all()
    beyond = {tuple(point) for point in pooled.xy[K:].tolist()}
    assert not beyond & {tuple(point) for point in asked.xy.tolist()}


def test_sift_asked_for_more_keeps_its_best_in_place(photograph: NDArray[np.uint8]) -> None:
    detect = method("sift").detect
    np.testing.assert_array_equal(detect(photograph, 50).xy[:50], detect(photograph, 150).xy[:50])


def test_an_unknown_method_or_checkpoint_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no method 'surf'; there are sift"):
        method("surf")
    with pytest.raises(CheckpointError, match="nowhere"):
        checkpoint_methods(["nowhere/at/all"])


def test_a_checkpoint_row_records_its_weights() -> None:
    (own,) = checkpoint_methods(["default"])
    assert own.name != "default"
    assert len(own.settings["weights_sha256"]) == 64
    assert own.settings["settings"]["threshold"] == 0


def test_features_from_a_file_are_a_method_in_px_of_the_smaller_image(tmp_path: Path) -> None:
    from tiepoint.formats import H5Writer

    xy = np.array([[10, 20], [399.5, 299.5]], np.float32)
    described = np.eye(2, 8, dtype=np.float32)
    found = Features(xy, np.array([0.2, 0.9], np.float32), described, (600, 800), {})
    with H5Writer(tmp_path / "f.h5") as writer:
        writer.add("set/1.png", found)
    mine = stored_method(f"mine={tmp_path / 'f.h5'}")
    small = np.zeros((300, 400), np.uint8)
    features = mine.features(small, "set/1.png", 1000)
    assert mine.name == "mine"
    assert features.size_hw == (300, 400)
    np.testing.assert_allclose(features.xy, [[199.5, 149.5], [4.75, 9.75]])  # best first
    with pytest.raises(FormatError, match="no features of 'set/2.png'"):
        mine.features(small, "set/2.png", 1000)
    with pytest.raises(FormatError, match="a drawn image"):
        mine.features(small, "", 1000)
    with pytest.raises(ConfigError, match="expected NAME=PATH"):
        stored_method("f.h5")
