"""Figures on held-out pairs: labels, and the homographies and poses that matches give.

Precision on warps does not predict poses, so states of a run are compared by `score`, the poses of
two-camera pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tiepoint.evaluation.estimators import estimate_homography, estimate_pose
from tiepoint.evaluation.metrics import area_shares, corner_error
from tiepoint.evaluation.pose import pose_error_deg
from tiepoint.geometry import Matrix
from tiepoint.matching.learned.network_torch import MatcherNetwork, log_assignment
from tiepoint.registration.epipolar import Pose
from tiepoint.training.matcher.bank import Scenes
from tiepoint.training.matcher.batch import PairSide, best, collate, held_out_pairs, side_of
from tiepoint.training.matcher.losses import (
    MATCH_THRESHOLD,
    head_loss,
    match_figures,
    mutual_maxima,
)

KEYPOINTS, BATCH_PAIRS = 512, 8
"""Keypoints per image, and pairs that run at a time."""

SHIFTED = 0.05
"""Least distance between two cameras relative to that from the scene, for a pair of poses."""
INLIER_PX, POSE_DEG, CORNER_PX = 3.0, 10.0, 3.0
"""Inlier distance of the poses; their errors count up to `POSE_DEG`, those of homographies up to
`CORNER_PX`."""


@dataclass(frozen=True)
class HeldOut:
    """A held-out pair of views and its ground truth.

    Attributes:
        homography: 3x3 from A to B, px, for a flat scene.
        pose, intrinsics: Pose of B relative to A and K of both, for two cameras.
    """

    sides: tuple[PairSide, PairSide]
    homography: Matrix | None = None
    pose: Pose | None = None
    intrinsics: Matrix | None = None

    @property
    def kind(self) -> str:
        """Row of the pair: "planar" or "two_camera"."""
        return "planar" if self.homography is not None else "two_camera"

    def is_right(self, xy_a: NDArray[np.float32], xy_b: NDArray[np.float32]) -> float:
        """How good the transform of matches is, 0..1; M 2 px each."""
        if self.homography is not None:
            estimate = estimate_homography(xy_a, xy_b, 0)
            error = corner_error(estimate, self.homography, self.sides[0].size_hw)
            return float(error <= CORNER_PX)
        assert self.pose is not None and self.intrinsics is not None
        cameras = self.intrinsics, self.intrinsics
        error = pose_error_deg(estimate_pose(xy_a, xy_b, cameras, 0, INLIER_PX), self.pose)
        return float(area_shares(np.array([error]), POSE_DEG)[0])


class Validation:
    """Held-out pairs, each with its best `KEYPOINTS` keypoints."""

    def __init__(self, scenes: Scenes) -> None:
        self.pairs = [
            pair
            for scene, a, b in held_out_pairs(scenes)
            if (pair := _held_out(scenes, scene, a, b)) is not None
        ]

    @torch.no_grad()
    def measure(self, network: MatcherNetwork, device: torch.device) -> dict[str, dict[str, float]]:
        """Figures by row, "planar" and "two_camera"; rows without pairs are
        left out.

        Returns:
            "last_layer" (loss), "precision" and "recall". For flat scenes "within_3px": share of
            homographies with corners within 3 px. For two cameras "auc_10deg": area under the
            pose errors up to 10 degrees.
        """
        figures: dict[str, dict[str, float]] = {}
        for kind in ("planar", "two_camera"):
            pairs = [pair for pair in self.pairs if pair.kind == kind]
            sums: list[dict[str, float]] = []
            for first in range(0, len(pairs), BATCH_PAIRS):
                sums += _batch_figures(network, pairs[first : first + BATCH_PAIRS], device)
            if sums:
                figures[kind] = {name: _mean([s[name] for s in sums]) for name in sums[0]}
        return figures

    def nearest_neighbours(self) -> dict[str, dict[str, float]]:
        """The figures of mutual nearest neighbours, for comparison."""
        figures: dict[str, dict[str, float]] = {}
        for kind in ("planar", "two_camera"):
            rights = []
            for pair in self.pairs:
                if pair.kind == kind:
                    a, b = pair.sides
                    found = _mutual(a.descriptors @ b.descriptors.T)
                    rights.append(pair.is_right(a.xy[found[:, 0]], b.xy[found[:, 1]]))
            if rights:
                figures[kind] = {_right_name(kind): _mean(rights)}
        return figures


def score(figures: dict[str, dict[str, float]]) -> float:
    """The figure that states of a run are compared by: poses, or homographies without any."""
    if "two_camera" in figures:
        return figures["two_camera"]["auc_10deg"]
    return figures["planar"]["within_3px"] if figures else 0.0


def flat_figures(figures: dict[str, dict[str, float]]) -> dict[str, float]:
    """Rows and names in one level, for the log: `planar_recall` and the like."""
    return {
        f"{row}_{name}": round(value, 5)
        for row, values in figures.items()
        for name, value in values.items()
    }


def _batch_figures(
    network: MatcherNetwork, pairs: Sequence[HeldOut], device: torch.device
) -> list[dict[str, float]]:
    """The figures of each pair."""
    batch = collate([pair.sides for pair in pairs], device)
    part = log_assignment(network.last_head(batch.a, batch.b))
    found = mutual_maxima(part.matched, MATCH_THRESHOLD).cpu().numpy()  # B N_A N_B
    figures = []
    for row, pair in enumerate(pairs):
        one = slice(row, row + 1)
        truth = type(batch.labels)(*(values[one] for values in batch.labels))
        own = type(part)(*(values[one] for values in part))
        a, b = pair.sides
        rows, columns = np.nonzero(found[row, : len(a), : len(b)])
        figures.append(
            {
                "last_layer": float(head_loss(own, truth, 0.5)),
                **{name: float(value) for name, value in match_figures(own, truth).items()},
                _right_name(pair.kind): pair.is_right(a.xy[rows], b.xy[columns]),
            }
        )
    return figures


def _held_out(scenes: Scenes, scene: int, a: int, b: int) -> HeldOut | None:
    """A held-out pair; None if its cameras are at one place."""
    side_a, side_b = (
        best(side_of(scenes.view(scene, own), other), KEYPOINTS) for own, other in ((a, b), (b, a))
    )
    cameras, focal = scenes.cameras(scene)
    if focal == 0:
        homography = cameras[b][:, :3] @ np.linalg.inv(cameras[a][:, :3])
        return HeldOut((side_a, side_b), homography=homography)
    rotation = cameras[b][:, :3] @ cameras[a][:, :3].T
    translation = cameras[b][:, 3] - rotation @ cameras[a][:, 3]
    length = float(np.linalg.norm(translation))
    if length < SHIFTED * focal:  # most objects are at one focal length
        return None
    height, width = side_a.size_hw
    intrinsics = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    return HeldOut(
        (side_a, side_b), pose=Pose(rotation, translation / length), intrinsics=intrinsics
    )


def _mutual(similarity: NDArray[np.float32]) -> NDArray[np.int64]:
    """M 2: indices of mutual maxima."""
    if similarity.size == 0:
        return np.empty((0, 2), np.int64)
    forth, back = similarity.argmax(axis=1), similarity.argmax(axis=0)
    rows = np.flatnonzero(back[forth] == np.arange(len(forth)))
    return np.stack([rows, forth[rows]], axis=1)


def _right_name(kind: str) -> str:
    return "within_3px" if kind == "planar" else "auc_10deg"


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
