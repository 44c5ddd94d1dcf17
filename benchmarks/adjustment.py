"""What the covariances of keypoints are worth in an adjustment: weighted against equal weights.

    python benchmarks/adjustment.py ../shared/eval/strecha [-c base] [--work FOLDER]

Surveyed cameras, keypoints and verified matches of `tiepoint colmap`, random subsets. Both ways
minimise Cauchy's robust cost, with the scale that the residuals have (MAD), from the surveyed pose:
- two views: the relative pose, by the Sampson distances of n matches over their deviations;
- a bundle of four consecutive cameras and n tracks, by the reprojection errors, whitened.
A ratio below 1 is a gain by the covariances; its 95 % interval resamples pairs or windows of
images. The third column weighs by random covariances: those of other keypoints of the same image.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from reconstruction import KEYPOINTS, SETS, models_of, write_tiepoint
from survey import Pose, Survey, angle_deg, centre_of, pose_errors, read_survey
from tiepoint.batch.reconstruction import load_pycolmap
from tiepoint.detector import Detector
from tiepoint.features import Features
from tiepoint.formats.colmap import ColmapDatabase
from tiepoint.geometry import Matrix
from tiepoint.registration.derivatives import homogeneous
from tiepoint.registration.epipolar import cross, sampson_px

Array = NDArray[np.float64]

WEIGHTS = ("equal", "covariance", "shuffled")
MATCHES, TRACKS = (30, 100), (40, 100)
SUBSETS, SUBSETS_OF_BUNDLES = 4, 8
WINDOW = 4
WITHIN_PX = 4.0
"""Distance from the surveyed epipolar line from which a match counts as another point."""
LEAST_DISTANCE_M = 0.5
"""Distance of two cameras from which their direction is known well."""
BOOTSTRAP = 2000
STEPS = 40


@dataclass(frozen=True)
class Points:
    """Keypoints of one image: N 2 px and N 2 2 px^2."""

    xy: Array
    covariance: Array


def points_of(features: Features) -> Points:
    """The positions and covariances of features."""
    assert features.covariance is not None
    return Points(features.xy.astype(np.float64), features.covariance.astype(np.float64))


def weighting(points: Points, name: str, rng: np.random.Generator) -> Array:
    """N 2 2: the covariances that a way of weighing assumes, px^2; 1 px^2 in the median."""
    if name == "equal":
        return np.broadcast_to(np.eye(2), points.covariance.shape).copy()
    used = points.covariance
    if name == "shuffled":
        used = used[rng.permutation(len(used))]
    typical = np.median(np.trace(points.covariance, axis1=1, axis2=2)) / 2
    scaled: Array = used / typical
    return scaled


def robust_scale(residuals: Array) -> float:
    """Standard deviation of residuals by their median, per number."""
    return max(1.4826 * float(np.median(np.abs(residuals))), 1e-6)


def moved(pose: Pose, step: Array) -> Pose:
    """A pose after a small rotation and shift, 6 numbers."""
    return cv2.Rodrigues(step[:3])[0] @ pose[0], pose[1] + step[3:]


def relative(truth: dict[str, Pose], a: str, b: str) -> Pose:
    """X_B = R X_A + t, |t| = 1."""
    rotation = truth[b][0] @ truth[a][0].T
    translation = truth[b][1] - rotation @ truth[a][1]
    return rotation, translation / np.linalg.norm(translation)


def two_view_error(a: Points, b: Points, truth: Pose, camera: Matrix, sigmas: list[Array]) -> float:
    """The error of the relative pose of M matches: rotation or direction, the larger, degrees."""
    back = np.linalg.inv(camera)
    x_a, x_b = homogeneous(a.xy), homogeneous(b.xy)
    sideways = np.linalg.svd(truth[1].reshape(1, 3))[2][1:]  # 2 3

    def pose_at(step: Array) -> Pose:
        shift = truth[1] + step[3:] @ sideways
        return cv2.Rodrigues(step[:3])[0] @ truth[0], shift / np.linalg.norm(shift)

    def residuals(step: Array) -> Array:
        rotation, translation = pose_at(step)
        lines = back.T @ (cross(translation) @ rotation) @ back
        normal_b, normal_a = (x_a @ lines.T), (x_b @ lines)  # M 3
        variance = sum(
            np.einsum("mi,mij,mj->m", normal[:, :2], sigma, normal[:, :2])
            for normal, sigma in zip((normal_a, normal_b), sigmas, strict=True)
        )
        result: Array = (x_b * normal_b).sum(axis=1) / np.sqrt(variance)
        return result

    scale = robust_scale(residuals(np.zeros(5)))
    solved = least_squares(residuals, np.zeros(5), loss="cauchy", f_scale=scale, x_scale="jac")
    rotation, translation = pose_at(solved.x)
    off = float(np.linalg.norm(translation - truth[1]))
    return max(angle_deg(rotation, truth[0]), float(np.degrees(2 * np.arcsin(min(1.0, off / 2)))))


@dataclass(frozen=True)
class KnownPair:
    """Two images with M true matches, index in A and in B, and their surveyed relative pose."""

    names: tuple[str, str]
    pairs: NDArray[np.int64]
    truth: Pose


def known_pairs(
    survey: Survey, features: dict[str, Features], stored: dict[tuple[str, str], Any],
    camera: Matrix,
) -> list[KnownPair]:  # fmt: skip
    """The pairs of images, with their stored matches near the surveyed epipolar lines."""
    known, back = [], np.linalg.inv(camera)
    for a, b in combinations(sorted(survey.poses), 2):
        apart = centre_of(survey.poses[a]) - centre_of(survey.poses[b])
        if np.linalg.norm(apart) < LEAST_DISTANCE_M or (a, b) not in stored:
            continue
        truth, pairs = relative(survey.poses, a, b), stored[a, b]
        lines = back.T @ cross(truth[1]) @ truth[0] @ back
        xy_a, xy_b = (features[n].xy[pairs[:, k]].astype(float) for k, n in enumerate((a, b)))
        near = sampson_px(lines, xy_a, xy_b) <= WITHIN_PX
        known.append(KnownPair((a, b), pairs[near], truth))
    return known


def stored_matches(path: Path) -> dict[tuple[str, str], NDArray[np.int64]]:
    """Names of two images -> their matches in a database, M 2."""
    found = {}
    with load_pycolmap().Database.open(path) as database:
        names = {image.image_id: image.name for image in database.read_all_images()}
        for id_a, id_b in combinations(sorted(names), 2):
            matches = np.asarray(database.read_matches(id_a, id_b), np.int64).reshape(-1, 2)
            found[names[id_a], names[id_b]] = matches
    return found


def two_view_trials(
    features: dict[str, Features], known: list[KnownPair], camera: Matrix, count: int
) -> Iterator[list[tuple[float, ...]]]:
    """For each pair of images: the errors of each subset of matches, by way of weighing."""
    rng = np.random.default_rng(1)
    for pair in known:
        if len(pair.pairs) >= 2 * count:
            yield [
                _two_view_trial(features, pair.names, pair.pairs, pair.truth, camera, count, rng)
                for _ in range(SUBSETS)
            ]


def _two_view_trial(
    features: dict[str, Features],
    names: tuple[str, str],
    pairs: NDArray[np.int64],
    truth: Pose,
    camera: Matrix,
    count: int,
    rng: np.random.Generator,
) -> tuple[float, ...]:
    chosen = pairs[rng.choice(len(pairs), count, replace=False)]
    points = [
        points_of(features[name].take(index)) for name, index in zip(names, chosen.T, strict=True)
    ]
    errors = []
    for way in WEIGHTS:
        sigmas = [weighting(one, way, rng) for one in points]
        errors.append(two_view_error(points[0], points[1], truth, camera, sigmas))
    return tuple(errors)


@dataclass(frozen=True)
class Bundle:
    """Observations of a window of cameras: O of each, in one order.

    Attributes:
        cameras, tracks: Numbers of the camera and of the track.
        points: The keypoints.
        start: T 3: positions of the tracks, m.
    """

    cameras: NDArray[np.int64]
    tracks: NDArray[np.int64]
    points: Points
    start: Array


def bundle_poses(bundle: Bundle, poses: list[Pose], camera: Matrix, sigma: Array) -> list[Pose]:
    """The adjusted poses: Gauss-Newton with Cauchy's weights, damped; the first pose stays."""
    whiten = np.linalg.inv(np.linalg.cholesky(sigma))  # O 2 2
    xyz, damping = bundle.start, 1e-4
    residuals, jacobian = _linearised(bundle, poses, xyz, camera, whiten)
    scale = robust_scale(residuals)
    cost = _cauchy(residuals, scale)
    for _ in range(STEPS):
        weights = np.repeat(1 / (1 + (residuals**2).sum(axis=1) / scale**2), 2)  # 2O
        normal = jacobian.T @ (jacobian * weights[:, None])
        gradient = jacobian.T @ (weights * residuals.ravel())
        normal += damping * np.diag(np.diag(normal))
        step = -np.linalg.solve(normal, gradient)
        free = 6 * (len(poses) - 1)
        steps = step[:free].reshape(-1, 6)
        trial = [poses[0], *(moved(p, s) for p, s in zip(poses[1:], steps, strict=True))]
        trial_xyz = xyz + step[free:].reshape(-1, 3)
        new_residuals, new_jacobian = _linearised(bundle, trial, trial_xyz, camera, whiten)
        new_cost = _cauchy(new_residuals, scale)
        if not new_cost < cost:
            damping *= 10
            continue
        gain = 1 - new_cost / cost
        poses, xyz, cost = trial, trial_xyz, new_cost
        damping = max(damping / 10, 1e-8)  # because the scale is free
        residuals, jacobian = new_residuals, new_jacobian
        if gain < 1e-6:
            break
    return poses


def _cauchy(residuals: Array, scale: float) -> float:
    return float(np.log1p((residuals**2).sum(axis=1) / scale**2).sum())


def _linearised(
    bundle: Bundle, poses: list[Pose], xyz: Array, camera: Matrix, whiten: Array
) -> tuple[Array, Array]:
    """Whitened residuals, O 2, and their derivatives, 2O by 6 a free camera and 3 a track."""
    count, free = len(bundle.tracks), 6 * (len(poses) - 1)
    rotations = np.array([pose[0] for pose in poses])[bundle.cameras]  # O 3 3
    shifts = np.array([pose[1] for pose in poses])[bundle.cameras]  # O 3
    turned = np.einsum("oij,oj->oi", rotations, xyz[bundle.tracks])  # O 3
    local = turned + shifts
    projected = local @ camera.T
    off = projected[:, :2] / projected[:, 2:] - bundle.points.xy
    depth = local[:, 2]
    slope = np.zeros((count, 2, 3))
    slope[:, 0, 0], slope[:, 1, 1] = camera[0, 0] / depth, camera[1, 1] / depth
    slope[:, 0, 2] = -camera[0, 0] * local[:, 0] / depth**2
    slope[:, 1, 2] = -camera[1, 1] * local[:, 1] / depth**2
    slope = whiten @ slope  # O 2 3
    by_turn = slope @ -np.array([cross(one) for one in turned])  # O 2 3
    by_track = slope @ rotations  # O 2 3
    jacobian = np.zeros((count, 2, free + 3 * len(xyz)))
    for row, (one, track) in enumerate(zip(bundle.cameras, bundle.tracks, strict=True)):
        if one:
            jacobian[row, :, 6 * one - 6 : 6 * one - 3] = by_turn[row]
            jacobian[row, :, 6 * one - 3 : 6 * one] = slope[row]
        at = free + 3 * track
        jacobian[row, :, at : at + 3] = by_track[row]
    return np.einsum("oij,oj->oi", whiten, off), jacobian.reshape(2 * count, -1)


def bundle_trials(
    survey: Survey, features: dict[str, Features], model: Path, camera: Matrix, count: int
) -> Iterator[list[tuple[tuple[float, float], ...]]]:
    """For each window: rms errors of centres, mm, and rotations, degrees, by way of weighing."""
    reconstruction = load_pycolmap().Reconstruction(model)
    names = sorted(survey.poses)
    images = {image.name: image for image in reconstruction.images.values()}
    rng = np.random.default_rng(2)
    for first in range(len(names) - WINDOW + 1):
        window = names[first : first + WINDOW]
        seen: dict[int, list[tuple[int, int]]] = {}
        for number, name in enumerate(window):
            for index, point in enumerate(images[name].points2D):
                if point.has_point3D():
                    seen.setdefault(point.point3D_id, []).append((number, index))
        tracks = [
            track for track in seen.values() if len({number for number, _ in track}) >= WINDOW - 1
        ]
        if len(tracks) < 2 * count:
            continue
        trials = []
        for _ in range(SUBSETS_OF_BUNDLES):
            chosen = [tracks[i] for i in rng.choice(len(tracks), count, replace=False)]
            bundle = _bundle(survey, window, chosen, features, camera)
            errors = []
            for way in WEIGHTS:
                sigma = weighting(bundle.points, way, rng)
                poses = [survey.poses[name] for name in window]
                adjusted = bundle_poses(bundle, poses, camera, sigma)
                off = pose_errors(dict(zip(window, adjusted, strict=True)), survey.poses)
                errors.append((rms(off.centres_mm), rms(off.rotations_deg)))
            trials.append(tuple(errors))
        yield trials


def _bundle(
    survey: Survey,
    window: Sequence[str],
    tracks: Sequence[Sequence[tuple[int, int]]],
    features: dict[str, Features],
    camera: Matrix,
) -> Bundle:
    """Observations of tracks, with positions triangulated by the surveyed cameras."""
    back = np.linalg.inv(camera)
    cameras, numbers, xy, covariance, start = [], [], [], [], []
    for track_number, track in enumerate(tracks):
        rows = []
        for number, index in track:
            one = features[window[number]]
            ray = back @ [*one.xy[index], 1.0]
            pose = np.column_stack(survey.poses[window[number]])  # 3 4
            rows += [ray[0] * pose[2] - pose[0], ray[1] * pose[2] - pose[1]]
            cameras.append(number)
            numbers.append(track_number)
            xy.append(one.xy[index])
            assert one.covariance is not None
            covariance.append(one.covariance[index])
        point = np.linalg.svd(np.array(rows))[2][-1]
        start.append(point[:3] / point[3])
    points = Points(np.array(xy, np.float64), np.array(covariance, np.float64))
    return Bundle(np.array(cameras), np.array(numbers), points, np.array(start))


def rms(values: Array) -> float:
    return float(np.sqrt((np.asarray(values) ** 2).mean()))


def summary(groups: list[Array]) -> str:
    """Cells: median error of each way, and its ratio to equal weights with a 95 % interval.

    Args:
        groups: For each pair or window, T W: errors of T subsets by W ways of weighing.
    """
    rng = np.random.default_rng(3)
    medians = np.median(np.concatenate(groups), axis=0)  # W
    ratios = np.array([np.log(group[:, 1:] / group[:, :1]).mean(axis=0) for group in groups])
    drawn = ratios[rng.integers(len(ratios), size=(BOOTSTRAP, len(ratios)))].mean(axis=1)
    low, high = np.exp(np.quantile(drawn, (0.025, 0.975), axis=0))
    cells = [f"{medians[0]:.3g}"]
    for number, mean in enumerate(np.exp(ratios.mean(axis=0))):
        interval = f"{low[number]:.2f}, {high[number]:.2f}"
        cells.append(f"{medians[number + 1]:.3g} | {mean:.2f} ({interval})")
    return " | ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("strecha", type=Path)
    parser.add_argument("-c", "--checkpoint", default="base")
    parser.add_argument("--work", type=Path, help="folder that keeps databases and models")
    options = parser.parse_args()
    detector = Detector(options.checkpoint, max_keypoints=KEYPOINTS)
    write = partial(write_tiepoint, detector)
    two_views: dict[int, list[Array]] = {count: [] for count in MATCHES}
    bundles: dict[int, list[Array]] = {count: [] for count in TRACKS}
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        for name in SETS:
            survey = read_survey(options.strecha, name)
            fx, fy, cx, cy = survey.intrinsics
            camera = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
            path = work / f"{name}-{options.checkpoint}.db"
            model = models_of(write, survey, path)[0].folder
            database = ColmapDatabase(path)
            features = {one: database.read(one, descriptors=False) for one in survey.poses}
            database.suspend()
            known = known_pairs(survey, features, stored_matches(path), camera)
            for count in MATCHES:
                trials = two_view_trials(features, known, camera, count)
                two_views[count] += [np.array(one) for one in trials]
            for count in TRACKS:
                windows = bundle_trials(survey, features, model, camera, count)
                bundles[count] += [np.array(one) for one in windows]
    print("| adjustment | equal | covariance | ratio | shuffled | ratio |\n" + 6 * "|---" + "|")
    for count, groups in two_views.items():
        print(f"| {count} matches of two views, {len(groups)} pairs: pose, degrees "
              f"| {summary(groups)} |")  # fmt: skip
    for count, groups in bundles.items():
        label = f"{count} tracks of {WINDOW} views, {len(groups)} windows"
        for index, what in enumerate(("centres, mm", "rotations, degrees")):
            print(f"| {label}: {what} | {summary([group[..., index] for group in groups])} |")


if __name__ == "__main__":
    main()
