"""Appearance: whether two pictures look alike where a plane model superposes them.

Matched keypoints are evidence of a model only where they are. The pictures show whether the rest of
the common view agrees, and which of several models fits better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.architecture import CELL_PX
from tiepoint.config import ProcessorConfig
from tiepoint.geometry import Float, Matrix, SizeHW, apply_homography, resize_matrix
from tiepoint.images.reading import SourceImage
from tiepoint.network.inputs import as_grey, size_of, to_grey

Grey = NDArray[np.float32]

SIDE_PX = 480
"""Longer side of the pictures that are compared."""

WINDOW_PX = 25
"""Side of the window around a keypoint; smaller ones separate no better (measured)."""

ALIKE = 0.5
"""Normalised correlation from which two windows look alike."""

_BLUR_PX = 2.0  # tolerates models that are a few px off
_SHADING_PX = 12.0  # standard deviation of the blur that leaves shading only
_SHADING_STEP = 4  # px between the places where shading is computed
_NOISE_VARIANCE = 1.0  # grey levels squared: what flat windows contain
_LEAST_WINDOW = 0.3  # of a window, inside the common view
_BLOCKS_SIDE = 1024  # px of the image in which blocks are looked for
_QUIET = 0.5  # grey levels: added to the gradients, so that flat images have no blocks
_LEAST_COMMON = 0.03  # of the picture, in which two models can be compared
_MOST_MATCHES = 500  # that are compared: enough for a share


@dataclass(frozen=True, eq=False)
class Picture:
    """An image, reduced for comparison.

    Attributes:
        grey: H W, 0..255.
        to_picture: 3x3, px of the image -> px of the picture.
        block_share: Excess of the gradients at the edges of JPEG's 8x8 blocks, as a share of all
            gradients, 0..1. Above .05 for qualities below 20, below .03 in most photographs.
    """

    grey: Grey
    to_picture: Matrix
    block_share: float = 0.0


@dataclass(frozen=True, eq=False)
class _Frame:
    """The picture that shows less detail, and how the other one is warped onto it."""

    fixed: Grey
    moving: Grey
    fixed_to: Matrix
    moving_to: Matrix
    swapped: bool  # whether A is the fixed one

    def matrix(self, matrix: Matrix) -> Matrix:
        """3x3, px of the moving picture -> px of the fixed one."""
        there = np.linalg.inv(matrix) if self.swapped else matrix
        result: Matrix = self.fixed_to @ there @ np.linalg.inv(self.moving_to)
        return result

    def warped(self, matrix: Matrix) -> tuple[Grey, NDArray[np.bool_]]:
        """The moving picture on the fixed one, H W each, and where it is inside."""
        size_wh = self.fixed.shape[::-1]
        onto = self.matrix(matrix)
        warped = cv2.warpPerspective(self.moving, onto, size_wh, flags=cv2.INTER_LINEAR)
        everywhere = np.full(self.moving.shape, 255, np.uint8)
        inside = cv2.warpPerspective(everywhere, onto, size_wh, flags=cv2.INTER_NEAREST)
        return np.asarray(warped, np.float32), np.asarray(inside > 0)


def picture_of(image: SourceImage) -> Picture:
    """Reduce an image for comparison."""
    reduced = as_grey(image.pixels, ProcessorConfig(max_side=SIDE_PX), image.valid).grey
    blocks = 0.0
    if image.pixels.dtype == np.uint8:  # as JPEG files are
        part = np.ascontiguousarray(image.pixels[:_BLOCKS_SIDE, :_BLOCKS_SIDE])
        blocks = block_share(to_grey(part) * np.float32(255))
    matrix = resize_matrix(image.size_hw, size_of(reduced))
    return Picture(reduced * np.float32(255), matrix, blocks)


def block_share(grey: Grey) -> float:
    """Excess of the gradients at every eighth row and column over all gradients, 0..1.

    Args:
        grey: H W, 0..255, not resized since it was compressed.
    """
    shares = []
    for axis in (0, 1):
        steps = np.abs(np.diff(grey, axis=axis)).mean(axis=1 - axis)  # H - 1 or W - 1
        whole = len(steps) // CELL_PX * CELL_PX
        if whole == 0:
            return 0.0
        phases = steps[:whole].reshape(-1, CELL_PX).mean(axis=0)  # 8
        edge = int(phases.argmax())
        excess = phases[edge] - np.median(np.delete(phases, edge))
        shares.append(float(excess / (phases.sum() + _QUIET)))
    return min(shares)


def share_alike(a: Picture, b: Picture, matrix: Matrix, xy_a: Float, xy_b: Float) -> float:
    """Share of keypoints in the common view whose surroundings look alike in both pictures, 0..1.

    The mean over both images. 1 without any keypoint in the common view.

    Args:
        matrix: 3x3, x_B ~ H x_A.
        xy_a, xy_b: N_A 2 and N_B 2, all keypoints, px of the images.
    """
    frame = _frame(a, b, matrix, shading=False)
    warped, inside = frame.warped(matrix)
    fixed_xy, moving_xy = (xy_a, xy_b) if frame.swapped else (xy_b, xy_a)
    places = (
        apply_homography(frame.fixed_to, fixed_xy),
        apply_homography(frame.matrix(matrix) @ frame.moving_to, moving_xy),
    )
    pixels = [_pixels(xy, size_of(inside)) for xy in places]
    correlation = _correlation(frame.fixed, warped, inside, *np.concatenate(pixels).T)
    each = np.split(correlation, [len(pixels[0])])
    shares = [float((one > ALIKE).mean()) for one in (x[np.isfinite(x)] for x in each) if len(one)]
    return float(np.mean(shares)) if shares else 1.0


def _pixels(xy: Float, size_hw: SizeHW) -> NDArray[np.int64]:
    """P 2, column and row: the pixels of the points that are in the picture."""
    height, width = size_hw
    near = np.clip(np.nan_to_num(xy, nan=-1), -1, max(height, width))  # integers have an end
    x, y = np.rint(near).astype(np.int64).T
    on = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return np.stack([x[on], y[on]], axis=1)


def share_of_matches_alike(
    a: Picture, b: Picture, similarity: Matrix, xy_a: Float, xy_b: Float
) -> float:
    """Share of matches whose surroundings look alike in both pictures, wherever they are, 0..1.

    Args:
        similarity: 3x3: how the surroundings of A are turned and scaled in B.
        xy_a, xy_b: M 2, M >= 1, px of the images; row i of one matches row i of the other.
    """
    frame = _frame(a, b, similarity, shading=False)
    chosen = np.linspace(0, len(xy_a) - 1, min(len(xy_a), _MOST_MATCHES)).astype(int)
    fixed_xy, moving_xy = (xy_a, xy_b) if frame.swapped else (xy_b, xy_a)
    steps = np.arange(WINDOW_PX) - (WINDOW_PX - 1) / 2
    window = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)  # WINDOW_PX^2 2
    turned = window @ np.linalg.inv(frame.matrix(similarity)[:2, :2]).T
    fixed, moving = (
        _levels(picture, apply_homography(to_picture, xy[chosen])[:, None] + offsets)
        for picture, to_picture, xy, offsets in (
            (frame.fixed, frame.fixed_to, fixed_xy, window),
            (frame.moving, frame.moving_to, moving_xy, turned),
        )
    )  # M WINDOW_PX^2 each, of mean 0
    variances = [(levels**2).mean(axis=1) + _NOISE_VARIANCE for levels in (fixed, moving)]
    correlation = (fixed * moving).mean(axis=1) / np.sqrt(variances[0] * variances[1])  # M
    return float((correlation > ALIKE).mean())


def _levels(picture: Grey, xy: Float) -> Grey:
    """M P: the picture at M sets of P places, M P 2 px, less the mean of each set."""
    x, y = np.moveaxis(xy.astype(np.float32), -1, 0)
    levels = cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(levels - levels.mean(axis=1, keepdims=True))


def residual_energies(
    a: Picture, b: Picture, matrices: Sequence[Matrix]
) -> NDArray[np.float64] | None:
    """What each model leaves unexplained of one picture by the other, as a share of its contrast.

    Brightness and contrast are fitted in each window, so that light may differ. All models are
    compared where all have a common view; None if that is too small.

    Args:
        matrices: 3x3 each, x_B ~ H x_A, of about one scale.

    Returns:
        One number per model, 0..1.
    """
    frame = _frame(a, b, matrices[0])
    warped = [frame.warped(matrix) for matrix in matrices]
    common = np.logical_and.reduce([inside for _, inside in warped])  # H W
    if common.mean() < _LEAST_COMMON:
        return None
    energies = []
    for picture, _ in warped:
        covariance, variance, fixed_variance = _moments(frame.fixed, picture, common)
        explained = covariance**2 / (variance + _NOISE_VARIANCE)  # H W
        contrast = fixed_variance[common].sum() + _NOISE_VARIANCE * common.sum()
        energies.append(1 - explained[common].sum() / contrast)
    return np.array(energies)


def _frame(a: Picture, b: Picture, matrix: Matrix, *, shading: bool = True) -> _Frame:
    """Warp towards the picture of less detail, after the blur that makes both equally sharp.

    Without `shading`, slow changes of brightness are removed, which two blank frames share too.
    """
    onto = b.to_picture @ matrix @ np.linalg.inv(a.to_picture)
    height, width = a.grey.shape
    w = float(onto[2] @ (width / 2, height / 2, 1))
    zoom = float(np.sqrt(abs(np.linalg.det(onto)) / max(abs(w), 1e-12) ** 3))
    swapped = zoom > 1
    fixed, moving = (a, b) if swapped else (b, a)
    detail = min(max(zoom, 1 / max(zoom, 1e-3)), 16.0)
    pictures = [
        np.asarray(cv2.GaussianBlur(picture.grey, (0, 0), _BLUR_PX * factor))
        for picture, factor in ((fixed, 1.0), (moving, detail))
    ]
    if not shading:
        pictures = [
            picture - _shading(picture, _SHADING_PX * factor)
            for picture, factor in zip(pictures, (1.0, detail), strict=True)
        ]
    return _Frame(pictures[0], pictures[1], fixed.to_picture, moving.to_picture, swapped)


def _shading(picture: Grey, sigma_px: float) -> Grey:
    """H W: a wide Gaussian blur, computed at a quarter of the size, where it is cheap."""
    height, width = picture.shape
    size_wh = -(-width // _SHADING_STEP), -(-height // _SHADING_STEP)
    small = cv2.resize(picture, size_wh, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma_px / _SHADING_STEP)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR))


def _correlation(
    fixed: Grey,
    warped: Grey,
    inside: NDArray[np.bool_],
    columns: NDArray[np.int64],
    rows: NDArray[np.int64],
) -> NDArray[np.float64]:
    """P: normalised correlation of the windows around P pixels, -1..1; NaN at the edge.

    From sums over all pixels above and to the left, so that a window takes four of them.
    """
    if not inside.any():
        return np.full(len(rows), np.nan)
    weight = inside.view(np.uint8)
    # Around one level, because squares of bright pictures lose the contrast.
    fixed, warped = (cv2.subtract(x, cv2.mean(x, weight)[0]) * weight for x in (fixed, warped))
    half = WINDOW_PX // 2
    (top, bottom), (left, right) = (
        (np.maximum(middle - half, 0), np.minimum(middle + half + 1, side))
        for middle, side in ((rows, inside.shape[0]), (columns, inside.shape[1]))
    )

    def total(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """P: sums over the windows from those H+1 W+1 above and to the left."""
        return sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]

    count = total(cv2.integral(weight, sdepth=cv2.CV_64F))
    known = count >= _LEAST_WINDOW * WINDOW_PX**2
    count = np.maximum(count, 1)
    (sum_f, squares_f), (sum_w, squares_w) = (
        [total(sums) / count for sums in cv2.integral2(x)] for x in (fixed, warped)
    )
    covariance = total(cv2.integral(cv2.multiply(fixed, warped))) / count - sum_f * sum_w
    variance_f = np.maximum(squares_f - sum_f**2, 0) + _NOISE_VARIANCE
    variance_w = np.maximum(squares_w - sum_w**2, 0) + _NOISE_VARIANCE
    return np.where(known, covariance / np.sqrt(variance_f * variance_w), np.nan)


def _moments(fixed: Grey, warped: Grey, inside: NDArray[np.bool_]) -> tuple[Any, Any, Any]:
    """H W each: covariance, variance of `warped`, variance of `fixed` in windows, inside only."""
    weight = inside.astype(np.float32)
    count = np.maximum(_box(weight), 1e-6)
    if inside.any():  # around one level: float32 squares of bright pictures lose the contrast
        fixed, warped = fixed - fixed[inside].mean(), warped - warped[inside].mean()
    mean_f, mean_w = _box(fixed * weight) / count, _box(warped * weight) / count
    covariance = _box(fixed * warped * weight) / count - mean_f * mean_w
    variance_f = _box(fixed**2 * weight) / count - mean_f**2
    variance_w = _box(warped**2 * weight) / count - mean_w**2
    return covariance, np.maximum(variance_w, 0), np.maximum(variance_f, 0)


def _box(values: Grey) -> Grey:
    """The mean of the window around each pixel; 0 beyond the picture."""
    side = (WINDOW_PX, WINDOW_PX)
    return np.asarray(cv2.boxFilter(values, -1, side, borderType=cv2.BORDER_CONSTANT))
