"""Where the time of one image goes: every stage from pixels to features, timed by itself.

    python benchmarks/stages.py

Prints medians in milliseconds for a 480x640 photograph on the CPU, in float32 unless told
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
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import cv2

from tiepoint import Detector, __version__
from tiepoint.architecture import CELL_PX
from tiepoint.features import Features
from tiepoint.images.reading import read
from tiepoint.keypoints.postprocess import sample_at, select
from tiepoint.keypoints.refinement import settle, structure
from tiepoint.network import inputs
from tiepoint.network.engines import Runtime


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
    """A runtime that notes how long its last call took; everything else passes through."""

    def __init__(self, network: Runtime) -> None:
        self._network = network
        self.last_ms = 0.0

    def __call__(self, *arguments: Any) -> Any:
        start = time.perf_counter()
        maps = self._network(*arguments)
        self.last_ms = 1000 * (time.perf_counter() - start)
        return maps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)


def around_network(detector: Detector, network: Runtime, image: Any, repeats: int) -> float:
    """Median of (a whole call less the network inside that same call), in milliseconds."""
    watch = Stopwatch(network)
    detector._runtimes[False] = cast(Runtime, watch)
    rest_ms = []
    for _ in range(repeats):
        start = time.perf_counter()
        detector(image)
        rest_ms.append(1000 * (time.perf_counter() - start) - watch.last_ms)
    detector._runtimes[False] = network
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
    detector = Detector(
        options.checkpoint,
        engine=options.engine,
        device="cpu",
        precision=options.precision,
        max_side=640,
        max_keypoints=options.max_keypoints,
        scales=(1.0,),
    )
    network = detector._network()
    pixel_config, detection = detector._configs({})
    sampling = detector.checkpoint.sampling
    rows: dict[str, float] = {}

    def stage(name: str, work: Callable[[], Any]) -> Any:
        rows[name], result = timed(options.repeats, work)
        return result

    pixels, placements = stage("resize, grey, pad", lambda: inputs.prepare([image], pixel_config))
    maps = stage("network", lambda: network(pixels, placements, True))
    h, w = (side // CELL_PX for side in placements[0].padded_hw)

    stage("extract, at once", lambda: network.extract(maps, placements, detection, sampling))
    if options.engine == "openvino":
        height, width = placements[0].resized_hw
        heatmap = maps.heatmap[0, :height, :width]
        xy, _ = stage("  NMS, selection, sub-pixel", lambda: select(heatmap, detection))
        about = stage("  structure of the image", lambda: structure(pixels[0, 0]))
        x, y = xy.round().astype(int).T
        stage("  settling on it", lambda: settle(about, y, x, xy, detection.nms_radius))
        stage("  descriptors", lambda: sample_at(maps.descriptors[0, :, :h, :w], xy, sampling))
    features: Features = stage("image array to features", lambda: detector(image))
    rows["around the network"] = around_network(detector, network, image, options.repeats)
    print(f"tiepoint {__version__}, {detector!r}, {platform.machine()}, {os.cpu_count()} cores")
    print(f"image {width}x{height}, {len(features)} keypoints, median of {options.repeats}")
    for name, milliseconds in rows.items():
        print(f"{name:28s}{milliseconds:9.2f} ms")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
