"""Slow twins of the losses: float64, point by point."""

from __future__ import annotations

import numpy as np


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max())
    return powers / powers.sum()


def labels(corners: list[np.ndarray], size_hw: tuple[int, int]) -> np.ndarray:
    """Corners of each image, N 2 -> B 65 h w."""
    height, width = size_hw
    result = np.zeros((len(corners), 65, height // 8, width // 8))
    for image, points in enumerate(corners):
        for x, y in points:
            for v in range(height):
                for u in range(width):
                    share = max(0, 1 - abs(u - x)) * max(0, 1 - abs(v - y))
                    result[image, 8 * (v % 8) + u % 8, v // 8, u // 8] += share
    for image in range(len(corners)):
        for i in range(height // 8):
            for j in range(width // 8):
                cell = result[image, :, i, j]
                cell[:64] /= max(1, cell[:64].sum())
                cell[64] = 1 - cell[:64].sum()
    return result


def detector(logits: np.ndarray, labels: np.ndarray, ignore: np.ndarray) -> tuple[float, float]:
    """(loss, cross-entropy)."""
    total = entropy = place = cells = 0.0
    batch, _, h, w = logits.shape
    for b in range(batch):
        for i in range(h):
            for j in range(w):
                target = labels[b, :, i, j]
                unknown = ignore[b, 8 * i : 8 * i + 8, 8 * j : 8 * j + 8].ravel()
                if target[:64].sum() == 0 and unknown.any():
                    continue
                asked = np.append(~unknown | (target[:64] > 0), True)
                chances = softmax(logits[b, asked, i, j])
                for share, chance in zip(target[asked], chances, strict=True):
                    if share > 0:
                        total -= share * np.log(chance)
                        entropy -= share * np.log(share)
                cells += 1
                mass, given = target[:64].sum(), chances[:-1] / chances[:-1].sum()
                for share, chance in zip(
                    target[:64][asked[:64]] / max(mass, 1e-9), given, strict=True
                ):
                    if share > 0:
                        place += mass * share * np.log(share / chance)
    cells = max(cells, 1)
    return (total - entropy + 4 * place) / cells, total / cells


def descriptors(
    a: np.ndarray, b: np.ndarray, pair: np.ndarray, xy_a: np.ndarray, xy_b: np.ndarray, tau: float
) -> tuple[float, float]:
    """(loss, accuracy)."""
    count, total, right = len(a), 0.0, 0
    for left, right_hand in ((a, b), (b, a)):
        for i in range(count):
            cosines, own = [], 0
            for j in range(count):
                near = min(np.linalg.norm(xy_a[i] - xy_a[j]), np.linalg.norm(xy_b[i] - xy_b[j]))
                if i != j and pair[i] == pair[j] and near < 3:
                    continue
                if i == j:
                    own = len(cosines)
                cosines.append(float(left[i] @ right_hand[j]))
            total -= np.log(softmax(np.array(cosines) / tau)[own])
            if left is a:
                right += int(np.argmax(cosines) == own)
    return total / (2 * count), right / count


def repeatability(
    logits: np.ndarray, other: np.ndarray, flow: np.ndarray, point_cost: float
) -> float:
    total = visible = 0.0
    batch, _, h, w = logits.shape
    for b in range(batch):
        chance, theirs = (np.zeros((8 * h, 8 * w)) for _ in range(2))
        for values, into in ((logits, chance), (other, theirs)):
            for i in range(h):
                for j in range(w):
                    cell = softmax(values[b, :, i, j])[:64].reshape(8, 8)
                    into[8 * i : 8 * i + 8, 8 * j : 8 * j + 8] = cell
        around = np.zeros_like(theirs)
        for y in range(8 * h):
            for x in range(8 * w):
                for v in range(8 * h):
                    for u in range(8 * w):
                        if max(abs(u - x), abs(v - y)) <= 1:
                            distance2 = (u - x) ** 2 + (v - y) ** 2
                            around[y, x] += np.exp(-distance2 / (2 * 0.8**2)) * theirs[v, u]
        around = np.minimum(around, 1)
        for y in range(8 * h):
            for x in range(8 * w):
                if np.isnan(flow[b, y, x]).any():
                    continue
                visible += 1
                earned = bilinear(around, *flow[b, y, x])
                total -= chance[y, x] * (earned - point_cost)
    return total / (max(visible, 1) / 64)


def bilinear(values: np.ndarray, x: float, y: float) -> float:
    result = 0.0
    for v in range(values.shape[0]):
        for u in range(values.shape[1]):
            result += max(0, 1 - abs(u - x)) * max(0, 1 - abs(v - y)) * values[v, u]
    return float(result)
