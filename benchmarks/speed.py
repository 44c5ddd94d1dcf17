"""From image array to features, side by side: ours in every precision and width, and its peers.

    python benchmarks/speed.py --json speed.json --plot speed.png --accuracy accuracy.json

All in one run on an idle machine, interleaved: each repetition runs every method once, so that a
slow moment hits them all. Between two methods is a rest; with --in-a-row each runs several times
before its turn ends, as in a video, and the first of them does not count. Prints medians in
milliseconds, and how many times as fast as transformers each of our methods is with the same file.
"full" has the paper's widths and random weights: the time does not depend on them. All are asked
for 1,000 keypoints of an image of the size that is named, seen at that size alone as transformers
sees it; the bundled ones also at both sizes at which they look by default. Phases are those of
docs/architecture.md, one unless named. Compiled: a network for that size alone, its compiling not
timed. SIFT and ORB are OpenCV's as they come. transformers and torch are left out where they are
not installed, and transformers in bf16 unless --precisions has it: where the processor does not
compute in it, that takes many seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from stages import photograph
from tiepoint import Detector, __version__
from tiepoint.config import EngineName, Precision, ProcessorConfig
from tiepoint.errors import ConfigError, is_installed
from tiepoint.network import inputs
from tiepoint.network.engines import PRECISIONS
from tiepoint.weights.activation_maxima import (
    mean_activation_maxima,
    quantised_layers,
    save_activation_maxima,
)
from tiepoint.weights.checkpoint import BUNDLED, bundled_checkpoints, load_checkpoint

KEYPOINTS = 1000
SIZES = ("320x240", "640x480", "1920x1080")
PEER, FULL = "transformers", "full"
DRAWN = "640x480"
PEER_COLOUR = "0.4"
COLOURS = {"f32": "tab:blue", "bf16": "tab:green", "f16": "tab:olive", "int8": "tab:orange"}
TICKS_MS = (5, 10, 20, 50, 100, 200, 500, 1000)
PAUSE_S = 0.05
"""Between two methods: threads of the one that still spin would take cores from the next."""

Method = Callable[[NDArray[np.uint8]], int]
"""RGB image -> how many keypoints were found."""


def full_checkpoint(folder: Path) -> Path:
    """The paper's widths, random weights, and ranges for int8 from one photograph."""
    import torch

    from tiepoint import SuperPointConfig, SuperPointForKeypointDetection, SuperPointImageProcessor

    torch.manual_seed(0)
    config = SuperPointConfig(keypoint_threshold=0.0, max_keypoints=KEYPOINTS)
    SuperPointForKeypointDetection(config).save_pretrained(folder)
    SuperPointImageProcessor().save_pretrained(folder)
    from tiepoint.network.openvino_graph import measure_activation_maxima

    checkpoint = load_checkpoint(folder)
    pixels = inputs.prepare([photograph((640, 480))], ProcessorConfig())[0][0, 0]
    highest = measure_activation_maxima(checkpoint, [pixels])
    ranges = mean_activation_maxima(highest, quantised_layers(checkpoint.network))
    save_activation_maxima(folder, ranges, checkpoint.sha256)
    return folder


def ours(
    label: str,
    checkpoint: str,
    engine: EngineName,
    precisions: Sequence[Precision],
    *,
    scales: Sequence[float] = (1.0,),
    phases: int = 1,
    compiled: bool = False,
) -> Iterator[tuple[str, Method]]:
    """A method for each of the precisions that this processor has."""
    for precision in precisions:
        try:
            detector = Detector(
                checkpoint, engine=engine, device="cpu", precision=precision, max_side=None,
                max_keypoints=KEYPOINTS, threshold=0.0, scales=scales, phases=phases,
                compiled=compiled,
            )  # fmt: skip
            detector(np.zeros((64, 64), np.uint8))
        except ConfigError as error:
            print(f"{label} {precision}, {engine}: left out, {error}")
            continue
        how = f"{engine}{at(scales)}{at_phases(phases)}{', compiled' if compiled else ''}"
        yield f"{label} {precision}, {how}", partial(count, detector)


def at(scales: Sequence[float]) -> str:
    """Suffix of a method's name for a pyramid; empty for one scale."""
    return "" if len(scales) == 1 else ", " + "+".join(f"{scale:g}" for scale in scales)


def at_phases(phases: int) -> str:
    """Suffix of a method's name for several cell phases; empty for one."""
    return "" if phases == 1 else f", {phases} phases"


def count(detector: Detector, image: NDArray[np.uint8]) -> int:
    return len(detector(image))


def transformers_method(folder: Path, *, fast: bool) -> Method:
    """The guide's calls under transformers; fast: channels last and bfloat16."""
    import torch
    from transformers import AutoImageProcessor, SuperPointForKeypointDetection

    model = SuperPointForKeypointDetection.from_pretrained(folder).eval()
    prepare = AutoImageProcessor.from_pretrained(folder)
    if fast:
        model = model.to(memory_format=torch.channels_last, dtype=torch.bfloat16)

    def detect(image: NDArray[np.uint8]) -> int:
        height, width = image.shape[:2]
        inputs = prepare(image, return_tensors="pt", do_resize=False)
        if fast:
            inputs = inputs.to(dtype=torch.bfloat16)
        with torch.inference_mode():
            outputs = model(**inputs)
        [found] = prepare.post_process_keypoint_detection(outputs, [(height, width)])
        return len(found["keypoints"])

    return detect


def copied(checkpoint: Path, folder: Path) -> None:
    """What transformers reads of a checkpoint, set to give as many keypoints as the others."""
    shutil.copytree(checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"keypoint_threshold": 0.0, "max_keypoints": KEYPOINTS}
    (folder / "config.json").write_text(json.dumps(config))


def classical(make: Callable[..., Any]) -> Method:
    detector = make(nfeatures=KEYPOINTS)

    def detect(image: NDArray[np.uint8]) -> int:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        return len(detector.detectAndCompute(grey, None)[0])

    return detect


def all_methods(
    folder: Path, precisions: Sequence[Precision], only: Sequence[str]
) -> dict[str, Method]:
    methods: dict[str, Method] = {}
    has_torch = is_installed("torch")
    checkpoints = [(name, name) for name in sorted(bundled_checkpoints())]
    if has_torch and FULL in only:
        checkpoints.insert(0, (FULL, str(full_checkpoint(folder / FULL))))
    for label, checkpoint in checkpoints:
        if label not in only:
            continue
        if has_torch and is_installed("transformers"):
            source = folder / label
            if not source.exists():  # a bundled one: its folder holds more than theirs may
                copied(BUNDLED / checkpoint, source)
            methods[f"{label} f32, {PEER}"] = transformers_method(source, fast=False)
            if "bf16" in precisions:
                fast = transformers_method(source, fast=True)
                methods[f"{label} bf16, {PEER}, channels last"] = fast
        for engine in ("openvino", "torch") if has_torch else ("openvino",):
            methods |= dict(ours(label, checkpoint, engine, precisions))
        methods |= dict(ours(label, checkpoint, "openvino", precisions, compiled=True))
        methods |= dict(ours(label, checkpoint, "openvino", precisions, phases=2))
        methods |= dict(ours(label, checkpoint, "openvino", precisions, phases=2, compiled=True))
        pyramid = load_checkpoint(checkpoint).detection.scales
        if len(pyramid) > 1:
            for phases in (1, 2):
                rows = ours(
                    label, checkpoint, "openvino", precisions, scales=pyramid, phases=phases
                )
                methods |= dict(rows)
    methods["SIFT"] = classical(cv2.SIFT.create)
    methods["ORB"] = classical(cv2.ORB.create)
    return methods


def measure(
    methods: dict[str, Method], image: NDArray[np.uint8], repeats: int, in_a_row: int
) -> dict[str, dict[str, float]]:
    """Median, least and most milliseconds of each method, interleaved; and its keypoints.

    In each turn a method runs `in_a_row` times; of several the first does not count.
    """
    counts = {name: method(image) for name, method in methods.items()}  # warms up, too
    times_ms: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(repeats):
        for name, method in methods.items():
            time.sleep(PAUSE_S)
            for run in range(in_a_row):
                start = time.perf_counter()
                method(image)
                if run > 0 or in_a_row == 1:
                    times_ms[name].append(1000 * (time.perf_counter() - start))
    return {
        name: {
            "median_ms": statistics.median(spent),
            "least_ms": min(spent),
            "most_ms": max(spent),
            "keypoints": counts[name],
        }
        for name, spent in times_ms.items()
    }


def show(size: str, rows: dict[str, dict[str, float]]) -> None:
    print(f"\n{size}\n| method | ms | least | most | keypoints | times as fast as {PEER} |")
    print("|---|---|---|---|---|---|")
    for name, row in rows.items():
        peer = rows.get(f"{name.split()[0]} f32, {PEER}")
        times = "" if peer is None else f"{peer['median_ms'] / row['median_ms']:.1f}"
        print(f"| {name} | {row['median_ms']:.1f} | {row['least_ms']:.1f} | {row['most_ms']:.1f} "
              f"| {row['keypoints']} | {times} |")  # fmt: skip


def draw(rows: dict[str, dict[str, float]], accuracy: dict[str, float], path: Path) -> None:
    """Accuracy over milliseconds, of the methods of which both are known.

    One line per network and precision, from one phase (hollow) to two. Peers far below the networks
    are named in the corner.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 4.5), constrained_layout=True)
    curves: dict[str, list[tuple[float, float]]] = {}
    for name, share in accuracy.items():
        if name in rows:
            curves.setdefault(name.split(",")[0], []).append((rows[name]["median_ms"], share))
    peers = {name: points[0] for name, points in curves.items() if " " not in name}
    networks = {name: sorted(points) for name, points in curves.items() if " " in name}
    lowest = min(share for points in networks.values() for _, share in points) - 0.02
    legend: dict[str, Any] = {}
    for name, points in networks.items():
        network, precision = name.split()
        spent_ms, shares = zip(*points, strict=True)
        [legend[precision]] = axes.plot(spent_ms, shares, "o-", color=COLOURS[precision])
        axes.plot(spent_ms[0], shares[0], "o", color=COLOURS[precision], markerfacecolor="white")
        if precision == "f32":  # the slowest, so that its name is to the right of all
            axes.annotate(network, points[-1], xytext=(8, -4), textcoords="offset points")
    for name, point in peers.items():
        if point[1] >= lowest:
            axes.plot(*point, "s", color=PEER_COLOUR)
            axes.annotate(name, point, xytext=(8, -4), textcoords="offset points")
    below = [f"{n}: {ms:.1f} ms, {share:.2f}" for n, (ms, share) in peers.items() if share < lowest]
    axes.text(0.02, 0.03, "\n".join(below), transform=axes.transAxes, color=PEER_COLOUR)
    axes.legend(legend.values(), legend, title="hollow: one cell phase", loc="upper left")
    axes.set_xscale("log")
    axes.set_xticks(TICKS_MS, [f"{tick}" for tick in TICKS_MS])
    axes.minorticks_off()
    axes.margins(x=0.12, y=0.1)
    axes.set_ylim(bottom=lowest)
    axes.set_xlabel(f"ms for one 480x640 image, {os.cpu_count()} cores")
    axes.set_ylabel("generated pairs within 3 px")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--in-a-row", type=int, default=1, help="runs in a turn")
    parser.add_argument("--sizes", nargs="+", default=SIZES, help="WxH")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    names = [FULL, *bundled_checkpoints()]
    parser.add_argument("--networks", nargs="+", choices=names, default=names)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, help="PNG, with --accuracy")
    parser.add_argument("--accuracy", type=Path, help="JSON, method -> share; see precision.py")
    options = parser.parse_args()
    print(f"tiepoint {__version__}, {platform.machine()}, {os.cpu_count()} cores")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in options.sizes:
            # A new one, because none keeps the memory of another size.
            methods = all_methods(Path(folder) / size, options.precisions, options.networks)
            width, height = map(int, size.split("x"))
            found[size] = measure(
                methods, photograph((width, height)), options.repeats, options.in_a_row
            )
            show(size, found[size])
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.plot and options.accuracy and DRAWN in found:
        draw(found[DRAWN], json.loads(options.accuracy.read_text()), options.plot)


if __name__ == "__main__":
    main()
