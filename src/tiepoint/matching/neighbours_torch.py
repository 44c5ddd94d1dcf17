"""The torch twin of `neighbours`: the same results on a GPU, in blocks that fit any.

Cosines are summed in float64 and rounded to float32 here too, so that the pairs are those of the
CPU; two cosines that are within half a unit of float32's last digit may still round apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tiepoint.errors import EngineError
from tiepoint.matching.neighbours import Nearest
from tiepoint.network.torch_device import Download, uploaded

BLOCK = 4096
"""Descriptors of each image compared at a time: 128 MB of float64, and as much to work in."""


def to_device(descriptors: NDArray[np.float32], device: str) -> Tensor:
    """N D float32 on a device.

    Raises:
        EngineError: torch does not find the device, or it has no memory left.
    """
    try:
        return uploaded(torch.tensor(descriptors), torch.device(device))
    except (RuntimeError, AssertionError) as error:
        raise EngineError(
            f"device {device!r} cannot be used for matching ({error}); match with device='cpu'"
        ) from error


@torch.no_grad()
def by_cosine(a: Tensor, b: Tensor, *, second: bool = False) -> tuple[Nearest, Nearest]:
    """As `neighbours.by_cosine`, for tensors of one device."""
    of_a = _Best(len(a), a.device, torch.float32, second=second)
    of_b = _Best(len(b), a.device, torch.float32, second=second)
    for rows, columns, cosines in _blocks(a, b):
        of_b.improve(columns, cosines, rows.start, axis=0)
        of_a.improve(rows, cosines, columns.start, axis=1)
    return _downloaded(of_a, of_b)


@torch.no_grad()
def by_probability(a: Tensor, b: Tensor, temperature: float) -> tuple[Nearest, Nearest]:
    """As `neighbours.by_probability`, for tensors of one device."""
    log_a = torch.full((len(a),), -torch.inf, dtype=torch.float64, device=a.device)
    log_b = torch.full((len(b),), -torch.inf, dtype=torch.float64, device=a.device)
    is_one_block = max(len(a), len(b)) <= BLOCK
    kept = [*_blocks(a, b)] if is_one_block else None  # computed once for both passes
    for rows, columns, cosines in kept or _blocks(a, b):
        scaled = cosines.double() / temperature  # BLOCK BLOCK
        log_a[rows] = torch.logaddexp(log_a[rows], scaled.logsumexp(dim=1))
        log_b[columns] = torch.logaddexp(log_b[columns], scaled.logsumexp(dim=0))
    of_a = _Best(len(a), a.device, torch.float64)
    of_b = _Best(len(b), a.device, torch.float64)
    for rows, columns, cosines in kept or _blocks(a, b):
        scaled = 2 * (cosines.double() / temperature)  # BLOCK BLOCK
        scaled -= log_a[rows, None]
        scaled -= log_b[columns]
        of_b.improve(columns, scaled, rows.start, axis=0)
        of_a.improve(rows, scaled, columns.start, axis=1)
    return _downloaded(of_a, of_b)


def _blocks(a: Tensor, b: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    for row in range(0, len(a), BLOCK):
        rows = slice(row, row + BLOCK)
        left = a[rows].double()  # BLOCK D
        for column in range(0, len(b), BLOCK):
            columns = slice(column, column + BLOCK)
            yield rows, columns, (left @ b[columns].double().T).float()  # BLOCK BLOCK


class _Best:
    """The best of each row or column, and the second best, over the blocks seen so far."""

    def __init__(
        self, count: int, device: torch.device, dtype: torch.dtype, *, second: bool = False
    ) -> None:
        self._index = torch.zeros(count, dtype=torch.int64, device=device)
        self._score = torch.full((count,), -torch.inf, dtype=dtype, device=device)
        self._second = self._score.clone() if second else None

    def improve(self, part: slice, scores: Tensor, offset: int, axis: int) -> None:
        """Take over what this block has strictly better than those before.

        Args:
            part: The rows (axis 1) or columns (axis 0) of the block.
            offset: First column (row) of the block.
        """
        found, nearest = scores.max(dim=axis)  # BLOCK each; torch gives the first of equals
        best = self._score[part]
        if self._second is not None:
            others = scores.scatter(axis, nearest.unsqueeze(axis), -torch.inf)
            runner_up = torch.maximum(others.amax(dim=axis), torch.minimum(best, found))  # BLOCK
            self._second[part] = torch.maximum(self._second[part], runner_up)
        better = found > best
        self._index[part] = torch.where(better, nearest + offset, self._index[part])
        self._score[part] = torch.where(better, found, best)

    def parts(self) -> list[Tensor]:
        """Index, score and second score, if it is known, as float64: it has all their digits."""
        every = (self._index, self._score, self._second)
        return [part.double() for part in every if part is not None]

    def nearest(self, parts: Sequence[NDArray[np.float64]]) -> Nearest:
        """What `parts` were on the CPU."""
        index, score, *second = parts
        if self._score.dtype == torch.float64:
            return Nearest(index.astype(np.int64), score, None)
        other = second[0].astype(np.float32) if second else None
        return Nearest(index.astype(np.int64), score.astype(np.float32), other)


def _downloaded(of_a: _Best, of_b: _Best) -> tuple[Nearest, Nearest]:
    """The results of both images in one copy, for which the host waits once."""
    parts = [*of_a.parts(), *of_b.parts()]
    values = Download(torch.cat(parts)).wait().numpy()
    each = np.split(values, np.cumsum([len(part) for part in parts])[:-1])
    half = len(each) // 2
    return of_a.nearest(each[:half]), of_b.nearest(each[half:])
