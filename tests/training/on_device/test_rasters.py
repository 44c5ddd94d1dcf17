"""Points as maps of their px: equal to comparing all pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from support.device_counts import waiting_operators
from tiepoint.training.on_device.rasters import (
    OUTSIDE_PX,
    counted,
    discs,
    distance_squared,
    marked,
    near,
    nearest_px,
    positions,
)
from tiepoint.training.scenes import labels
from tiepoint.training.scenes.basics import nearest_distance

SIZE = (24, 40)


def points(count: int, seed: int = 0) -> torch.Tensor:
    """2 N 2 px, up to half a px outside of the view."""
    rng = np.random.default_rng(seed)
    xy = rng.uniform((-0.5, -0.5), (SIZE[1] - 0.5, SIZE[0] - 0.5), (2, count, 2))
    return torch.from_numpy(xy.astype(np.float32))


def test_discs_are_those_of_a_single_view() -> None:
    xy, used = points(7), torch.tensor([[True] * 5 + [False] * 2, [False] * 7])
    marks = discs(marked(nearest_px(xy, SIZE), used, SIZE))
    for number in range(2):
        single = labels.discs(xy[number][used[number]].numpy().astype(np.float64), SIZE)
        assert np.array_equal(marks[number].numpy(), single)
    assert marks[0].any() and not marks[1].any()


def test_an_area_grows_by_its_reach_each_way() -> None:
    area = torch.zeros(1, *SIZE, dtype=torch.bool)
    area[0, 10, 0] = True
    grown = near(area, 2)[0]
    assert grown[8:13, :3].all() and grown.sum() == 15


def test_each_px_has_the_point_in_it() -> None:
    xy = torch.tensor([[[3.2, 5.4], [9.0, 1.0], [-0.4, 23.4]]])
    used = torch.tensor([[True, False, True]])
    values = positions(xy, nearest_px(xy, SIZE), used, SIZE)
    assert torch.equal(values[0, 5, 3], xy[0, 0]) and torch.equal(values[0, 23, 0], xy[0, 2])
    assert (values != OUTSIDE_PX).any(dim=3).sum() == 2


def test_points_of_one_px_are_counted() -> None:
    xy = torch.tensor([[[3.2, 5.4], [2.9, 5.0], [7.0, 7.0]]])
    used = torch.tensor([[True, True, False]])
    counts = counted(nearest_px(xy, SIZE), used, SIZE)
    assert counts[0, 5, 3] == 2 and counts.sum() == 2


@pytest.mark.parametrize("reach", [2, 4])
def test_the_distance_to_the_nearest_point_is_exact_within_the_reach(reach: int) -> None:
    others = torch.round(points(30, 1))  # one point for each px
    others = others.clamp(min=0)
    used = torch.ones(others.shape[:2], dtype=torch.bool)
    values = positions(others, nearest_px(others, SIZE), used, SIZE)
    xy = points(200, 2)
    squares = distance_squared(xy, values, reach)
    for number in range(2):
        exact = nearest_distance(xy[number].numpy(), others[number].numpy())
        sure = exact <= reach - 1
        assert sure.sum() > 10
        assert np.allclose(squares[number].numpy()[sure] ** 0.5, exact[sure], atol=1e-4)
        assert (squares[number].numpy() ** 0.5 >= exact - 1e-4).all()


def test_a_point_itself_is_left_out_on_request() -> None:
    xy = torch.tensor([[[3.0, 5.0], [5.0, 5.0], [30.0, 5.0]]])
    used = torch.ones(1, 3, dtype=torch.bool)
    values = positions(xy, nearest_px(xy, SIZE), used, SIZE)
    squares = distance_squared(xy, values, 4, own=False)[0]
    assert squares[:2].tolist() == [4, 4] and squares[2] > 1e6


def test_waits_for_a_device_are_found() -> None:
    values = points(5)
    assert waiting_operators(lambda: values[values > 1]) == {"nonzero", "boolean index"}
    assert "item" in waiting_operators(lambda: values.max().item())
    assert waiting_operators(lambda: values * 2) == set()
