"""Bring two images of one thing into line, and say how well, or why not.

Detect, match, find the model that most matches agree on, fit it to them by least squares, then
doubt it: a wrong answer is worse than none.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from tiepoint.architecture import CELL_PX
from tiepoint.config import RegistrationConfig, RegistrationOptions, resolve
from tiepoint.detector import Detector
from tiepoint.errors import ConfigError
from tiepoint.features import Features, Matches, covariances_of
from tiepoint.geometry import corners_xy
from tiepoint.matching.guided import match_guided
from tiepoint.matching.match import match
from tiepoint.registration import epipolar, planar, verification
from tiepoint.registration.estimation import (
    Cameras,
    Found,
    find,
    refined_plane,
    shuffled,
)
from tiepoint.registration.models import MODELS, PLANE_MODELS, TWO_VIEW_MODELS, inlier_px
from tiepoint.registration.result import NO_RESIDUALS, OK, Registration, Residuals

SIMPLER_SHARE = 0.75
"""A simpler model than a homography must fit this share of the matches that a homography fits.
A wrong model otherwise fits one part of the images well and is off everywhere else."""

GUIDED_ROUNDS, GUIDED_REACH = 2, 1.5
"""Matching again under the model, and the model from that: within more than the inliers' distance,
or the new matches could only agree with the old model."""

PLANE_PX = 3.0
"""px as the detector saw them: a plane or a turn that explains a match this well explains it."""


def register(
    a: Any,
    b: Any,
    *,
    matches: Matches | None = None,
    detector: Detector | None = None,
    checkpoint: str | Path = "default",
    intrinsics: Any = None,
    config: RegistrationConfig | None = None,
    **overrides: Unpack[RegistrationOptions],
) -> Registration:
    """Find how image A lies in image B.

    The result depends on the images and the settings alone; not on the order of keypoints.

    Args:
        a, b: Each a path, URL, bytes, PIL image, array or tensor, or Features of it.
        matches: Between features `a` and `b`; None matches mutual nearest neighbours, turned
            images too (see `tiepoint.match`).
        detector: Detects in what is not Features; None makes one of `checkpoint` that takes the
            best keypoints whatever their score.
        checkpoint: As for `Detector`.
        intrinsics: For "essential": the camera matrix K, 3x3, of both images, or a pair (K_A,
            K_B); in px with (0, 0) at the centre of the top-left pixel.
        config: Settings; None takes the defaults.
        overrides: Single settings of `RegistrationConfig`, which replace those of `config`, such as
            `model`.

    Returns:
        Registration. One that failed says why: `success`, `reason`.

    Raises:
        ImageError: An image cannot be read.
        ConfigError: A setting out of range or unknown, intrinsics missing or not those of a
            camera, features that cannot be matched.
    """
    settings = resolve(config or RegistrationConfig(), overrides)
    cameras = epipolar.read_cameras(intrinsics, settings.model)
    if matches is None:
        best = settings.max_keypoints
        features_a, features_b = (_features(x, detector, checkpoint, best) for x in (a, b))
        found = _register(features_a, features_b, match(features_a, features_b), settings, cameras)
        return _guided(found, settings) if settings.guided else found
    features_a, features_b = _matched(a, b, matches)
    return _register(features_a, features_b, matches, settings, cameras)


def _register(
    features_a: Features,
    features_b: Features,
    matches: Matches,
    settings: RegistrationConfig,
    cameras: Cameras | None,
) -> Registration:
    """Matches -> consensus -> least squares -> verdict."""
    model, count = settings.model, len(matches)
    xy_a = features_a.xy[matches.pairs[:, 0]].astype(np.float64)  # M 2
    xy_b = features_b.xy[matches.pairs[:, 1]].astype(np.float64)  # M 2
    result = Registration(
        False, "", model, None, features_a, features_b, matches, np.zeros(count, bool)
    )
    order = shuffled(xy_a, xy_b, settings.seed)  # those that are finite
    if len(order) < settings.min_inliers:
        empty = [name for name, f in (("A", features_a), ("B", features_b)) if len(f) == 0]
        why = f"no keypoints in image {' and '.join(empty)}" if empty else f"{len(order)} matches"
        return replace(result, reason=f"{why}, {settings.min_inliers} matches are asked for")
    px = features_b.px_per_input_px
    if cameras:
        px = max(features_a.px_per_input_px, px)
    around = covariances_of(features_a, features_b, matches.pairs[order])
    within_px = inlier_px(settings) * px
    found = find(model, xy_a[order], xy_b[order], within_px, cameras, settings, around)
    if found is None:
        return replace(result, reason=f"the {count} matches agree on no model")
    inliers = np.zeros(count, bool)
    inliers[order[found.inliers]] = True
    found = replace(found, inliers=inliers)
    judge = _judge_plane if model in PLANE_MODELS else _judge_two_views
    return judge(replace(result, inliers=inliers), found, settings, cameras, px)


def _guided(result: Registration, settings: RegistrationConfig) -> Registration:
    """A plane model that was believed, fitted anew to matches that it points out itself.

    The verdict was given before: matches that were chosen by a model cannot speak for it.
    """
    if not result.success or result.matrix is None or result.model not in PLANE_MODELS:
        return result
    a, b, px = result.features_a, result.features_b, result.features_b.px_per_input_px
    within_px, turned_deg = inlier_px(settings) * px, result.matches.turned_deg
    better = result
    for _ in range(GUIDED_ROUNDS):
        assert better.matrix is not None
        reach_px = GUIDED_REACH * within_px
        matches = match_guided(a, b, better.matrix, reach_px, turned_deg=turned_deg)
        found = refined_plane(result.model, better.matrix, a, b, matches.pairs, within_px)
        if found.inliers.sum() < result.inliers.sum():
            return result
        again = replace(result, matches=matches, inliers=found.inliers)
        better = _judge_plane(again, found, settings, None, px)
        if not better.success:
            return result
    return better


def _judge_plane(
    result: Registration, found: Found, settings: RegistrationConfig, _: object, px: float
) -> Registration:
    """Enough matches, hardly by chance, a possible view, the right kind of model, well known."""
    a_hw, b_hw = result.features_a.size_hw, result.features_b.size_hw
    xy_a, xy_b = _at(result, found.inliers)
    model, matrix = settings.model, found.matrix
    radius = inlier_px(settings) * px
    objection = _too_few(
        result, settings, planar.POINTS_NEEDED[model], math.pi * radius**2 / (b_hw[0] * b_hw[1])
    )
    if objection and len(xy_a) < planar.POINTS_NEEDED[model]:
        return replace(result, reason=objection)
    common = verification.common_view(matrix, xy_a, xy_b, a_hw, b_hw)
    overlap_sd = planar.point_deviation_px(model, matrix, xy_a, xy_b, common.places_xy)
    corner_sd = planar.point_deviation_px(model, matrix, xy_a, xy_b, corners_xy(a_hw))
    result = replace(
        result,
        coverage=common.coverage,
        reprojection_px=_residuals(planar.distances_px(matrix, xy_a, xy_b)),
        overlap_sd_px=_rms(overlap_sd),
        corner_sd_px=_rms(corner_sd),
    )
    limit = settings.max_overlap_sd_px * px
    # First, for the shape of a model that is open is an accident.
    if not objection and len(common.places_xy) and not result.overlap_sd_px <= limit:
        objection = (
            f"the {len(xy_a)} matches that fit leave {MODELS[model].phrase} open by "
            f"{result.overlap_sd_px:.2g} px over the common view, {limit:.2g} px are allowed: "
            "they are too few, too scattered, or all in one place or on one line"
        )
    seen_scale = result.features_a.px_per_input_px / px
    objection = objection or verification.plane_objection(matrix, common, a_hw, seen_scale)
    objection = objection or _too_simple(result, settings, px)
    return _verdict(result, objection, matrix if objection else matrix / matrix[2, 2])


def _judge_two_views(
    result: Registration,
    found: Found,
    settings: RegistrationConfig,
    cameras: Cameras | None,
    px: float,
) -> Registration:
    height, width = result.features_b.size_hw
    xy_a, xy_b = _at(result, found.inliers)
    matrix = found.matrix
    in_px = matrix if cameras is None else epipolar.pixel_matrix(matrix, cameras)
    result = replace(
        result,
        coverage=verification.coverage_of(xy_a, result.features_a.size_hw),
        reprojection_px=_residuals(epipolar.sampson_px(in_px, xy_a, xy_b)),
    )
    within_px = inlier_px(settings) * px
    band = 2 * within_px * math.hypot(width, height) / (height * width)
    all_a, all_b = result.xy_a.astype(np.float64), result.xy_b.astype(np.float64)
    band = max(band, epipolar.wrong_share(in_px, all_a, all_b, within_px))
    points_needed = 7 if cameras is None else 5
    objection = _too_few(result, settings, points_needed, band)
    if not objection and cameras is None:
        plane = find("homography", xy_a, xy_b, PLANE_PX * px, None, settings)
        if plane is not None and plane.inliers.mean() >= verification.DEGENERATE_SHARE:
            objection = (
                f"{plane.inliers.mean():.0%} of the matches that fit lie on one plane, or the "
                'camera only turned, which leaves the epipoles open; register with "homography"'
            )
    if not objection and cameras is not None:
        turned = epipolar.turned_share(xy_a, xy_b, cameras, PLANE_PX * px)
        if turned >= verification.DEGENERATE_SHARE:
            objection = (
                f"a turn of the camera explains {turned:.0%} of the matches that fit, which "
                'leaves its movement open; register with "homography"'
            )
    result = _verdict(result, objection, matrix)
    if not result.success or found.pose is None:
        return result
    return replace(result, rotation=found.pose.rotation, translation=found.pose.translation)


def _too_few(
    result: Registration, settings: RegistrationConfig, points_needed: int, share: float
) -> str:
    """Why so many inliers are not enough; "" if they are."""
    matches, inliers = len(result.matches), int(result.inliers.sum())
    fitting = f"{inliers} of {matches} matches fit {MODELS[settings.model].phrase}"
    if inliers < settings.min_inliers:
        return (
            f"{fitting}, {settings.min_inliers} are asked for: the images show different "
            "things, or too little that is alike"
        )
    counts = matches, inliers
    if settings.model in TWO_VIEW_MODELS:  # their bands are long: neighbours fit together
        cell_px = CELL_PX * result.features_a.px_per_input_px
        xy_a = result.xy_a
        counts = (
            verification.distinct_places(xy_a, cell_px),
            verification.distinct_places(xy_a[result.inliers], cell_px),
        )
    chance = verification.log10_chance(
        *counts, points_needed, share, verification.SOLUTIONS.get(settings.model, 1)
    )
    if chance > math.log10(settings.max_false_alarms):
        return (
            f"{fitting}, which chance alone would bring about 10^{chance:.0f} times, "
            f"10^{math.log10(settings.max_false_alarms):.0f} are allowed: the images show "
            "different things, or too little that is alike"
        )
    return ""


def _too_simple(result: Registration, settings: RegistrationConfig, px: float) -> str:
    """Whether a homography fits many more matches; "" if not."""
    if settings.model == "homography":
        return ""
    order = shuffled(result.xy_a, result.xy_b, settings.seed)
    xy_a, xy_b = result.xy_a[order], result.xy_b[order]
    full = find("homography", xy_a, xy_b, inlier_px(settings) * px, None, settings)
    inliers, fitting = int(result.inliers.sum()), 0 if full is None else int(full.inliers.sum())
    if inliers >= SIMPLER_SHARE * fitting:
        return ""
    return (
        f"{MODELS[settings.model].phrase} fits {inliers} matches where a homography fits "
        f"{fitting}: "
        'the images differ by more; register with "homography"'
    )


def _verdict(result: Registration, objection: str, matrix: planar.Matrix) -> Registration:
    """The matrix is handed out only if nothing speaks against it."""
    if objection:
        return replace(result, reason=objection)
    return replace(result, success=True, reason=OK, matrix=matrix)


def _at(
    result: Registration, index: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return result.xy_a[index].astype(np.float64), result.xy_b[index].astype(np.float64)


def _residuals(distances: NDArray[np.float64]) -> Residuals:
    if len(distances) == 0:
        return NO_RESIDUALS
    return Residuals(float(np.median(distances)), _rms(distances))


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt((values**2).mean())) if len(values) else math.inf


@lru_cache(maxsize=1)
def _detector(checkpoint: str) -> Detector:
    return Detector(checkpoint, threshold=0.0)


def _features(
    source: Any, detector: Detector | None, checkpoint: str | Path, best: int
) -> Features:
    if isinstance(source, Features):
        return source.top(best)
    if isinstance(source, list | tuple):
        raise ConfigError(f"register takes one image at a time, got a {type(source).__name__}")
    detect = detector or _detector(str(checkpoint))
    found: Features = detect(source, max_keypoints=best)
    return found


def _matched(a: Any, b: Any, matches: Matches) -> tuple[Features, Features]:
    """Features that these matches can belong to."""
    if not isinstance(a, Features) or not isinstance(b, Features):
        raise ConfigError("matches are given, expected the Features that they index for a and b")
    if len(matches) and (
        matches.pairs.min() < 0 or (matches.pairs.max(axis=0) >= (len(a), len(b))).any()
    ):
        raise ConfigError(
            f"matches name keypoints beyond the {len(a)} of a and {len(b)} of b: pass the "
            "features that were matched"
        )
    return a, b
