"""Training pairs: flows and corners are exact, and a pair depends on seed and index alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from support.scene_parts import CALM, SIZE, of_kind, same_pair, sampled
from tiepoint.errors import ConfigError
from tiepoint.training.scenes import composition, pairs
from tiepoint.training.scenes.labels import APART_PX
from tiepoint.training.scenes.pairs import TrainingPair, training_pair
from tiepoint.training.scenes.settings import DataConfig, Photometry
from tiepoint.training.scenes.statistics import in_cell_histogram

KINDS = ["leaves", "shapes", "glyphs", "repeats", "boxes"]


def views_of(pair: TrainingPair) -> list:
    return [(pair.a, pair.a_to_b, pair.b), (pair.b, pair.b_to_a, pair.a)]


@pytest.fixture(scope="module")
def few() -> dict[str, list[TrainingPair]]:
    """Four pairs of each kind with all photometry."""
    config = {kind: of_kind(kind, photometry=Photometry()) for kind in KINDS}
    return {kind: [training_pair(config[kind], 5, n) for n in range(4)] for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_a_pair_has_arrays_of_the_stated_shapes(kind: str, few) -> None:
    for pair in few[kind]:
        assert pair.kind == kind
        for view, forth, _ in views_of(pair):
            assert view.image.shape == view.ignore.shape == SIZE
            assert view.image.dtype == np.uint8 and view.ignore.dtype == np.bool_
            assert view.corners_xy.dtype == np.float32 and view.corners_xy.shape[1:] == (2,)
            assert forth.shape == (*SIZE, 2) and forth.dtype == np.float32


@pytest.mark.parametrize("kind", KINDS)
def test_corners_are_inside_the_view_and_apart(kind: str, few) -> None:
    count = 0
    for pair in few[kind]:
        for view, _, _ in views_of(pair):
            xy = view.corners_xy.astype(np.float64)
            count += len(xy)
            assert ((xy >= -0.5) & (xy <= np.array(SIZE[::-1]) - 0.5)).all()
            gaps = np.hypot(*(xy[:, None] - xy).transpose(2, 0, 1)) + 99 * np.eye(len(xy))
            assert gaps.min(initial=99) > 1  # texture points keep two px, drawn corners three
    assert count > 40


@pytest.mark.parametrize("kind", KINDS)
def test_a_flow_points_into_the_other_view(kind: str, few) -> None:
    for pair in few[kind]:
        for _, forth, _ in views_of(pair):
            known = forth[np.isfinite(forth[..., 0])]
            assert len(known) > 0.02 * SIZE[0] * SIZE[1]
            assert ((known >= -0.5) & (known <= np.array(SIZE[::-1]) - 0.5)).all()
            assert np.array_equal(np.isnan(forth[..., 0]), np.isnan(forth[..., 1]))


@pytest.mark.parametrize("kind", ["leaves", "boxes"])
def test_there_and_back_is_the_same_position(kind: str) -> None:
    config = of_kind(kind)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    for index in range(4):
        pair = training_pair(config, 2, index)
        for forth, back in ((pair.a_to_b, pair.b_to_a), (pair.b_to_a, pair.a_to_b)):
            returned = sampled(back, forth)
            error = np.hypot(returned[..., 0] - x, returned[..., 1] - y)
            error = error[np.isfinite(error)]
            assert len(error) > 100
            # Four neighbours on boxes may show two planes: there the mean of both means nothing.
            assert np.quantile(error, 1.0 if kind == "leaves" else 0.8) < 0.02


@pytest.mark.parametrize("kind", ["leaves", "repeats", "boxes"])
def test_a_drawn_corner_of_both_views_is_one_position(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "texture_points", lambda clean, hidden: np.zeros((0, 2)))
    config, near = of_kind(kind), []
    for index in range(8):
        pair = training_pair(config, 1, index)
        position = sampled(pair.a_to_b, pair.a.corners_xy[None])[0]  # N 2
        position = position[np.isfinite(position).all(axis=1)]
        if len(position) and len(pair.b.corners_xy):
            gaps = np.hypot(*(position[:, None] - pair.b.corners_xy).transpose(2, 0, 1))
            near.append(gaps.min(axis=1))
    distances = np.concatenate(near)
    assert len(distances) > 30
    assert (distances < 0.05).mean() > 0.4  # others are too weak, hidden or crowded in B
    assert ((distances > 0.1) & (distances < 0.7)).mean() < 0.04


@pytest.mark.parametrize("kind", ["shapes", "glyphs", "boxes"])
def test_a_pair_depends_on_seed_and_index_alone(kind: str, few) -> None:
    config = of_kind(kind, photometry=Photometry())
    composition.BANK.clear()
    for index in (3, 1):
        assert same_pair(training_pair(config, 5, index), few[kind][index])
    assert not np.array_equal(few[kind][0].a.image, training_pair(config, 6, 0).a.image)


def test_two_pairs_of_one_scene_see_it_differently() -> None:
    config = of_kind("shapes", bank=2)
    first, second = training_pair(config, 0, 0), training_pair(config, 0, 2)
    assert composition.scene_number(config, 0) == composition.scene_number(config, 2)
    assert not np.array_equal(first.a.image, second.a.image)


def test_the_other_photometry_moves_no_corner_of_the_flow() -> None:
    calm = training_pair(of_kind("shapes"), 3, 0)
    rough = training_pair(of_kind("shapes", photometry=Photometry(patches=0)), 3, 0)
    assert np.array_equal(calm.a_to_b, rough.a_to_b, equal_nan=True)
    assert not np.array_equal(calm.a.image, rough.a.image)


def test_what_a_patch_covers_has_no_flow_and_is_ignored() -> None:
    covered = of_kind("shapes", photometry=replace(CALM, patches=1))
    for index in range(3):
        clear, pair = training_pair(of_kind("shapes"), 3, index), training_pair(covered, 3, index)
        for (view, forth, _), (_, clear_forth, _) in zip(
            views_of(pair), views_of(clear), strict=True
        ):
            lost = np.isnan(forth[..., 0]) & np.isfinite(clear_forth[..., 0])
            gained = np.isfinite(forth[..., 0]) & np.isnan(clear_forth[..., 0])
            assert not gained.any() and lost.any()
            hit = view.ignore & lost
            assert hit.any()


def test_corners_are_even_over_the_px_of_a_cell() -> None:
    config = of_kind("leaves", bank=8, reuse=10)
    drawn = [training_pair(config, 0, index) for index in range(72)]
    counts = in_cell_histogram([view for pair in drawn for view in (pair.a, pair.b)])
    flat = counts.sum() / 64
    assert flat > 60
    assert counts.min() > 0.55 * flat and counts.max() < 1.5 * flat


def test_texture_points_are_not_near_drawn_corners(monkeypatch: pytest.MonkeyPatch) -> None:
    config = of_kind("repeats")
    with_texture = [training_pair(config, 1, index) for index in range(4)]
    monkeypatch.setattr(pairs, "texture_points", lambda clean, hidden: np.zeros((0, 2)))
    more = 0
    for index, pair in enumerate(with_texture):
        drawn_only = training_pair(config, 1, index)
        for view, other in ((pair.a, drawn_only.a), (pair.b, drawn_only.b)):
            drawn, extra = np.split(view.corners_xy, [len(other.corners_xy)])
            assert np.array_equal(drawn, other.corners_xy)
            more += len(extra)
            if len(drawn) and len(extra):
                gaps = np.hypot(*(extra[:, None] - drawn).transpose(2, 0, 1))
                assert gaps.min() > APART_PX - 1e-3
    assert more > 20


def test_photographs_are_labelled_where_both_views_have_a_point(shared) -> None:
    folder = str(shared / "photos" / "free")
    config = of_kind("leaves", photos=(folder,), photo_share=1.0)
    counts = []
    for index in range(6):
        pair = training_pair(config, 0, index)
        assert pair.kind == "photo"
        counts.append(len(pair.a.corners_xy))
        position = sampled(pair.a_to_b, pair.a.corners_xy[None])[0]  # N 2
        gaps = np.hypot(*(position[:, None] - pair.b.corners_xy).transpose(2, 0, 1)).min(axis=1)
        assert np.nanquantile(gaps, 0.9) < 2.5  # 1 px of the coarser view
        assert np.isfinite(pair.a_to_b).mean() > 0.2
    assert sum(counts) > 60


@pytest.mark.parametrize(
    ("seed", "index", "name"), [(-1, 0, "seed"), (0, -1, "index"), (1.5, 0, "seed")]
)
def test_negative_numbers_and_fractions_are_refused(seed, index, name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is .*, expected a whole number >= 0"):
        training_pair(DataConfig(), seed, index)


def hidden_flow(position: tuple[float, float], covered_xy: tuple[int, int]) -> np.ndarray:
    forth = np.full((8, 8, 2), np.nan, np.float32)
    forth[0, 0] = position
    covered = np.zeros((8, 8), bool)
    covered[covered_xy[1], covered_xy[0]] = True
    pairs.hide_covered(forth, np.zeros((8, 8), bool), covered)
    return forth[0, 0]


def test_a_position_at_the_very_edge_of_the_other_view_counts_as_its_last_pixel() -> None:
    assert np.isnan(hidden_flow((7.5, 7.5), (7, 7))).all()
    assert hidden_flow((-0.5, 3.0), (7, 7)).tolist() == [-0.5, 3.0]
    assert np.isnan(hidden_flow((-0.5, 3.0), (0, 3))).all()
