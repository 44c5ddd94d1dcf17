"""What a page shows: images and pairs by id, each read or computed when it is asked for."""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from tiepoint.config import RegistrationConfig
from tiepoint.detector import Detector
from tiepoint.errors import ImageError
from tiepoint.features import Features, Matches
from tiepoint.geometry import SizeHW
from tiepoint.images.opening import is_mapped, is_windowed, open_windows
from tiepoint.images.reading import SourceImage, read
from tiepoint.images.urls import is_url
from tiepoint.plotting import to_rgb8
from tiepoint.registration import warping
from tiepoint.registration.register import register
from tiepoint.registration.result import Registration
from tiepoint.service.view.edits import Edit, Fitted, edited
from tiepoint.service.view.large import LargeSource
from tiepoint.service.view.pixels import (
    ArraySource,
    BoundedCache,
    Picture,
    TileSource,
    thumbnail,
)
from tiepoint.tiles.detection import detect_tiled

IMAGE_BYTES, RESULT_BYTES = 1_000_000_000, 500_000_000
"""Memory for decoded images, and for keypoints."""
THUMBNAIL_BYTES, THUMBNAILS_AT_ONCE = 50_000_000, 2
WHOLE_PX = 50_000_000
"""Rasters above this many px are read in windows."""
MOST_IN_TILES = 50_000
"""Keypoints of an image that is detected in tiles, if the detector has no limit."""
THUMBNAIL_PX, HEAT_SIDE_PX = 256, 2048
"""Least longer sides of a large image that is downscaled for its thumbnail and its heat map."""
HEAT_OPACITY = 0.85


@dataclass(frozen=True)
class Item:
    """An image of the session.

    Attributes:
        id: Name in URLs.
        name: Name that the page shows.
        path: Path or URL of the image; None takes the path that the features state.
        load: Reads the features from their file; None detects them.
        count: Number of keypoints, or None if it is not known yet.
        size_hw: Size of the image, px, or None if it is not known yet.
        image: The image in memory, in place of a path.
    """

    id: str
    name: str
    path: str | None
    load: Callable[[], Features] | None = None
    count: int | None = None
    size_hw: SizeHW | None = None
    image: SourceImage | None = None


@dataclass(frozen=True)
class PairItem:
    """Two images of the session.

    Attributes:
        id: Name in URLs.
        a, b: Ids of the images.
        matches: Reads the matches between their stored features; None matches them.
        config: Settings of the registration.
        recorded: Result of an earlier registration, as `Registration.summary`, or None.
        intrinsics: Cameras of the model "essential", as for `register`.
        registration: Result that is shown before any change; None registers the images.
    """

    id: str
    a: str
    b: str
    matches: Callable[[], Matches] | None = None
    config: RegistrationConfig = field(default_factory=RegistrationConfig)
    recorded: Mapping[str, Any] | None = None
    intrinsics: Any = None
    registration: Registration | None = None


def id_of(*names: str) -> str:
    """An id that is the same in the next run."""
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(eq=False)
class Session:
    """The images and pairs of one page. Thread-safe.

    Args:
        items, pairs: What is shown, in order.
        make_detector: Makes the detector; called once, when it is needed first.
        notes: Sentences about arguments that cannot be shown.
    """

    items: dict[str, Item]
    pairs: dict[str, PairItem]
    make_detector: Callable[..., Detector] = Detector
    notes: tuple[str, ...] = ()
    _images: BoundedCache[str, SourceImage] = field(init=False)
    _sources: BoundedCache[str, ArraySource] = field(init=False)
    _features: BoundedCache[tuple[str, int | None], Features] = field(init=False)
    _fits: BoundedCache[tuple[str, Edit], Fitted] = field(init=False)
    _thumbnails: BoundedCache[str, bytes] = field(init=False)
    _windows: BoundedCache[str, LargeSource | None] = field(init=False)

    def __post_init__(self) -> None:
        self._images = BoundedCache(IMAGE_BYTES // 2, lambda image: image.pixels.nbytes)
        self._sources = BoundedCache(IMAGE_BYTES // 2, lambda source: source.nbytes)
        self._features = BoundedCache(RESULT_BYTES, _features_bytes)
        self._fits = BoundedCache(RESULT_BYTES, _fitted_bytes)
        self._thumbnails = BoundedCache(THUMBNAIL_BYTES, len)
        self._windows = BoundedCache(1, lambda _: 0)
        self._files = ExitStack()
        self._detectors: dict[str, Detector] = {}
        self._making = threading.Lock()
        self._decoding = threading.Semaphore(THUMBNAILS_AT_ONCE)

    def item(self, item_id: str) -> Item:
        """The image of an id; KeyError for another."""
        return self.items[item_id]

    def image(self, item_id: str) -> SourceImage:
        """The decoded image; ImageError if it cannot be read, or is read in windows."""
        large = self.large(item_id)
        if large is not None:
            height, width = large.size_hw
            raise ImageError(
                f"{self.items[item_id].name}: {width}x{height} px are read in windows, and not as "
                "a whole; detect its keypoints in tiles, and give their features"
            )
        item = self.items[item_id]
        return item.image or self._images.get(item_id, lambda: read(self._path(item)))

    def large(self, item_id: str) -> LargeSource | None:
        """An image that is read in windows; None for one that is decoded as a whole."""
        item = self.items[item_id]
        if item.image is not None:
            return None
        return self._windows.get(item_id, lambda: self._opened(self._path(item)))

    def source(self, source_id: str) -> TileSource:
        """Tiles of an image, of a heat map `ID-heat`, or of the aligned image of a pair
        `ID-aligned`; KeyError for another id."""
        item_id, _, kind = source_id.partition("-")
        make = {"": self._picture, "heat": self._heat, "aligned": self._aligned}[kind]
        if item_id not in (self.pairs if kind == "aligned" else self.items):
            raise KeyError(source_id)
        if not kind and (large := self.large(item_id)) is not None:
            return large
        return self._sources.get(source_id, lambda: ArraySource.of(make(item_id)))

    def thumbnail(self, item_id: str) -> bytes:
        """A small JPEG of an image."""
        item = self.items[item_id]

        def make() -> bytes:
            with self._decoding:  # decoding takes memory
                large = self.large(item_id)
                if large is not None:
                    return thumbnail(large.overview(THUMBNAIL_PX))
                return thumbnail(to_rgb8(item.image or read(self._path(item))))

        return self._thumbnails.get(item_id, make)

    def features(self, item_id: str, nms_radius: int | None = None) -> Features:
        """Stored features, or those of a detection.

        Args:
            nms_radius: px of the network's input; detects again. None takes what is there.

        Raises:
            ImageError: The image cannot be read, or is read in windows.
            ConfigError: A radius out of range.
            FormatError: The features file is damaged.
        """
        item = self.items[item_id]
        return self._features.get((item_id, nms_radius), lambda: self._detect(item, nms_radius))

    def features_in_tiles(self, item_id: str) -> Features:
        """Features of an image that is read in windows, detected tile by tile.

        Raises:
            ImageError: A window cannot be read, or the image is decoded as a whole.
            ConfigError: A setting of the detector that is not possible in tiles.
        """
        large = self.large(item_id)
        if large is None:
            raise ImageError(f"{self.items[item_id].name}: it is decoded as a whole, not in tiles")
        detector = self.detector()
        most = detector.request({}).detection.max_keypoints or MOST_IN_TILES
        return self._features.get(
            (item_id, None),
            lambda: detect_tiled(large.source, detector, max_keypoints=most),
        )

    def close(self) -> None:
        """Close the files of images that are read in windows."""
        self._files.close()

    def known_features(self) -> dict[str, Features]:
        """The features that are in memory, by id of the image."""
        kept = self._features.values().items()
        return {key[0]: value for key, value in kept if key[1] is None}

    def fit(self, pair_id: str, edit: Edit | None = None) -> Fitted:
        """Register a pair, after changes by hand.

        Raises:
            ImageError: An image cannot be read.
            ConfigError: An edit of matches that do not exist, or of points that are not finite.
        """
        pair = self.pairs[pair_id]
        edit = edit or Edit()
        return self._fits.get((pair_id, edit), lambda: self._fit(pair, edit))

    def detector(self, purpose: str = "shown") -> Detector:
        """The detector of images that are shown, or of those of a "pair"."""
        with self._making:
            if purpose not in self._detectors:
                options = {"threshold": 0.0} if purpose == "pair" else {}
                self._detectors[purpose] = self.make_detector(**options)
            return self._detectors[purpose]

    def _path(self, item: Item) -> str:
        if item.path is not None:
            return item.path
        source = self.features(item.id).meta.get("source")
        if not isinstance(source, str) or is_url(source):
            raise ImageError(
                f"{item.name}: its features do not state where the image is; name the folder of "
                "the images with --images"
            )
        return source

    def _picture(self, item_id: str) -> Picture:
        return to_rgb8(self.image(item_id))

    def _heat(self, item_id: str) -> Picture:
        """The network's heat map, RGBA: its square root as colour and opacity."""
        large = self.large(item_id)
        image = self.image(item_id) if large is None else read(large.overview(HEAT_SIDE_PX))
        (heat, _, _), *_ = self.detector().dense_maps(image)
        strength = np.sqrt(np.clip(heat, 0, 1))
        levels = np.rint(strength * 255).astype(np.uint8)
        colours = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[..., ::-1]
        opacity = np.rint(np.clip(2 * strength, 0, 1) * 255 * HEAT_OPACITY).astype(np.uint8)
        return np.dstack([colours, opacity])

    def _aligned(self, pair_id: str) -> Picture:
        """Image A on the pixels of B, RGBA, transparent outside of A."""
        pair = self.pairs[pair_id]
        if self.large(pair.b) is not None:
            raise ImageError(
                f"{self.items[pair.b].name} is read in windows: A cannot be warped to it"
            )
        registration = self.fit(pair_id).registration
        area = warping.canvas_of(registration)
        pixels = warping.warp(self._picture(pair.a), registration)
        inside = warping.covered(registration, area)
        return np.dstack([pixels, np.where(inside, 255, 0).astype(np.uint8)])

    def _detect(self, item: Item, nms_radius: int | None) -> Features:
        if nms_radius is None and item.load is not None:
            return item.load()
        image, options = self.image(item.id), dict[str, Any]()
        if nms_radius is not None:
            options["nms_radius"] = nms_radius
        features: Features = self.detector()(image, **options)
        return features

    def _opened(self, path: str) -> LargeSource | None:
        if is_url(path) or not is_windowed(path):
            return None
        with ExitStack() as opening:
            windows = opening.enter_context(open_windows(path))
            if not is_mapped(path) and math.prod(windows.size_hw) <= WHOLE_PX:
                return None
            self._files.push(opening.pop_all())
            return LargeSource(windows)

    def _to_register(self, item: Item) -> SourceImage | Features:
        """What `register` takes of an image: without stored features, the image."""
        in_tiles = item.id in self.known_features() and self.large(item.id) is not None
        return self.features(item.id) if item.load or in_tiles else self.image(item.id)

    def _fit(self, pair: PairItem, edit: Edit) -> Fitted:
        if edit != Edit():
            base = self.fit(pair.id).registration
            return edited(base, edit, pair.config, pair.intrinsics)
        if pair.registration is not None:
            return Fitted(pair.registration, np.arange(len(pair.registration.matches)))
        a, b = (self.items[item_id] for item_id in (pair.a, pair.b))
        matches = None if pair.matches is None else pair.matches()
        sources = [self._to_register(one) for one in (a, b)]
        needs_detector = matches is None and not all(isinstance(one, Features) for one in sources)
        detector = self.detector("pair") if needs_detector else None
        result = register(
            *sources, matches=matches, detector=detector, intrinsics=pair.intrinsics,
            config=pair.config,
        )  # fmt: skip
        return Fitted(result, np.arange(len(result.matches)))


def _features_bytes(features: Features) -> int:
    arrays = (
        features.xy, features.scores, features.descriptors, features.covariance,
        features.scales_px,
    )  # fmt: skip
    return sum(array.nbytes for array in arrays if array is not None)


def _fitted_bytes(fitted: Fitted) -> int:
    result = fitted.registration
    features = _features_bytes(result.features_a) + _features_bytes(result.features_b)
    return features + result.matches.pairs.nbytes
