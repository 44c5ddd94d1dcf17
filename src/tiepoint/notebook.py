"""The page of `tiepoint view` in a cell of a notebook (extra `notebook`).

The cell has a bounded picture of each image, the keypoints and the matches, so a stored notebook
shows them without a kernel. The kernel is asked for another NMS radius, a fit after changes by
hand, similar keypoints, the heat map, swipe and blink.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from tiepoint.checks import check_whole
from tiepoint.config import RegistrationConfig
from tiepoint.detector import Detector
from tiepoint.errors import ConfigError, TiepointError, import_extra
from tiepoint.features import Features
from tiepoint.geometry import SizeHW, fit_inside
from tiepoint.images.reading import SourceImage, read
from tiepoint.images.windows import Window
from tiepoint.registration.epipolar import read_cameras
from tiepoint.registration.result import Registration
from tiepoint.service.view import answers, pixels
from tiepoint.service.view.edits import Edit
from tiepoint.service.view.session import Item, PairItem, Session

if TYPE_CHECKING:
    from anywidget import AnyWidget
else:
    AnyWidget = import_extra("anywidget", "tiepoint.notebook", "notebook").AnyWidget
traitlets = import_extra("traitlets", "tiepoint.notebook", "notebook")

SCRIPT = Path(answers.__file__).parent / "page" / "notebook.js"
MOST_BYTES = 50_000_000
"""Size of what a cell has from the start; a notebook stores it with its outputs."""
LEAST_SIDE_PX, LEAST_HEIGHT_PX = 64, 240
EXACT_PX = 1_000_000
"""Pictures up to this many px that are not downscaled keep every value, as PNG."""
JPEG_QUALITY = 90
A, B, PAIR = "a", "b", "pair"


def view(
    a: Any,
    b: Any = None,
    *,
    features: Features | None = None,
    registration: Registration | None = None,
    intrinsics: Any = None,
    checkpoint: str = "default",
    max_side: int = 2048,
    height: int = 560,
) -> Viewer:
    """Show one image with its keypoints, or two with their matches, in a cell of a notebook.

    Args:
        a: Any source of `images.read`.
        b: A second one; None shows `a` alone.
        features: Keypoints of `a` alone; None detects them.
        registration: Result of `register(a, b)`; None registers them by a homography.
        intrinsics: Cameras of a registration by an essential matrix, as for `register`.
        checkpoint: As for `Detector`, for what is detected here.
        max_side: Longer side of the pictures, px; larger images are downscaled for display.
        height: Height of the cell, CSS px.

    Returns:
        A widget; the last value of a cell is shown.

    Raises:
        ImageError: An image cannot be read.
        ConfigError: Features or a registration that are not those of the images, a setting out of
            range, or more than `MOST_BYTES` to show.
        MissingExtraError: The extra `notebook` is not installed.
    """
    check_whole("max_side", max_side, minimum=LEAST_SIDE_PX, unit="px")
    check_whole("height", height, minimum=LEAST_HEIGHT_PX, unit="CSS px")
    images = [read(a)] if b is None else [read(a), read(b)]
    _check_results(features, registration, images)
    load = None if features is None else lambda: features
    items = {
        name: Item(name, image.name if image.name != "array" else name.upper(), None, load,
                   image=image)
        for name, image in zip((A, B), images, strict=False)
    }  # fmt: skip
    config = (
        RegistrationConfig() if registration is None else RegistrationConfig(registration.model)
    )
    read_cameras(intrinsics, config.model)
    pair = PairItem(PAIR, A, B, config=config, intrinsics=intrinsics, registration=registration)
    pairs = {} if b is None else {PAIR: pair}
    session = Session(items, pairs, partial(Detector, checkpoint))
    return Viewer(session, max_side=max_side, height=height)


def _check_results(features: Features | None, registration: Any, images: list[SourceImage]) -> None:
    """Raise ConfigError for results that are not those of the images."""
    if len(images) == 1:
        if registration is not None:
            raise ConfigError("registration is given with one image, expected both: view(a, b)")
        if features is not None:
            _check_size("features", features, images[0])
        return
    if features is not None:
        raise ConfigError("features are given with two images; give registration=register(a, b)")
    if registration is not None:
        if not isinstance(registration, Registration):
            kind = type(registration).__name__
            raise ConfigError(f"registration is of type {kind}, expected Registration")
        _check_size("registration.features_a", registration.features_a, images[0])
        _check_size("registration.features_b", registration.features_b, images[1])


def _check_size(name: str, features: Any, image: SourceImage) -> None:
    if not isinstance(features, Features):
        raise ConfigError(f"{name} is of type {type(features).__name__}, expected Features")
    if tuple(features.size_hw) != tuple(image.size_hw):
        raise ConfigError(
            f"{name} has (height, width) {features.size_hw}, expected the {image.size_hw} of "
            f"{image.name}: they are of another image, or A and B are exchanged"
        )


class Viewer(AnyWidget):
    """The widget that `view` returns.

    Args:
        session: An image, or a pair.
        max_side, height: See `view`.
    """

    _esm = SCRIPT
    _about = traitlets.Dict().tag(sync=True)
    _pictures = traitlets.List().tag(sync=True)
    _first = traitlets.Bytes().tag(sync=True)

    def __init__(self, session: Session, *, max_side: int, height: int) -> None:
        self._session, self._max_side = session, max_side
        paired = bool(session.pairs)
        first = answers.fitted(session, PAIR, Edit()) if paired else answers.points(session, A)
        shown = [self._shown(item) for item in session.items]
        total = len(first) + sum(len(data) for _, data in shown)
        if total > MOST_BYTES:
            raise ConfigError(
                f"{total:,} bytes to show, expected at most {MOST_BYTES:,} in a notebook; give a "
                "smaller max_side or fewer keypoints, or use tiepoint view"
            )
        known = session.known_features()
        about = {
            "items": [
                {**answers.item_json(known, item), **tiles}
                for item, (tiles, _) in zip(session.items.values(), shown, strict=True)
            ],
            "pair": answers.pair_json(session, session.pairs[PAIR]) if paired else None,
            "height": height,
        }
        super().__init__(_about=about, _pictures=[data for _, data in shown], _first=first)
        self.on_msg(self._asked)

    def _shown(self, source_id: str) -> tuple[dict[str, Any], bytes]:
        """A picture of a source, and what the view has to know about it."""
        source = self._session.source(source_id)
        height, width = source.size_hw
        picture = source.read(Window(0, 0, height, width), 0)
        small_hw = fit_inside((height, width), self._max_side)
        kind, data = _encoded(picture, small_hw)
        tiles = {
            "source": source_id, "width": width, "height": height, "levels": 1,
            "tile": max(small_hw), "error": None, "windowed": False,
            "shown": [small_hw[1], small_hw[0]], "type": kind,
        }  # fmt: skip
        return tiles, data

    def _asked(self, _: Any, request: Mapping[str, Any], __: Any) -> None:
        """Answer a request of the view; errors become answers."""
        number = request.get("id")
        try:
            content, data = self._answer(request)
        except (TiepointError, LookupError, TypeError, ValueError, MemoryError) as error:
            self.send({"id": number, "error": str(error) or type(error).__name__})
            return
        self.send({"id": number, **content}, [data])

    def _answer(self, request: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
        session, name = self._session, request.get("name")
        if name == "source":
            tiles, data = self._shown(request["source"])
            return {"tiles": tiles}, data
        makers: dict[Any, Callable[[], bytes]] = {
            "points": lambda: answers.points(session, request["item"], request["nms"]),
            "nearest": lambda: answers.nearest(
                session, request["item"], request["index"], request["nms"]
            ),
            "nearest_in_pair": lambda: answers.nearest_in_pair(
                session, request["pair"], request["side"], request["index"]
            ),
            "fit": lambda: answers.fitted(session, request["pair"], answers.edit_of(request)),
        }
        return {}, makers[name]()


def _encoded(picture: pixels.Picture, size_hw: SizeHW) -> tuple[str, bytes]:
    """Media type and bytes of a picture, RGB or RGBA, at a size."""
    if picture.shape[:2] != size_hw:
        picture = np.asarray(cv2.resize(picture, size_hw[::-1], interpolation=cv2.INTER_AREA))
    elif math.prod(size_hw) <= EXACT_PX:
        return "image/png", pixels.png(picture)
    if picture.shape[2] == 4:
        return "image/png", pixels.png(picture)
    return "image/jpeg", pixels.jpeg(picture, JPEG_QUALITY)
