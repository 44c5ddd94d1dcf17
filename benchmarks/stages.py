"""Where the time of one image goes: every stage from pixels to features, timed by itself.

    python benchmarks/stages.py

Prints medians in milliseconds for a 480x640 photograph on the CPU, in float32 by default
otherwise. The network is from pixels to heat map and dense descriptors; "around the network" is all
the rest: resize, grey, NMS, selection, settling, sampling, mapping back.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint import Detector, __version__
from tiepoint import keypoints as steps
from tiepoint.config import DetectionOptions, resolve_detection
from tiepoint.features import Features
from tiepoint.geometry import Placement
from tiepoint.images.reading import read
from tiepoint.keypoints.extraction import extract
from tiepoint.network.dense_maps import DenseMaps
from tiepoint.network.engine import Engine
from tiepoint.network.engines import build_engine, resolve_engine
from tiepoint.network.inputs import prepare
from tiepoint.weights.checkpoint import load_checkpoint


def timed(repeats: int, work: Callable[[], Any]) -> tuple[float, Any]:
    """Median milliseconds of `repeats` calls after two to warm up, and the last result."""
    result = [work() for _ in range(2)][-1]
    times_ms = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        times_ms.append(1000 * (time.perf_counter() - start))
    return statistics.median(times_ms), result


def photograph(size_wh: tuple[int, int]) -> Any:
    """scikit-image's motorcycle, cut and resized to the size asked for."""
    import skimage

    path = Path(skimage.__file__).parent / "data" / "motorcycle_left.png"
    return cv2.resize(read(path).pixels, size_wh, interpolation=cv2.INTER_AREA)


class Stopwatch:
    """An engine that measures its calls."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.batch_size, self.in_flight = engine.batch_size, engine.in_flight
        self.total_ms = 0.0

    def run(
        self,
        inputs: NDArray[np.float32],
        placements: Sequence[Placement],
        *,
        descriptors: bool,
        phases: int = 1,
    ) -> DenseMaps[Any]:
        start = time.perf_counter()
        maps = self._engine.run(inputs, placements, descriptors=descriptors, phases=phases)
        self.total_ms += 1000 * (time.perf_counter() - start)
        return maps


def around_network(detector: Detector, watch: Stopwatch, image: Any, repeats: int) -> float:
    """Median of (a whole call less the network inside that same call), in milliseconds."""
    rest_ms = []
    for _ in range(repeats):
        watch.total_ms = 0.0
        start = time.perf_counter()
        detector(image)
        rest_ms.append(1000 * (time.perf_counter() - start) - watch.total_ms)
    return statistics.median(rest_ms)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--native", default="640x480", help="size of the image given, WxH")
    parser.add_argument("--engine", default="openvino")
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--max-keypoints", type=int, default=2048)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    width, height = map(int, options.native.split("x"))
    image = photograph((width, height))
    given = load_checkpoint(options.checkpoint)
    choice = resolve_engine(options.engine, "cpu", options.precision)
    watch = Stopwatch(build_engine(given, choice))
    settings: DetectionOptions = {
        "max_side": 640, "max_keypoints": options.max_keypoints, "scales": (1.0,),
    }  # fmt: skip
    detector = Detector(given, engine=watch, **settings)
    processor, detection = resolve_detection(given.detection, settings)
    rows: dict[str, float] = {}

    def stage(name: str, work: Callable[[], Any]) -> Any:
        rows[name], result = timed(options.repeats, work)
        return result

    inputs, (placement,) = stage("resize, grey, pad", lambda: prepare([image], processor))
    maps = stage(
        "network", lambda: watch.run(inputs, [placement], descriptors=True, phases=detection.phases)
    )
    height, width = placement.resized_hw
    heatmap, pixel_values = maps.heatmap[0, :height, :width], inputs[0, 0, :height, :width]
    dense = [one[0] for one in maps.descriptors]
    stage(
        "all steps, on one thread",
        lambda: extract(heatmap, dense, pixel_values, detection, given.sampling),
    )
    found = stage("  candidates (NMS)", lambda: steps.candidates(heatmap, detection))
    pixels = stage("  top k", lambda: steps.top_k(heatmap, found, detection.max_keypoints))
    around = stage("  windows of the heat map", lambda: steps.heat_mass(heatmap, pixels))
    response = stage("  Hessian response", lambda: steps.hessian_response(pixel_values))
    xy = stage(
        "  refinement",
        lambda: steps.refine(pixels, around, response, detection.nms_radius),
    )
    stage("  descriptors", lambda: steps.describe(dense, xy, given.sampling))
    features: Features = stage("image array to features", lambda: detector(image))
    rows["around the network"] = around_network(detector, watch, image, options.repeats)
    print(f"tiepoint {__version__}, {detector!r}, {platform.machine()}, {os.cpu_count()} cores")
    print(f"image {width}x{height}, {len(features)} keypoints, median of {options.repeats}")
    for name, milliseconds in rows.items():
        print(f"{name:28s}{milliseconds:9.2f} ms")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
