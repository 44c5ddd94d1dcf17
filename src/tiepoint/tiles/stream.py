"""A stream of images of any size: a detector that sees each in tiles."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from tiepoint.config import DetectionOptions
from tiepoint.detector import Detector
from tiepoint.errors import EngineError, FormatError, ImageError, MissingExtraError
from tiepoint.features import Provenance
from tiepoint.files.lock import LockedError
from tiepoint.files.paths import UNSAFE
from tiepoint.images.masks import MaskSource, mask_of
from tiepoint.images.planes import Channels
from tiepoint.images.urls import without_credentials
from tiepoint.streaming import Detection, check_stream
from tiepoint.tiles.detection import (
    TILE_PX,
    OnDamage,
    TileSettings,
    check_detection,
    native,
    of_channels,
    tiled,
)
from tiepoint.tiles.records import forget
from tiepoint.tiles.run import Progress

STATE_ENDING = ".tiles"
_MOST_BYTES = 120  # of a name, so that the name of the lock is no longer than 255

_OF_ONE_IMAGE = (ImageError, EngineError, FormatError, LockedError, MissingExtraError)
"""Errors of an image, its mask or its state, after which others may do. A full disk is none."""


class TiledDetector:
    """A detector that sees each image of a stream in tiles; see `detect_tiled`.

    Args:
        detector: The detector of the tiles.
        tile_px, on_damage, channels, progress: As for `detect_tiled`; progress is of one image.
        states: Folder for the state of the image that is being processed; None keeps none.
        mapped: As for `detect_tiled`.

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
        states: Path | None = None,
        mapped: bool = False,
    ) -> None:
        self._settings = TileSettings(tile_px, on_damage, channels, mapped=mapped)
        check_detection(detector.request(native({})).detection, detector)
        self._detector, self._progress, self._states = detector, progress, states
        self.engine, self.device = detector.engine, detector.device

    def stream(
        self,
        sources: Iterable[Any],
        *,
        mask: MaskSource = None,
        **options: Unpack[DetectionOptions],
    ) -> Iterator[Detection]:
        """Detect in one image after the other; see `Detector.stream`.

        The state of an image is removed when the next one is asked for, so store its features
        before, and ask once more after the last one.
        """
        check_stream(sources, mask)
        return self._stream(sources, mask, options)

    def _stream(
        self, sources: Iterable[Any], mask: MaskSource, options: DetectionOptions
    ) -> Iterator[Detection]:
        for index, source in enumerate(sources):
            settings = replace(self._settings, state=self._state(source))
            try:
                own = mask_of(mask, source, index)
                with tiled(
                    source, self._detector, settings, own, progress=self._progress, **options
                ) as features:
                    yield Detection(source, features, None)
            except _OF_ONE_IMAGE as error:
                yield Detection(source, None, error)

    def forget(self, source: Any) -> None:
        """Remove the state of an image whose features are stored, which a killed run left."""
        state = self._state(source)
        if state is not None:
            forget(state)

    def provenance(self, **options: Unpack[DetectionOptions]) -> Provenance:
        """The provenance of features made with these options."""
        return of_channels(self._detector.provenance(**native(options)), self._settings.channels)

    def with_threads(self, threads: int) -> TiledDetector:
        """A detector whose network takes at most this number of cores."""
        return self._with(detector=self._detector.with_threads(threads))

    def into(self, folder: Path | None, *, mapped: bool) -> TiledDetector:
        """A detector whose states are in a folder; see the arguments `states` and `mapped`."""
        return self._with(states=folder, mapped=mapped)

    def _with(self, **changes: Any) -> TiledDetector:
        settings = self._settings
        return TiledDetector(**{
            "detector": self._detector, "tile_px": settings.tile_px,
            "on_damage": settings.on_damage, "channels": settings.channels,
            "progress": self._progress, "states": self._states, "mapped": settings.mapped,
            **changes,
        })  # fmt: skip

    def _state(self, source: Any) -> Path | None:
        """The state of an image: its name, and a digest that keeps equal names apart."""
        path = source if isinstance(source, str | os.PathLike) else getattr(source, "name", None)
        if self._states is None or not isinstance(path, str | os.PathLike):
            return None
        whole = os.fsdecode(path)
        if "://" in whole:  # without the query, whose signature is another one each time
            whole = without_credentials(whole).partition("?")[0]
        else:
            whole = os.path.abspath(whole)  # noqa: PTH100 - no links
        digest = hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        name = UNSAFE.sub("_", Path(whole).name).encode("utf-8", "ignore")[:_MOST_BYTES]
        return self._states / f"{name.decode('utf-8', 'ignore')}-{digest}{STATE_ENDING}"
