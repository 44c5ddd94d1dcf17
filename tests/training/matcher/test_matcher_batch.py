"""Batches of the bank: decided by seed and step, augmented, padded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from support.matcher_scenes import SIZE_HW, fake_scene, tiny_preset
from tiepoint.training.matcher.bank import Scenes, write_shard
from tiepoint.training.matcher.batch import (
    BankSource,
    PairSide,
    augmented,
    best,
    collate,
    pairs_of_step,
    side_of,
)

PRESET = tiny_preset()
STAGE = PRESET.stages[0]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    folder = tmp_path_factory.mktemp("bank")
    paths = [folder / "a.safetensors", folder / "b.safetensors"]
    for path, seeds in zip(paths, (range(3), range(3, 5)), strict=True):
        write_shard(path, [fake_scene(seed) for seed in seeds])
    return Scenes(paths)


def same(a: PairSide, b: PairSide) -> bool:
    names = ("xy", "other_xy", "descriptors", "doubtful")
    return all(
        np.array_equal(getattr(a, n), getattr(b, n), equal_nan=n == "other_xy") for n in names
    )


def test_seed_and_step_decide_a_batch(scenes: Scenes) -> None:
    first = pairs_of_step(scenes, PRESET, STAGE, 4, 9)
    again = pairs_of_step(scenes, PRESET, STAGE, 4, 9)
    assert all(
        same(x, y) for p, q in zip(first, again, strict=True) for x, y in zip(p, q, strict=True)
    )
    other = pairs_of_step(scenes, PRESET, STAGE, 4, 10)
    assert not same(first[0][0], other[0][0])


def test_a_source_gives_the_steps_in_order_from_its_first(scenes: Scenes) -> None:
    source = BankSource(lambda step: pairs_of_step(scenes, PRESET, STAGE, 4, step), 5)
    batches = iter(source)
    for step in (5, 6, 7):
        expected = pairs_of_step(scenes, PRESET, STAGE, 4, step)
        assert same(next(batches)[0][0], expected[0][0])
    source.close()


def test_fewer_keypoints_make_more_pairs(scenes: Scenes) -> None:
    sizes = set()
    for step in range(12):
        pairs = pairs_of_step(scenes, PRESET, STAGE, 0, step)
        longest = max(len(side) for pair in pairs for side in pair)
        sizes.add(len(pairs))
        assert longest <= 32 and len(pairs) * longest <= STAGE.step_keypoints
    assert sizes == {128 // 24, 128 // 32}


def test_unrelated_pairs_have_no_positions_in_one_another(scenes: Scenes) -> None:
    unrelated = pairs_of_step(scenes, replace(PRESET, unrelated=1.0), STAGE, 0, 0)
    assert all(np.isnan(side.other_xy).all() for pair in unrelated for side in pair)
    batch = collate(unrelated, CPU)
    assert not batch.labels.matched.any()
    assert torch.equal(batch.labels.unmatchable_a, batch.a.valid)
    related = pairs_of_step(scenes, replace(PRESET, unrelated=0.0), STAGE, 0, 0)
    assert collate(related, CPU).labels.matched.any(2).any(1).all()


def test_augmentation_drops_adds_and_moves_keypoints(scenes: Scenes) -> None:
    side = side_of(scenes.view(0, 0), 1)
    recipe = replace(PRESET, dropped=0.0, spurious=0.0, jitter_px=0.0)
    plain = augmented(side, 30, recipe, np.random.default_rng(0))
    assert same(plain, best(side, 30)) and len(plain) == 30
    lost, added, moved = [], [], []
    for seed in range(40):
        random = np.random.default_rng(seed)
        lost.append(1 - len(augmented(side, 999, replace(recipe, dropped=0.4), random)) / len(side))
        more = augmented(side, 30, replace(recipe, spurious=0.15), random)
        assert len(more) == 30
        added.append(int((more.xy != side.xy[:30]).any(axis=1).sum()))
        noisy = augmented(side, 30, replace(recipe, jitter_px=0.3), random)
        moved.append(noisy.xy - side.xy[:30])
        assert np.array_equal(noisy.other_xy, side.other_xy[:30], equal_nan=True)
    assert 0 <= min(lost) < 0.1 and 0.25 < max(lost) < 0.5
    assert min(added) == 0 and max(added) == 4  # 15 % of 30
    assert np.std(moved) == pytest.approx(0.3, rel=0.1)


def test_spurious_keypoints_have_no_match_and_descriptors_of_unit_length(scenes: Scenes) -> None:
    side = side_of(scenes.view(0, 0), 1)
    recipe = replace(PRESET, dropped=0.5, spurious=1.0, jitter_px=0.0)
    more = augmented(side, 40, recipe, np.random.default_rng(2))
    added = ~(more.xy[:, None] == side.xy).all(axis=2).any(axis=1)
    assert added.any() and np.isnan(more.other_xy[added]).all()
    np.testing.assert_allclose(np.linalg.norm(more.descriptors, axis=1), 1, atol=2e-3)
    assert (more.xy[added] <= np.array(SIZE_HW[::-1])).all()


def test_padding_is_not_valid_and_has_no_label(scenes: Scenes) -> None:
    a, b = side_of(scenes.view(0, 0), 1), side_of(scenes.view(0, 1), 0)
    pairs = [(best(a, 30), best(b, 12)), (best(a, 0), best(b, 7))]
    batch = collate(pairs, CPU)
    assert batch.pairs == 2
    assert batch.a.valid is not None and batch.b.valid is not None
    assert batch.a.valid.sum(1).tolist() == [30, 0] and batch.b.valid.sum(1).tolist() == [12, 7]
    assert batch.labels.matched.shape == (2, 30, 12)
    assert not batch.labels.matched[1].any()
    assert batch.labels.unmatchable_b[1].tolist() == [True] * 7 + [False] * 5
    alone = collate(pairs[:1], CPU)
    assert torch.equal(alone.labels.matched[0], batch.labels.matched[0])
    assert float(batch.a.xy.abs().max()) <= 1.01


def test_an_empty_view_makes_an_empty_side(tmp_path: Path) -> None:
    scene = fake_scene(0)
    counts = scene.counts.copy()
    rows = slice(int(counts[0]), None)
    counts[0] = 0
    cut = {n: getattr(scene, n)[rows] for n in ("xy", "descriptors", "elsewhere", "doubtful")}
    write_shard(tmp_path / "s.safetensors", [replace(scene, counts=counts, **cut)])
    scenes = Scenes([tmp_path / "s.safetensors"])
    assert len(scenes.view(0, 0)) == 0 and len(scenes.view(0, 1)) == counts[1]
    for step in range(4):
        collate(pairs_of_step(scenes, PRESET, STAGE, 0, step), CPU)
