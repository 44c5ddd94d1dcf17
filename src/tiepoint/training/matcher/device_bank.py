"""The bank in a device's memory, and augmented batches of it that the device makes by itself.

The batches follow the rules of `batch`, with other random numbers: seed and step decide them, on
one kind of device. The host only decides how many pairs and keypoints a step has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tiepoint.matching.learned.network_torch import Points
from tiepoint.training.devices import first_chosen, step_seed
from tiepoint.training.matcher.bank import Scenes
from tiepoint.training.matcher.batch import MatcherBatch, size_of_step, step_rng
from tiepoint.training.matcher.labels import Side, labels
from tiepoint.training.matcher.settings import VIEWS, MatcherPreset, MatcherStage

MOST_OF_FREE = 0.5
"""Fraction of the free memory of a device that the bank may have; steps need the rest."""

FEWEST = 1e-6
"""Least length that a random descriptor is divided by."""


class ChosenPairs(NamedTuple):
    """The views of P pairs.

    Attributes:
        scene, view: P int64 of each image.
        related: P bool, whether both views show one scene.
    """

    scene: tuple[Tensor, Tensor]
    view: tuple[Tensor, Tensor]
    related: Tensor


class SideDraws(NamedTuple):
    """The random numbers that augment one image of P pairs to N keypoints, from views of up to K.

    Attributes:
        kept: P K, uniform: a keypoint is left out below `dropped` times `most_dropped`.
        most_dropped, spurious: P 1, uniform: shares, relative to the recipe's.
        jitter: P N 2, normal.
        place: P N 2, uniform: random positions, relative to the image.
        direction: P N D, normal: random descriptors.
        copied, source: P N, uniform: whether a random keypoint has the descriptor of one that is
            left out, and of which.
    """

    kept: Tensor
    most_dropped: Tensor
    spurious: Tensor
    jitter: Tensor
    place: Tensor
    direction: Tensor
    copied: Tensor
    source: Tensor


class DeviceBank:
    """The scenes of a bank on a device.

    Attributes:
        first, counts: S V int64, the row of each view's first keypoint, and how many it has.
        size_wh: S 2 float32, (width, height) of the views, px.
        xy: T 2 float32, px.
        descriptors: T D float16.
        elsewhere: T V 2 float32, px; NaN where not visible.
        doubtful: T V bool.
        longest: Largest number of keypoints of a view.
    """

    def __init__(self, scenes: Scenes, device: torch.device) -> None:
        self.device = device
        counts = np.concatenate([shard.counts for shard in scenes.shards])  # S V
        sizes = np.concatenate([shard.size_hw for shard in scenes.shards])  # S 2
        first = np.cumsum(counts.ravel()) - counts.ravel()
        self.counts = torch.from_numpy(counts.astype(np.int64)).to(device)
        self.first = torch.from_numpy(first.reshape(-1, VIEWS)).to(device)
        self.size_wh = torch.from_numpy(sizes[:, ::-1].astype(np.float32)).to(device)
        self.xy, self.descriptors, self.elsewhere = (
            self._joined(scenes, name) for name in ("xy", "descriptors", "elsewhere")
        )
        self.doubtful = self._joined(scenes, "doubtful") != 0
        self.longest = int(counts.max())

    def batch(
        self, recipe: MatcherPreset, stage: MatcherStage, seed: int, step: int
    ) -> MatcherBatch:
        """The batch of a step: always the same, whatever the steps before."""
        keypoints, number = size_of_step(stage, step_rng(seed, step))
        generator = torch.Generator(self.device).manual_seed(step_seed(seed, step))
        pairs = self.choose(number, recipe.unrelated, generator)
        draws = [self.draw(number, keypoints, generator) for _ in range(2)]
        return self.augmented(pairs, recipe, (draws[0], draws[1]))

    def choose(self, number: int, unrelated: float, generator: torch.Generator) -> ChosenPairs:
        """Random pairs of views, a share of them of two scenes."""
        scenes = len(self.counts)

        def whole(below: int) -> Tensor:
            return torch.randint(below, (number,), generator=generator, device=self.device)

        scene, view = whole(scenes), whole(VIEWS)
        other_view = (view + 1 + whole(VIEWS - 1)) % VIEWS
        draw = torch.rand(number, generator=generator, device=self.device)
        related = draw >= (unrelated if scenes > 1 else 0)
        another = (scene + 1 + whole(max(1, scenes - 1))) % scenes
        return ChosenPairs((scene, another.where(~related, scene)), (view, other_view), related)

    def draw(self, number: int, keypoints: int, generator: torch.Generator) -> SideDraws:
        """The random numbers of one image of each pair."""
        P, N, K, D = number, keypoints, self.longest, self.descriptors.shape[1]
        uniform = partial(torch.rand, generator=generator, device=self.device)
        normal = partial(torch.randn, generator=generator, device=self.device)
        return SideDraws(
            uniform(P, K), uniform(P, 1), uniform(P, 1), normal(P, N, 2), uniform(P, N, 2),
            normal(P, N, D), uniform(P, N), uniform(P, N),
        )  # fmt: skip

    def augmented(
        self, pairs: ChosenPairs, recipe: MatcherPreset, draws: tuple[SideDraws, SideDraws]
    ) -> MatcherBatch:
        """The batch of some pairs; see `batch.augmented`."""
        a, b = (self._side(pairs, number, recipe, draws[number]) for number in (0, 1))
        return MatcherBatch(a[0], b[0], labels(a[1], b[1]))

    def _side(
        self, pairs: ChosenPairs, number: int, recipe: MatcherPreset, draws: SideDraws
    ) -> tuple[Points, Side]:
        scene, view = pairs.scene[number], pairs.view[number]  # P
        first, known = self.first[scene, view][:, None], self.counts[scene, view][:, None]  # P 1
        size_wh = self.size_wh[scene][:, None]  # P 1 2
        N, P = draws.copied.shape[1], len(scene)
        numbers = torch.arange(self.longest, device=self.device).expand(P, -1)  # P K
        shown = numbers < known  # P K
        kept = draws.kept >= recipe.dropped * draws.most_dropped
        # The best that are kept, then random ones.
        spurious = (recipe.spurious * draws.spurious * known.clamp(max=N)).long()  # P 1
        own, is_own = first_chosen(numbers, shown & kept, N)  # P N
        slots = torch.arange(N, device=self.device)
        is_own = is_own & (slots < N - spurious)  # P N
        valid = slots < is_own.sum(dim=1, keepdim=True) + spurious  # P N
        left_out, _ = first_chosen(numbers, shown & ~kept, self.longest)  # P K
        many = (shown & ~kept).sum(dim=1, keepdim=True)  # P 1
        source = torch.minimum((draws.source * many).long(), (many - 1).clamp(min=0))  # P N
        copied = ~is_own & (many > 0) & (draws.copied < 0.5)  # P N
        row = first + torch.where(copied, left_out.gather(1, source), own)
        row = row.clamp(max=len(self.xy) - 1)  # P N; that of padding has no meaning
        is_random = (~is_own & ~copied)[..., None]  # P N 1
        direction = functional.normalize(draws.direction, dim=-1, eps=FEWEST)
        descriptors = torch.where(is_random, direction, self.descriptors[row].float())  # P N D
        xy = self.xy[row] + recipe.jitter_px * draws.jitter
        xy = torch.where(is_own[..., None], xy, draws.place * (size_wh - 1))  # P N 2
        other = pairs.view[1 - number][:, None]  # P 1
        exact = is_own & pairs.related[:, None]  # P N
        other_xy = self.elsewhere[row, other].where(exact[..., None], torch.nan)  # P N 2
        half = size_wh / 2
        places = (xy - half) / half.amax(dim=-1, keepdim=True)  # P N 2; see `inputs.normalised`
        return (
            Points(places, descriptors, valid),
            Side(xy, other_xy, self.doubtful[row, other] & exact, valid),
        )

    def _joined(self, scenes: Scenes, name: str) -> Tensor:
        """The values of all shards, copied one after another: the host never has all of them."""
        parts = [torch.from_numpy(shard.whole(name)).to(self.device) for shard in scenes.shards]
        return torch.cat(parts)


class DeviceSource:
    """Endless batches of a bank on a device: calls that make them there.

    Args:
        step: First step.
    """

    def __init__(
        self, bank: DeviceBank, recipe: MatcherPreset, stage: MatcherStage, seed: int, step: int
    ) -> None:
        self._make = partial(bank.batch, recipe, stage, seed)
        self._step = step

    def __iter__(self) -> Iterator[Callable[[], MatcherBatch]]:
        return (partial(self._make, step) for step in count(self._step))

    def close(self) -> None:
        """Nothing has to end."""


def fits(scenes: Scenes, free: int) -> bool:
    """Whether a bank has keypoints and needs at most `MOST_OF_FREE` of the free bytes."""
    total = sum(int(shard.counts.sum()) for shard in scenes.shards)
    return total > 0 and sum(shard.size_bytes for shard in scenes.shards) <= MOST_OF_FREE * free


def free_bytes(device: torch.device) -> int:
    """Free memory of a CUDA GPU; 0 for other devices, where torch does not report it."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
