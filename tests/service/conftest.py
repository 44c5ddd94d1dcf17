"""Services that several tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")

from support.service import SMALL, Client, serving
from tiepoint import Detector


@pytest.fixture(scope="session")
def client() -> Iterator[Client]:
    """A service with the usual limits."""
    with serving() as served:
        yield served.client


@pytest.fixture(scope="session")
def detector() -> Detector:
    """The detector that the service must equal."""
    return Detector("small", device="cpu", precision=SMALL.precision)
