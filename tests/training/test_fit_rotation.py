"""The matrix that rotates descriptors by 45 degrees: fitted on images, without torch."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import tiepoint
from tiepoint.errors import ConfigError
from tiepoint.matching.rotation import best_rotation
from tiepoint.training.fit_rotation import fit_rotation
from tiepoint.weights.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def photograph() -> NDArray[np.uint8]:
    from skimage import data

    return np.ascontiguousarray(cv2.cvtColor(data.coffee(), cv2.COLOR_RGB2GRAY)[:320, 100:420])


@pytest.fixture(scope="module")
def matrix(photograph: NDArray[np.uint8]) -> NDArray[np.float32]:
    return fit_rotation(load_checkpoint("small"), [photograph])


def test_the_matrix_is_orthogonal(matrix: NDArray[np.float32]) -> None:
    assert matrix.dtype == np.float32
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(len(matrix)), atol=1e-4)


@pytest.mark.weights
def test_the_matrix_rotates_real_descriptors(
    photograph: NDArray[np.uint8], matrix: NDArray[np.float32]
) -> None:
    detector = tiepoint.Detector("small", threshold=0.0)
    a, b = (detector(i, max_keypoints=300) for i in (photograph, np.rot90(photograph).copy()))
    assert a.descriptors is not None
    assert b.descriptors is not None
    assert best_rotation(a.descriptors, b.descriptors, matrix) == 2  # rot90 is counterclockwise
    assert best_rotation(b.descriptors, a.descriptors, matrix) == -2


def test_the_same_images_give_the_same_bits(
    photograph: NDArray[np.uint8], matrix: NDArray[np.float32]
) -> None:
    assert np.array_equal(fit_rotation(load_checkpoint("small"), [photograph]), matrix)


def test_only_the_central_square_counts(
    photograph: NDArray[np.uint8], matrix: NDArray[np.float32]
) -> None:
    wide = np.pad(photograph, ((0, 0), (40, 40)), constant_values=7)
    assert np.array_equal(fit_rotation(load_checkpoint("small"), [wide]), matrix)


@pytest.mark.parametrize("count", [0, 1])
def test_images_without_keypoints_are_refused(count: int) -> None:
    flat = np.full((200, 200), 90, np.uint8)
    with pytest.raises(ConfigError, match="have 0 keypoints .* give more images, or larger ones"):
        fit_rotation(load_checkpoint("small"), [flat] * count)


def test_fitting_loads_no_torch() -> None:
    code = (
        "import sys; from tiepoint.training import fit_rotation, sample_images; "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "False"
