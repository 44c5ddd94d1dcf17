"""One detector for all tests of videos."""

from __future__ import annotations

import pytest

from tiepoint.detector import Detector
from tiepoint.tracking.track import tracking_detector


@pytest.fixture(scope="session")
def detector() -> Detector:
    return tracking_detector("small", max_keypoints=300, compiled=False, precision="f32")
