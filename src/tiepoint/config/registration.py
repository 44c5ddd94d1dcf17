"""Settings of a registration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypedDict, get_args

from tiepoint.checks import check_choice, check_positive, check_whole
from tiepoint.config.basics import setting
from tiepoint.config.matching import LAYERS_TEXT, METHOD_TEXT, MatchMethod, check_method

PoseSearch = Literal["opencv", "poselib"]
SurfaceName = Literal["auto", "plane", "sphere"]
Model = Literal["homography", "affine", "similarity", "translation", "fundamental", "essential"]


@dataclass(frozen=True)
class RegistrationConfig:
    """Estimation of the transform between two images, and limits that a result must meet.

    The limits were chosen on pairs of unrelated photographs and on pairs with ground truth
    (benchmarks/registration.py). Distances are in px of the network's input: for a photograph of
    four times `max_side`, they are four times as large in its own px.
    """

    model: Model = setting(
        "homography",
        "Geometric model. homography: planes and rotating cameras; affine, similarity, "
        "translation: simpler transforms; fundamental, essential: two views of a scene with depth.",
    )
    method: MatchMethod = setting("nearest", METHOD_TEXT)
    layers: int | None = setting(None, LAYERS_TEXT, metavar="N")
    max_keypoints: int = setting(
        1000, "Maximum number of keypoints per image, best first.", metavar="N"
    )
    threshold_px: float | None = setting(
        None,
        "Inlier threshold: maximum distance from the model, px; None takes the model's own.",
        metavar="PX",
    )
    min_inliers: int = setting(15, "Minimum number of inliers.", metavar="N")
    max_false_alarms: float = setting(
        # A contrario: Moisan and Stival (IJCV 2004).
        1e-8,
        "Maximum number of false alarms (NFA): equally good models expected if every match were "
        "random.",
    )
    max_overlap_sd_px: float = setting(
        3.0, "Maximum standard deviation of the model over the common view, px.", metavar="PX"
    )
    guided: bool = setting(
        True,
        "Guided matching: match again near the positions that a plane model predicts, and refit.",
    )
    pose_search: PoseSearch = setting(
        "opencv", "Solver of the essential matrix; poselib needs the extra 'pose'."
    )
    seed: int = setting(0, "Seed of the robust estimation.", metavar="N")

    def __post_init__(self) -> None:
        check_choice("model", self.model, get_args(Model))
        check_method(self.method, self.layers)
        check_choice("pose_search", self.pose_search, get_args(PoseSearch))
        check_whole("max_keypoints", self.max_keypoints, minimum=1, unit="keypoints")
        check_whole("min_inliers", self.min_inliers, minimum=1, unit="matches")
        check_whole("seed", self.seed, minimum=0, unit="a seed")
        check_positive("max_false_alarms", self.max_false_alarms)
        check_positive("max_overlap_sd_px", self.max_overlap_sd_px)
        if self.threshold_px is not None:
            check_positive("threshold_px", self.threshold_px)


class RegistrationOptions(TypedDict, total=False):
    """Settings of `RegistrationConfig` by keyword."""

    model: Model
    method: MatchMethod
    layers: int | None
    max_keypoints: int
    threshold_px: float | None
    min_inliers: int
    max_false_alarms: float
    max_overlap_sd_px: float
    guided: bool
    pose_search: PoseSearch
    seed: int
