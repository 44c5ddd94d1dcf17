"""The points of the descriptor loss: visible in both views, at keypoints, at texture, anywhere."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from support.fake_pairs import SHIFT_XY, squares
from tiepoint.training import devices
from tiepoint.training.detector.batch import Batch, collate
from tiepoint.training.detector.sampling import (
    BORDER_PX,
    SATELLITE_PX,
    SATELLITES,
    PointPairs,
    sample_points,
)
from tiepoint.training.devices import first_chosen

CPU = torch.device("cpu")
SIZE_HW = (64, 80)


def some_batch(count: int = 4) -> Batch:
    return collate([squares(0, index, SIZE_HW) for index in range(count)], CPU)


def chosen(batch: Batch, per_pair: int = 40, seed: int = 0):
    heatmap = torch.rand(len(batch.pixels), *SIZE_HW, generator=torch.Generator().manual_seed(9))
    return sample_points(batch, heatmap, per_pair, torch.Generator().manual_seed(seed)), heatmap


def own_and_satellites(points: PointPairs, pair: int, count: int) -> list[torch.Tensor]:
    """Positions in view A of a pair's own points, which are complete, and of their satellites."""
    xy = points.xy_a[points.pair == pair]
    return [xy[:count], xy[count:]]


def test_first_views_come_first_in_a_batch() -> None:
    batch = some_batch(3)
    pair = squares(0, 1, SIZE_HW)
    assert batch.pixels.shape == (6, 1, *SIZE_HW)
    assert torch.equal(batch.pixels[4, 0], torch.from_numpy(pair.b.image).float() / 255)
    mine = batch.corner_xy[batch.corner_image == 1]
    np.testing.assert_array_equal(mine.numpy(), pair.a.corners_xy)
    np.testing.assert_array_equal(batch.flow[4].numpy(), pair.b_to_a)


def test_points_lie_where_the_flow_says() -> None:
    points, _ = chosen(some_batch())
    moved = points.xy_b - points.xy_a
    np.testing.assert_allclose(moved.numpy(), np.tile(SHIFT_XY, (len(moved), 1)), atol=1e-5)


def test_pairs_take_turns_in_which_view_has_whole_pixels() -> None:
    points, _ = chosen(some_batch())
    whole_in_a = (points.xy_a == points.xy_a.round()).all(dim=1)
    assert torch.equal(whole_in_a, points.pair % 2 == 0)


def test_points_keep_off_the_border_of_both_views() -> None:
    points, _ = chosen(some_batch())
    for xy in (points.xy_a, points.xy_b):
        assert (xy >= BORDER_PX).all()
        assert (xy <= torch.tensor([SIZE_HW[1], SIZE_HW[0]]) - 1 - BORDER_PX).all()


def test_a_pair_gives_as_many_points_as_wanted_and_half_are_detector_peaks() -> None:
    batch = some_batch()
    points, heatmap = chosen(batch)
    counts = torch.bincount(points.pair)
    assert len(counts) == 4 and counts.min() >= 40 and counts.max() <= 40 * (1 + SATELLITES)
    own, _ = own_and_satellites(points, 0, 40)
    strengths = heatmap[0, own.long()[:, 1], own.long()[:, 0]]
    assert float(strengths[:20].min()) > float(strengths[20:].median())


def test_satellites_lie_around_the_other_points() -> None:
    points, _ = chosen(some_batch())
    assert len(points.pair) > 160 + 200
    for pair in range(4):
        own, around = own_and_satellites(points, pair, 40)
        gaps = torch.cdist(around, own)
        near, far = SATELLITE_PX
        rounded = 0.5**0.5  # a satellite is a whole pixel
        fits = (gaps >= near - rounded - 1e-3) & (gaps <= far + rounded + 1e-3)
        assert fits.any(dim=1).all()


def test_textured_points_lie_on_edges_more_than_random_ones() -> None:
    batch = some_batch()
    points, _ = chosen(batch, 80)
    pixels = batch.pixels[0, 0]
    slope = (pixels[4:, 2:-2] - pixels[:-4, 2:-2]).abs() + (
        pixels[2:-2, 4:] - pixels[2:-2, :-4]
    ).abs()
    slope = torch.nn.functional.pad(slope, (2, 2, 2, 2))
    at = own_and_satellites(points, 0, 80)[0].long()
    strength = slope[at[:, 1], at[:, 0]]
    textured, anywhere = strength[40:60], strength[60:]
    assert float(textured.mean()) > 2 * float(anywhere.mean())


def test_the_same_generator_draws_the_same_points_and_another_others() -> None:
    batch = some_batch()
    (first, _), (again, _), (other, _) = (chosen(batch, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.xy_a, again.xy_a)
    assert first.xy_a.shape != other.xy_a.shape or not torch.equal(first.xy_a, other.xy_a)


def test_pairs_that_share_nothing_give_no_points() -> None:
    batch = some_batch()
    batch.flow[[0, 4]] = torch.nan
    points, _ = chosen(batch)
    assert set(points.pair.tolist()) == {1, 2, 3}
    batch.flow[:] = torch.nan
    points, _ = chosen(batch)
    assert len(points.pair) == 0


def padded(
    monkeypatch: pytest.MonkeyPatch, batch: Batch, per_pair: int = 40
) -> tuple[PointPairs, torch.Tensor]:
    """Points as on a GPU, where padding stays."""
    with monkeypatch.context() as patch:
        patch.setattr(devices, "reads_at_once", lambda device: False)
        return chosen(batch, per_pair)


def test_a_device_has_the_same_points_and_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = some_batch()
    batch.flow[0, :, 16:] = torch.nan  # a small common view
    points, _ = padded(monkeypatch, batch)
    assert points.valid is not None and points.valid.shape == (4, 40 * (1 + SATELLITES))
    assert points.valid[0].sum() < 0.6 * points.valid[1].sum()
    assert len(points.pair) == points.valid.numel()
    assert all(xy.isfinite().all() for xy in (points.xy_a, points.xy_b))
    expected, _ = chosen(batch)
    for found, wanted in zip(points.without_padding(), expected, strict=True):
        assert (found is None and wanted is None) or torch.equal(found, wanted)


def test_a_device_without_any_point_has_padding_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = some_batch()
    batch.flow[:] = torch.nan
    points, _ = padded(monkeypatch, batch)
    assert points.valid is not None and not points.valid.any()
    assert len(points.without_padding().pair) == 0


def test_the_first_chosen_values_equal_the_slow_twin() -> None:
    generator = torch.Generator().manual_seed(3)
    values = torch.randint(1000, (5, 12), generator=generator)
    shares = torch.tensor([0.0, 0.2, 0.5, 0.8, 1.0])
    usable = torch.rand(5, 12, generator=generator) < shares[:, None]
    for count in (0, 1, 4, 12):
        taken, known = first_chosen(values, usable, count)
        for row in range(5):
            expected = values[row][usable[row]][:count].tolist()
            assert taken[row][known[row]].tolist() == expected
            assert known[row].sum() == len(expected) and known.shape == (5, count)


def detected_twin(heatmap: np.ndarray, usable: np.ndarray, count: int) -> set[tuple[int, int]]:
    """The strongest usable pixel of each cell, of the strongest cells: (x, y)."""
    peaks = []
    for top in range(0, heatmap.shape[0], 8):
        for left in range(0, heatmap.shape[1], 8):
            cell = (heatmap * usable)[top : top + 8, left : left + 8]
            y, x = np.unravel_index(cell.argmax(), cell.shape)
            peaks.append((float(cell.max()), left + int(x), top + int(y)))
    return {(x, y) for _, x, y in sorted(peaks, reverse=True)[:count]}


def test_detector_points_equal_the_slow_twin() -> None:
    batch = some_batch(1)
    points, heatmap = chosen(batch)
    x, y = np.moveaxis(batch.flow[0].numpy(), -1, 0)
    height, width = SIZE_HW
    usable = (x >= 4) & (x <= width - 5) & (y >= 4) & (y <= height - 5)
    usable[:4] = usable[-4:] = usable[:, :4] = usable[:, -4:] = False
    expected = detected_twin(heatmap[0].numpy(), usable, 20)
    assert {(int(x), int(y)) for x, y in points.xy_a[:20]} == expected


def test_a_detector_without_a_maximum_leaves_only_textured_and_random_points() -> None:
    batch = some_batch(2)
    nothing = torch.zeros(4, *SIZE_HW)
    points = sample_points(batch, nothing, 40, torch.Generator().manual_seed(0))
    counts = torch.bincount(points.pair)
    assert len(counts) == 2 and counts.min() >= 20 and counts.max() <= 20 * (1 + SATELLITES)


def test_a_large_request_is_limited_by_the_number_of_cells() -> None:
    batch = some_batch(1)
    points, _ = chosen(batch, per_pair=1000)
    cells = SIZE_HW[0] * SIZE_HW[1] // 64
    assert len(points.pair) <= (cells + 250 + 250) * (1 + SATELLITES)


def test_each_point_reads_the_descriptors_of_its_own_views() -> None:
    batch = some_batch(3)
    points, _ = chosen(batch)
    dense = torch.eye(6)[:, :, None, None].expand(6, 6, 8, 10).contiguous()  # image i is axis i
    [both] = points.descriptors([dense])
    a, b = both.chunk(2)
    assert a.shape == b.shape == (len(points.pair), 6)
    assert torch.equal(a.argmax(dim=1), points.pair)
    assert torch.equal(b.argmax(dim=1), points.pair + 3)
    torch.testing.assert_close(a.norm(dim=1), torch.ones(len(a)))


def test_a_point_between_cells_reads_a_mixture_of_unit_length() -> None:
    dense = torch.zeros(2, 2, 2, 2)
    dense[:, 0, :, 0] = dense[:, 1, :, 1] = 1  # left cells and right cells
    one = torch.zeros(1, dtype=torch.int64)
    between, in_left = torch.tensor([[7.5, 7.5]]), torch.tensor([[3.5, 3.5]])
    [both] = PointPairs(one, between, in_left).descriptors([dense])
    a, b = both.chunk(2)
    torch.testing.assert_close(a, torch.full((1, 2), 0.5**0.5))
    torch.testing.assert_close(b, torch.tensor([[1.0, 0.0]]))


def test_corners_and_masks_of_a_batch_keep_their_image() -> None:
    pairs = [squares(0, index, SIZE_HW) for index in range(2)]
    pairs[1].b.ignore[3, 5] = True
    batch = collate(pairs, CPU)
    assert batch.pairs == 2 and batch.size_hw == SIZE_HW
    assert batch.ignore.nonzero().tolist() == [[3, 3, 5]]
    counts = torch.bincount(batch.corner_image, minlength=4).tolist()
    views = [pair.a for pair in pairs] + [pair.b for pair in pairs]
    assert counts == [len(view.corners_xy) for view in views]


def test_a_batch_without_corners_is_a_batch() -> None:
    pair = squares(0, 0, SIZE_HW)
    views = [replace(view, corners_xy=np.empty((0, 2), np.float32)) for view in (pair.a, pair.b)]
    batch = collate([replace(pair, a=views[0], b=views[1])], CPU)
    assert batch.corner_xy.shape == (0, 2) and len(batch.corner_image) == 0
