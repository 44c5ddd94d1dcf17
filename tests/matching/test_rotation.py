"""Turned images: the turn is found, upright pairs stay as they are, files are checked."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import tiepoint
from tiepoint.errors import CheckpointError, ConfigError
from tiepoint.features import Features
from tiepoint.matching.match import match
from tiepoint.matching.rotation import (
    best_turn,
    fit_steering,
    load_steering,
    save_steering,
    turned,
)
from tiepoint.weights.checkpoint import load_checkpoint, locate
from tiepoint.weights.hub import STEERING_FILE

D = 16


def eighth(seed: int = 0) -> NDArray[np.float32]:
    """An orthogonal matrix whose eighth power is one: planes turned by multiples of 45 degrees."""
    rng = np.random.default_rng(seed)
    blocks = np.zeros((D, D))
    for plane in range(D // 2):
        angle = np.pi / 4 * (1 + plane % 4)
        c, s = np.cos(angle), np.sin(angle)
        blocks[2 * plane : 2 * plane + 2, 2 * plane : 2 * plane + 2] = [[c, -s], [s, c]]
    basis, _ = np.linalg.qr(rng.normal(size=(D, D)))
    return (basis @ blocks @ basis.T).astype(np.float32)


def unit(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def views(turn: int, noise: float = 0.1) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A, and most of A turned by so many eighths, noisy and in another order."""
    rng = np.random.default_rng(5)
    a = unit(rng.normal(size=(120, D)))
    b = a.astype(np.float64)
    for _ in range(turn % 8):
        b = b @ eighth().T
    b = unit(b + noise * rng.normal(size=b.shape))[rng.permutation(120)[:90]]
    return a, b


@pytest.mark.parametrize("turn", range(-3, 5))
def test_the_turn_between_two_images_is_found(turn: int) -> None:
    a, b = views(turn)
    assert best_turn(a, b, eighth()) == turn


def test_images_with_nothing_in_common_stay_as_they_are() -> None:
    rng = np.random.default_rng(1)
    for seed in range(5):
        a, b = unit(rng.normal(size=(200, D))), unit(rng.normal(size=(200, D)))
        assert best_turn(a, b, eighth(seed)) == 0
    assert best_turn(a[:0], b, eighth()) == best_turn(a, b[:0], eighth()) == 0


def test_turning_goes_step_by_step_and_back() -> None:
    a, _ = views(0)
    slow = np.array([eighth() @ (eighth() @ (eighth() @ row)) for row in a])
    np.testing.assert_allclose(turned(a, eighth(), 3), slow, atol=1e-5)
    np.testing.assert_allclose(turned(turned(a, eighth(), 3), eighth(), -3), a, atol=1e-5)
    assert turned(a, eighth(), 0) is a


def features(descriptors: NDArray[np.float32], checkpoint: Path, sha256: str) -> Features:
    n = len(descriptors)
    meta = {"checkpoint": str(checkpoint), "sha256": sha256}
    return Features(
        np.zeros((n, 2), np.float32), np.linspace(1, 0, n, dtype=np.float32), descriptors,
        (10, 10), meta,
    )  # fmt: skip


def test_matching_turns_what_the_checkpoint_can_turn(tmp_path: Path) -> None:
    save_steering(tmp_path, eighth(), "abc")
    a, b = views(2)
    turned_by_us = match(features(a, tmp_path, "abc"), features(b, tmp_path, "abc"))
    assert turned_by_us.meta["turned_deg"] == 90
    assert len(turned_by_us) > 80
    as_they_are = match(features(a, tmp_path, "abc"), features(b, tmp_path, "abc"), rotation="none")
    assert as_they_are.meta["turned_deg"] == 0
    other_weights = match(features(a, tmp_path, "other"), features(b, tmp_path, "other"))
    assert np.array_equal(other_weights.pairs, as_they_are.pairs)
    gone = match(features(a, tmp_path / "gone", "abc"), features(b, tmp_path / "gone", "abc"))
    assert np.array_equal(gone.pairs, as_they_are.pairs)


def test_upright_pairs_lose_nothing(tmp_path: Path) -> None:
    save_steering(tmp_path, eighth(), "abc")
    a, b = (features(d, tmp_path, "abc") for d in views(0, noise=0.3))
    found, as_they_are = match(a, b), match(a, b, rotation="none")
    assert np.array_equal(found.pairs, as_they_are.pairs)
    assert np.array_equal(found.scores, as_they_are.scores)


def test_without_keypoints_nothing_is_turned(tmp_path: Path) -> None:
    a, b = views(0)
    empty = features(a[:0], tmp_path, "abc")
    assert match(empty, features(b, tmp_path, "abc")).meta["turned_deg"] == 0


def test_the_order_of_keypoints_does_not_decide_the_turn(tmp_path: Path) -> None:
    save_steering(tmp_path, eighth(), "abc")
    a, b = (features(d, tmp_path, "abc") for d in views(3))
    backwards = match(a.take(np.arange(len(a))[::-1]), b)
    assert backwards.meta["turned_deg"] == match(a, b).meta["turned_deg"] == 135


def test_a_matrix_that_comes_later_or_anew_is_used(tmp_path: Path) -> None:
    a, b = (features(d, tmp_path, "abc") for d in views(2))
    assert match(a, b).meta["turned_deg"] == 0
    save_steering(tmp_path, eighth(), "abc")
    assert match(a, b).meta["turned_deg"] == 90
    os.utime(save_steering(tmp_path, np.eye(D, dtype=np.float32), "abc"), ns=(1, 1))
    assert match(a, b).meta["turned_deg"] == 0


def test_an_unknown_rotation_is_refused() -> None:
    a, b = (Features(np.zeros((1, 2), np.float32), np.ones(1, np.float32),
                     np.ones((1, D), np.float32), (4, 4)) for _ in range(2))  # fmt: skip
    with pytest.raises(ConfigError, match="rotation is 'yes', expected one of auto, none"):
        match(a, b, rotation="yes")  # type: ignore[arg-type]


def test_a_damaged_matrix_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / STEERING_FILE).write_bytes(b"\0" * 40)
    with pytest.raises(CheckpointError, match="run tiepoint steer again"):
        load_steering(str(tmp_path), "abc", D)
    other = tmp_path / "other"
    other.mkdir()
    save_steering(other, eighth(), "abc")
    with pytest.raises(CheckpointError, match=r"expected \(32, 32\)"):
        load_steering(str(other), "abc", 32)


@pytest.fixture(scope="module")
def photograph() -> NDArray[np.uint8]:
    from skimage import data

    return np.ascontiguousarray(cv2.cvtColor(data.coffee(), cv2.COLOR_RGB2GRAY)[:320, 100:420])


def test_the_fit_turns_real_descriptors(photograph: NDArray[np.uint8]) -> None:
    checkpoint = load_checkpoint("default")
    steering = fit_steering(checkpoint, [photograph])
    length = checkpoint.network.descriptor_decoder_dim
    np.testing.assert_allclose(steering @ steering.T, np.eye(length), atol=1e-4)
    detector = tiepoint.Detector(threshold=0.0)
    a, b = (detector(i, max_keypoints=300) for i in (photograph, np.rot90(photograph).copy()))
    assert a.descriptors is not None
    assert b.descriptors is not None
    assert best_turn(a.descriptors, b.descriptors, steering) == 2  # rot90 is counterclockwise
    assert best_turn(b.descriptors, a.descriptors, steering) == -2
    with pytest.raises(ConfigError, match="more images, or larger ones"):
        fit_steering(checkpoint, [np.full((200, 200), 90, np.uint8)])


@pytest.mark.parametrize(("quarters", "degrees"), [(0, 0), (1, 90), (2, 180), (3, -90)])
def test_bundled_weights_match_a_photograph_however_it_is_turned(
    photograph: NDArray[np.uint8], quarters: int, degrees: int
) -> None:
    detector = tiepoint.Detector(max_keypoints=500)
    a, b = detector(photograph), detector(np.rot90(photograph, quarters).copy())
    matches = match(a, b)
    assert matches.meta["turned_deg"] == degrees
    there = a.xy[matches.pairs[:, 0]]
    last = np.float32(len(photograph) - 1)
    for _ in range(quarters):  # (x, y) goes to (y, last - x)
        there = np.stack([there[:, 1], last - there[:, 0]], axis=1)
    right = np.hypot(*(there - b.xy[matches.pairs[:, 1]]).T) < 3
    assert right.sum() > 150


def test_steer_lays_the_matrix_beside_the_weights(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from tiepoint.cli import app

    folder = tmp_path / "mine"
    shutil.copytree(locate("default"), folder)
    (folder / STEERING_FILE).unlink(missing_ok=True)
    result = CliRunner().invoke(app, ["steer", str(folder), "--count", "3"])
    assert result.exit_code == 0, result.output
    checkpoint = load_checkpoint(folder)
    length = checkpoint.network.descriptor_decoder_dim
    assert load_steering(str(folder), checkpoint.sha256, length) is not None
    missing = CliRunner().invoke(app, ["steer", str(tmp_path / "none")])
    assert missing.exit_code == 2
