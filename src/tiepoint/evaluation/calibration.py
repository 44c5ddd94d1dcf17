"""How far positions scatter, and what the heat map says about it: the scale between the two.

Matches of generated pairs show by how much the positions of one corner differ in two images; the
covariances of both, one of them carried over by the homography, say how much they should.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiepoint.detector import Detector
from tiepoint.errors import ConfigError, ImageError
from tiepoint.evaluation.pairs import LoadedPair, Pair
from tiepoint.evaluation.settings import Settings
from tiepoint.features import Features
from tiepoint.geometry import apply_homography
from tiepoint.matching.match import match
from tiepoint.registration import planar
from tiepoint.weights.folder import CONFIG_FILE, COVARIANCE_KEY, read_json, rules_of, write_file

SAME_PX = 4.0
"""Matches farther off are of another corner, not a scatter of this one."""

MEDIAN_CHI2 = 1.3863
"""Half of all squared Mahalanobis distances in two dimensions lie below it: 2 ln 2."""

LEAST_MATCHES = 200
"""Matches in all that a fit needs."""

BINS = 8


@dataclass(frozen=True, eq=False)
class Calibration:
    """A scale, and how well it fits.

    Attributes:
        scale: For `DetectionConfig.covariance_scale`.
        stated_px: Standard deviation per axis of the difference of two positions as the scaled
            covariances state it, the mean of each of `BINS` equal shares of the matches.
        measured_px: The same as measured.
        matches: Number of matches in all.
    """

    scale: float
    stated_px: tuple[float, ...]
    measured_px: tuple[float, ...]
    matches: int


def calibrate(
    checkpoint: str | Path,
    pairs: Sequence[Pair],
    *,
    on_pair: Callable[[], None] = lambda: None,
) -> Calibration:
    """Fit the scale that turns second moments into covariances.

    Args:
        pairs: With known homographies, of images like those that it will see.
        on_pair: Called after each pair.

    Raises:
        ConfigError: Under `LEAST_MATCHES` matches lie within `SAME_PX` of the truth.
    """
    # At one scale: with several, one factor would have to fit pixels of several sizes.
    detector = Detector(
        checkpoint,
        device="cpu",
        precision="f32",
        max_side=None,
        scales=(1.0,),
        covariance_scale=1.0,
    )
    settings = Settings()
    offsets, spreads = [], []
    for pair in pairs:
        try:
            loaded = pair.load(settings.frame)
        except ImageError:  # one bad photograph stops nothing: the others say enough
            continue
        a, b = (
            detector(image, threshold=0.0, max_keypoints=settings.k)
            for image in (loaded.image_a, loaded.image_b)
        )
        offset, spread = differences(a, b, loaded)
        offsets.append(offset)
        spreads.append(spread)
        on_pair()
    offset = np.concatenate([np.zeros((0, 2)), *offsets])  # M 2
    spread = np.concatenate([np.zeros((0, 2, 2)), *spreads])  # M 2 2
    if len(offset) < LEAST_MATCHES:
        raise ConfigError(
            f"only {len(offset)} matches lie within {SAME_PX:g} px of the truth, {LEAST_MATCHES} "
            "are needed: give more photographs, or weights that find them again"
        )
    solved = np.linalg.solve(spread, offset[:, :, None])[:, :, 0]  # M 2
    scale = float(np.median((offset * solved).sum(axis=1)) / MEDIAN_CHI2)
    stated = scale * np.trace(spread, axis1=1, axis2=2) / 2  # M
    measured = (offset**2).sum(axis=1) / 2  # M
    parts = np.array_split(np.argsort(stated, kind="stable"), BINS)
    return Calibration(
        float(f"{scale:.3g}"),
        tuple(float(np.sqrt(stated[part].mean())) for part in parts),
        tuple(float(np.sqrt(measured[part].mean())) for part in parts),
        len(offset),
    )


def differences(
    a: Features, b: Features, pair: LoadedPair
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How far matches are off in B, and the covariance that both positions together state.

    Returns:
        M 2 px and M 2 2 px^2, of the matches within `SAME_PX`.
    """
    assert a.covariance is not None
    assert b.covariance is not None
    i, j = match(a, b, rotation="none").pairs.T  # M, M
    xy_a = a.xy[i].astype(np.float64)
    offset = b.xy[j] - apply_homography(pair.homography, xy_a)  # M 2
    near = np.hypot(*offset.T) <= SAME_PX
    i, j, xy_a, offset = i[near], j[near], xy_a[near], offset[near]
    slopes = planar.local_jacobian(pair.homography, xy_a)  # M 2 2
    carried = slopes @ a.covariance[i] @ slopes.transpose(0, 2, 1)  # M 2 2
    return offset, carried + b.covariance[j]


def store_scale(folder: Path, scale: float) -> Path:
    """Write the scale into a checkpoint's `config.json`; the weights stay as they are.

    Raises:
        CheckpointError: No readable config there, or one of another version.
        ConfigError: A checkpoint that follows transformers' rules, whose file is not ours to mark.
    """
    config = check_ours(folder)
    config["tiepoint"] = {**config["tiepoint"], COVARIANCE_KEY: scale}
    return write_file(folder, CONFIG_FILE, config)


def check_ours(folder: Path) -> dict[str, Any]:
    """The config of a checkpoint that may hold a scale.

    Raises:
        CheckpointError, ConfigError: As from `store_scale`.
    """
    path = folder / CONFIG_FILE
    config = read_json(path)
    if rules_of(config, path) != "exact":
        raise ConfigError(
            f"{path}: follows transformers' rules; only checkpoints with tiepoint's own rules "
            "hold a scale"
        )
    return config
