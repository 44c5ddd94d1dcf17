"""Curves as SVG."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiepoint.reports.charts import MOST_POINTS, SIZE_WH, chart_figure, ticks
from tiepoint.reports.pieces import Chart


@given(
    low=st.floats(-1e6, 1e6), width=st.floats(1e-3, 1e6)
)  # fmt: skip
def test_ticks_are_few_round_numbers_inside_the_range(low: float, width: float) -> None:
    values = ticks(low, low + width)
    assert 1 <= len(values) <= 8
    slack = 1e-6 * max(abs(low), width)
    assert all(low - slack <= value <= low + width + slack for value in values)
    steps = np.diff(values)
    if len(steps):
        mantissa = steps[0] / 10 ** np.floor(np.log10(steps[0]) + 1e-9)
        assert min(abs(mantissa - one) for one in (1, 2, 5, 10)) < 1e-2 + slack / steps[0]


def points_of(path: str) -> np.ndarray:
    return np.array([one.split() for one in path[1:].split(" L")], float)


def test_a_curve_keeps_its_ends_and_its_place() -> None:
    x = np.arange(10_000, dtype=float)
    curve = np.stack([x, np.where(x < 5000, 0.0, 1.0)], axis=1)
    figure = chart_figure(Chart("share", "x", {"one": curve}, (0.0, 1.0)), count(1))
    (path,) = [one.attrib["d"] for one in figure.iter("path")]
    drawn = points_of(path)
    assert len(drawn) == MOST_POINTS
    assert (np.diff(drawn[:, 0]) >= 0).all() and drawn[0, 1] > drawn[-1, 1]  # y grows downward
    assert (drawn >= 0).all() and (drawn <= SIZE_WH).all()
    frame = next(figure.iter("rect")).attrib
    left, top = float(frame["x"]), float(frame["y"])
    np.testing.assert_allclose(drawn[0], [left, top + float(frame["height"])], atol=0.1)
    np.testing.assert_allclose(drawn[-1], [left + float(frame["width"]), top], atol=0.1)


def test_screen_readers_have_the_last_value_of_each_curve() -> None:
    curves = {name: np.array([[0, 1], [1, value]], float) for name, value in (("a", 2), ("b", 3))}
    figure = chart_figure(Chart("loss", "step", curves), count(7))
    svg = next(figure.iter("svg"))
    assert svg.attrib["role"] == "img" and svg.attrib["aria-labelledby"] == "chart7"
    title = next(figure.iter("title"))
    assert title.attrib["id"] == "chart7" and title.text == "loss: a 2; b 3"
    assert [one.text for one in figure.iter("span")] == ["a", "b"]  # the legend
    styles = [one.attrib["class"] for one in svg.iter("path")]
    assert styles == ["k0", "k1"]


@pytest.mark.parametrize(
    "curve", [[[3, 5]], [[0, 0], [1, 0]], [[2, -1], [2, -1]], [[0, 0], [1, 5e-324]]]
)
def test_flat_curves_and_single_points_are_drawn(curve: list[list[float]]) -> None:
    figure = chart_figure(Chart("flat", "x", {"one": np.array(curve, float)}), count(1))
    (path,) = [one.attrib["d"] for one in figure.iter("path")]
    assert np.isfinite(points_of(path)).all()
