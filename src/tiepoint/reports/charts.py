"""Curves as SVG inside the page: no script, colours by the page's style, dashes for print."""

from __future__ import annotations

import math
from itertools import count
from xml.etree.ElementTree import Element, SubElement

import numpy as np
from numpy.typing import NDArray

from tiepoint.reports.pieces import Chart

SIZE_WH = (720, 300)
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 12, 44
"""Margins, px."""
MOST_POINTS = 240
"""Points of a curve that are drawn; longer ones are thinned evenly."""
STYLES = 6
"""Number of line styles in report.css."""
TICKS = 5
LEAST_SPAN = 1e-100
"""Ranges below it are empty: ticks would have no digits."""

Array = NDArray[np.float64]


def chart_figure(chart: Chart, ids: count[int]) -> Element:
    """A `figure` with the drawing, its legend, and for screen readers the last value of each curve.

    Args:
        chart: The curves.
        ids: Numbers that are unique in the page.
    """
    figure = Element("figure")
    title_id = f"chart{next(ids)}"
    width, height = SIZE_WH
    svg = SubElement(
        figure,
        "svg",
        {"viewBox": f"0 0 {width} {height}", "role": "img", "aria-labelledby": title_id},
    )
    ends = "; ".join(f"{name} {curve[-1][1]:.4g}" for name, curve in chart.curves.items())
    SubElement(svg, "title", {"id": title_id}).text = f"{chart.title}: {ends}"
    x_range, y_range = _ranges(chart)
    frame = {"x": LEFT, "y": TOP, "width": width - LEFT - RIGHT, "height": height - TOP - BOTTOM}
    SubElement(svg, "rect", {"class": "frame", **{k: str(v) for k, v in frame.items()}})
    _axes(svg, x_range, y_range, chart.x_name)
    for style, curve in enumerate(chart.curves.values()):
        points = _placed(_thinned(curve), x_range, y_range)
        steps = " L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        SubElement(svg, "path", {"class": f"k{style % STYLES}", "d": f"M{steps}"})
    SubElement(figure, "figcaption").text = chart.title
    if len(chart.curves) > 1:
        _legend(figure, chart)
    return figure


def ticks(low: float, high: float) -> list[float]:
    """About five round numbers from `low` to `high`."""
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _ranges(chart: Chart) -> tuple[tuple[float, float], tuple[float, float]]:
    points = np.concatenate(list(chart.curves.values()))  # N 2
    (x_low, y_low), (x_high, y_high) = points.min(axis=0), points.max(axis=0)
    if chart.y_range is not None:
        y_low, y_high = chart.y_range
    else:
        y_low, y_high = min(float(y_low), 0.0), max(float(y_high), 0.0)
    return _opened(float(x_low), float(x_high)), _opened(y_low, y_high)


def _opened(low: float, high: float) -> tuple[float, float]:
    """The same range, or a wider one if it is empty."""
    return (low, high) if high - low > LEAST_SPAN else (low, low + max(1.0, abs(low)))


def _placed(curve: Array, x_range: tuple[float, float], y_range: tuple[float, float]) -> Array:
    """N 2: places in the drawing, px."""
    width, height = SIZE_WH
    shares = (curve - [x_range[0], y_range[0]]) / [np.ptp(x_range), np.ptp(y_range)]  # N 2
    shares = np.clip(shares, 0, 1)
    x = LEFT + shares[:, 0] * (width - LEFT - RIGHT)
    y = height - BOTTOM - shares[:, 1] * (height - TOP - BOTTOM)
    return np.stack([x, y], axis=1)


def _thinned(curve: Array) -> Array:
    chosen = np.linspace(0, len(curve) - 1, min(len(curve), MOST_POINTS)).round().astype(int)
    return np.asarray(curve[chosen], np.float64)


def _axes(
    svg: Element, x_range: tuple[float, float], y_range: tuple[float, float], x_name: str
) -> None:
    width, height = SIZE_WH
    for value in ticks(*y_range):
        y = float(_placed(np.array([[x_range[0], value]]), x_range, y_range)[0, 1])
        places = {"x1": f"{LEFT}", "x2": f"{width - RIGHT}", "y1": f"{y:.1f}", "y2": f"{y:.1f}"}
        SubElement(svg, "line", {"class": "grid", **places})
        _text(svg, f"{value:.4g}", LEFT - 6, y + 4, "end")
    for value in ticks(*x_range):
        x = float(_placed(np.array([[value, y_range[0]]]), x_range, y_range)[0, 0])
        _text(svg, f"{value:,.6g}", x, height - BOTTOM + 17, "middle")
    _text(svg, x_name, (LEFT + width - RIGHT) / 2, height - 8, "middle")


def _text(svg: Element, text: str, x: float, y: float, anchor: str) -> None:
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor, "aria-hidden": "true"}
    SubElement(svg, "text", place).text = text


def _legend(figure: Element, chart: Chart) -> None:
    legend = SubElement(figure, "ul", {"class": "legend"})
    for style, name in enumerate(chart.curves):
        item = SubElement(legend, "li")
        key = SubElement(item, "svg", {"viewBox": "0 0 32 10", "aria-hidden": "true"})
        SubElement(key, "path", {"class": f"k{style % STYLES}", "d": "M0 5 L32 5"})
        SubElement(item, "span").text = name
