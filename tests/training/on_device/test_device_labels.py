"""Labels of batches of pairs: equal to those of the single pairs, but for ties of round-off."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from support.device_counts import waiting_operators
from support.exposed_pairs import ExposedPairs, exposed_pairs, padded, unequal
from support.scene_parts import of_kind
from tiepoint.training.on_device import texture_points as device_points
from tiepoint.training.on_device.exposure import ExposedBatch, expose_batch
from tiepoint.training.on_device.exposures import exposures_on
from tiepoint.training.on_device.labels import PairLabels, label_batch, without_covered
from tiepoint.training.on_device.rasters import OUTSIDE_PX, nearest_px
from tiepoint.training.on_device.texture_points import (
    PX_PER_POINT,
    TexturePoints,
    repeated_in_other,
    texture_points,
)
from tiepoint.training.on_device.view_labels import (
    corner_strength,
    crowded,
    ring_contrast,
    view_labels,
)
from tiepoint.training.scenes import labels, texture_labels
from tiepoint.training.scenes.pairs import TrainingPair, TrainingView, hide_covered
from tiepoint.training.scenes.settings import TRAINING_DATA, Photometry
from tiepoint.training.scenes.statistics import image_statistics

CONFIG = replace(TRAINING_DATA, photometry=Photometry(patches=0.5), bank=12)


@cache
def drawn() -> ExposedPairs:
    return exposed_pairs(CONFIG, 3, 12, rows=400)


def labelled(pairs: ExposedPairs) -> PairLabels:
    return label_batch(pairs.exposed, pairs.corners, pairs.flows, CONFIG.min_contrast)


def views_of(pairs: list[TrainingPair]) -> list[TrainingView]:
    return [pair.a for pair in pairs] + [pair.b for pair in pairs]


def used(xy: torch.Tensor) -> np.ndarray:
    return xy[xy[:, 0] > OUTSIDE_PX / 2].numpy()


def some(exposed: ExposedBatch, number: int) -> ExposedBatch:
    """Both views of one pair."""
    pair = [number, number + len(exposed.image) // 2]
    return ExposedBatch(*(values[pair] for values in exposed))


def test_labels_are_those_of_the_single_pairs() -> None:
    results, views = labelled(drawn()), views_of(drawn().pairs)
    missed = sum(
        unequal(view.corners_xy, used(xy))
        for view, xy in zip(views, results.corners_xy, strict=True)
    )
    total = sum(len(view.corners_xy) for view in views)
    assert total > 1500 and missed <= 0.003 * total
    ignore = np.stack([view.ignore for view in views])
    assert ignore.mean() > 0.05 and (ignore != results.ignore.numpy()).mean() < 5e-4


def test_flows_are_those_of_the_single_pairs() -> None:
    pairs = drawn().pairs
    flows = np.stack([pair.a_to_b for pair in pairs] + [pair.b_to_a for pair in pairs])
    assert np.array_equal(labelled(drawn()).flows.numpy(), flows, equal_nan=True)


def test_a_batch_of_pairs_is_labelled_as_each_alone() -> None:
    pairs, together = drawn(), labelled(drawn())
    count = len(pairs.pairs)
    for number in (0, 5):
        both = [number, number + count]
        corners = type(pairs.corners)(*(values[both] for values in pairs.corners))
        alone = label_batch(
            some(pairs.exposed, number), corners, pairs.flows[both], CONFIG.min_contrast
        )
        assert torch.equal(alone.ignore, together.ignore[both])
        assert torch.equal(alone.corners_xy, together.corners_xy[both])


def test_unused_rows_of_corners_do_not_matter() -> None:
    pairs = drawn()
    corners = pairs.corners
    garbage = torch.where(corners.valid[..., None], corners.xy, torch.nan)
    positive = corners.positive | ~corners.valid
    other = label_batch(
        pairs.exposed, corners._replace(xy=garbage, positive=positive), pairs.flows,
        CONFIG.min_contrast,
    )  # fmt: skip
    expected = labelled(pairs)
    assert torch.equal(other.corners_xy, expected.corners_xy)
    assert torch.equal(other.ignore, expected.ignore)


def test_views_without_corners_have_texture_points_alone() -> None:
    pairs = drawn()
    none = padded([np.zeros((0, 2))] * 24, [np.zeros(0, bool)] * 24)
    results = label_batch(pairs.exposed, none, pairs.flows, CONFIG.min_contrast)
    points = [
        texture_labels.texture_points(clean.numpy(), covered.numpy())
        for clean, covered in zip(pairs.exposed.clean, pairs.exposed.covered, strict=True)
    ]
    count = len(pairs.pairs)
    for number, flow in enumerate(results.flows.numpy()):
        own, others = points[number], points[(number + count) % (2 * count)]
        seen = texture_labels.repeated_in(own, flow, others)
        assert unequal(own[seen.repeated], used(results.corners_xy[number])) <= 2


def test_what_covers_either_lens_is_removed_from_both_flows() -> None:
    rng = np.random.default_rng(0)
    flows = rng.uniform(-0.5, (31.4, 23.4), (4, 24, 32, 2)).astype(np.float32)
    flows[rng.random((4, 24, 32)) < 0.3] = np.nan
    covered = rng.random((4, 24, 32)) < 0.3
    results = without_covered(torch.from_numpy(flows), torch.from_numpy(covered)).numpy()
    for number in range(4):
        hide_covered(flows[number], covered[number], covered[(number + 2) % 4])
    assert np.array_equal(results, flows, equal_nan=True)


def test_corner_strength_and_ring_contrast_are_those_of_the_single_views() -> None:
    clean, corners = drawn().exposed.clean, drawn().corners
    strength, contrast = corner_strength(clean).numpy(), ring_contrast(clean, corners.xy).numpy()
    compared = 0
    for number, view in enumerate(clean.numpy()):
        expected, _ = labels.corner_strength(view)
        assert np.abs(strength[number] - expected).max() < 1e-6
        valid = corners.valid[number].numpy()
        single = labels.ring_contrast(view, corners.xy[number].numpy()[valid].astype(np.float64))
        compared += len(single)
        # Some versions of OpenCV round positions to 1/32 px.
        assert np.abs(contrast[number][valid] - single).max(initial=0) < 0.02
    assert compared > 1000


def test_crowded_points_are_those_of_the_single_views() -> None:
    rng = np.random.default_rng(0)
    xy = rng.uniform((-0.5, -0.5), (39.5, 29.5), (6, 60, 2))
    xy[:, 1] = xy[:, 0]
    xy[:, 3] = xy[:, 2] + 0.3
    chosen = rng.random((6, 60)) < 0.6
    points, clean = torch.from_numpy(xy.astype(np.float32)), torch.zeros(6, 30, 40)
    result = crowded(points, nearest_px(points, (30, 40)), torch.from_numpy(chosen), clean)
    expected = np.stack([labels.crowded(one, each) for one, each in zip(xy, chosen, strict=True)])
    assert 0.2 < expected.mean() < 0.8
    assert np.array_equal(result.numpy(), expected)


def test_view_labels_are_those_of_the_single_views() -> None:
    pairs = drawn()
    results = view_labels(
        pairs.exposed.clean, pairs.corners, pairs.exposed.covered, CONFIG.min_contrast
    )
    missed = total = 0
    for number, clean in enumerate(pairs.exposed.clean.numpy()):
        valid = pairs.corners.valid[number]
        xy = pairs.corners.xy[number][valid].numpy()
        positive = pairs.corners.positive[number][valid].numpy()
        covered = pairs.exposed.covered[number].numpy()
        expected, _ = labels.view_labels(
            clean, xy.astype(np.float64), positive, covered, CONFIG.min_contrast
        )
        missed += unequal(expected, pairs.corners.xy[number][results.sure[number]].numpy())
        total += len(expected)
    assert total > 400 and missed <= 0.003 * total


def test_texture_points_are_those_of_the_single_views() -> None:
    exposed = drawn().exposed
    points = texture_points(exposed.clean, exposed.covered)
    missed = total = 0
    for number, clean in enumerate(exposed.clean.numpy()):
        expected = texture_labels.texture_points(clean, exposed.covered[number].numpy())
        missed += unequal(expected, points.xy[number][points.used[number]].numpy())
        total += len(expected)
    assert total > 3000 and missed <= 0.003 * total


def test_of_too_many_texture_points_the_strongest_are_kept(monkeypatch) -> None:
    noise = np.random.default_rng(0).random((1, 64, 96), np.float32)
    clear = torch.zeros(1, 64, 96, dtype=torch.bool)
    every = texture_points(torch.from_numpy(noise), clear)
    count, most = int(every.used.sum()), 64 * 96 // 64
    assert every.used.shape[1] > count > 1.5 * most  # even white noise has fewer than are kept
    monkeypatch.setattr(device_points, "PX_PER_POINT", 64)
    strongest = texture_points(torch.from_numpy(noise), clear)
    assert strongest.used.all()
    assert torch.equal(strongest.xy, every.xy[:, :most])
    response = texture_labels.hessian_response(noise[0])
    columns, rows = every.pixels[0, :count].numpy().T
    assert (np.diff(response[rows, columns]) <= 1e-6).all()


def test_a_flat_view_has_no_texture_points() -> None:
    points = texture_points(torch.full((2, 64, 64), 0.5), torch.zeros(2, 64, 64, dtype=torch.bool))
    assert not points.used.any()


@pytest.mark.parametrize(("away_px", "repeated"), [(0.0, True), (0.9, True), (1.1, False)])
def test_a_counterpart_is_at_most_one_px_away(away_px: float, repeated: bool) -> None:
    y, x = np.mgrid[:48, :64].astype(np.float32)
    flow = np.stack([np.stack([x + 4.25, y - 3.5], axis=2), np.full((48, 64, 2), np.nan)])
    xy = torch.tensor([[[30.0, 30.0]], [[34.25, 26.5 + away_px]]])
    points = TexturePoints(xy, nearest_px(xy, (48, 64)), torch.ones(2, 1, dtype=torch.bool))
    seen = repeated_in_other(points, torch.from_numpy(flow.astype(np.float32)))
    assert seen.visible[:, 0].tolist() == [True, False]
    assert seen.repeated[:, 0].tolist() == [repeated, False]


def test_an_enlarged_view_allows_for_its_scale() -> None:
    y, x = np.mgrid[:48, :64].astype(np.float32)
    flow = np.stack([np.stack([x * 3, y * 3], axis=2), np.full((48, 64, 2), np.nan)])
    for away_px, repeated in ((2.9, True), (3.1, False)):
        xy = torch.tensor([[[12.0, 11.0]], [[36.0 + away_px, 33.0]]])
        points = TexturePoints(xy, nearest_px(xy, (48, 64)), torch.ones(2, 1, dtype=torch.bool))
        seen = repeated_in_other(points, torch.from_numpy(flow.astype(np.float32)))
        assert seen.repeated[0].tolist() == [repeated]


def test_the_host_never_waits() -> None:
    assert waiting_operators(lambda: labelled(drawn())) == set()


def test_no_step_depends_on_values_or_on_arrays_of_the_host() -> None:
    meta = torch.device("meta")  # has shapes, but no values
    pairs = drawn()
    exposed, corners = (
        type(part)(*(values.to(meta) for values in part)) for part in (pairs.exposed, pairs.corners)
    )
    results = label_batch(exposed, corners, pairs.flows.to(meta), CONFIG.min_contrast)
    assert all(part.device == meta for part in results)
    rows = pairs.corners.xy.shape[1] + 160 * 160 // PX_PER_POINT
    assert results.corners_xy.shape == (24, rows, 2)


def test_pairs_of_the_device_have_the_statistics_of_the_single_ones() -> None:
    pairs = drawn()
    exposures = exposures_on(pairs.packed, torch.device("cpu"))
    exposed = expose_batch(pairs.images, exposures, torch.Generator().manual_seed(0))
    results = label_batch(exposed, pairs.corners, pairs.flows, CONFIG.min_contrast)
    views = views_of(pairs.pairs)
    corners = np.array([len(view.corners_xy) for view in views])
    device_corners = (results.corners_xy[..., 0] > OUTSIDE_PX / 2).sum(dim=1).numpy()
    assert np.corrcoef(corners, device_corners)[0, 1] > 0.99
    assert device_corners.sum() == pytest.approx(corners.sum(), rel=0.02)
    ignored = np.mean([view.ignore.mean() for view in views])
    assert float(results.ignore.float().mean()) == pytest.approx(ignored, abs=0.005)
    greys = (exposed.image * 255).round().numpy().astype(np.uint8)
    for image, view in zip(greys, views, strict=True):
        device, single = image_statistics(image), image_statistics(view.image)
        assert device.spread == pytest.approx(single.spread, abs=0.01)
        assert device.slope == pytest.approx(single.slope, abs=0.2)
        assert device.empty == pytest.approx(single.empty, abs=0.08)


def test_small_views_are_labelled_too() -> None:
    config = of_kind("shapes", size_hw=(64, 72), photometry=Photometry())
    pairs = exposed_pairs(config, 5, 3)
    results = label_batch(pairs.exposed, pairs.corners, pairs.flows, config.min_contrast)
    for view, xy in zip(views_of(pairs.pairs), results.corners_xy, strict=True):
        assert unequal(view.corners_xy, used(xy)) <= 1
