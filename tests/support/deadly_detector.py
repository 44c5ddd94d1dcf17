"""A detector that ends its process at one image, as a system without memory would."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

from support.fake_detector import FakeDetector
from tiepoint.streaming import Detection


class DeadlyDetector(FakeDetector):
    """Ends the process at the image of this name."""

    def __init__(self, deadly: str) -> None:
        super().__init__()
        self.deadly = deadly

    def stream(self, sources: Iterable[str], **options: Any) -> Iterator[Detection]:
        paths = list(sources)
        if any(isinstance(path, str) and path == self.deadly for path in paths):
            os._exit(1)
        return super().stream(paths, **options)
