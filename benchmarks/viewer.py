"""Frames a second of the page of `tiepoint view` with many points, in Chromium by software.

    python benchmarks/viewer.py --points 1000000

Points are drawn by WebGL on the processor, so a graphics processor is faster by far. The view is
moved by one step for each frame, so every frame draws the image and all points.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

import tiepoint
from tiepoint.features import Features

ROOT = Path(__file__).resolve().parent.parent
SIDE_PX = 4000

MEASURE = """
([frames]) => new Promise(done => {
  const pane = document.querySelector('.pane');
  const times = [];
  const step = () => {
    pane.dispatchEvent(new KeyboardEvent('keydown', {
      key: times.length % 2 ? 'ArrowLeft' : 'ArrowRight', bubbles: true }));
    const pixel = new Uint8Array(4);
    const gl = document.querySelector('.layer').getContext('webgl2');
    gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, pixel);  // waits for the frame
    times.push(performance.now());
    if (times.length > frames) done(times);
    else requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
})
"""
"""Times of frames, ms."""


def write_scene(folder: Path, points: int) -> Path:
    """A features file with points anywhere, without an image."""
    rng = np.random.default_rng(0)
    features = Features(
        rng.uniform(0, SIDE_PX - 1, (points, 2)).astype(np.float32),
        np.sort(rng.random(points, dtype=np.float32))[::-1].copy(),
        None,
        (SIDE_PX, SIDE_PX),
        meta={"source": str(folder / "none.png")},
    )
    path = folder / "points.npz"
    tiepoint.save(features, path)
    return path


def measure(tab: Any, served: Any, frames: int, zoom: float) -> float:
    """Median frames a second at a zoom, CSS px per image px."""
    item = next(iter(served.session.items))
    middle = SIDE_PX / 2
    tab.open(f"#/image/{item}?x={middle}&y={middle}&z={zoom}", ".legend")
    times = np.array(tab.page.evaluate(MEASURE, [frames]))
    return float(1000 / np.median(np.diff(times)))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--frames", type=int, default=20)
    options = parser.parse_args(arguments)
    sys.path.insert(0, str(ROOT / "tests"))
    from tiepoint.service.view.inputs import open_session

    support, server = (import_module(f"support.view_{name}") for name in ("browser", "server"))

    with tempfile.TemporaryDirectory() as folder:
        path = write_scene(Path(folder), options.points)
        session = open_session([str(path)])
        program = support.chromium()
        with server.serving_of(session) as served, support.browser_of(program) as browser:
            tab = support.Tab(browser, served)
            for zoom, name in ((0.12, "all points"), (1.0, "part of them"), (16.0, "pixels")):
                rate = measure(tab, served, options.frames, zoom)
                print(f"{options.points} points, {name} in view: {rate:.1f} frames/s")
                tab.open("#/gallery", ".cards li")
            tab.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
