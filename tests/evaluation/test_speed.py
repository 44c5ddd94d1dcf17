"""Times of methods whose time is known."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from tiepoint.cli import app
from tiepoint.errors import ConfigError
from tiepoint.evaluation import speed
from tiepoint.evaluation.methods import Method
from tiepoint.features import Features

IMAGES = [np.full((40, 60), n, np.uint8) for n in range(3)]


class Clock:
    """A clock that advances only by the time of the methods."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def method(self, name: str, seconds: Iterator[float]) -> Method:
        def detect(image: np.ndarray, k: int) -> Features:
            self.now += next(seconds)
            none = np.zeros((5, 2), np.float32)
            return Features(none, none[:, 0], None, image.shape)

        return Method(name, detect)


def steady(value: float) -> Iterator[float]:
    while True:
        yield value


def warming_up() -> Iterator[float]:
    yield from [9.0, 9.0]  # compiling
    yield from steady(0.02)


def test_medians_are_in_milliseconds_and_relative_to_the_first() -> None:
    clock = Clock()
    methods = [clock.method("slow", warming_up()), clock.method("quick", steady(0.005))]
    done = []
    slow, quick = speed.measure_speed(
        IMAGES, methods, 4, 2, clock=clock, on_image=lambda: done.append(1)
    )
    assert len(done) == 6
    assert (slow.median_ms, slow.low_ms, slow.high_ms) == pytest.approx((20, 20, 20))
    assert quick.median_ms == pytest.approx(5)
    assert (slow.times, quick.times) == pytest.approx((1, 0.25))
    assert slow.keypoints == 5


def test_methods_take_turns() -> None:
    order: list[str] = []

    def named(name: str) -> Method:
        def detect(image: np.ndarray, k: int) -> Features:
            order.append(f"{name}{image[0, 0]}")
            return Features(np.zeros((0, 2), np.float32), np.zeros(0, np.float32), None, (1, 1))

        return Method(name, detect)

    speed.measure_speed(IMAGES[:2], [named("a"), named("b")], 4, 2)
    assert order[2 * speed.WARM_UP :] == ["a0", "b0", "a1", "b1"] * 2


def test_nothing_to_time_is_refused() -> None:
    for images, repeats in (([], 1), (IMAGES, 0)):
        with pytest.raises(ConfigError, match="at least one of each"):
            speed.measure_speed(images, [Clock().method("x", steady(1))], 4, repeats)


def test_the_table_is_uncut() -> None:
    clock = Clock()
    rows = speed.measure_speed(IMAGES, [clock.method("x", steady(0.1))], 4, 1, clock=clock)
    console = Console(width=100)
    with console.capture() as capture:
        console.print(speed.speed_table(rows, 4, 640))
    assert "100.0" in capture.get()
    assert "…" not in capture.get()


def test_the_command_times_photographs_and_passes_over_broken_ones(
    shared: Path, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    source = next((shared / "photos" / "free").glob("*.jpg"))
    (photos / "good.jpg").write_bytes(source.read_bytes())
    (photos / "broken.jpg").write_bytes(b"no image")
    report = tmp_path / "speed.json"
    result = CliRunner().invoke(
        app,
        ["evaluate", "speed", "--photos", str(photos), "--methods", "orb", "--repeats", "1",
         "-o", str(report)],
    )  # fmt: skip
    assert result.exit_code == 1  # one of them was skipped
    (row,) = json.loads(report.read_text())["rows"]
    assert row["method"] == "orb"
    assert row["median_ms"] > 0
