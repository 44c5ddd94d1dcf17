"""Pairs made on a device: the reference's pairs, the same after resuming, without waiting."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace

import numpy as np
import pytest
import torch

from support.device_pairs import CPU, pairs_of
from support.queued import waits
from support.scene_parts import CALM, SIZE, of_kind
from tiepoint.errors import ConfigError, FormatError, TiepointError
from tiepoint.training.detector.batch import Batch
from tiepoint.training.on_device import source
from tiepoint.training.on_device.source import DevicePairs, makes_pairs
from tiepoint.training.scenes import pairs
from tiepoint.training.scenes.pairs import TrainingPair, training_pair
from tiepoint.training.scenes.settings import DataConfig, Photometry
from tiepoint.training.scenes.statistics import pair_summary, summary

KINDS = ["leaves", "shapes", "glyphs", "repeats", "boxes"]
CONFIG = DataConfig(size_hw=(64, 72), mix=(("shapes", 0.6), ("boxes", 0.4)), bank=5, reuse=3)
STEADY = Photometry(noise=0, pepper=0, patches=0)
"""All photometry that no random number of a single px enters."""


@pytest.fixture(autouse=True)
def no_worker_is_left():
    yield
    assert not workers_alive()


def workers_alive() -> list:
    return [p for p in multiprocessing.active_children() if p.name.startswith("tiepoint-layouts")]


@pytest.fixture(autouse=True)
def chunks_of_three_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "CHUNK_STEPS", 3)


def batches(steps: int, start: int = 0, workers: int = 0, **changes) -> list[Batch]:
    config = replace(CONFIG, **changes)
    with DevicePairs(config, 3, 2, start, workers, place=CPU) as steps_of:
        return [next(steps_of).batch() for _ in range(start, steps)]


def same_batch(one: Batch, other: Batch) -> bool:
    return (
        torch.equal(one.pixels, other.pixels)
        and torch.equal(one.corner_image, other.corner_image)
        and torch.equal(one.corner_xy, other.corner_xy)
        and torch.equal(one.ignore, other.ignore)
        and torch.equal(one.flow.isnan(), other.flow.isnan())
        and torch.equal(one.flow.nan_to_num(), other.flow.nan_to_num())
    )


@pytest.mark.parametrize(("start", "workers"), [(0, 2), (3, 0), (4, 0), (5, 1)])
def test_workers_and_the_first_step_change_nothing(start: int, workers: int) -> None:
    """Chunks of six pairs, a bank of five scenes, and a run that uses eleven."""
    whole = batches(8)
    for one, other in zip(batches(8, start, workers), whole[start:], strict=True):
        assert same_batch(one, other)


def test_other_steps_and_seeds_have_other_noise() -> None:
    first, second = batches(2)
    assert not torch.equal(first.pixels, second.pixels)
    with DevicePairs(CONFIG, 4, 2, place=CPU) as other:
        assert not torch.equal(next(other).batch().pixels, first.pixels)


def test_a_step_of_a_chunk_has_its_own_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(CONFIG, photometry=STEADY)
    found = []
    for steps in (1, 4):
        monkeypatch.setattr(source, "CHUNK_STEPS", steps)
        with DevicePairs(config, 0, 2, place=CPU) as steps_of:
            found.append([pair for _ in range(4) for pair in pairs_of(next(steps_of).batch())])
    for one, other in zip(*found, strict=True):
        apart = np.abs(one.a.image.astype(int) - other.a.image.astype(int))
        assert apart.mean() < 0.1
        assert np.array_equal(np.isnan(one.b_to_a), np.isnan(other.b_to_a))


def unlike(some: np.ndarray, others: np.ndarray, most_px: float) -> int:
    """Number of points without another one within some px."""
    if len(some) == 0 or len(others) == 0:
        return len(some)
    gaps = np.hypot(*(some[:, None] - others).transpose(2, 0, 1))
    return int((gaps.min(axis=1) > most_px).sum())


def one_batch(config: DataConfig, seed: int, count: int) -> list[TrainingPair]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "CHUNK_STEPS", 1)
        with DevicePairs(config, seed, count, place=CPU) as steps_of:
            return pairs_of(next(steps_of).batch())


def both_ways(config: DataConfig, count: int) -> list[tuple[TrainingPair, TrainingPair]]:
    """(device, reference): pairs that both draw by the same cameras."""
    ours = one_batch(config, 1, count)
    theirs = [training_pair(config, 1, index) for index in range(count)]
    return [pair for pair in zip(ours, theirs, strict=True) if not pair[0].a.ignore.all()]


@pytest.mark.parametrize("photometry", [CALM, STEADY], ids=["calm", "steady"])
@pytest.mark.parametrize("kind", KINDS)
def test_pairs_are_those_of_the_reference(kind: str, photometry: Photometry) -> None:
    each = both_ways(of_kind(kind, photometry=photometry), 5)
    assert len(each) >= 3
    apart, labels, wrong = [], 0, 0
    for ours, theirs in each:
        for one, other in ((ours.a, theirs.a), (ours.b, theirs.b)):
            apart.append(np.abs(one.image.astype(int) - other.image.astype(int)))
            assert (one.ignore != other.ignore).mean() < 0.03
            labels += len(other.corners_xy)
            wrong += unlike(one.corners_xy, other.corners_xy, 0.1)
            wrong += unlike(other.corners_xy, one.corners_xy, 0.1)
        for one, other in ((ours.a_to_b, theirs.a_to_b), (ours.b_to_a, theirs.b_to_a)):
            known = np.isfinite(one[..., 0]) & np.isfinite(other[..., 0])
            assert (np.isfinite(one[..., 0]) != np.isfinite(other[..., 0])).mean() < 0.005
            assert np.abs(one[known] - other[known]).max() < 1e-3
    assert np.mean(apart) < (0.3 if photometry is CALM else 1.0)
    assert labels > 30 and wrong < 0.12 * labels  # nearly all of weak textures


def test_photographs_look_as_those_of_the_reference(shared) -> None:
    """They have no drawn corners."""
    folder = str(shared / "photos" / "free")
    config = of_kind("leaves", photometry=STEADY, photos=(folder,), photo_share=1.0)
    each = both_ways(config, 5)
    assert len(each) >= 3
    for ours, theirs in each:
        for one, other in ((ours.a, theirs.a), (ours.b, theirs.b)):
            assert np.abs(one.image.astype(int) - other.image.astype(int)).mean() < 1
            assert len(other.corners_xy) > 5
            assert unlike(one.corners_xy, other.corners_xy, 0.2) < 0.15 * len(other.corners_xy)


def test_statistics_are_those_of_the_reference() -> None:
    """All photometry and all kinds; only the noise has other random numbers."""
    config = DataConfig(size_hw=SIZE, bank=40)
    ours, theirs = zip(*both_ways(config, 40), strict=True)
    assert len(ours) >= 35
    measured = []
    for each in (ours, theirs):
        images = summary(view.image for pair in each for view in (pair.a, pair.b))
        measured.append({**images, **pair_summary(each)})
    for name, within in {
        "slope": 0.05, "kurtosis": 2.0, "empty": 0.03, "peaks": 6.0, "contrast": 0.02,
        "spread": 0.005, "corners_per_100_cells": 4.0, "ignored_cells": 0.03, "common_view": 0.01,
    }.items():  # fmt: skip
        np.testing.assert_allclose(measured[0][name], measured[1][name], atol=within, err_msg=name)


def test_a_pair_that_the_reference_draws_again_is_left_out(monkeypatch) -> None:
    tries = []
    view_pair = pairs.composition.view_pair
    monkeypatch.setattr(
        pairs.composition, "view_pair", lambda *given: tries.append(1) or view_pair(*given)
    )
    config = of_kind("boxes", bank=24)
    ours = one_batch(config, 0, 24)
    again = []
    for index in range(24):
        tries.clear()
        training_pair(config, 0, index)
        again.append(len(tries) > 1)
    assert 0 < sum(again) < 12
    for is_left_out, pair in zip(again, ours, strict=True):
        for view, forth in ((pair.a, pair.a_to_b), (pair.b, pair.b_to_a)):
            assert view.ignore.all() == is_left_out
            if is_left_out:
                assert np.isnan(forth).all() and len(view.corners_xy) == 0


def test_making_pairs_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "CHUNK_STEPS", 1)
    with DevicePairs(replace(CONFIG, photometry=Photometry(patches=1)), 3, 2, place=CPU) as each:
        next(each).batch()  # constants are uploaded once
        assert not waits(lambda: next(each).batch())


def test_the_memory_of_old_scenes_is_used_again() -> None:
    shapes = replace(CONFIG, mix=(("shapes", 1.0),))
    with DevicePairs(shapes, 3, 2, place=CPU) as steps_of:
        first = len(steps_of._bank.atlases)
        for _ in range(20):  # 40 pairs, 13 scenes
            next(steps_of).batch()
            assert len(steps_of._bank) <= CONFIG.bank + 6  # those of a chunk that is made now
            assert len(steps_of._bank.atlases) == first == 12


def test_a_closed_source_stops() -> None:
    steps_of = DevicePairs(CONFIG, 0, 1, place=CPU)
    assert iter(steps_of) is steps_of
    steps_of.close()
    assert list(steps_of) == []


def test_a_worker_that_dies_is_reported() -> None:
    steps_of = DevicePairs(CONFIG, 0, 2, workers=1, place=CPU)
    next(steps_of).batch()
    worker = workers_alive()[0]
    worker.kill()
    worker.join(5)
    with pytest.raises(TiepointError, match="a worker that draws scenes died"):
        for _ in range(10_000):
            next(steps_of)
    assert list(steps_of) == []


def test_what_goes_wrong_in_drawing_closes_the_source(tmp_path) -> None:
    missing = DataConfig(size_hw=(64, 64), photos=(str(tmp_path / "none"),), photo_share=1, bank=4)
    steps_of = DevicePairs(missing, 0, 2, place=CPU)
    with pytest.raises(FormatError, match="no such folder"):
        next(steps_of)
    assert list(steps_of) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seed": -1}, "seed is -1, expected a whole number >= 0"),
        ({"batch_size": 6}, "batch_size is 6 with a bank of 5 scenes"),
        ({"workers": -1}, "workers is -1, expected a whole number >= 0"),
    ],
)
def test_numbers_out_of_range_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DevicePairs(CONFIG, **({"seed": 0, "batch_size": 2} | wrong), place=CPU)


def test_only_a_cpu_gets_its_pairs_from_workers() -> None:
    assert not makes_pairs(CPU)
    assert makes_pairs(torch.device("cuda", 1)) and makes_pairs(torch.device("mps"))
