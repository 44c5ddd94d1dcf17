"""An image and its keypoints, computed once."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tiepoint import Detector, Features

COUNT = 120


@pytest.fixture(scope="session")
def photograph() -> np.ndarray:
    """96 128 3 uint8: enlarged noise, grey."""
    noise = np.random.default_rng(0).integers(0, 256, (24, 32)).astype(np.uint8)
    grey = cv2.resize(noise, (128, 96), interpolation=cv2.INTER_CUBIC)
    return np.dstack([grey, grey, grey])


@pytest.fixture(scope="session")
def found(photograph: np.ndarray) -> Features:
    detector = Detector("small", precision="f32", max_side=None, max_keypoints=COUNT)
    features = detector(photograph)
    assert len(features) == COUNT
    return features
