"""Batches that a device makes of a bank: the rules of the host's batches, without a wait."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from support.matcher_scenes import fake_scene, tiny_preset
from support.queued import queue_everything, waits
from tiepoint.matching.learned.inputs import normalised
from tiepoint.training.matcher import runs
from tiepoint.training.matcher.bank import Scenes, write_shard
from tiepoint.training.matcher.batch import (
    PairSide,
    best,
    collate,
    pairs_of_step,
    side_of,
    size_of_step,
    step_rng,
)
from tiepoint.training.matcher.device_bank import (
    ChosenPairs,
    DeviceBank,
    DeviceSource,
    SideDraws,
    fits,
)
from tiepoint.training.matcher.settings import VIEWS, MatcherPreset
from tiepoint.training.matcher.trainer import MatcherTrainer
from tiepoint.training.state import RunConfig

CPU = torch.device("cpu")
PRESET = tiny_preset()
STAGE = PRESET.stages[0]
PLAIN = replace(PRESET, dropped=0.0, spurious=0.0, jitter_px=0.0)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    """Two shards; one view has few keypoints, one of them is doubtful."""
    folder = tmp_path_factory.mktemp("bank")
    paths = [folder / "a.safetensors", folder / "b.safetensors"]
    for path, seeds in zip(paths, (range(3), range(3, 5)), strict=True):
        write_shard(path, [with_few(seed) for seed in seeds])
    return Scenes(paths)


def with_few(seed: int):
    scene = fake_scene(seed)
    first, rest = slice(0, 20), slice(int(scene.counts[0]), None)
    cut = {
        name: np.concatenate([getattr(scene, name)[first], getattr(scene, name)[rest]])
        for name in ("xy", "descriptors", "elsewhere", "doubtful")
    }
    cut["doubtful"][3] = True
    return replace(scene, counts=np.array([20, *scene.counts[1:]]), **cut)


@pytest.fixture(scope="module")
def bank(scenes: Scenes) -> DeviceBank:
    return DeviceBank(scenes, CPU)


def chosen(bank: DeviceBank, recipe: MatcherPreset, number: int = 6, seed: int = 3) -> ChosenPairs:
    return bank.choose(number, recipe.unrelated, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", [2**32, 2**63 - 1])
def test_every_seed_of_a_run_makes_batches(bank: DeviceBank, seed: int) -> None:
    first, again, other = (bank.batch(PRESET, STAGE, seed, step) for step in (4, 4, 5))
    assert torch.equal(first.a.descriptors, again.a.descriptors)
    assert first.a.descriptors.shape != other.a.descriptors.shape or not torch.equal(
        first.a.descriptors, other.a.descriptors
    )


def test_seed_and_step_decide_a_batch(bank: DeviceBank) -> None:
    first, again, other, seeded = (
        bank.batch(PRESET, STAGE, seed, step) for seed, step in ((4, 9), (4, 9), (4, 10), (5, 9))
    )
    assert torch.equal(first.a.descriptors, again.a.descriptors)
    assert torch.equal(first.labels.matched, again.labels.matched)
    for one in (other, seeded):
        assert one.a.xy.shape != first.a.xy.shape or not torch.equal(one.a.xy, first.a.xy)


def test_a_step_has_the_size_that_the_host_would_give_it(bank: DeviceBank, scenes: Scenes) -> None:
    for step in range(6):
        count, number = size_of_step(STAGE, step_rng(1, step))
        batch = bank.batch(PRESET, STAGE, 1, step)
        assert batch.a.xy.shape == batch.b.xy.shape == (number, count, 2)
        assert len(pairs_of_step(scenes, PRESET, STAGE, 1, step)) == number


def test_pairs_show_two_views_and_a_share_of_them_two_scenes(bank: DeviceBank) -> None:
    pairs = chosen(bank, replace(PRESET, unrelated=0.3), 4000)
    assert (pairs.view[0] != pairs.view[1]).all()
    for scene, view in zip(pairs.scene, pairs.view, strict=True):
        assert set(scene.tolist()) == set(range(5)) and set(view.tolist()) == set(range(VIEWS))
    assert torch.equal(pairs.related, pairs.scene[0] == pairs.scene[1])
    assert float((~pairs.related).float().mean()) == pytest.approx(0.3, abs=0.03)


def test_without_augmentation_a_batch_equals_that_of_the_host(
    bank: DeviceBank, scenes: Scenes
) -> None:
    recipe = replace(PLAIN, unrelated=0.4)
    pairs = chosen(bank, recipe, 12)
    assert 0 < pairs.related.sum() < 12
    draws = [bank.draw(12, 32, torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    found = bank.augmented(pairs, recipe, (draws[0], draws[1]))
    expected = collate(host_pairs(scenes, pairs, 32), CPU)
    for ours, theirs in ((found.a, expected.a), (found.b, expected.b)):
        N = theirs.xy.shape[1]
        assert theirs.valid is not None and ours.valid is not None
        assert torch.equal(ours.valid[:, :N], theirs.valid) and not ours.valid[:, N:].any()
        torch.testing.assert_close(ours.xy[:, :N][theirs.valid], theirs.xy[theirs.valid])
        assert torch.equal(ours.descriptors[:, :N][theirs.valid], theirs.descriptors[theirs.valid])
    a, b = expected.a.xy.shape[1], expected.b.xy.shape[1]
    assert torch.equal(found.labels.matched[:, :a, :b], expected.labels.matched)
    assert found.labels.matched.sum() == expected.labels.matched.sum()
    assert torch.equal(found.labels.unmatchable_a[:, :a], expected.labels.unmatchable_a)
    assert torch.equal(found.labels.unmatchable_b[:, :b], expected.labels.unmatchable_b)


def host_pairs(scenes: Scenes, pairs: ChosenPairs, count: int) -> list[tuple[PairSide, PairSide]]:
    sides = []
    for row, related in enumerate(pairs.related.tolist()):
        (s, t), (v, w) = ((int(one[row]) for one in both) for both in (pairs.scene, pairs.view))
        a, b = scenes.view(s, v), scenes.view(t, w)
        others = (w, v) if related else (None, None)
        sides.append((best(side_of(a, others[0]), count), best(side_of(b, others[1]), count)))
    return sides


def twin(
    side: PairSide, draws: SideDraws, row: int, recipe: MatcherPreset
) -> tuple[np.ndarray, ...]:
    """One image of `DeviceBank.augmented`, keypoint by keypoint."""
    one = SideDraws(*(values[row].numpy() for values in draws))
    N = len(one.copied)
    share = recipe.dropped * one.most_dropped[0]
    kept = [i for i in range(len(side)) if one.kept[i] >= share]
    left_out = [i for i in range(len(side)) if one.kept[i] < share]
    spurious = int(np.float32(recipe.spurious * one.spurious[0]) * min(N, len(side)))
    own = kept[: N - spurious]
    width, height = side.size_hw[1], side.size_hw[0]
    xy, descriptors, other_xy, doubtful = [], [], [], []
    for slot, i in enumerate(own):
        xy.append(side.xy[i] + recipe.jitter_px * one.jitter[slot])
        descriptors.append(side.descriptors[i])
        other_xy.append(side.other_xy[i])
        doubtful.append(side.doubtful[i])
    for slot in range(len(own), len(own) + spurious):
        xy.append(one.place[slot] * (width - 1, height - 1))
        if left_out and one.copied[slot] < 0.5:
            descriptors.append(side.descriptors[left_out[int(one.source[slot] * len(left_out))]])
        else:
            descriptors.append(one.direction[slot] / np.linalg.norm(one.direction[slot]))
        other_xy.append((np.nan, np.nan))
        doubtful.append(False)
    return tuple(map(np.array, (xy, descriptors, other_xy, doubtful)))


def test_augmentation_equals_the_slow_twin(bank: DeviceBank, scenes: Scenes) -> None:
    recipe = replace(PRESET, unrelated=0.3, dropped=0.6, spurious=0.5, jitter_px=0.7)
    pairs = chosen(bank, recipe, 16)
    generator = torch.Generator().manual_seed(8)
    draws = bank.draw(16, 28, generator), bank.draw(16, 28, generator)
    complete = host_pairs(scenes, pairs, 999)
    random_ones = copies = 0
    for number in range(2):
        points, side = bank._side(pairs, number, recipe, draws[number])
        assert points.valid is not None
        for row in range(16):
            host = complete[row][number]
            xy, descriptors, other_xy, doubtful = twin(host, draws[number], row, recipe)
            assert points.valid[row].tolist() == [True] * len(xy) + [False] * (28 - len(xy))
            np.testing.assert_allclose(side.xy[row, : len(xy)].numpy(), xy, atol=1e-4)
            np.testing.assert_allclose(
                points.descriptors[row, : len(xy)].numpy(), descriptors, atol=1e-5
            )
            np.testing.assert_allclose(side.other_xy[row, : len(xy)].numpy(), other_xy, atol=1e-4)
            assert side.doubtful[row, : len(xy)].tolist() == doubtful.tolist()
            places = normalised(xy.astype(np.float32), host.size_hw)
            np.testing.assert_allclose(points.xy[row, : len(xy)].numpy(), places, atol=1e-5)
            alone = np.isnan(other_xy).all(axis=1)
            known = (descriptors[:, None] == host.descriptors).all(axis=2).any(axis=1)
            copies += int((alone & known).sum())
            random_ones += int((~known).sum())
    assert random_ones > 10 and copies > 10


def test_a_source_makes_the_batches_from_its_first_step_on(bank: DeviceBank) -> None:
    source = DeviceSource(bank, PRESET, STAGE, 4, 5)
    for step, make in zip((5, 6, 7), islice(source, 3), strict=True):
        assert torch.equal(make().a.xy, bank.batch(PRESET, STAGE, 4, step).a.xy)
    source.close()


def test_a_bank_stays_on_disk_unless_half_of_the_memory_is_enough(scenes: Scenes) -> None:
    rows = [shard.whole("descriptors").nbytes + sum(
        shard.whole(name).nbytes for name in ("xy", "elsewhere", "doubtful")
    ) for shard in scenes.shards]  # fmt: skip
    assert fits(scenes, 2 * sum(rows)) and not fits(scenes, 2 * sum(rows) - 1)
    assert not fits(scenes, 0)


def test_a_bank_without_keypoints_stays_on_disk(tmp_path: Path) -> None:
    scene = fake_scene(0)
    names = ("xy", "descriptors", "elsewhere", "doubtful")
    none = {name: getattr(scene, name)[:0] for name in names}
    write_shard(tmp_path / "s", [replace(scene, counts=scene.counts * 0, **none)])
    assert not fits(Scenes([tmp_path / "s"]), 2**40)


def trainer(bank: DeviceBank, folder: Path) -> MatcherTrainer:
    def open_source(stage: object, step: int) -> DeviceSource:
        return DeviceSource(bank, PRESET, STAGE, 0, step)

    return MatcherTrainer(RunConfig(PRESET, 0), open_source, folder, CPU)


def test_a_step_and_its_batch_wait_for_nothing(
    bank: DeviceBank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue_everything(monkeypatch)
    run = trainer(bank, tmp_path)
    source = iter(DeviceSource(bank, PRESET, STAGE, 0, 0))

    def step() -> None:
        run.step(run.collate(next(source)), STAGE)

    step()
    assert not waits(step)


def test_a_matcher_learns_from_a_bank_on_the_device(
    bank: DeviceBank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue_everything(monkeypatch)
    run = trainer(bank, tmp_path)
    batch = bank.batch(PRESET, STAGE, 7, 0)
    before = float(run.step(batch, STAGE).figures["last_layer"])
    for _ in range(30):
        last = run.step(batch, STAGE)
    assert float(last.figures["last_layer"]) < 0.8 * before


def test_a_run_takes_its_batches_from_the_device_where_the_bank_fits(
    scenes: Scenes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "free_bytes", lambda device: 2**40)
    assert isinstance(runs.source_opener(scenes, PRESET, 0, CPU)(STAGE, 3), DeviceSource)
    monkeypatch.undo()
    source = runs.source_opener(scenes, PRESET, 0, CPU)(STAGE, 3)  # a CPU reads from the disk
    assert not isinstance(source, DeviceSource)
    source.close()
