"""A rotation matrix for made-up descriptors, and pairs of descriptors that it relates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

D = 16


def eighth(seed: int = 0) -> NDArray[np.float32]:
    """D D float32, orthogonal, its eighth power the identity: a rotation by 45 degrees."""
    rng = np.random.default_rng(seed)
    blocks = np.zeros((D, D))
    for plane in range(D // 2):
        angle = np.pi / 4 * (1 + plane % 4)
        c, s = np.cos(angle), np.sin(angle)
        blocks[2 * plane : 2 * plane + 2, 2 * plane : 2 * plane + 2] = [[c, -s], [s, c]]
    basis, _ = np.linalg.qr(rng.normal(size=(D, D)))
    return (basis @ blocks @ basis.T).astype(np.float32)


def unit(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    """Rows of unit length."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def rotated_pair(steps: int, noise: float = 0.1) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Descriptors of A, and three quarters of them rotated, noisy and in another order."""
    rng = np.random.default_rng(5)
    a = unit(rng.normal(size=(120, D)))
    b = a.astype(np.float64)
    for _ in range(steps % 8):
        b = b @ eighth().T
    b = unit(b + noise * rng.normal(size=b.shape))[rng.permutation(120)[:90]]
    return a, b
