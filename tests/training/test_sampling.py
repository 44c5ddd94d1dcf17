import numpy as np
import torch

from support.fake_pairs import SHIFT_XY, squares
from tiepoint.training.detector.batch import Batch, collate
from tiepoint.training.detector.sampling import BORDER_PX, SATELLITE_PX, SATELLITES, sample_points

CPU = torch.device("cpu")
SIZE_HW = (64, 80)


def some_batch(count: int = 4) -> Batch:
    return collate([squares(0, index, SIZE_HW) for index in range(count)], CPU)


def chosen(batch: Batch, per_pair: int = 40, seed: int = 0):
    heatmap = torch.rand(len(batch.pixels), *SIZE_HW, generator=torch.Generator().manual_seed(9))
    return sample_points(batch, heatmap, per_pair, torch.Generator().manual_seed(seed)), heatmap


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
    wanted = points.pair[:160]
    assert torch.bincount(wanted).tolist() == [40] * 4
    assert len(points.pair) <= 160 * (1 + SATELLITES)
    first = points.xy_a[:160][wanted == 0].long()
    strengths = heatmap[0, first[:, 1], first[:, 0]]
    assert float(strengths[:20].min()) > float(strengths[20:].median())


def test_satellites_lie_around_the_other_points() -> None:
    points, _ = chosen(some_batch())
    satellites = points.pair[160:]
    assert len(satellites) > 200
    for pair in range(4):
        own = points.xy_a[:160][points.pair[:160] == pair]
        around = points.xy_a[160:][satellites == pair]
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
    at = points.xy_a[:320][points.pair[:320] == 0].long()
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
