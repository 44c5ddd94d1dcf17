"""A stream of images of any size: a detector that sees each in tiles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Unpack, get_args

from tiepoint.checks import check_choice
from tiepoint.config import DetectionOptions
from tiepoint.detector import Detector
from tiepoint.errors import EngineError, ImageError
from tiepoint.features import Provenance
from tiepoint.images.masks import MaskSource, mask_of
from tiepoint.images.planes import Channels
from tiepoint.streaming import Detection
from tiepoint.tiles.detection import (
    TILE_PX,
    OnDamage,
    Progress,
    check_detection,
    check_tile,
    detect_tiled,
    native,
    of_channels,
)


class TiledDetector:
    """A detector that sees each image of a stream in tiles; see `detect_tiled`.

    Args:
        detector: The detector of the tiles.
        tile_px, on_damage, channels, progress: As for `detect_tiled`; progress is of one image.

    Attributes:
        engine, device: Those of the detector.
    """

    def __init__(
        self,
        detector: Detector,
        *,
        tile_px: int = TILE_PX,
        on_damage: OnDamage = "raise",
        channels: Channels = None,
        progress: Progress | None = None,
    ) -> None:
        check_choice("on_damage", on_damage, get_args(OnDamage))
        check_tile(tile_px)
        check_detection(detector.request(native({})).detection, detector)
        self._detector, self._tile_px = detector, tile_px
        self._on_damage, self._channels, self._progress = on_damage, channels, progress
        self.engine, self.device = detector.engine, detector.device

    def stream(
        self,
        sources: Iterable[Any],
        *,
        mask: MaskSource = None,
        **options: Unpack[DetectionOptions],
    ) -> Iterator[Detection]:
        """Detect in one image after the other; see `Detector.stream`."""
        for index, source in enumerate(sources):
            try:
                features = detect_tiled(
                    source, self._detector, mask=mask_of(mask, source, index),
                    tile_px=self._tile_px, on_damage=self._on_damage, channels=self._channels,
                    progress=self._progress, **options,
                )  # fmt: skip
                yield Detection(source, features, None)
            except (ImageError, EngineError) as error:
                yield Detection(source, None, error)

    def provenance(self, **options: Unpack[DetectionOptions]) -> Provenance:
        """The provenance of features made with these options."""
        return of_channels(self._detector.provenance(**native(options)), self._channels)

    def with_threads(self, threads: int) -> TiledDetector:
        """A detector whose network takes at most this number of cores."""
        return TiledDetector(
            self._detector.with_threads(threads), tile_px=self._tile_px,
            on_damage=self._on_damage, channels=self._channels, progress=self._progress,
        )  # fmt: skip
