"""A detector for tests of runs, which counts what is requested of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from support.provenance import made
from tiepoint.errors import ImageError
from tiepoint.features import Features, Provenance
from tiepoint.images.reading import SourceImage
from tiepoint.streaming import Detection


def decoded(source: Any) -> Any:
    """The pixels of a file, of its bytes or of an image that was read; or None."""
    if isinstance(source, SourceImage):
        return source.pixels
    if isinstance(source, np.ndarray):
        return source
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
    except (OSError, ValueError):
        return None
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None


def name_of(source: Any) -> str:
    return source if isinstance(source, str) else str(getattr(source, "name", "array"))


class FakeDetector:
    """Finds one keypoint per 10 px of width."""

    engine, device = "fake", "cpu"

    def __init__(self, threshold: float = 0.5, precision: str = "f32") -> None:
        self.threshold, self.precision = threshold, precision
        self.sources: list[str] = []
        self.masks: list[Path | None] = []
        self.streams = 0

    def provenance(self, **options: Any) -> Provenance:
        settings = {"threshold": self.threshold, "widths": (1, 2), **options}
        return made(settings=settings, precision=self.precision)

    def stream(
        self,
        sources: Iterable[str],
        *,
        mask: Iterable[Path | None] | None = None,
        **options: Any,
    ) -> Iterator[Detection]:
        self.streams += 1
        paths = list(sources)
        masks = [None] * len(paths) if mask is None else list(mask)
        for source, mask_path in zip(paths, masks, strict=True):
            self.sources.append(source)
            self.masks.append(mask_path)
            pixels = decoded(source)
            if pixels is None:
                yield Detection(source, None, ImageError(f"{name_of(source)}: not an image"))
                continue
            height, width = pixels.shape[:2]
            count = width // 10
            meta: dict[str, Any] = {"source": name_of(source), "exif_orientation": 1}
            if mask_path is not None:
                meta["mask"] = str(mask_path)
            features = Features(
                xy=np.full((count, 2), 2, np.float32),
                scores=np.ones(count, np.float32),
                descriptors=None,
                size_hw=(height, width),
                meta=meta,
                provenance=self.provenance(**options),
            )
            yield Detection(source, features, None)
