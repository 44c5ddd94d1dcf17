"""Arguments of `tiepoint view` -> a session: images, features, stores, registrations, pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from tiepoint.batch.inputs import Unreadable, expand
from tiepoint.config import RegistrationConfig
from tiepoint.detector import Detector
from tiepoint.errors import ConfigError, FormatError
from tiepoint.features import Features
from tiepoint.files.paths import is_file, is_folder
from tiepoint.files.reading import read_json
from tiepoint.formats import ALL_FORMATS, load_matches
from tiepoint.formats.features_store import StoreFeatures, is_store, records
from tiepoint.formats.many_images import read_features
from tiepoint.images.urls import is_url
from tiepoint.registration.epipolar import read_cameras
from tiepoint.registration.models import MODELS
from tiepoint.service.view.session import Item, PairItem, Session, id_of

MOST_RECORDED_BYTES = 10_000_000
_RECORDED = {"a", "b", "success", "reason", "model", "matrix"}
"""Entries of the file that `tiepoint register --json` prints."""


def open_session(
    arguments: Sequence[str],
    *,
    images: Path | None = None,
    config: RegistrationConfig | None = None,
    intrinsics: Any = None,
    make_detector: Callable[..., Detector] = Detector,
) -> Session:
    """A session of what the arguments name.

    Args:
        arguments: Images, folders and globs; features files, folders of them and stores;
            registrations of `tiepoint register --json`; two features files and their matches.
            Exactly two images, or two features files of one image, are a pair too.
        images: Folder of the images of features; None takes the paths that the features state.
        config: Settings of the registration of pairs.
        intrinsics: Cameras of the model "essential", as for `register`.
        make_detector: Makes the detector, with options.

    Raises:
        FormatError: A damaged file, or one of another kind.
        ConfigError: Nothing to show, or matches without their two features files.
    """
    settings = config or RegistrationConfig()
    read_cameras(intrinsics, settings.model)
    items: list[Item] = []
    pairs: list[PairItem] = []
    notes: list[str] = []
    pictures: list[str] = []
    matches: list[Path] = []
    for argument in arguments:
        path = Path(argument)
        recorded = _recorded(path)
        if recorded is not None:
            both = [_image(recorded["a"]), _image(recorded["b"])]
            items += both
            model = RegistrationConfig(model=recorded["model"])
            cameras = recorded.get("intrinsics")
            pairs.append(_pair(both, config=model, recorded=recorded, intrinsics=cameras))
        elif _is_matches(path):
            matches.append(path)
        elif _has_features(path):
            items += _of_features(path, images)
        else:
            pictures.append(argument)
    for one in expand(pictures) if pictures else ():
        if isinstance(one, Unreadable):
            notes.append(one.reason)
        else:
            items.append(Item(id_of(one.source), str(one.name), one.source))
    if matches or (len(items) == 2 and not pairs):
        matched = _matches_of(items, matches)
        pairs.append(_pair(items, matches=matched, config=settings, intrinsics=intrinsics))
    if not items:
        raise ConfigError("; ".join(notes) or f"no image found in {', '.join(arguments)}")
    distinct = {item.id: item for item in items}
    by_id = {pair.id: pair for pair in pairs}
    return Session(distinct, by_id, make_detector, tuple(notes))


def _image(source: str) -> Item:
    return Item(id_of(source), Path(source).name or source, source)


def _pair(items: Sequence[Item], **fields: Any) -> PairItem:
    a, b = (item.id for item in items)
    return PairItem(id_of(a, b), a, b, **fields)


def _matches_of(items: Sequence[Item], matches: Sequence[Path]) -> Callable[[], Any] | None:
    if not matches:
        return None
    if len(matches) > 1 or len(items) != 2 or any(item.load is None for item in items):
        named = ", ".join(map(str, matches))
        raise ConfigError(f"{named}: matches are shown with the two features files they index")
    return partial(load_matches, matches[0])


def _recorded(path: Path) -> Mapping[str, Any] | None:
    """The result in a registration's file; None for another file."""
    if path.suffix.lower() != ".json" or not is_file(path):
        return None
    try:
        held = read_json(path, most_bytes=MOST_RECORDED_BYTES)
    except (FormatError, ValueError, OSError):
        return None  # reading it as features gives the reason
    if not isinstance(held, dict) or not set(held) >= _RECORDED:
        return None
    a, b, model = held["a"], held["b"], held["model"]
    if not all(isinstance(text, str) for text in (a, b, model)) or model not in MODELS:
        raise FormatError(f"{path}: not a registration of tiepoint register --json")
    if is_url(a) or is_url(b):
        raise FormatError(
            f"{path}: has the URL of an image, and URLs in a file are never requested; give both "
            "images themselves"
        )
    try:
        read_cameras(held.get("intrinsics"), model)
        if held["matrix"] is not None:
            np.asarray(held["matrix"], np.float64).reshape(3, 3)
    except (TypeError, ValueError) as error:  # ConfigError is a ValueError
        raise FormatError(
            f"{path}: not a registration of tiepoint register --json ({error})"
        ) from error
    return held


def _is_matches(path: Path) -> bool:
    """Whether a path is a matches file of one pair."""
    if path.suffix.lower() != ".npz" or not is_file(path):
        return False
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            return "pairs.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError):
        return False  # reading it as features gives the reason


def _has_features(path: Path) -> bool:
    if path.suffix.lower() in ALL_FORMATS or is_store(path):
        return True
    if not is_folder(path):
        return False
    first = next(expand([str(path)]), None)  # a folder of photographs
    return first is None or isinstance(first, Unreadable)


def _of_features(path: Path, images: Path | None) -> Iterator[Item]:
    """The images whose features are in a file, a folder or a store."""
    features = read_features(path)
    known = dict(_rows(features))
    for name in features:
        source, count, size_hw = known.get(name, (None, None, None))
        if images is not None:
            source = str(images / name)
        load = partial(_load, features, name)
        yield Item(id_of(str(path), name), name, source, load, count, size_hw)


def _load(features: Mapping[str, Features], name: str) -> Features:
    return features[name]


def _rows(
    features: Mapping[str, Features],
) -> Iterator[tuple[str, tuple[str | None, int, tuple[int, int]]]]:
    """Path, number of keypoints and size of each image of a store, from its records."""
    if not isinstance(features, StoreFeatures):
        return
    held = records(features.path, features.manifest.identity)
    for row in chain.from_iterable(record.images for record in held):
        source = None if is_url(row.source) else row.source  # never requested
        yield row.name, (source, row.keypoints, (row.height, row.width))
