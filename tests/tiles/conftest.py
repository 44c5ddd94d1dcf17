"""A picture and a detector for tests of tiles."""

from __future__ import annotations

import numpy as np
import pytest

from tiepoint import Detector
from tiepoint.images.reading import read
from tiepoint.images.samples import sample_views


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """A picture of 264x345 px in colour, with structure at every seam."""
    return read(sample_views()[0]).pixels[40:304, 100:445]


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector("small", precision="f32", max_side=None)
