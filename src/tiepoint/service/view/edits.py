"""Changes of the matches of a pair by hand, and the registration after them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiepoint.config import RegistrationConfig
from tiepoint.errors import ConfigError
from tiepoint.features import Features
from tiepoint.registration.register import register
from tiepoint.registration.result import Registration

MOST_EDITS = 100_000
"""Changes in one request."""

HAND_SD_PX = 1.0
"""Standard deviation of a tie point placed by hand, px of the network's input."""


@dataclass(frozen=True)
class Edit:
    """Changes of the matches of a pair by hand.

    Attributes:
        removed: Indices of matches that are left out.
        added: (x_A, y_A, x_B, y_B) of added tie points, px.
    """

    removed: tuple[int, ...] = ()
    added: tuple[tuple[float, float, float, float], ...] = ()


@dataclass(frozen=True, eq=False)
class Fitted:
    """A registration of a pair; `origin` is the index of each match before the edit, or -1 - k for
    added tie point k."""

    registration: Registration
    origin: NDArray[np.int64]


def edited(
    base: Registration, edit: Edit, config: RegistrationConfig, intrinsics: Any = None
) -> Fitted:
    """The registration of matches that were changed by hand; pictures have no part in it.

    Args:
        base: Before the change.
        config, intrinsics: As for `register`.

    Raises:
        ConfigError: An edit of matches that do not exist, or of points that are not finite.
    """
    count = len(base.matches)
    if edit.removed and not 0 <= min(edit.removed) <= max(edit.removed) < count:
        raise ConfigError(f"removed names matches beyond the {count} of this pair")
    added = np.asarray(edit.added, np.float64).reshape(-1, 4)  # K 4
    if not np.isfinite(added).all():
        raise ConfigError("added has coordinates that are not finite, expected px of both images")
    kept = np.setdiff1d(np.arange(count), edit.removed)
    a, b = base.features_a, base.features_b
    if len(added):
        first = np.arange(len(added))
        placed = np.stack([len(a) + first, len(b) + first], axis=1)  # K 2
        a, b = _with_points(a, added[:, :2]), _with_points(b, added[:, 2:])
    else:
        placed = np.empty((0, 2), np.int64)
    matches = replace(
        base.matches,
        pairs=np.concatenate([base.matches.pairs[kept], placed]),
        scores=np.append(base.matches.scores[kept], np.ones(len(added), np.float32)),
    )
    settings = replace(config, guided=False, method="nearest")
    result = register(a, b, matches=matches, intrinsics=intrinsics, config=settings)
    return Fitted(result, np.append(kept, -1 - np.arange(len(added))))


def _with_points(features: Features, xy: NDArray[np.float64]) -> Features:
    """Features with added points, which have no descriptors."""
    count, covariance, scales_px = len(xy), features.covariance, features.scales_px
    if covariance is not None:
        variance = np.float32((HAND_SD_PX * features.px_per_input_px) ** 2)
        placed = np.broadcast_to(variance * np.eye(2, dtype=np.float32), (count, 2, 2))
        covariance = np.concatenate([covariance, placed])
    if scales_px is not None:
        unit = np.full(count, features.px_per_input_px, np.float32)
        scales_px = np.append(scales_px, unit)
    return replace(
        features,
        xy=np.concatenate([features.xy, xy.astype(np.float32)]),
        scores=np.append(features.scores, np.ones(count, np.float32)),
        descriptors=None,
        covariance=covariance,
        scales_px=scales_px,
    )
