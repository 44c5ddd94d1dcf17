"""Scenes of all kinds, and the bank that keeps them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from support.scene_parts import SIZE, grey_sheet, of_kind
from tiepoint.training.scenes import composition
from tiepoint.training.scenes.composition import draw_scene, scene, scene_number, view_pair
from tiepoint.training.scenes.settings import RASTER_PER_PX, DataConfig

SMALL = (64, 64)


@pytest.fixture(autouse=True)
def empty_bank() -> None:
    composition.BANK.clear()


def drawn(config: DataConfig, seed: int = 0) -> composition.Scene:
    return draw_scene(config, np.random.default_rng(seed))


@pytest.mark.parametrize("kind", ["leaves", "shapes", "glyphs", "repeats"])
def test_a_flat_scene_has_one_sheet(kind: str) -> None:
    one = drawn(of_kind(kind, size_hw=SMALL))
    assert one.kind == kind and len(one.sheets) == 1
    side = round(RASTER_PER_PX * composition.SHEET_SIDES * 64)
    assert one.sheets[0].size_hw == (side, side)


def test_a_box_scene_has_a_wall_and_object_sheets() -> None:
    one = drawn(of_kind("boxes", size_hw=(64, 96)))
    wall, *objects = one.sheets
    assert wall.size_hw == (192, 288)
    assert [sheet.size_hw for sheet in objects] == [(134, 134)] * composition.OBJECT_SHEETS


def test_a_backdrop_is_a_smooth_grey_image() -> None:
    for seed in range(3):
        backdrop = drawn(of_kind("shapes", size_hw=SMALL), seed).backdrop
        assert backdrop.shape == (96, 96) and backdrop.dtype == np.uint8
        assert np.abs(np.diff(backdrop.astype(int), axis=0)).mean() < 30


def test_kinds_are_drawn_as_often_as_the_mix_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("shapes", "glyphs"):
        monkeypatch.setitem(composition.DRAWN, kind, lambda rng, size_hw: grey_sheet(size_hw))
    config = DataConfig(size_hw=SMALL, mix=(("shapes", 3.0), ("glyphs", 1.0)))
    kinds = [drawn(config, seed).kind for seed in range(120)]
    assert kinds.count("shapes") == pytest.approx(90, abs=14)
    assert kinds.count("shapes") + kinds.count("glyphs") == 120


def test_a_kind_without_share_is_never_drawn() -> None:
    config = DataConfig(size_hw=SMALL, mix=(("shapes", 1.0), ("leaves", 0.0)))
    assert {drawn(config, seed).kind for seed in range(8)} == {"shapes"}


def test_a_scene_repeats_with_its_seed() -> None:
    config = of_kind("boxes", size_hw=SMALL)
    for one, other in zip(drawn(config, 4).sheets, drawn(config, 4).sheets, strict=True):
        assert np.array_equal(one.image, other.image)


def test_a_plain_sheet_is_one_material() -> None:
    textured = 0
    for seed in range(10):
        sheet = composition.plain_sheet(np.random.default_rng(seed), (60, 90))
        assert sheet.size_hw == (60, 90)
        textured += bool(sheet.image.std() > 0)
    assert 4 <= textured <= 10


def test_pairs_of_one_slot_show_one_scene_until_it_is_used_up() -> None:
    config = of_kind("shapes", size_hw=SMALL, bank=2, reuse=3)
    scenes = [scene(config, 0, 2 * turn) for turn in range(7)]
    assert scenes[0] is scenes[1] is scenes[2]
    assert scenes[3] is not scenes[2] and scenes[3] is scenes[5]
    assert scenes[6] is not scenes[5]


def test_neighbouring_pairs_show_different_scenes() -> None:
    config = of_kind("shapes", size_hw=SMALL, bank=4)
    assert len({id(scene(config, 0, index)) for index in range(4)}) == 4


def test_another_seed_is_another_scene() -> None:
    config = of_kind("shapes", size_hw=SMALL)
    one, other = scene(config, 0, 0), scene(config, 1, 0)
    assert not np.array_equal(one.sheets[0].image, other.sheets[0].image)


def test_a_scene_that_left_the_bank_is_drawn_again_with_the_same_bits() -> None:
    config = of_kind("glyphs", size_hw=SMALL, bank=3, reuse=9)
    first = scene(config, 0, 0)
    composition.BANK.clear()
    again = scene(config, 0, 0)
    assert again is not first
    assert np.array_equal(again.sheets[0].image, first.sheets[0].image)
    assert np.array_equal(again.backdrop, first.backdrop)


def test_the_bank_never_grows_beyond_its_size() -> None:
    config = of_kind("shapes", size_hw=SMALL, bank=3, reuse=2)
    for index in range(10):
        scene(config, 0, index)
        assert len(composition.BANK) <= 3


def test_the_least_recently_used_scene_leaves_the_bank_first() -> None:
    config = of_kind("shapes", size_hw=SMALL, bank=2, reuse=50)
    kept, dropped = scene(config, 0, 0), scene(config, 0, 1)
    assert scene(config, 0, 0) is kept  # used again
    scene(config, 7, 0)  # of another seed: one too many
    assert scene(config, 0, 0) is kept
    assert scene(config, 0, 1) is not dropped


def test_scenes_are_renewed_evenly_and_never_twice_in_a_bank() -> None:
    config = replace(DataConfig(), bank=8, reuse=4)
    numbers = [scene_number(config, index) for index in range(8 * 40)]
    for start in range(len(numbers) - 8):
        assert len(set(numbers[start : start + 8])) == 8
    late = numbers[8 * 8 : 8 * 36]
    assert {late.count(number) for number in late if numbers.count(number) >= 4} <= {4, 3, 2, 1}
    renewed = [
        len(set(numbers[8 * t : 8 * t + 8]) - set(numbers[8 * t - 8 : 8 * t])) for t in range(9, 36)
    ]
    assert set(renewed) == {2}  # a quarter of eight in each round


@pytest.mark.parametrize(("bank", "reuse"), [(1, 1), (5, 1), (1, 7), (6, 4)])
def test_no_scene_is_used_more_often_than_allowed(bank: int, reuse: int) -> None:
    config = replace(DataConfig(), bank=bank, reuse=reuse)
    numbers = [scene_number(config, index) for index in range(bank * reuse * 4)]
    counts = [numbers.count(number) for number in set(numbers)]
    assert max(counts) == reuse
    assert all(number % bank == index % bank for index, number in enumerate(numbers))


@pytest.mark.parametrize("kind", ["shapes", "boxes"])
def test_cameras_before_a_scene_differ_each_time(kind: str) -> None:
    config = of_kind(kind)
    one = drawn(config)
    rng = np.random.default_rng(0)
    first, second = view_pair(one, config, rng), view_pair(one, config, rng)
    assert not np.allclose(first.to_views[0][0], second.to_views[0][0])


def test_a_flat_scene_is_one_plane_that_both_cameras_draw() -> None:
    config = of_kind("shapes")
    views = view_pair(drawn(config), config, np.random.default_rng(0))
    assert len(views.planes) == 1 and views.orders == ([0], [0])
    assert not views.planes[0].vertices.any()
    assert [len(matrices) for matrices in views.to_views] == [1, 1]


def test_planes_of_a_box_scene_use_its_sheets() -> None:
    config = of_kind("boxes", size_hw=SIZE)
    one = drawn(config)
    views = view_pair(one, config, np.random.default_rng(0))
    assert len(views.planes) > 1
    assert {id(plane.sheet) for plane in views.planes} <= {id(sheet) for sheet in one.sheets}
