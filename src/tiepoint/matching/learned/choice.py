"""Which learned matcher matches given features: a given one, or the one of their weights."""

from __future__ import annotations

import os
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from tiepoint.config import DeviceName
from tiepoint.errors import CheckpointError, ConfigError, is_installed
from tiepoint.features import Features
from tiepoint.files.paths import is_file, is_folder
from tiepoint.matching.learned.folder import named_detector
from tiepoint.matching.learned.matcher import LearnedMatcher
from tiepoint.weights.checkpoint import (
    BUNDLED,
    Checkpoint,
    absolute_name,
    bundled_checkpoints,
    files_state,
    locate,
)
from tiepoint.weights.folder import CONFIG_FILE, MATCHER_FOLDER, WEIGHTS_FILE, read_json
from tiepoint.weights.hub import fetch_matcher, is_id

MatcherSource = str | PathLike[str] | LearnedMatcher | None
"""A bundled name, a folder or a loaded matcher; None for the matcher of the features' weights."""

KEPT_MATCHERS = 4
"""Loaded matchers that are kept for the next call."""

REMEDY = (
    "train one with `tiepoint train-matcher`, pass the folder of one as matcher (--matcher), or "
    "match with method='nearest'"
)


class _Made(NamedTuple):
    """The weights that made features."""

    checkpoint: str
    weights_sha256: str
    revision: str | None


def matcher_for(
    a: Features,
    b: Features,
    matcher: MatcherSource = None,
    *,
    layers: int | None = None,
    device: DeviceName = "cpu",
    threads: int | None = None,
) -> LearnedMatcher:
    """The learned matcher for two images.

    Args:
        a, b: Features; without `matcher`, their provenance decides.
        matcher: A folder with a matcher, or with a checkpoint and its matcher; a bundled name; or a
            LearnedMatcher, which is returned as it is. None looks in the folder of the checkpoint
            that made the features, then among the bundled ones, then on the Hub if the checkpoint
            is from there.
        layers, threads: See `LearnedMatcher`.
        device: "cpu" takes OpenVINO, a GPU torch.

    Raises:
        ConfigError: No matcher for these features; layers or a device that contradict a
            LearnedMatcher.
        CheckpointError: No such matcher, or a damaged one.
        EngineError, MissingExtraError: See `LearnedMatcher`.
    """
    if matcher is not None:
        return given_matcher(matcher, layers=layers, device=device, threads=threads)
    made = a.provenance or b.provenance
    if made is None:
        raise ConfigError(
            "features without provenance, by which a learned matcher is found: pass the folder of "
            "one as matcher (--matcher), or match with method='nearest'"
        )
    folder = _trained_for(_Made(made.checkpoint, made.weights_sha256, made.revision))
    return _kept(str(folder), files_state(folder), layers, device, threads)


def matcher_of(
    checkpoint: Checkpoint,
    matcher: MatcherSource = None,
    *,
    layers: int | None = None,
    device: DeviceName = "cpu",
    threads: int | None = None,
) -> LearnedMatcher:
    """The learned matcher for features that a checkpoint will make; see `matcher_for`.

    Raises:
        ConfigError: As for `matcher_for`; or a matcher of other weights.
    """
    if matcher is None:
        folder = _trained_for(
            _Made(absolute_name(checkpoint), checkpoint.sha256, checkpoint.revision)
        )
        return _kept(str(folder), files_state(folder), layers, device, threads)
    loaded = given_matcher(matcher, layers=layers, device=device, threads=threads)
    expected = loaded.checkpoint.detector_sha256
    if expected not in (None, checkpoint.sha256):
        raise ConfigError(
            f"matcher {loaded.checkpoint.name!r} was trained for weights_sha256 {expected}, and "
            f"checkpoint {checkpoint.name!r} has {checkpoint.sha256}: give the checkpoint that the "
            "matcher was trained for, or its own matcher"
        )
    return loaded


def checked_matcher(
    method: str,
    matcher: MatcherSource,
    *,
    layers: int | None = None,
    device: DeviceName = "cpu",
    threads: int | None = None,
) -> LearnedMatcher | None:
    """A given matcher, before any work; None if none is given. See `matcher_for`.

    Raises:
        ConfigError: A matcher for another method, or one that other arguments contradict.
        CheckpointError: No such matcher, or a damaged one.
    """
    if matcher is None:
        return None
    if method != "learned":
        raise ConfigError(f"matcher is given for method={method!r}; it needs method='learned'")
    return given_matcher(matcher, layers=layers, device=device, threads=threads)


def given_matcher(
    matcher: str | PathLike[str] | LearnedMatcher,
    *,
    layers: int | None = None,
    device: DeviceName = "cpu",
    threads: int | None = None,
) -> LearnedMatcher:
    """A matcher by its folder or bundled name, kept for the next call; see `matcher_for`."""
    if not isinstance(matcher, LearnedMatcher):
        folder = matcher_folder(matcher)
        return _kept(str(folder), files_state(folder), layers, device, threads)
    if layers not in (None, matcher.layers):
        raise ConfigError(
            f"layers is {layers}, and the given LearnedMatcher runs {matcher.layers}: make it with "
            "that number of layers"
        )
    if device not in ("cpu", matcher.device):
        raise ConfigError(
            f"device is {device!r}, and the given LearnedMatcher runs on {matcher.device!r}: make "
            "it for that device"
        )
    return matcher


def matcher_folder(matcher: str | PathLike[str]) -> Path:
    """The absolute folder of a matcher.

    Args:
        matcher: As for `matcher_for`.

    Raises:
        CheckpointError: Neither a bundled name with a matcher nor a folder with one.
    """
    name = os.fspath(matcher)
    folder = BUNDLED / name if name in bundled_checkpoints() else Path(name)
    inner = folder / MATCHER_FOLDER
    if is_file(inner / CONFIG_FILE):
        return inner.resolve()
    if folder.parent == BUNDLED or not is_file(folder / CONFIG_FILE):
        raise CheckpointError(
            f"matcher {name!r}: no {CONFIG_FILE} and {WEIGHTS_FILE} of a learned matcher there or "
            f"in {inner}; {REMEDY}"
        )
    return folder.resolve()


def _trained_for(made: _Made) -> Path:
    """The folder of the matcher for some weights."""
    others: dict[str, str | None] = {}
    for name in (made.checkpoint, *bundled_checkpoints()):
        folder = _folder_beside(name)
        if folder is None:
            continue
        sha256 = _detector_sha256(str(folder), files_state(folder))
        if sha256 == made.weights_sha256:
            return folder
        if name == made.checkpoint:
            others[str(folder)] = sha256
    if is_id(made.checkpoint) and not is_folder(Path(made.checkpoint)):
        folder = fetch_matcher(made.checkpoint, made.revision)
        if folder is not None:
            others[str(folder)] = _detector_sha256(str(folder), files_state(folder))
            if others[str(folder)] == made.weights_sha256:
                return folder
    trained = "".join(f"; {folder} is for {sha256}" for folder, sha256 in others.items())
    raise ConfigError(
        f"no learned matcher for checkpoint {made.checkpoint!r} with weights_sha256 "
        f"{made.weights_sha256}{trained}: {REMEDY}"
    )


def _folder_beside(checkpoint: str) -> Path | None:
    """The folder of the matcher in a checkpoint's; of a Hub id that in the local cache."""
    try:
        folder = locate(checkpoint, local_files_only=True) / MATCHER_FOLDER
    except CheckpointError:
        return None  # features outlive the folder of their checkpoint
    return folder.resolve() if is_file(folder / CONFIG_FILE) else None


@lru_cache(maxsize=16)
def _detector_sha256(folder: str, _: tuple[object, ...]) -> str | None:
    path = Path(folder) / CONFIG_FILE
    return named_detector(read_json(path), path)


@lru_cache(maxsize=KEPT_MATCHERS)
def _kept(
    folder: str,
    _: tuple[object, ...],
    layers: int | None,
    device: str,
    threads: int | None,
) -> LearnedMatcher:
    """A loaded matcher, the same while its files are."""
    if device == "cpu" and (is_installed("openvino") or not is_installed("torch")):
        return LearnedMatcher(folder, layers=layers, threads=threads)
    return LearnedMatcher(folder, layers=layers, engine="torch", device=device)
