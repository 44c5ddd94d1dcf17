"""Pairs of images with known cameras: how far the estimated pose is from the true one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.table import Table

from tiepoint import images
from tiepoint.errors import FormatError, TiepointError
from tiepoint.evaluation import metrics
from tiepoint.evaluation.methods import Method
from tiepoint.evaluation.pairs import (
    PAIRS_FILE,
    Failure,
    Grey,
    grey_uint8,
    group_names,
    size_hw_of,
    with_own_names,
)
from tiepoint.evaluation.partial import Partial
from tiepoint.evaluation.report import ALL, OVER_PAIRS, Mean, cell, document, mean_of
from tiepoint.evaluation.run import Record, measured_pairs
from tiepoint.evaluation.settings import PoseSettings
from tiepoint.features import Features
from tiepoint.geometry import resize_matrix
from tiepoint.matching.match import match
from tiepoint.registration import epipolar

Matrix = NDArray[np.float64]

FIELDS = 2 + 8 + 16
"""Of a line: two names, fx fy cx cy of both cameras, the 4x4 from A to B."""


@dataclass(frozen=True, eq=False)
class LoadedPose:
    """Two images at evaluation size, and the truth between them.

    Attributes:
        image_a, image_b: `H W` uint8, grey.
        cameras: K_A and K_B, 3x3, of these images.
        pose: X_B = R X_A + t, t of unit length.
        names: Of the two images in a file of features.
    """

    image_a: Grey
    image_b: Grey
    cameras: tuple[Matrix, Matrix]
    pose: epipolar.Pose
    names: tuple[str, str]


@dataclass(frozen=True, eq=False)
class PosePair:
    """Two image files, their cameras in px of these files, and the pose between them.

    Attributes:
        names: Of the images, relative to the set's folder, with `/`.
    """

    group: str
    name: str
    path_a: Path
    path_b: Path
    cameras: tuple[Matrix, Matrix]
    pose: epipolar.Pose
    names: tuple[str, str]

    def load(self, long_side: int) -> LoadedPose:
        """Read both images, each brought down to `long_side` px, the cameras carried along.

        Raises:
            TiepointError: An image cannot be read.
        """
        pixels = [images.read(path).pixels for path in (self.path_a, self.path_b)]
        small = [grey_uint8(one, long_side) for one in pixels]
        a, b = (
            resize_matrix(size_hw_of(full), size_hw_of(less)) @ camera
            for full, less, camera in zip(pixels, small, self.cameras, strict=True)
        )
        return LoadedPose(small[0], small[1], (a, b), self.pose, self.names)


@dataclass(frozen=True)
class PoseMeasured:
    """One method's figures on one pair.

    Attributes:
        keypoints_a, keypoints_b: Points matched, at most k.
        matches, correct: Mutual nearest neighbours, and those near the true epipolar lines.
        seed_errors_deg: The larger of the angles by which rotation and direction of translation
            are off, for each estimate; 180 where there is none.
    """

    keypoints_a: int
    keypoints_b: int
    matches: int
    correct: int
    seed_errors_deg: tuple[float, ...]

    @property
    def error_deg(self) -> float:
        """The median over the seeds."""
        return float(np.median(self.seed_errors_deg))

    @property
    def precision(self) -> float:
        """Share of the matches that are near their lines; 0 without matches."""
        return self.correct / self.matches if self.matches else 0.0


@dataclass(frozen=True)
class PoseEvaluation:
    """Records by pair, then by method, in the order given; and what could not be read."""

    settings: PoseSettings
    methods: tuple[Method, ...]
    records: tuple[Record[PoseMeasured], ...]
    failures: tuple[Failure, ...]


@dataclass(frozen=True)
class PoseRow:
    """One method on one group of pairs.

    Attributes:
        keypoints: Mean number of points matched per image.
        auc: Area under the share of pairs over their error, up to so many degrees, by degrees.
        matches, correct, precision: Means over pairs.
    """

    group: str
    method: str
    pairs: int
    keypoints: float
    auc: dict[float, Mean]
    matches: Mean
    correct: Mean
    precision: Mean


def read_pose_folders(folders: Sequence[Path]) -> tuple[list[PosePair], list[Failure]]:
    """The pairs of several folders, each its own group; a folder that fails is a failure."""
    pairs: list[PosePair] = []
    failures: list[Failure] = []
    for folder, group in zip(folders, group_names(folders), strict=True):
        try:
            found, broken = read_pose_folder(folder, group)
        except TiepointError as error:
            found, broken = [], [Failure(group, "", str(error))]
        pairs += found
        failures += broken
    return with_own_names(pairs), failures


def read_pose_folder(folder: Path, group: str) -> tuple[list[PosePair], list[Failure]]:
    """The pairs of a folder whose `pairs.txt` holds cameras and poses.

    A line: `imgA imgB fxA fyA cxA cyA fxB fyB cxB cyB` and the 4x4 from A to B, row by row, with
    X_B = T X_A, x right, y down, z forward; pixel (0, 0) is the centre of the top-left pixel.

    Raises:
        FormatError: No such folder or file, or no pairs in it.
    """
    path = folder / PAIRS_FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: cannot be read ({error}); expected a list of pairs") from error
    pairs: list[PosePair] = []
    failures: list[Failure] = []
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        try:
            pairs.append(_pair(folder, group, fields))
        except FormatError as error:
            name = " ".join(fields[:2])
            failures.append(Failure(group, name, f"{path}, line {number}: {error}"))
    if not pairs and not failures:
        raise FormatError(f"{path}: no pairs in it")
    return pairs, failures


def _pair(folder: Path, group: str, fields: Sequence[str]) -> PosePair:
    if len(fields) != FIELDS:
        raise FormatError(
            f"{len(fields)} fields, expected {FIELDS}: imgA imgB, fx fy cx cy of both cameras, and "
            "the 16 numbers of the 4x4 from A to B"
        )
    try:
        numbers = np.array([float(field) for field in fields[2:]])
    except ValueError as error:
        raise FormatError(f"{error}, expected numbers") from error
    transform = numbers[8:].reshape(4, 4)
    rotation, moved = transform[:3, :3], transform[:3, 3]
    turned = np.isfinite(numbers).all() and np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3)
    if not turned or np.linalg.det(rotation) < 0 or not np.linalg.norm(moved) > 0:
        raise FormatError("the 4x4 holds no rotation, or no translation")
    cameras = []
    for fx, fy, cx, cy in numbers[:8].reshape(2, 4):
        if fx <= 0 or fy <= 0:
            raise FormatError(f"focal lengths are {fx:g} and {fy:g} px, expected more than 0")
        cameras.append(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]))
    pose = epipolar.Pose(rotation, moved / np.linalg.norm(moved))
    name = " ".join(fields[:2])
    return PosePair(
        group, name, folder / fields[0], folder / fields[1], (cameras[0], cameras[1]), pose,
        (fields[0], fields[1]),
    )  # fmt: skip


def evaluate_poses(
    pairs: Sequence[PosePair],
    methods: Sequence[Method],
    settings: PoseSettings,
    *,
    failures: Sequence[Failure] = (),
    workers: int = 1,
    partial: Partial | None = None,
    on_pair: Callable[[], None] = lambda: None,
) -> PoseEvaluation:
    """Run every method on every pair; arguments as for `run.evaluate`."""
    records, lost = measured_pairs(
        pairs, methods, lambda pair: _measure_pair(pair, methods, settings), PoseMeasured,
        failures=failures, workers=workers, partial=partial, on_pair=on_pair,
    )  # fmt: skip
    return PoseEvaluation(settings, tuple(methods), records, lost)


def _measure_pair(
    pair: PosePair, methods: Sequence[Method], settings: PoseSettings
) -> list[PoseMeasured]:
    loaded = pair.load(settings.long_side)
    found = []
    for method in methods:
        a = method.features(loaded.image_a, loaded.names[0], settings.k)
        b = method.features(loaded.image_b, loaded.names[1], settings.k)
        found.append(measure_pose(a.top(settings.k), b.top(settings.k), loaded, settings))
    return found


def measure_pose(
    a: Features, b: Features, pair: LoadedPose, settings: PoseSettings
) -> PoseMeasured:
    """Match, estimate the pose once per seed, and compare it with the truth."""
    pairs = match(a, b, rotation=settings.rotation).pairs  # M 2
    xy_a, xy_b = a.xy[pairs[:, 0]], b.xy[pairs[:, 1]]  # M 2
    lines = epipolar.pixel_matrix(pair.pose.essential, pair.cameras)
    off_px = epipolar.sampson_px(lines, xy_a, xy_b)  # M
    errors = [
        pose_error_deg(estimate_pose(xy_a, xy_b, pair.cameras, seed, settings.inlier_px), pair.pose)
        for seed in range(settings.seeds)
    ]
    correct = int((off_px <= settings.correct_px).sum())
    return PoseMeasured(len(a), len(b), len(pairs), correct, tuple(errors))


def estimate_pose(
    xy_a: NDArray[np.float32],
    xy_b: NDArray[np.float32],
    cameras: tuple[Matrix, Matrix],
    seed: int,
    inlier_px: float,
) -> epipolar.Pose | None:
    """MAGSAC's pose of matched points in an order shuffled by `seed`, refined on its inliers."""
    order = np.random.default_rng(seed).permutation(len(xy_a))
    a, b = xy_a[order].astype(np.float64), xy_b[order].astype(np.float64)
    pose = epipolar.pose_consensus(a, b, cameras, inlier_px / 2)
    return None if pose is None else epipolar.refine_pose(pose, a, b, cameras, inlier_px)[0]


def pose_error_deg(found: epipolar.Pose | None, truth: epipolar.Pose) -> float:
    """The larger of the errors of rotation and of the translation's direction; 180 without one."""
    if found is None:
        return 180.0
    cosine = (np.trace(found.rotation.T @ truth.rotation) - 1) / 2
    turned = math.degrees(math.acos(float(np.clip(cosine, -1, 1))))
    along = float(np.clip(found.translation @ truth.translation, -1, 1))
    return max(turned, math.degrees(math.acos(along)))


def pose_rows(evaluation: PoseEvaluation) -> list[PoseRow]:
    """A row per method over all pairs, then per group and method; groups as they first came."""
    groups = list(dict.fromkeys(record.group for record in evaluation.records))
    found = []
    for group in [ALL, *groups] if len(groups) > 1 else groups:
        for method in evaluation.methods:
            chosen = [
                record.measured
                for record in evaluation.records
                if record.method == method.name and group in (ALL, record.group)
            ]
            errors = np.array([one.error_deg for one in chosen])
            found.append(
                PoseRow(
                    group,
                    method.name,
                    len(chosen),
                    float(np.mean([(one.keypoints_a + one.keypoints_b) / 2 for one in chosen])),
                    {
                        t: mean_of(metrics.area_shares(errors, t))
                        for t in evaluation.settings.auc_deg
                    },
                    mean_of(np.array([one.matches for one in chosen], np.float64)),
                    mean_of(np.array([one.correct for one in chosen], np.float64)),
                    mean_of(np.array([one.precision for one in chosen])),
                )
            )
    return found


def errors_deg(evaluation: PoseEvaluation, method: str) -> list[float]:
    """A method's error on each pair, in order."""
    return [one.measured.error_deg for one in evaluation.records if one.method == method]


def pose_table(evaluation: PoseEvaluation) -> Table:
    """The rows for a terminal; below each mean its 95 % interval."""
    settings = evaluation.settings
    shown = Table(
        title="AUC of the pose's error at so many degrees",
        caption=f"Under each mean its 95 % interval, pairs resampled. k = {settings.k}, long side "
        f"{settings.long_side} px, MAGSAC {settings.inlier_px / 2:g} px and least squares on the "
        f"inliers, median of {settings.seeds} seeds. Correct: matches within "
        f"{settings.correct_px:g} px of the true epipolar lines.",
        box=box.SIMPLE_HEAD,
    )
    shown.add_column("set")
    shown.add_column("method", no_wrap=True)
    names = ["pairs", "points", *(f"{t:g} deg" for t in settings.auc_deg)]
    for name in [*names, "matches", "correct", "precision"]:
        shown.add_column(name, justify="right", no_wrap=True)
    for row, first in _with_first(pose_rows(evaluation)):
        if first and row.group != ALL:
            shown.add_section()
        cells = [row.group if first else "", row.method, str(row.pairs), f"{row.keypoints:.0f}"]
        cells += [cell(value, 2) for value in row.auc.values()]
        shown.add_row(*cells, cell(row.matches, 0), cell(row.correct, 0), cell(row.precision, 2))
    return shown


def pose_json(evaluation: PoseEvaluation, **more: Any) -> str:
    """Everything, as `report.as_json` for homographies."""
    pairs = [
        {
            "group": record.group,
            "pair": record.pair,
            "method": record.method,
            **asdict(record.measured),
            "error_deg": record.measured.error_deg,
            "precision": record.measured.precision,
        }
        for record in evaluation.records
    ]
    found = [asdict(row) for row in pose_rows(evaluation)]
    settings = {**asdict(evaluation.settings), **OVER_PAIRS}
    return document(settings, evaluation.methods, found, pairs, evaluation.failures, more)


def _with_first(rows: Sequence[PoseRow]) -> Iterator[tuple[PoseRow, bool]]:
    last = None
    for row in rows:
        yield row, row.group != last
        last = row.group
