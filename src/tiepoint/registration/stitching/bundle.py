"""Bundle adjustment of a panorama: homographies, or rotations and one focal length.

Each image has a 3x3 matrix from its px to a common frame: the px of the image in the middle, or
the directions of a camera that rotates. Gauss-Newton with damping moves all matrices at once, so
that the inliers of all links fit. OpenCV's adjusters take only matches of its own matchers.

Source: Brown and Lowe, "Automatic Panoramic Image Stitching using Invariant Features" (IJCV 2007).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.geometry import Matrix, SizeHW, apply_homography
from tiepoint.registration.stitching.graph import Link

Kind = Literal["homography", "rotation"]
Array = NDArray[np.float64]

FOCALS = np.geomspace(0.4, 12, 60)
"""Focal lengths that are tried, in longer sides: fields of view of 103 to 5 degrees."""

ROUNDS = 30
MIN_GAIN = 1e-5
"""Share of the cost that a round must gain, or it is the last."""

STEP = 1e-6
"""Step of numeric derivatives, in parameters of size 1."""

BEHIND_PX = 1e4
"""Offset of a point that is mapped behind the other camera."""


@dataclass(frozen=True, eq=False)
class Bundle:
    """The matrices of N images.

    Attributes:
        kind: What the matrices are made of.
        sizes_hw: Sizes of the images, px.
        fixed: Index of the image whose matrix stays.
        frames: N 3 3; of homographies px -> px of the fixed image, of rotations the rotation.
        focal: Focal length in longer sides of an image; 1 for homographies.
    """

    kind: Kind
    sizes_hw: Sequence[SizeHW]
    fixed: int
    frames: Array
    focal: float = 1.0

    @property
    def matrices(self) -> Array:
        """N 3 3: px of each image -> the common frame."""
        images = range(len(self.frames))
        return np.stack([self._matrix(image, self.frames[image], self.focal) for image in images])

    @property
    def size(self) -> int:
        """Parameters of an image."""
        return 3 if self.kind == "rotation" else 8

    def intrinsics(self, image: int, focal: float | None = None) -> Matrix:
        """3x3: the camera matrix; of homographies only a unit for px."""
        height, width = self.sizes_hw[image]
        f = (self.focal if focal is None else focal) * max(height, width)
        return np.array([[f, 0, (width - 1) / 2], [0, f, (height - 1) / 2], [0, 0, 1]])

    def nudged(self, image: int, delta: Array, focal: float) -> Matrix:
        """The matrix of an image after a change of its parameters."""
        if self.kind == "rotation":
            turned = self.frames[image] @ cv2.Rodrigues(delta)[0]
            return self._matrix(image, turned, focal)
        unit = self.intrinsics(image)
        change = np.eye(3) + np.append(delta, 0).reshape(3, 3)
        return np.asarray(self.frames[image] @ unit @ change @ np.linalg.inv(unit), np.float64)

    def stepped(self, delta: Array) -> Bundle:
        """All matrices after a change of all parameters; the last is the log of the focal."""
        focal = self.focal * float(np.exp(delta[-1])) if self.kind == "rotation" else 1.0
        frames = self.frames.copy()
        for image in range(len(frames)):
            part = delta[self.size * image : self.size * (image + 1)]
            if self.kind == "rotation":
                frames[image] = frames[image] @ cv2.Rodrigues(part)[0]
            else:
                frames[image] = self.nudged(image, part, 1.0)
                frames[image] /= np.linalg.norm(frames[image])
        return replace(self, frames=frames, focal=focal)

    def _matrix(self, image: int, frame: Matrix, focal: float) -> Matrix:
        if self.kind == "homography":
            return frame
        return np.asarray(frame @ np.linalg.inv(self.intrinsics(image, focal)), np.float64)


def homographies(sizes_hw: Sequence[SizeHW], middle: int, tree: Sequence[Link]) -> Bundle:
    """The matrices along a spanning tree."""
    frames = {middle: np.eye(3)}
    for link in tree:
        if link.b in frames:
            frames[link.a] = frames[link.b] @ link.matrix
        else:
            frames[link.b] = frames[link.a] @ np.linalg.inv(link.matrix)
    stacked = np.stack([frames[image] for image in range(len(sizes_hw))])
    return Bundle("homography", sizes_hw, middle, stacked)


def rotations(sizes_hw: Sequence[SizeHW], middle: int, tree: Sequence[Link]) -> Bundle | None:
    """Rotations along a spanning tree; None if no focal length makes the homographies rotations."""
    start = Bundle("rotation", sizes_hw, middle, np.stack([np.eye(3)] * len(sizes_hw)))
    errors = [_skewness(replace(start, focal=float(focal)), tree) for focal in FOCALS]
    best = int(np.argmin(errors))
    if best in (0, len(FOCALS) - 1):  # a plane that is shifted, for instance
        return None
    start = replace(start, focal=float(FOCALS[best]))
    frames = {middle: np.eye(3)}
    for link in tree:
        turn = _nearest_rotation(_between(start, link))
        if link.b in frames:
            frames[link.a] = frames[link.b] @ turn
        else:
            frames[link.b] = frames[link.a] @ turn.T
    return replace(start, frames=np.stack([frames[image] for image in range(len(sizes_hw))]))


def adjusted(bundle: Bundle, links: Sequence[Link], within_px: float) -> Bundle:
    """The bundle after robust least squares on the inliers of all links.

    Args:
        bundle: Start.
        links: All links between its images.
        within_px: Distance at which a match weighs a quarter (Geman and McClure).
    """
    damping, cost = 1e-4, _cost(bundle, links, within_px)
    for _ in range(ROUNDS):
        normal, gradient = _normal_equations(bundle, links, within_px)
        better = None
        while better is None and damping < 1e6:
            scaled = normal + np.diag(damping * np.diag(normal) + 1e-12)
            trial = bundle.stepped(np.asarray(-np.linalg.solve(scaled, gradient)))
            trial_cost = _cost(trial, links, within_px)
            if trial_cost < cost:
                better, damping = trial, damping / 10
            else:
                damping *= 10
        if better is None:
            break
        gain, bundle, cost = (cost - trial_cost) / cost, better, trial_cost
        if gain < MIN_GAIN:
            break
    return bundle


def offsets_px(bundle: Bundle, links: Sequence[Link]) -> Array:
    """Distances of all inliers, A mapped to B, px of B."""
    matrices = bundle.matrices
    offsets = [_offsets(matrices[link.a], matrices[link.b], link) for link in links]
    return np.asarray(np.linalg.norm(np.concatenate(offsets), axis=1))


def _offsets(matrix_a: Matrix, matrix_b: Matrix, link: Link) -> Array:
    """M 2, px of B."""
    between = np.linalg.inv(matrix_b) @ matrix_a
    mapped = apply_homography(between, link.xy_a)
    return np.where(np.isfinite(mapped), mapped - link.xy_b, BEHIND_PX)


def _cost(bundle: Bundle, links: Sequence[Link], within_px: float) -> float:
    squares = np.square(offsets_px(bundle, links) / within_px)
    return float((squares / (1 + squares)).sum())


def _normal_equations(
    bundle: Bundle, links: Sequence[Link], within_px: float
) -> tuple[Array, Array]:
    """J^T W J and J^T W r over all parameters, by numeric derivatives of each link.

    The fixed image and, for homographies, the focal length have rows of zeros.
    """
    size, matrices = bundle.size, bundle.matrices
    total = size * len(matrices) + 1
    normal, gradient = np.zeros((total, total)), np.zeros(total)
    steps = STEP * np.eye(size)
    nudged = [
        [bundle.nudged(image, step, bundle.focal) for step in steps]
        for image in range(len(matrices))
    ]
    zoomed = replace(bundle, focal=bundle.focal * np.exp(STEP)).matrices
    for link in links:
        a, b = link.a, link.b
        now = _offsets(matrices[a], matrices[b], link)  # M 2
        columns: list[Array] = []
        index: list[int] = []
        if a != bundle.fixed:
            columns += [_offsets(one, matrices[b], link) for one in nudged[a]]
            index += range(size * a, size * (a + 1))
        if b != bundle.fixed:
            columns += [_offsets(matrices[a], one, link) for one in nudged[b]]
            index += range(size * b, size * (b + 1))
        if bundle.kind == "rotation":
            columns.append(_offsets(zoomed[a], zoomed[b], link))
            index.append(total - 1)
        jacobian = (np.stack(columns) - now) / STEP  # P M 2
        squares = np.square(now / within_px).sum(axis=1)
        weights = 1 / np.square(1 + squares)  # M
        weighted = jacobian * weights[:, None]
        normal[np.ix_(index, index)] += np.einsum("pmk,qmk->pq", weighted, jacobian)
        gradient[index] += np.einsum("pmk,mk->p", weighted, now)
    return normal, gradient


def _between(bundle: Bundle, link: Link) -> Matrix:
    """The matrix of a link between directions, of determinant 1."""
    k_a, k_b = bundle.intrinsics(link.a), bundle.intrinsics(link.b)
    matrix = np.linalg.inv(k_b) @ link.matrix @ k_a
    return np.asarray(matrix / np.cbrt(np.linalg.det(matrix)), np.float64)


def _skewness(bundle: Bundle, links: Sequence[Link]) -> float:
    """How far the links are from rotations."""
    between = [_between(bundle, link) for link in links]
    return float(np.median([np.linalg.norm(one.T @ one - np.eye(3)) for one in between]))


def _nearest_rotation(matrix: Matrix) -> Matrix:
    u, _, v = np.linalg.svd(matrix)
    return np.asarray(u @ np.diag([1, 1, np.linalg.det(u @ v)]) @ v, np.float64)
