"""Surveyed cameras of Strecha's sets (CVPR 2008), and their distance from reconstructed ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiepoint.geometry import Matrix

Vector = NDArray[np.float64]
Pose = tuple[Matrix, Vector]
"""R and t of X_camera = R X_world + t, m."""


@dataclass(frozen=True)
class Survey:
    """The cameras of one set.

    Attributes:
        folder: Folder of the images.
        intrinsics: fx, fy, cx, cy, px; (0, 0) is the centre of the first pixel.
        poses: Name of an image -> its pose; the world is the first camera.
    """

    folder: Path
    intrinsics: tuple[float, float, float, float]
    poses: dict[str, Pose]


@dataclass(frozen=True)
class PoseErrors:
    """Distances of N cameras from the survey.

    Attributes:
        centres_mm: Distances of the camera centres after the best similarity, mm.
        rotations_deg: Angles between the rotations after the best common rotation, degrees. The
            centres of cameras along a path leave the rotation about that path open.
    """

    centres_mm: Vector
    rotations_deg: Vector


def read_survey(folder: Path, name: str) -> Survey:
    """The cameras of a set, chained from the relative poses of `pairs.txt`."""
    relative: dict[str, list[tuple[str, Matrix, Vector]]] = {}
    intrinsics: tuple[float, ...] = ()
    for line in (folder / "pairs.txt").read_text(encoding="utf-8").splitlines():
        path_a, path_b, *texts = line.split()
        if not path_a.startswith(f"{name}/"):
            continue
        numbers = np.array(texts, np.float64)
        intrinsics = tuple(numbers[[0, 1, 2, 3]].tolist())
        transform: Vector = numbers[8:].reshape(4, 4)  # X_B = T X_A
        a, b = (path.partition("/")[2] for path in (path_a, path_b))
        back: Vector = np.asarray(np.linalg.inv(transform), np.float64)
        relative.setdefault(a, []).append((b, transform[:3, :3], transform[:3, 3]))
        relative.setdefault(b, []).append((a, back[:3, :3], back[:3, 3]))
    first = min(relative)
    poses: dict[str, Pose] = {first: (np.eye(3), np.zeros(3))}
    waiting = [first]
    while waiting:
        current = waiting.pop(0)
        rotation, translation = poses[current]
        for other, turn, shift in relative[current]:
            if other not in poses:
                poses[other] = turn @ rotation, turn @ translation + shift
                waiting.append(other)
    fx, fy, cx, cy = intrinsics
    return Survey(folder / name, (fx, fy, cx, cy), poses)


def centre_of(pose: Pose) -> Vector:
    """3: the centre of a camera in the world."""
    centre: Vector = -pose[0].T @ pose[1]
    return centre


def similarity(source: Vector, target: Vector) -> tuple[float, Matrix, Vector]:
    """Scale, rotation and shift that map N 3 points onto N 3 others best (Umeyama, PAMI 1991)."""
    middle_s, middle_t = source.mean(axis=0), target.mean(axis=0)
    from_s, from_t = source - middle_s, target - middle_t
    u, values, vt = np.linalg.svd(from_t.T @ from_s)
    signs = np.array([1.0, 1.0, np.linalg.det(u @ vt)])
    rotation = u @ np.diag(signs) @ vt
    scale = float((values * signs).sum() / (from_s**2).sum())
    return scale, rotation, middle_t - scale * rotation @ middle_s


def pose_errors(poses: dict[str, Pose], truth: dict[str, Pose]) -> PoseErrors:
    """The distances of N >= 3 cameras from the survey."""
    names = sorted(poses)
    centres = np.array([centre_of(poses[name]) for name in names])
    surveyed = np.array([centre_of(truth[name]) for name in names])
    scale, rotation, shift = similarity(centres, surveyed)
    off = scale * centres @ rotation.T + shift - surveyed  # N 3
    u, _, vt = np.linalg.svd(sum(truth[name][0].T @ poses[name][0] for name in names))
    common = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt  # world of the model -> surveyed
    angles = [angle_deg(poses[name][0] @ common.T, truth[name][0]) for name in names]
    return PoseErrors(1000 * np.linalg.norm(off, axis=1), np.array(angles))


def angle_deg(a: Matrix, b: Matrix) -> float:
    """The angle between two rotations, degrees; by its sine, which is exact for small angles."""
    half = np.linalg.norm(a - b) / np.sqrt(8)
    return float(np.degrees(2 * np.arcsin(min(1.0, float(half)))))
