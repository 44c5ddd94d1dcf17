"""Views, owners, corners and flows of a device beside those of the reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from support.device_counts import count
from support.device_pairs import arrangement_of, reference
from support.queued import waits
from support.scene_parts import SIZE, of_kind
from tiepoint.training.on_device import rendering
from tiepoint.training.on_device.rendering import Views, px_numbers, render_views
from tiepoint.training.scenes import composition, layouts, outlines
from tiepoint.training.scenes.canvas import coverage
from tiepoint.training.scenes.composition import Scene
from tiepoint.training.scenes.render import ViewPair

KINDS = ["leaves", "shapes", "glyphs", "repeats", "plain", "boxes"]
CONFIG = of_kind("boxes")
PAIRS = 4


def drawn(kind: str, seed: int) -> tuple[Scene, ViewPair]:
    rng = np.random.default_rng([seed, 3])
    if kind == "plain":
        scene = composition.scene_of("shapes", CONFIG, rng)
        sheet = composition.plain_sheet(rng, scene.sheets[0].size_hw)
        scene = Scene("plain", (sheet,), scene.backdrop)
    else:
        scene = composition.scene_of(kind, CONFIG, rng)
    return scene, composition.view_pair(scene, CONFIG, rng)


def rendered(pairs: list[tuple[Scene, ViewPair]]) -> Views:
    bank, layout = arrangement_of(pairs, CONFIG)
    return render_views(bank, layout, SIZE, CONFIG.cover_px)


def missing(some: np.ndarray, others: np.ndarray) -> int:
    """Number of points without another one within 0.001 px."""
    if len(some) == 0 or len(others) == 0:
        return len(some)
    gaps = np.hypot(*(some[:, None] - others).transpose(2, 0, 1))
    return int((gaps.min(axis=1) > 1e-3).sum())


@pytest.fixture(scope="module")
def both() -> dict[str, tuple[list[tuple[Scene, ViewPair]], Views]]:
    pairs = {kind: [drawn(kind, seed) for seed in range(PAIRS)] for kind in KINDS}
    return {kind: (each, rendered(each)) for kind, each in pairs.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_images_and_owners_are_those_of_the_reference(kind: str, both) -> None:
    pairs, views = both[kind]
    images, owners = views.images.numpy(), views.owners.numpy()
    assert np.array_equal(images, np.rint(images)) and images.min() >= 0 and images.max() <= 255
    apart, other = [], []
    for number, (scene, pair) in enumerate(pairs):
        for side, expected in enumerate(reference(scene, pair, CONFIG)[0]):
            view = side * PAIRS + number
            apart.append(np.abs(images[view] - expected.image))
            other.append(owners[view] != expected.owner)
    assert np.mean(apart) < 0.3  # of 255 greys
    assert (np.array(apart) > 3).mean() < 0.008  # at edges, where the reference is off by 0.05
    assert np.mean(other) < 0.002


@pytest.mark.parametrize("kind", KINDS)
def test_flows_are_exact(kind: str, both) -> None:
    pairs, views = both[kind]
    flows, known = views.flows.numpy(), 0
    for number, (scene, pair) in enumerate(pairs):
        for side, expected in enumerate(reference(scene, pair, CONFIG)[1]):
            ours = flows[side * PAIRS + number]
            finite = np.isfinite(ours[..., 0]), np.isfinite(expected[..., 0])
            assert np.array_equal(np.isnan(ours[..., 0]), np.isnan(ours[..., 1]))
            assert (finite[0] != finite[1]).mean() < 0.005
            shared = finite[0] & finite[1]
            known += int(shared.sum())
            assert np.abs(ours[shared] - expected[shared]).max(initial=0) < 1e-3
    assert known > 0.2 * 2 * PAIRS * SIZE[0] * SIZE[1]


@pytest.mark.parametrize("kind", KINDS)
def test_corners_are_those_of_the_reference(kind: str, both) -> None:
    pairs, views = both[kind]
    total, wrong = 0, 0
    for number, (scene, pair) in enumerate(pairs):
        for side, expected in enumerate(reference(scene, pair, CONFIG)[0]):
            xy, positive, valid = (part[side * PAIRS + number].numpy() for part in views.corners)
            for kind_of in (True, False):
                ours = xy[valid & (positive == kind_of)].astype(np.float64)
                theirs = expected.corners_xy[expected.positive == kind_of]
                total += len(theirs)
                wrong += missing(ours, theirs) + missing(theirs, ours)
    assert total > 80 or kind == "plain"
    assert wrong <= 0.02 * total


def test_outlines_cover_what_they_exactly_cover() -> None:
    rng, errors = np.random.default_rng(0), []
    for shape in (outlines.parallelogram, outlines.regular, outlines.ellipse) * 6:
        polygon = rng.uniform(30, 60, 2) + shape(rng, rng.uniform(10, 40))
        edges, _, _ = layouts._edges([polygon], (90, 80))
        ours = rendering._inwards(torch.from_numpy(edges)[None], (45, 40))[0].add(0.5).clamp(0, 1)
        exact = coverage(polygon, (0, 0, 80, 90)) / 255
        crossed = (exact > 0) & (exact < 1)
        errors.append((ours.numpy() - exact)[crossed])
    error = np.concatenate(errors)
    assert len(error) > 1000
    assert abs(error.mean()) < 0.005 and np.abs(error).mean() < 0.02  # the reference's: 0.042


def test_kinds_in_one_batch_look_as_alone(both) -> None:
    mixed = [drawn(kind, seed) for seed, kind in enumerate(["boxes", "leaves", "boxes", "glyphs"])]
    views = rendered(mixed)
    for place, (kind, number) in enumerate(
        [("boxes", 0), ("leaves", 1), ("boxes", 2), ("glyphs", 3)]
    ):
        alone = both[kind][1]
        for side in (0, 1):
            ours, theirs = side * PAIRS + place, side * PAIRS + number
            np.testing.assert_allclose(views.images[ours], alone.images[theirs], atol=1)
            assert (views.owners[ours] == alone.owners[theirs]).float().mean() > 0.9999
            np.testing.assert_allclose(views.flows[ours], alone.flows[theirs], atol=1e-3)


def test_outlines_of_many_edges_are_drawn_too(both) -> None:
    """Hulls of boxes and ellipses: both of the paddings beyond the first four edges."""
    _, layout = arrangement_of(both["boxes"][0], CONFIG)
    assert layout.extra == 2
    more = [layout.tensors[f"more_edges_{number}"].shape[1] for number in range(2)]
    assert more[0] <= 8 < more[1]


def test_two_pairs_of_one_scene_share_its_sheets() -> None:
    scene, pair = drawn("boxes", 1)
    other = composition.view_pair(scene, CONFIG, np.random.default_rng(5))
    bank, layout = arrangement_of([(scene, pair), (scene, other)], CONFIG)
    assert len(bank) == 1
    views = render_views(bank, layout, SIZE, CONFIG.cover_px)
    [a, _], _ = reference(scene, other, CONFIG)
    assert np.abs(views.images[1].numpy() - a.image).mean() < 0.5


def test_a_floor_whose_horizon_is_in_the_middle_is_drawn() -> None:
    """Its homography maps the middle of the view to infinity."""
    scene, _ = drawn("boxes", 1)
    pair = composition.view_pair(scene, CONFIG, np.random.default_rng(5))
    middle = np.array([(SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2, 1])
    back = [np.linalg.inv(matrix)[2] @ middle for matrix in pair.to_views[0]]
    assert min(np.abs(back)) < 1e-12
    views = rendered([(scene, pair)])
    [a, _], _ = reference(scene, pair, CONFIG)
    assert np.abs(views.images[0].numpy() - a.image).mean() < 0.5


def test_a_view_keeps_as_many_corners_as_there_is_room_for(both, monkeypatch) -> None:
    monkeypatch.setattr(rendering, "VIEW_PX_PER_CORNER", SIZE[0] * SIZE[1] // 5)
    full = both["leaves"][1]
    views = rendered(both["leaves"][0])
    assert views.corners.xy.shape[1] == 5
    for view in range(2 * PAIRS):
        ours = views.corners.xy[view][views.corners.valid[view]].numpy()
        theirs = full.corners.xy[view][full.corners.valid[view]].numpy()
        assert missing(ours, theirs) == 0
        assert len(ours) <= 5


def test_rendering_waits_for_nothing(both) -> None:
    bank, layout = arrangement_of(both["boxes"][0], CONFIG)
    render_views(bank, layout, SIZE, CONFIG.cover_px)  # constants are uploaded once
    assert not waits(lambda: render_views(bank, layout, SIZE, CONFIG.cover_px))
    counts = count(lambda: render_views(bank, layout, SIZE, CONFIG.cover_px))
    assert counts.kernels.total() <= 150 + 3 * len(layout.ranks)


def test_every_px_of_a_large_view_has_its_own_number() -> None:
    """Even where float32 has no odd numbers; px outside have that of the nearest inside."""
    height, width = 5001, 5003
    xy = torch.tensor([[5002.0, 5000.0], [5001.0, 5000.0], [2.0, 4001.0], [-3.0, 9000.0]])
    expected = [5003 * 5001 - 1, 5003 * 5001 - 2, 5003 * 4001 + 2, 5003 * 5000]
    assert px_numbers(xy, (height, width)).tolist() == expected
