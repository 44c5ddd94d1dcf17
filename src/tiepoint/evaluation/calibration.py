"""Calibration of covariances: the factor between the heat map's second moments and real scatter.

Matches of generated pairs show the difference between the positions of one corner in two images.
The covariances of both, one of them mapped by the homography, predict this difference.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiepoint.detector import Detector
from tiepoint.errors import ConfigError, ImageError
from tiepoint.evaluation.homography_pairs import HomographyPair, LoadedHomography
from tiepoint.evaluation.settings import HomographySettings
from tiepoint.features import Features
from tiepoint.geometry import apply_homography
from tiepoint.matching.match import match
from tiepoint.registration import derivatives
from tiepoint.weights.folder import CONFIG_FILE, read_json, rules_of, write_file

SAME_PX = 4.0
"""Largest difference in px of two positions of the same corner."""

MEDIAN_CHI2 = 1.3863
"""Median squared Mahalanobis distance in two dimensions: 2 ln 2."""

LEAST_MATCHES = 200
"""Matches that a fit needs in all."""

BINS = 8

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Calibration:
    """A scale, and how well it fits.

    Attributes:
        scale: Value for `DetectionConfig.covariance_scale`.
        stated_px: Standard deviation per axis of the difference of two positions, predicted by
            the scaled covariances; means over `BINS` equal shares of the matches.
        measured_px: The same as measured.
    """

    scale: float
    stated_px: tuple[float, ...]
    measured_px: tuple[float, ...]
    matches: int


def calibrate(
    checkpoint: str | Path,
    pairs: Sequence[HomographyPair],
    *,
    on_pair: Callable[[], None] = lambda: None,
    threads: int | None = None,
) -> Calibration:
    """Fit the scale that turns second moments into covariances.

    Args:
        pairs: Pairs with known homographies, of images like those that will be matched.
        on_pair: Called after each pair.
        threads: As for `Detector`.

    Raises:
        ConfigError: Fewer than `LEAST_MATCHES` matches are within `SAME_PX` of the truth.
    """
    # At one scale: with several, one factor would have to fit pixels of several sizes.
    detector = Detector(
        checkpoint, device="cpu", precision="f32", max_side=None, scales=(1.0,),
        covariance_scale=1.0, threads=threads,
    )  # fmt: skip
    settings = HomographySettings()
    parts = [(np.zeros((0, 2)), np.zeros((0, 2, 2)))]
    for pair in pairs:
        try:
            loaded = pair.load(settings.frame)
        except ImageError as error:  # the other photographs suffice
            log.warning("left out: %s", error)
            continue
        a, b = (
            detector(image, threshold=0.0, max_keypoints=settings.k)
            for image in (loaded.image_a, loaded.image_b)
        )
        parts.append(differences(a, b, loaded))
        on_pair()
    offset, covariance = map(np.concatenate, zip(*parts, strict=True))  # M 2, M 2 2
    if len(offset) < LEAST_MATCHES:
        raise ConfigError(
            f"only {len(offset)} matches are within {SAME_PX:g} px of the truth, {LEAST_MATCHES} "
            "are needed: give more photographs, or weights that find them again"
        )
    solved = np.linalg.solve(covariance, offset[:, :, None])[:, :, 0]  # M 2
    scale = float(np.median((offset * solved).sum(axis=1)) / MEDIAN_CHI2)
    stated = scale * np.trace(covariance, axis1=1, axis2=2) / 2  # M
    measured = (offset**2).sum(axis=1) / 2  # M
    bins = np.array_split(np.argsort(stated, kind="stable"), BINS)
    stated_px, measured_px = (
        tuple(float(np.sqrt(variance[index].mean())) for index in bins)
        for variance in (stated, measured)
    )
    return Calibration(float(f"{scale:.3g}"), stated_px, measured_px, len(offset))


def differences(
    a: Features, b: Features, pair: LoadedHomography
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Offsets in B of the matches within `SAME_PX`, M 2 px, and their predicted covariances.

    Both positions contribute to the covariances, M 2 2 px^2.
    """
    assert a.covariance is not None and b.covariance is not None
    i, j = match(a, b, rotation="none").pairs.T  # M, M
    xy_a = a.xy[i].astype(np.float64)
    offset = b.xy[j] - apply_homography(pair.homography, xy_a)  # M 2
    near = np.hypot(*offset.T) <= SAME_PX
    i, j, xy_a, offset = i[near], j[near], xy_a[near], offset[near]
    jacobian = derivatives.local_jacobian(pair.homography, xy_a)  # M 2 2
    mapped = jacobian @ a.covariance[i] @ jacobian.transpose(0, 2, 1)  # M 2 2
    return offset, mapped + b.covariance[j]


def store(folder: Path, measured: Mapping[str, float]) -> Path:
    """Write measured settings into a checkpoint's `config.json`; the weights stay as they are.

    Args:
        measured: Values for `COVARIANCE_KEY` and `NOISE_FLOOR_KEY` of `weights.folder`.

    Raises:
        CheckpointError: The folder has no readable config, or one of another version.
        ConfigError: The checkpoint follows transformers' rules, so its file is not ours to mark.
    """
    config = check_ours(folder)
    config["tiepoint"] = {**config["tiepoint"], **measured}
    return write_file(folder, CONFIG_FILE, config)


def check_ours(folder: Path) -> dict[str, Any]:
    """The config of a checkpoint that can store measured settings; raises as `store` does."""
    path = folder / CONFIG_FILE
    config = read_json(path)
    if rules_of(config, path) != "exact":
        raise ConfigError(
            f"{path}: follows transformers' rules; only checkpoints with tiepoint's own rules "
            "can store measured settings"
        )
    return config
