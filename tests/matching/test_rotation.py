"""Rotated images: the rotation is estimated, and upright pairs are matched as before."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import tiepoint
from support.provenance import made
from support.rotations import D, eighth, rotated_pair, unit
from tiepoint.errors import ConfigError
from tiepoint.features import Features
from tiepoint.matching import rotation
from tiepoint.matching.descriptors import rotation_matrix_of
from tiepoint.matching.match import match
from tiepoint.matching.rotation import best_rotation, rotate_descriptors
from tiepoint.weights.checkpoint import BUNDLED, load_checkpoint
from tiepoint.weights.rotation import save_rotation


@pytest.mark.parametrize("steps", range(-3, 5))
def test_the_rotation_between_two_images_is_estimated(steps: int) -> None:
    a, b = rotated_pair(steps)
    assert best_rotation(a, b, eighth()) == steps


def test_images_with_nothing_in_common_are_not_rotated() -> None:
    rng = np.random.default_rng(1)
    for seed in range(5):
        a, b = unit(rng.normal(size=(200, D))), unit(rng.normal(size=(200, D)))
        assert best_rotation(a, b, eighth(seed)) == 0
    assert best_rotation(a[:0], b, eighth()) == best_rotation(a, b[:0], eighth()) == 0


def test_the_rotation_is_that_of_exact_cosines() -> None:
    """Float32 with bounds of its error, held to float64: also where it leaves the choice open."""
    rng = np.random.default_rng(2)
    left_open = 0
    for seed in range(60):
        a, b = rotated_pair(int(rng.integers(-3, 5)), noise=(0.05, 0.3, 1, 5)[seed % 4])
        if seed % 5 == 0:
            a[::2], b[1::2] = a[0], b[1]  # equals
        matrix = eighth()
        if seed % 7 == 0:
            matrix = unit(matrix + rng.normal(0, 0.02, matrix.shape))
        exact = rotation._best_exactly(a, b, matrix)
        assert best_rotation(a, b, matrix) == exact
        bounds = []
        for steps in range(-3, 5):
            rotated = rotate_descriptors(a, matrix, steps)
            low, high = rotation._agreement_bounds(rotated, b)
            cosines = (rotated.astype(np.float64) @ b.T.astype(np.float64)).astype(np.float32)
            assert low <= rotation._agreement(cosines) <= high
            bounds.append((low, high))
        clear = rotation._clearly_best(*np.array(bounds).T)
        assert clear in (None, exact)
        left_open += clear is None
    assert 0 < left_open < 30


def test_descriptors_whose_cosines_overflow_are_compared_exactly() -> None:
    a, b = rotated_pair(2)
    assert best_rotation(a * np.float32(1e10), b * np.float32(1e10), eighth()) == 2


def test_rotating_is_step_by_step_and_has_an_inverse() -> None:
    a, _ = rotated_pair(0)
    slow = np.array([eighth() @ (eighth() @ (eighth() @ row)) for row in a])
    three_steps = rotate_descriptors(a, eighth(), 3)
    np.testing.assert_allclose(three_steps, slow, atol=1e-5)
    np.testing.assert_allclose(rotate_descriptors(three_steps, eighth(), -3), a, atol=1e-5)
    assert rotate_descriptors(a, eighth(), 0) is a


def features(descriptors: NDArray[np.float32], checkpoint: Path, sha256: str) -> Features:
    """As made by a checkpoint; nothing is known of whether it had a rotation matrix."""
    provenance = made(checkpoint=str(checkpoint), weights_sha256=sha256)
    return Features(
        np.zeros((len(descriptors), 2), np.float32), np.ones(len(descriptors), np.float32),
        descriptors, (10, 10), provenance=provenance,
    )  # fmt: skip


def test_matching_rotates_descriptors_by_the_matrix_of_their_weights(tmp_path: Path) -> None:
    save_rotation(tmp_path, eighth(), "abc")
    a, b = rotated_pair(2)
    rotated = match(features(a, tmp_path, "abc"), features(b, tmp_path, "abc"))
    assert rotated.turned_deg == 90
    assert len(rotated) > 80
    upright = match(features(a, tmp_path, "abc"), features(b, tmp_path, "abc"), rotation="none")
    assert upright.turned_deg == 0
    other_weights = match(features(a, tmp_path, "other"), features(b, tmp_path, "other"))
    assert np.array_equal(other_weights.pairs, upright.pairs)
    gone = match(features(a, tmp_path / "gone", "abc"), features(b, tmp_path / "gone", "abc"))
    assert np.array_equal(gone.pairs, upright.pairs)


def test_upright_pairs_lose_nothing(tmp_path: Path) -> None:
    save_rotation(tmp_path, eighth(), "abc")
    a, b = (features(d, tmp_path, "abc") for d in rotated_pair(0, noise=0.3))
    auto, none = match(a, b), match(a, b, rotation="none")
    assert np.array_equal(auto.pairs, none.pairs)
    assert np.array_equal(auto.scores, none.scores)


def test_without_keypoints_nothing_is_rotated(tmp_path: Path) -> None:
    a, b = rotated_pair(0)
    empty = features(a[:0], tmp_path, "abc")
    assert match(empty, features(b, tmp_path, "abc")).turned_deg == 0


def test_the_order_of_keypoints_does_not_change_the_rotation(tmp_path: Path) -> None:
    save_rotation(tmp_path, eighth(), "abc")
    a, b = (features(d, tmp_path, "abc") for d in rotated_pair(3))
    backwards = match(a.take(np.arange(len(a))[::-1]), b)
    assert backwards.turned_deg == match(a, b).turned_deg == 135


def test_a_matrix_that_is_added_or_replaced_is_used(tmp_path: Path) -> None:
    a, b = (features(d, tmp_path, "abc") for d in rotated_pair(2))
    assert match(a, b).turned_deg == 0
    save_rotation(tmp_path, eighth(), "abc")
    assert match(a, b).turned_deg == 90
    os.utime(save_rotation(tmp_path, np.eye(D, dtype=np.float32), "abc"), ns=(1, 1))
    assert match(a, b).turned_deg == 0


@pytest.mark.parametrize(
    "matrix",
    [
        np.eye(D + 1, dtype=np.float32), np.ones(D, np.float32), np.eye(D, dtype=np.int64),
        np.full((D, D), np.nan, np.float32), np.eye(D).tolist(), 3,
    ],
)  # fmt: skip
def test_a_given_matrix_that_rotates_no_descriptors_of_these_is_refused(
    matrix: object, tmp_path: Path
) -> None:
    a, b = (features(one, tmp_path, "abc") for one in rotated_pair(2))
    with pytest.raises(ConfigError, match="rotation_matrix is a .* expected an array"):
        match(a, b, rotation_matrix=matrix)  # type: ignore[arg-type]
    assert match(a, b, rotation_matrix=eighth()).turned_deg == 90


def test_an_unknown_rotation_is_refused() -> None:
    a, b = (Features(np.zeros((1, 2), np.float32), np.ones(1, np.float32),
                     np.ones((1, D), np.float32), (4, 4)) for _ in range(2))  # fmt: skip
    with pytest.raises(ConfigError, match="rotation is 'yes', expected one of auto, none"):
        match(a, b, rotation="yes")  # type: ignore[arg-type]


@pytest.mark.weights
@pytest.mark.parametrize(("quarters", "degrees"), [(0, 0), (1, 90), (2, 180), (3, -90)])
def test_bundled_weights_match_a_photograph_rotated_by_any_quarter(
    quarters: int, degrees: int
) -> None:
    from skimage import data

    photograph = np.ascontiguousarray(
        cv2.cvtColor(data.coffee(), cv2.COLOR_RGB2GRAY)[:320, 100:420]
    )
    detector = tiepoint.Detector(max_keypoints=500)
    a, b = detector(photograph), detector(np.rot90(photograph, quarters).copy())
    matches = match(a, b)
    assert matches.turned_deg == degrees
    expected_xy = a.xy[matches.pairs[:, 0]]
    last = np.float32(len(photograph) - 1)
    for _ in range(quarters):  # rot90 moves (x, y) to (y, last - x)
        expected_xy = np.stack([expected_xy[:, 1], last - expected_xy[:, 0]], axis=1)
    correct = np.hypot(*(expected_xy - b.xy[matches.pairs[:, 1]]).T) < 3
    assert correct.sum() > 150


def test_matches_are_the_same_in_another_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photographs: list[NDArray[np.uint8]]
) -> None:
    """A checkpoint named by a relative path, features in memory and from files."""
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copytree(BUNDLED / "small", project / "weights")
    monkeypatch.chdir(project)
    detector = tiepoint.Detector("weights", device="cpu", max_side=320, max_keypoints=300)
    image = np.ascontiguousarray(photographs[2])
    pair = detector(image), detector(np.ascontiguousarray(np.rot90(image)))
    here = match(*pair)
    assert here.turned_deg == 90
    for features, name in zip(pair, ("a.npz", "b.h5"), strict=True):
        tiepoint.save(features, tmp_path / name)
    monkeypatch.chdir(elsewhere)
    assert detector.provenance() == pair[0].provenance
    from_files = [tiepoint.load(tmp_path / name) for name in ("a.npz", "b.h5")]
    for features_a, features_b in (pair, from_files):
        again = match(features_a, features_b)
        assert again.turned_deg == 90 and again.meta == here.meta
        np.testing.assert_array_equal(again.pairs, here.pairs)


def test_weights_that_are_bundled_too_need_no_folder_any_more(tmp_path: Path) -> None:
    sha256 = load_checkpoint("small").sha256
    gone = made(checkpoint=str(tmp_path / "gone"), weights_sha256=sha256, rotation_crc32="1")
    a = Features(*nothing(64), (10, 10), provenance=gone)
    assert rotation_matrix_of(a) is not None


def test_a_rotation_matrix_that_is_gone_is_an_error_and_not_another_result(
    tmp_path: Path,
) -> None:
    a, b = rotated_pair(2)
    had_one = made(checkpoint=str(tmp_path / "gone"), weights_sha256="x", rotation_crc32="1")
    pair = [
        dataclasses.replace(features(rows, tmp_path, "x"), provenance=had_one) for rows in (a, b)
    ]
    with pytest.raises(ConfigError, match="rotation matrix, which is not found; restore"):
        match(*pair)
    assert match(*pair, rotation="none").turned_deg == 0
    assert match(*pair, rotation_matrix=eighth()).turned_deg == 90


def nothing(length: int) -> tuple[NDArray[np.float32], ...]:
    """xy, scores and descriptors of no keypoints."""
    return tuple(np.zeros(shape, np.float32) for shape in ((0, 2), (0,), (0, length)))
