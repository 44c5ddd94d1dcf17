"""Evaluation by relative poses: the error of rotation and translation, with known cameras."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tiepoint.errors import FormatError
from tiepoint.evaluation import metrics, summary
from tiepoint.evaluation.estimators import estimate_pose
from tiepoint.evaluation.methods import Method, Pairing, nearest_neighbours
from tiepoint.evaluation.metrics import Mean, mean_of
from tiepoint.evaluation.pair_lists import PairFiles, files_of_line
from tiepoint.evaluation.settings import FrameSize, PoseSettings
from tiepoint.evaluation.sizes import LoadedImages, in_frame
from tiepoint.evaluation.summary import mean_cell
from tiepoint.evaluation.task import ErrorAxis, Figures, Task
from tiepoint.features import Features
from tiepoint.geometry import Matrix
from tiepoint.registration import epipolar


@dataclass(frozen=True, eq=False)
class LoadedPose(LoadedImages):
    """Two images at evaluation size, their K_A and K_B (3x3), and X_B = R X_A + t, |t| = 1."""

    cameras: tuple[Matrix, Matrix]
    pose: epipolar.Pose


@dataclass(frozen=True, eq=False)
class PosePair(PairFiles):
    """Two image files, their cameras in px of these files, and the pose between them."""

    cameras: tuple[Matrix, Matrix]
    pose: epipolar.Pose

    def load(self, long_side: int) -> LoadedPose:
        """Both images, downscaled to `long_side` px, and their cameras; raises as `read` does."""
        frame = FrameSize(long_side=long_side)
        (image_a, to_a), (image_b, to_b) = (in_frame(pixels, frame) for pixels in self.read())
        cameras = to_a @ self.cameras[0], to_b @ self.cameras[1]
        return LoadedPose(image_a, image_b, cameras, self.pose, names=self.names)


@dataclass(frozen=True)
class PoseFigures(Figures):
    """One method's figures on one pair.

    Attributes:
        correct: Number of matches near the true epipolar lines.
        seed_errors_deg: Error of each estimate: the larger of the errors of rotation and of the
            translation's direction; 180 without an estimate.
    """

    correct: int
    seed_errors_deg: tuple[float, ...]

    @property
    def error_deg(self) -> float:
        """The median over the seeds."""
        return float(np.median(self.seed_errors_deg))

    @property
    def precision(self) -> float:
        """Share of correct matches; 0 without matches."""
        return self.correct / self.matches if self.matches else 0.0


@dataclass(frozen=True)
class PoseMeans:
    """One method's means over pairs; `auc` is the area up to each limit in degrees."""

    auc: dict[float, Mean]
    matches: Mean
    correct: Mean
    precision: Mean


def parse_line(folder: Path, group: str, fields: Sequence[str]) -> PosePair:
    """A line of `pairs.txt` with two images, both cameras and the pose from A to B.

    `imgA imgB fxA fyA cxA cyA fxB fyB cxB cyB` and the 4x4 T, row by row: X_B = T X_A, x right,
    y down, z forward. Pixel (0, 0) is the centre of the top-left pixel.

    Raises:
        FormatError: Not numbers, not a camera, or not a rotation and a translation.
    """
    try:
        numbers = np.array([float(field) for field in fields[2:]])
    except ValueError as error:
        raise FormatError(f"{error}, expected numbers") from error
    transform = numbers[8:].reshape(4, 4)
    rotation, translation = transform[:3, :3], transform[:3, 3]
    length = np.linalg.norm(translation)
    valid = np.isfinite(numbers).all() and length > 0 and np.linalg.det(rotation) > 0
    if not valid or not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3):
        raise FormatError("the 4x4 holds no rotation, or no translation")
    cameras = []
    for fx, fy, cx, cy in numbers[:8].reshape(2, 4):
        if fx <= 0 or fy <= 0:
            raise FormatError(f"focal lengths are {fx:g} and {fy:g} px, expected more than 0")
        cameras.append(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]))
    pose = epipolar.Pose(rotation, translation / length)
    return PosePair(*files_of_line(folder, group, fields), (cameras[0], cameras[1]), pose)


def measure(
    a: Features,
    b: Features,
    pair: LoadedPose,
    settings: PoseSettings,
    pairing: Pairing = nearest_neighbours,
) -> PoseFigures:
    """Match, estimate the pose once per seed, and compare it with the ground truth."""
    pairs = pairing(a, b, settings.rotation).pairs  # M 2
    xy_a, xy_b = a.xy[pairs[:, 0]], b.xy[pairs[:, 1]]  # M 2
    fundamental = epipolar.pixel_matrix(pair.pose.essential, pair.cameras)
    off_px = epipolar.sampson_px(fundamental, xy_a, xy_b)  # M
    estimates = (
        estimate_pose(xy_a, xy_b, pair.cameras, seed, settings.inlier_px)
        for seed in range(settings.seeds)
    )
    errors_deg = tuple(pose_error_deg(pose, pair.pose) for pose in estimates)
    correct = int((off_px <= settings.correct_px).sum())
    return PoseFigures(len(a), len(b), len(pairs), correct, errors_deg)


def pose_error_deg(estimate: epipolar.Pose | None, truth: epipolar.Pose) -> float:
    """The larger of the errors of rotation and of the translation's direction; 180 without one."""
    if estimate is None:
        return 180.0
    cosine = (np.trace(estimate.rotation.T @ truth.rotation) - 1) / 2
    rotation_deg = math.degrees(math.acos(float(np.clip(cosine, -1, 1))))
    cosine = float(np.clip(estimate.translation @ truth.translation, -1, 1))
    return max(rotation_deg, math.degrees(math.acos(cosine)))


def _measure_pair(
    pair: PosePair, methods: Sequence[Method], settings: PoseSettings
) -> list[PoseFigures]:
    loaded, k = pair.load(settings.long_side), settings.k
    figures = []
    for method in methods:
        a, b = method.features_of_pair(loaded, k)
        figures.append(measure(a.top(k), b.top(k), loaded, settings, method.pairing))
    return figures


def _average(figures: Sequence[PoseFigures], settings: PoseSettings) -> PoseMeans:
    errors = np.array([one.error_deg for one in figures])
    return PoseMeans(
        {limit: mean_of(metrics.area_shares(errors, limit)) for limit in settings.auc_deg},
        mean_of([one.matches for one in figures]),
        mean_of([one.correct for one in figures]),
        mean_of([one.precision for one in figures]),
    )


def _cells(means: PoseMeans) -> dict[str, str]:
    return {
        **{f"{limit:g} deg": mean_cell(area, 2) for limit, area in means.auc.items()},
        "matches": mean_cell(means.matches, 0),
        "correct": mean_cell(means.correct, 0),
        "precision": mean_cell(means.precision, 2),
    }


def _caption(settings: PoseSettings) -> str:
    return (
        f"Under each mean its 95 % interval, pairs resampled. k = {settings.k}, long side "
        f"{settings.long_side} px, MAGSAC {settings.inlier_px / 2:g} px and least squares on the "
        f"inliers, median of {settings.seeds} seeds. Correct: matches within "
        f"{settings.correct_px:g} px of the true epipolar lines."
    )


POSE = Task(
    kind="pose",
    line="imgA imgB, fx fy cx cy of both cameras, and the 16 numbers of the 4x4 from A to B",
    field_count=2 + 8 + 16,
    parse_line=parse_line,
    measure=_measure_pair,
    figures=PoseFigures,
    derived=("error_deg", "precision"),
    error_axis=ErrorAxis("error_deg", 20.0, "degrees"),
    average=_average,
    cells=_cells,
    title="AUC of the pose error up to N degrees",
    caption=_caption,
    constants=lambda settings: summary.OVER_PAIRS,
)
"""Pairs with known cameras; see `parse_line`."""
