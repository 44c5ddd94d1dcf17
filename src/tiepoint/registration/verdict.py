"""The verdict on a fitted model: one list of checks per model; the first objection refuses it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from tiepoint.architecture import CELL_PX
from tiepoint.config import Model
from tiepoint.geometry import apply_homography, corners_xy
from tiepoint.registration import epipolar, planar, verification
from tiepoint.registration.estimation import estimate_model, shuffled
from tiepoint.registration.fit import FORWARD, Fit, Pair, rms
from tiepoint.registration.models import PLANE_MODELS
from tiepoint.registration.result import NO_RESIDUALS, OK, Registration, Residuals

SIMPLER_SHARE = 0.75
"""A model simpler than a homography must fit at least this share of the matches that a homography
fits. A wrong model often fits one part of the images well and is off everywhere else."""

PLANE_PX = 3.0
"""Threshold at which a plane or a rotation explains a match, px of the network's input."""

DEGENERATE_SHARE = 0.8
"""A two-view model is open if a plane or a rotation alone explains this share of its inliers
(COLMAP, Schoenberger and Frahm 2016, section 4.1)."""

MAX_ZOOM = 30.0
"""Maximum local scale, up or down, in the common view. Keypoints are found again up to a zoom of
about 3 (measured)."""

MIN_AGREEMENT = 0.8
"""Least sum of the share of keypoints that look alike and the coverage by inliers. Unrelated
pictures under one overlay reach .62 (benchmarks/verdicts.py), true pairs of which a third has
changed .69 (measured)."""

ANSWERED, COPY, FEW_CELLS = 0.1, 0.6, 1 / 3
"""Without pictures: share of answered keypoints from which a cell agrees, share in the best cell
that only copies reach, and the least share of cells that agree if there is such a cell (measured).
"""

BLOCKS, BY_BLOCKS = 0.1, 0.5
"""Share of gradients at the edges of JPEG's blocks from which the compression is heavy, and the
share of inliers by whole blocks that is refused then. Chance brings 4 %."""

MAX_NEIGHBOUR_RATIO, MAX_NEIGHBOUR_RATIO_ALIKE = 0.15, 0.3
"""See `verification.neighbour_ratio`; the second where `SURELY_ALIKE`. At most .09 in 76 pairs with
known poses for the essential matrix, .24 for the fundamental matrix (measured)."""

NEIGHBOURS_OF = 2000
"""Most inliers whose neighbours are compared, because their distances need M M numbers."""

MIN_ALIKE, SURELY_ALIKE = 0.3, 0.8
"""Least share of the inliers of a two-view model that look alike in both pictures, and the share of
most true pairs. At least .56 in 76 pairs with known poses; at most .06 in frames of noise that
passed all other checks (measured)."""

DIFFERENT = "the images show different things, or too little that is alike"


Check = Callable[[Fit], str | None]
"""An objection in plain words; None without one."""


def objection_to(fit: Fit, checks: Iterable[Check]) -> str | None:
    """The first objection of several checks."""
    return next((text for check in checks if (text := check(fit)) is not None), None)


def report(fit: Fit, objection: str | None) -> Registration:
    """The result of a fit: without objection it contains the matrix, else the reason."""
    known, is_plane = objection is None, fit.facts.kind == "plane"
    forward = fit.names == FORWARD
    shown = fit if forward else fit.reversed()
    matrix, pose = shown.estimate.matrix, shown.estimate.pose
    coverage, distances = 0.0, np.empty(0)
    agreement = overlap_sd_px = corner_sd_px = math.nan
    if not is_plane:
        coverage = verification.coverage_of(shown.inliers_xy[0], shown.features_a.size_hw)
        distances = epipolar.sampson_px(shown.lines, *shown.inliers_xy)
    elif known or fit.inliers >= fit.facts.sample_size:
        coverage = fit.common.coverage
        agreement = math.nan if fit.share_alike is None else fit.share_alike
        distances = planar.distances_px(matrix, *shown.inliers_xy)
        corners = corners_xy(shown.features_a.size_hw)
        if forward:
            overlap_sd_px, corner_sd_px = fit.overlap_sd_px, rms(fit.deviations_px(corners))
        else:  # deviations follow from the fit in its own direction
            overlap_sd_px, corner_sd_px = (
                rms(fit.deviations_px(places, in_a=True))
                for places in (fit.common.places_xy, apply_homography(matrix, corners))
            )
    if known and is_plane:
        matrix = matrix / matrix[2, 2]
    return Registration(
        success=known,
        reason=OK if objection is None else objection,
        model=shown.settings.model,
        matrix=matrix if known else None,
        features_a=shown.features_a,
        features_b=shown.features_b,
        matches=shown.matches,
        inliers=shown.estimate.inliers,
        coverage=coverage,
        agreement=agreement,
        reprojection_px=_residuals(distances),
        overlap_sd_px=overlap_sd_px,
        corner_sd_px=corner_sd_px,
        rotation=pose.rotation if known and pose else None,
        translation=pose.translation if known and pose else None,
    )


def failure(pair: Pair, reason: str) -> Registration:
    """The result without any model."""
    none, model = np.zeros(len(pair.matches), bool), pair.settings.model
    return Registration(
        False, reason, model, None, pair.features_a, pair.features_b, pair.matches, none
    )


def enough_inliers(fit: Fit) -> str | None:
    """`min_inliers`."""
    if fit.inliers >= fit.settings.min_inliers:
        return None
    return f"{fit}, {fit.settings.min_inliers} are asked for: {DIFFERENT}"


def unlikely_by_chance(fit: Fit) -> str | None:
    """`max_false_alarms`: random matches would rarely agree on so good a model."""
    matches, inliers = len(fit.matches), fit.inliers
    if fit.facts.kind == "two-view":  # bands along lines are long, so neighbours fit together
        cell_px = CELL_PX * fit.features_a.px_per_input_px
        matches = verification.occupied_cells(fit.xy[0], cell_px)
        inliers = verification.occupied_cells(fit.inliers_xy[0], cell_px)
    size, solutions, rate = fit.facts.sample_size, fit.facts.solutions, _random_inlier_rate(fit)
    nfa = verification.log10_nfa(
        matches, inliers, sample_size=size, inlier_rate=rate, solutions=solutions
    )
    limit = math.log10(fit.settings.max_false_alarms)
    if nfa <= limit:
        return None
    return (
        f"{fit}, which chance alone would bring about 10^{nfa:.0f} times, "
        f"10^{limit:.0f} are allowed: {DIFFERENT}"
    )


def well_determined(fit: Fit) -> str | None:
    """`max_overlap_sd_px`. Before the checks of shape, because an open model has any shape."""
    limit = fit.settings.max_overlap_sd_px * fit.input_px
    if len(fit.common.places_xy) == 0 or fit.overlap_sd_px <= limit:
        return None
    return (
        f"the {fit.inliers} matches that fit leave {fit.facts.phrase} open by "
        f"{fit.overlap_sd_px:.2g} px over the common view, {limit:.2g} px are allowed: "
        "they are too few, too scattered, or all in one place or on one line"
    )


def not_mirrored(fit: Fit) -> str | None:
    """Two photographs of one surface from the same side have the same handedness."""
    mirrored = np.linalg.det(fit.estimate.matrix) < 0
    return (
        "one image would be the mirror image of the other; flip one of them" if mirrored else None
    )


def no_horizon(fit: Fit) -> str | None:
    """All of each image must be in front of the other camera."""
    there = planar.facing(fit.estimate.matrix, fit.inliers_xy[0])
    back = planar.facing(np.asarray(np.linalg.inv(there)), fit.inliers_xy[1])
    features = (fit.features_a, fit.features_b)
    for name, one, matrix in zip(fit.names, features, (there, back), strict=True):
        if not np.isfinite(apply_homography(matrix, corners_xy(one.size_hw))).all():
            return f"the horizon of the matched plane would run through image {name}"
    return None


def has_common_view(fit: Fit) -> str | None:
    """The images must overlap."""
    return None if len(fit.common.places_xy) else "the two images would have no common view"


def plausible_zoom(fit: Fit) -> str | None:
    """`MAX_ZOOM`, between the images as the network saw them."""
    scale = fit.features_a.px_per_input_px / fit.input_px
    zoom = verification.local_zoom(fit.estimate.matrix, fit.common.places_xy) * scale
    low, high = float(zoom.min(initial=1.0)), float(zoom.max(initial=1.0))
    if not (low < 1 / MAX_ZOOM or high > MAX_ZOOM):
        return None
    extreme = high if high > MAX_ZOOM else low
    return (
        f"image {fit.names[0]} would be scaled by {extreme:.2g} in places, which cannot be matched"
    )


def not_too_simple(fit: Fit) -> str | None:
    """`SIMPLER_SHARE`: a homography must not fit many more matches."""
    if fit.settings.model == "homography":
        return None
    xy_a, xy_b = fit.xy
    order = shuffled(xy_a, xy_b, fit.settings.seed)
    xy_a, xy_b = xy_a[order], xy_b[order]
    homography = estimate_model(xy_a, xy_b, model="homography", within_px=fit.within_px)
    fitting = 0 if homography is None else int(homography.inliers.sum())
    if fit.inliers >= SIMPLER_SHARE * fitting:
        return None
    return (
        f"{fit.facts.phrase} fits {fit.inliers} matches where a homography fits {fitting}: "
        'the images differ by more; register with "homography"'
    )


def not_one_plane(fit: Fit) -> str | None:
    """Matches of one plane, or of a camera that only rotated, leave the epipoles open."""
    plane = estimate_model(*fit.inliers_xy, model="homography", within_px=PLANE_PX * fit.input_px)
    share = 0.0 if plane is None else plane.inliers.mean()
    if share < DEGENERATE_SHARE:
        return None
    return (
        f"{share:.0%} of the matches that fit are on one plane, or the camera only rotated, "
        'which leaves the epipoles open; register with "homography"'
    )


def not_only_rotated(fit: Fit) -> str | None:
    """Matches of a camera that only rotated leave the translation open."""
    assert fit.cameras is not None
    share = epipolar.rotation_share(*fit.inliers_xy, fit.cameras, PLANE_PX * fit.input_px)
    if share < DEGENERATE_SHARE:
        return None
    return (
        f"a rotation of the camera explains {share:.0%} of the matches that fit, which leaves "
        'its translation open; register with "homography"'
    )


def not_bound_to_blocks(fit: Fit) -> str | None:
    """`BLOCKS`, `BY_BLOCKS`: corners of JPEG's blocks match without anything else in view."""
    share = fit.by_whole_blocks
    heavy = fit.block_share >= BLOCKS or fit.facts.kind == "two-view"  # depth moves by no such step
    if not heavy or share < BY_BLOCKS:
        return None
    return (
        f"{fit}, but {share:.0%} of these move by whole blocks of 8 px, as JPEG compression has "
        "them: the blocks may have matched in place of the scene"
    )


def whole_view_agrees(fit: Fit) -> str | None:
    """`MIN_AGREEMENT`: the rest of the common view, too, must look alike where it is superposed.

    Time stamps, frames and other fixed parts of a picture match perfectly without any common scene.
    """
    share = fit.share_alike
    if share is None:
        return _cells_agree(fit)
    if share + fit.common.coverage >= MIN_AGREEMENT:
        return None
    return (
        f"{fit}, but only {share:.0%} of the keypoints in the common view look alike there, and "
        f"the inliers cover {fit.common.coverage:.0%} of it: something fixed in both pictures, "
        "such as text or a frame, may have matched in place of the scene"
    )


def _cells_agree(fit: Fit) -> str | None:
    """The check of the whole view without pictures: by the descriptors of its keypoints.

    Hard pairs agree a little everywhere; an overlay agrees like a copy in few cells, and nowhere
    else.
    """
    cells = fit.answered_cells
    if cells is None or len(cells) == 0:
        return None
    agreeing = float((cells > ANSWERED).mean())
    if cells.max() < COPY or agreeing >= FEW_CELLS:
        return None
    return (
        f"{fit}, but only in {agreeing:.0%} of the common view do further keypoints agree with it: "
        "something fixed in both pictures, such as text or a frame, may have matched in place of "
        "the scene"
    )


def neighbours_move_alike(fit: Fit) -> str | None:
    """`MAX_NEIGHBOUR_RATIO`: epipolar lines leave the position along them open, surfaces do not.

    Matches between the same rows of two images fit a fundamental matrix wherever they are in them.
    """
    step = max(1, -(-fit.inliers // NEIGHBOURS_OF))
    xy_a, xy_b = (xy[::step] for xy in fit.inliers_xy)
    # Near the epipole of a camera that moves forward, neighbours spread in one of the images.
    ratio = min(verification.neighbour_ratio(*xy) for xy in ((xy_a, xy_b), (xy_b, xy_a)))
    surely = (fit.share_of_inliers_alike or 0.0) >= SURELY_ALIKE
    limit = MAX_NEIGHBOUR_RATIO_ALIKE if surely else MAX_NEIGHBOUR_RATIO
    if ratio <= limit:
        return None
    return (
        f"{fit}, but neighbouring matches move as differently as distant ones "
        f"(ratio {ratio:.2f}, {limit} is allowed): {DIFFERENT}"
    )


def inliers_look_alike(fit: Fit) -> str | None:
    """`MIN_ALIKE`: descriptors of noise match by its distance from the border of the image."""
    share = fit.share_of_inliers_alike
    if share is None or share >= MIN_ALIKE:
        return None
    return f"{fit}, but only {share:.0%} of these look alike in both pictures: {DIFFERENT}"


PLANE_CHECKS: tuple[Check, ...] = (
    enough_inliers,
    unlikely_by_chance,
    not_bound_to_blocks,
    well_determined,
    not_mirrored,
    no_horizon,
    has_common_view,
    plausible_zoom,
    not_too_simple,
)
TWO_VIEW_CHECKS: tuple[Check, ...] = (
    enough_inliers,
    unlikely_by_chance,
    neighbours_move_alike,
    inliers_look_alike,
)
CHECKS: dict[Model, tuple[Check, ...]] = {
    **dict.fromkeys(PLANE_MODELS, PLANE_CHECKS),
    "fundamental": (*TWO_VIEW_CHECKS, not_one_plane, not_bound_to_blocks),
    "essential": (*TWO_VIEW_CHECKS, not_only_rotated, not_bound_to_blocks),
}
"""The checks of each model, in order."""

WHOLE_VIEW_CHECKS: tuple[Check, ...] = (whole_view_agrees,)
"""Checks of plane models by what both pictures show, after rivals of the model are excluded."""


def _random_inlier_rate(fit: Fit) -> float:
    """Probability that a random match is an inlier of the model, 0..1."""
    height, width = fit.features_b.size_hw
    if fit.facts.kind == "plane":  # a disc around each point
        return math.pi * fit.within_px**2 / (height * width)
    band = 2 * fit.within_px * math.hypot(width, height) / (height * width)
    return max(band, epipolar.random_inlier_rate(fit.lines, *fit.xy, fit.within_px))


def _residuals(distances: NDArray[np.float64]) -> Residuals:
    if len(distances) == 0:
        return NO_RESIDUALS
    return Residuals(float(np.median(distances)), rms(distances))
