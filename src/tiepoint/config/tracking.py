"""Settings of tracking: how keypoints of one frame are found again in the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from tiepoint.checks import check_positive, check_whole, check_within
from tiepoint.config.basics import setting


@dataclass(frozen=True)
class TrackingConfig:
    """How keypoints become tracks. Distances are in px of the network's input."""

    max_tracks: int = setting(
        300,
        "Number of points in a frame up to which new tracks start, best keypoints first; tracks "
        "continue with weaker keypoints too.",
        metavar="N",
    )
    max_gap: int = setting(
        5, "Maximum number of frames in which a track may be unseen and continue.", metavar="N"
    )
    search: float = setting(
        0.1,
        "Radius around the predicted position in which a keypoint is searched, as a share of the "
        "frame's longer side, 0..1.",
        metavar="R",
    )
    threshold_px: float = setting(
        1.5,
        "Maximum distance of a match from the motion of the frame or of its neighbours, px.",
        metavar="PX",
    )
    min_similarity: float = setting(
        0.5, "Minimum cosine similarity of a track's descriptor, -1..1.", metavar="C"
    )
    spacing_px: float = setting(
        4.0, "Minimum distance of a new track from the others, px.", metavar="PX"
    )
    keyframe_overlap: float = setting(
        0.5,
        "Share of the last keyframe's tracks, 0..1; a frame with fewer of them is a keyframe.",
        metavar="R",
    )
    keyframe_motion: float = setting(
        0.15,
        "Median motion since the last keyframe that makes a keyframe, as a share of the longer "
        "side.",
        metavar="R",
    )

    def __post_init__(self) -> None:
        check_whole("max_tracks", self.max_tracks, minimum=1, unit="tracks")
        check_whole("max_gap", self.max_gap, minimum=0, unit="frames")
        check_within("search", self.search, 0, 1, "a share of the longer side")
        check_positive("threshold_px", self.threshold_px, finite=True)
        check_within("min_similarity", self.min_similarity, -1, 1, "a cosine")
        check_within("spacing_px", self.spacing_px, 0, 1000, "a distance in px")
        check_within("keyframe_overlap", self.keyframe_overlap, 0, 1, "a share of the tracks")
        check_positive("keyframe_motion", self.keyframe_motion)


class TrackingOptions(TypedDict, total=False):
    """Settings of `TrackingConfig` by keyword."""

    max_tracks: int
    max_gap: int
    search: float
    threshold_px: float
    min_similarity: float
    spacing_px: float
    keyframe_overlap: float
    keyframe_motion: float
