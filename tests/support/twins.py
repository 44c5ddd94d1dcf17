"""Slow twins: the same rules in the plainest NumPy there is, for comparison."""

from __future__ import annotations

import numpy as np


def heatmap(logits: np.ndarray) -> np.ndarray:
    """65 h w -> H W, cell by cell."""
    _, h, w = logits.shape
    result = np.zeros((8 * h, 8 * w))
    for i in range(h):
        for j in range(w):
            powers = np.exp(logits[:, i, j].astype(np.float64))
            shares = powers / powers.sum()
            for row in range(8):
                for column in range(8):
                    result[8 * i + row, 8 * j + column] = shares[8 * row + column]
    return result


def maxima(heatmap: np.ndarray, radius: int) -> np.ndarray:
    height, width = heatmap.shape
    highest = np.zeros((height, width), dtype=bool)
    for y in range(height):
        for x in range(width):
            window = heatmap[
                max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1
            ]
            highest[y, x] = heatmap[y, x] == window.max()
    first = highest.copy()
    for y, x in zip(*np.nonzero(highest), strict=True):
        for v in range(max(0, y - radius), min(height, y + radius + 1)):
            for u in range(max(0, x - radius), min(width, x + radius + 1)):
                if highest[v, u] and (v, u) < (y, x):
                    first[y, x] = False
    return first


def suppress(heatmap: np.ndarray, radius: int) -> np.ndarray:
    if radius == 0:
        return np.ones(heatmap.shape, dtype=bool)
    kept = maxima(heatmap, radius)
    for _ in range(2):
        covered = np.zeros_like(kept)
        for y, x in zip(*np.nonzero(kept), strict=True):
            rows = slice(max(0, y - radius), y + radius + 1)
            covered[rows, max(0, x - radius) : x + radius + 1] = True
        kept |= maxima(np.where(covered, 0, heatmap), radius) & ~covered
    return kept


def select(
    heatmap: np.ndarray,
    threshold: float,
    radius: int,
    border: int,
    most: int | None,
) -> list[tuple[int, int]]:
    """Whole-pixel keypoints (x, y), best first."""
    height, width = heatmap.shape
    kept = suppress(heatmap, radius)
    points = [
        (x, y)
        for y in range(border, height - border)
        for x in range(border, width - border)
        if kept[y, x] and heatmap[y, x] > threshold
    ]
    points.sort(key=lambda point: (-heatmap[point[1], point[0]], point[1], point[0]))
    return points[:most]


def subpixel(heatmap: np.ndarray, x: int, y: int) -> tuple[float, float]:
    """One keypoint's refined position: the centre of mass of 5x5 values."""
    height, width = heatmap.shape
    total = sum_x = sum_y = 0.0
    for v in range(max(0, y - 2), min(height, y + 3)):
        for u in range(max(0, x - 2), min(width, x + 3)):
            weight = float(heatmap[v, u])
            total, sum_x, sum_y = total + weight, sum_x + weight * u, sum_y + weight * v
    return sum_x / total, sum_y / total


def second_moment(heatmap: np.ndarray, x: int, y: int) -> np.ndarray:
    """2x2: second moment of 5x5 values, and the variance within a pixel."""
    height, width = heatmap.shape
    centre = subpixel(heatmap, x, y)
    total, moment = 0.0, np.zeros((2, 2))
    for v in range(max(0, y - 2), min(height, y + 3)):
        for u in range(max(0, x - 2), min(width, x + 3)):
            away = np.array([u - centre[0], v - centre[1]])
            moment += float(heatmap[v, u]) * np.outer(away, away)
            total += float(heatmap[v, u])
    return moment / total + np.eye(2) / 12


def sample(dense: np.ndarray, x: float, y: float) -> np.ndarray:
    """One descriptor between cell centres, bilinearly; D h w -> D."""
    _, h, w = dense.shape
    column = min(max((x - 3.5) / 8, 0.0), w - 1)
    row = min(max((y - 3.5) / 8, 0.0), h - 1)
    total = np.zeros(len(dense))
    for i in range(h):
        for j in range(w):
            weight = max(0.0, 1 - abs(row - i)) * max(0.0, 1 - abs(column - j))
            cell = dense[:, i, j].astype(np.float64)
            total += weight * cell / max(np.linalg.norm(cell), 1e-12)
    return total / max(np.linalg.norm(total), 1e-12)


def convolve(image: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """C H W -> O H W, zeros outside."""
    out, _, side, _ = weight.shape
    pad = side // 2
    height, width = image.shape[1:]
    field = np.pad(image.astype(np.float64), ((0, 0), (pad, pad), (pad, pad)))
    result = np.zeros((out, height, width))
    for dy in range(side):
        for dx in range(side):
            window = field[:, dy : dy + height, dx : dx + width]
            result += np.einsum("oc,chw->ohw", weight[:, :, dy, dx], window)
    return result + bias[:, None, None]


def network(image: np.ndarray, tensors: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """H W -> logits 65 h w, descriptors D h w, layer by layer as in the paper."""

    def layer(features: np.ndarray, name: str, relu: bool = True) -> np.ndarray:
        made = convolve(features, tensors[f"{name}.weight"], tensors[f"{name}.bias"])
        return np.maximum(made, 0) if relu else made

    features = image[None]
    for block in range(4):
        features = layer(features, f"encoder.conv_blocks.{block}.conv_a")
        features = layer(features, f"encoder.conv_blocks.{block}.conv_b")
        if block < 3:
            c, height, width = features.shape
            features = features.reshape(c, height // 2, 2, width // 2, 2).max(axis=(2, 4))
    score = layer(features, "keypoint_decoder.conv_score_a")
    logits = layer(score, "keypoint_decoder.conv_score_b", relu=False)
    described = layer(features, "descriptor_decoder.conv_descriptor_a")
    return logits, layer(described, "descriptor_decoder.conv_descriptor_b", relu=False)


def structure(image: np.ndarray) -> np.ndarray:
    """Size of the determinant of the Hessian at 1.8 px, pixel by pixel; the rim holds outside."""
    offsets = np.arange(-5, 6)
    gauss = np.exp(-(offsets**2) / (2 * 1.8**2))
    gauss /= gauss.sum()
    height, width = image.shape

    def at(values: np.ndarray, y: int, x: int) -> float:
        return float(values[min(max(y, 0), height - 1), min(max(x, 0), width - 1)])

    smooth, result = np.zeros(image.shape), np.zeros(image.shape)
    for y in range(height):
        for x in range(width):
            smooth[y, x] = sum(
                gy * gx * at(image, y + dy, x + dx)
                for dy, gy in zip(offsets, gauss, strict=True)
                for dx, gx in zip(offsets, gauss, strict=True)
            )
    for y in range(height):
        for x in range(width):
            n = np.array([[at(smooth, y + dy, x + dx) for dx in (-1, 0, 1)] for dy in (-1, 0, 1)])
            xx = np.array([1, 2, 1]) @ n @ [1, -2, 1] / 4
            yy = np.array([1, -2, 1]) @ n @ [1, 2, 1] / 4
            xy = np.array([-1, 0, 1]) @ n @ [-1, 0, 1] / 4
            result[y, x] = abs(xx * yy - xy * xy) * 1.8**4
    return result


def settle(
    structure_map: np.ndarray, chosen: np.ndarray, xy: np.ndarray, radius_px: int
) -> np.ndarray:
    """Each point towards the centre of what a Gaussian window of 1 px about it holds, four times,
    half as far again but for the last; within half the radius of its pixel."""
    height, width = structure_map.shape
    result = []
    for (column, row), start in zip(chosen, xy.astype(np.float64), strict=True):
        at = start.copy()
        for step in (1.5, 1.5, 1.5, 1.0):
            total, sums = 0.0, np.zeros(2)
            for v in range(max(0, row - 3), min(height, row + 4)):
                for u in range(max(0, column - 3), min(width, column + 4)):
                    pixel = np.array([u, v])
                    weight = structure_map[v, u] * np.exp(-((pixel - at) ** 2).sum() / 2)
                    total, sums = total + weight, sums + weight * pixel
            if total > 1e-5:
                at += step * (sums / total - at)
        limit = radius_px / 2 or 0.49
        result.append(np.clip(at, [column - limit, row - limit], [column + limit, row + limit]))
    return np.array(result).reshape(-1, 2)
