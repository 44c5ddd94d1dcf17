"""Pairs of the bank -> augmented batches, in an order that only seed and step decide."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tiepoint.geometry import SizeHW
from tiepoint.matching.learned.inputs import normalised
from tiepoint.matching.learned.network_torch import Points
from tiepoint.network.torch_device import uploaded
from tiepoint.training.matcher.bank import BankView, Scenes
from tiepoint.training.matcher.labels import Labels, Side, labels
from tiepoint.training.matcher.settings import VIEWS, MatcherPreset, MatcherStage

Rng = np.random.Generator


@dataclass(frozen=True, eq=False)
class PairSide:
    """Keypoints of one image of a pair.

    Attributes:
        xy, other_xy: N 2 float32, px: position here, and in the other image; NaN where that does
            not show the point.
        descriptors: N D float32.
        doubtful: N bool; see `positions.Elsewhere`.
        size_hw: (height, width) of the image, px.
    """

    xy: NDArray[np.float32]
    other_xy: NDArray[np.float32]
    descriptors: NDArray[np.float32]
    doubtful: NDArray[np.bool_]
    size_hw: SizeHW

    def __len__(self) -> int:
        return len(self.xy)


Pairs = Sequence[tuple[PairSide, PairSide]]


@dataclass(frozen=True, eq=False)
class MatcherBatch:
    """Pairs on a device: inputs of the network, and the ground truth."""

    a: Points
    b: Points
    labels: Labels

    @property
    def pairs(self) -> int:
        """Number of pairs."""
        return len(self.a.xy)


def side_of(view: BankView, other: int | None) -> PairSide:
    """A view as one side of a pair with another view of its scene; None is another scene."""
    if other is None:
        nowhere = np.full_like(view.xy, np.nan)
        doubtful = np.zeros(len(view), bool)
    else:
        nowhere, doubtful = view.elsewhere[:, other], view.doubtful[:, other]
    return PairSide(view.xy, nowhere, view.descriptors.astype(np.float32), doubtful, view.size_hw)


def best(side: PairSide, count: int) -> PairSide:
    """The best keypoints of a side."""
    return _taken(side, np.arange(min(count, len(side))))


def augmented(side: PairSide, count: int, recipe: MatcherPreset, rng: Rng) -> PairSide:
    """At most `count` keypoints: some left out, some at random positions, all with noise.

    Descriptors of random positions are random, or those of keypoints that are left out.
    """
    kept = rng.random(len(side)) >= recipe.dropped * rng.random()
    spurious = int(recipe.spurious * rng.random() * min(count, len(side)))
    rows = np.flatnonzero(kept)[: count - spurious]
    taken = _taken(side, rows)
    xy = taken.xy + rng.normal(0, recipe.jitter_px, taken.xy.shape).astype(np.float32)
    height, width = side.size_hw
    random_xy = rng.uniform((0, 0), (width - 1, height - 1), (spurious, 2)).astype(np.float32)
    D = side.descriptors.shape[1]
    descriptors = rng.normal(size=(spurious, D)).astype(np.float32)
    descriptors /= np.maximum(np.linalg.norm(descriptors, axis=1, keepdims=True), 1e-6)
    left_out = np.flatnonzero(~kept)
    if len(left_out):
        copied = rng.random(spurious) < 0.5
        descriptors[copied] = side.descriptors[rng.choice(left_out, int(copied.sum()))]
    return PairSide(
        np.concatenate([xy, random_xy]),
        np.concatenate([taken.other_xy, np.full_like(random_xy, np.nan)]),
        np.concatenate([taken.descriptors, descriptors]),
        np.concatenate([taken.doubtful, np.zeros(spurious, bool)]),
        side.size_hw,
    )


def size_of_step(stage: MatcherStage, rng: Rng) -> tuple[int, int]:
    """Number of keypoints per image in a step, and number of its pairs."""
    count = int(rng.choice(stage.counts))
    return count, max(1, stage.step_keypoints // count)


def step_rng(seed: int, step: int) -> Rng:
    """What decides a step."""
    return np.random.default_rng([seed, step, 5])


def pairs_of_step(
    scenes: Scenes, recipe: MatcherPreset, stage: MatcherStage, seed: int, step: int
) -> list[tuple[PairSide, PairSide]]:
    """The pairs of a step: always the same, whatever the steps before."""
    rng = step_rng(seed, step)
    count, number = size_of_step(stage, rng)
    pairs = []
    for _ in range(number):
        scene = int(rng.integers(len(scenes)))
        a, b = (int(view) for view in rng.choice(VIEWS, 2, replace=False))
        if rng.random() < recipe.unrelated and len(scenes) > 1:
            other = (scene + 1 + int(rng.integers(len(scenes) - 1))) % len(scenes)
            sides = side_of(scenes.view(scene, a), None), side_of(scenes.view(other, b), None)
        else:
            sides = side_of(scenes.view(scene, a), b), side_of(scenes.view(scene, b), a)
        pairs.append(
            (augmented(sides[0], count, recipe, rng), augmented(sides[1], count, recipe, rng))
        )
    return pairs


def held_out_pairs(scenes: Scenes) -> list[tuple[int, int, int]]:
    """(scene, view A, view B) of all pairs of held-out scenes."""
    return [(s, a, b) for s in scenes for a in range(VIEWS) for b in range(a + 1, VIEWS)]


def collate(pairs: Pairs, device: torch.device) -> MatcherBatch:
    """Pad a batch, copy it to a device, and label it there."""
    points, sides = [], []
    for number in range(2):
        one = [pair[number] for pair in pairs]
        longest = max(1, *(len(side) for side in one))

        def padded(
            name: str, fill: float, one: list[PairSide] = one, N: int = longest
        ) -> torch.Tensor:
            arrays = [getattr(side, name) for side in one]
            values = np.full((len(one), N, *arrays[0].shape[1:]), fill, arrays[0].dtype)
            for row, array in zip(values, arrays, strict=True):
                row[: len(array)] = array
            return _copied(values, device)

        counts = np.array([len(side) for side in one])
        valid = _copied(np.arange(longest) < counts[:, None], device)  # B N
        places = np.zeros((len(one), longest, 2), np.float32)
        for row, side in zip(places, one, strict=True):
            row[: len(side)] = normalised(side.xy, side.size_hw)
        points.append(Points(_copied(places, device), padded("descriptors", 0), valid))
        sides.append(
            Side(padded("xy", 0), padded("other_xy", np.nan), padded("doubtful", 0), valid)
        )
    return MatcherBatch(points[0], points[1], labels(sides[0], sides[1]))


class BankSource:
    """Endless batches from the bank; the next one is read while a step runs.

    Args:
        draw: Step -> its pairs.
        step: First step.
    """

    def __init__(self, draw: Callable[[int], Pairs], step: int) -> None:
        self._draw, self._step = draw, step
        self._executor = ThreadPoolExecutor(1, "tiepoint-pairs")
        self._next: Future[Pairs] = self._executor.submit(draw, step)

    def __iter__(self) -> Iterator[Pairs]:
        while True:
            pairs = self._next.result()
            self._step += 1
            self._next = self._executor.submit(self._draw, self._step)
            yield pairs

    def close(self) -> None:
        """End the reading."""
        self._executor.shutdown(wait=True, cancel_futures=True)


def _copied(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """An array on a device, always in torch's own memory.

    The alignment of that memory is always the same. Products of matrices may round differently with
    another, and a resumed run would not repeat every bit.
    """
    return uploaded(torch.tensor(array), device)


def _taken(side: PairSide, rows: NDArray[np.int64]) -> PairSide:
    return PairSide(
        side.xy[rows], side.other_xy[rows], side.descriptors[rows], side.doubtful[rows],
        side.size_hw,
    )  # fmt: skip
