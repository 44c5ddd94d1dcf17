"""Images, pairs and products per second of a GPU, beside what the card itself can do.

    python benchmarks/gpu.py --json gpu.json
    python benchmarks/gpu.py --device cpu --counts
    python benchmarks/gpu.py --device cpu --prices --networks small base large

Written for four minutes on one H200, where the rows of training have not run yet. Every row is the
best of repetitions in about two seconds, after one that warms up. The limits of the card are a
product of matrices and copies. "Network" is from pixels on the device to dense maps on it; "stream"
from arrays of the host to features of the host, with 1,000 keypoints at most; "JPEG" from the bytes
of files, beside what decoding alone takes. transformers takes tensors on the device, with the same
weights. kornia's DISK has its own. Both are left out where they are not installed. Rows of training
are those of `gpu_training.py` and `gpu_pairs.py`.

--prices prints the share of the keypoints of f32 that lower precisions keep.
--counts runs one batch and prints its kernels and how often the host waits. torch has the same
operators on a CPU, so no GPU is needed. Views and allocations do not count.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from gpu_counts import count
from precision import compared
from speed import copied
from stages import photograph
from tiepoint import Detector, __version__, match
from tiepoint.config import Precision
from tiepoint.errors import is_installed
from tiepoint.features import Features
from tiepoint.images.reading import read
from tiepoint.matching import neighbours_torch
from tiepoint.matching.descriptors import descriptors_of
from tiepoint.matching.learned.folder import load_matcher
from tiepoint.matching.learned.inputs import MatcherInput, normalised
from tiepoint.matching.learned.torch_engine import MOST_PAIRS, TorchMatcher
from tiepoint.network.cores import usable_cores
from tiepoint.network.torch_engine import TorchEngine
from tiepoint.streaming import read_ahead
from tiepoint.training.presets import PRESETS, training_data
from tiepoint.weights.checkpoint import BUNDLED, load_checkpoint
from tiepoint.weights.folder import MATCHER_FOLDER

KEYPOINTS = 1000
ROW_S = 2.0
"""Time of one row."""

SCALES = {"one size": (1.0,), "two sizes": (1.0, 0.6)}

Row = tuple[str, float, str]
"""What, how much, and its unit."""


def rate(work: Callable[[], Any], units: float, device: str, seconds: float = ROW_S) -> float:
    """Units per second of the fastest call."""
    work()
    wait(device)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        work()
        wait(device)
        best = min(best, time.perf_counter() - start)
    return units / best


def wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def limits(device: str, side: int) -> Iterator[Row]:
    """What the card can do."""
    for dtype in (torch.float32, torch.bfloat16):
        a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        teras = rate(partial(torch.matmul, a, b), 2e-12 * side**3, device)
        yield f"product of two matrices {side}^3, {dtype}", teras, "TFLOP/s"
    values, giga = torch.empty(side * side, device=device), 4e-9 * side * side
    pinned = torch.empty(side * side, pin_memory=device.startswith("cuda"))
    for name, target, source, passes in (
        ("on the device, read and write", torch.empty_like(values), values, 2),
        ("to the device, pinned", values, pinned, 1),
        ("from the device, pinned", pinned, values, 1),
    ):
        copy = partial(target.copy_, source, non_blocking=True)
        yield f"copy {name}", rate(copy, passes * giga, device), "GB/s"


def networks(options: argparse.Namespace) -> Iterator[Row]:
    """The network alone: pixels on the device -> dense maps on it."""
    height, width = options.size_hw
    for name in options.networks:
        checkpoint = load_checkpoint(name)
        for precision in options.precisions:
            for compiled in (False, True) if options.compiled else (False,):
                engine = TorchEngine(checkpoint, options.device, precision, compiled=compiled)
                for batch in options.batches:
                    pixels = torch.rand(batch, 1, height, width, device=options.device)

                    def run(engine: Any = engine, pixels: Any = pixels) -> Any:
                        with engine.at_work() as network:
                            call = engine._compiled
                            if call is None:
                                return network(pixels, descriptors=True)
                            return call(pixels.shape, pixels, None, descriptors=True, phases=1)

                    how = f"{precision}{', compiled' if compiled else ''}, batch {batch}"
                    yield f"network {name}, {how}", rate(run, batch, options.device), "images/s"


def streams(
    options: argparse.Namespace, image: NDArray[np.uint8], precision: Precision
) -> Iterator[Row]:
    """From arrays to features, one by one and as a stream."""
    for name in options.networks:
        for label, scales in SCALES.items():
            for compiled in (False, True) if options.compiled else (False,):
                detector = made(options, name, precision, scales, compiled=compiled)
                how = f"{name}, {label}, {precision}{', compiled' if compiled else ''}"
                seconds = rate(partial(detector, image), 1, options.device)
                yield f"one image, {how}", 1000 / seconds, "ms"
                many = [image] * options.stream

                def run(detector: Detector = detector, many: Any = many) -> None:
                    for one in detector.stream(iter(many)):
                        one.require()

                yield f"stream, {how}", rate(run, len(many), options.device), "images/s"


def made(
    options: argparse.Namespace,
    name: str,
    precision: Precision,
    scales: tuple[float, ...],
    *,
    compiled: bool = False,
) -> Detector:
    checkpoint = load_checkpoint(name)
    engine = TorchEngine(checkpoint, options.device, precision, compiled=compiled, batched=True)
    return Detector(
        checkpoint, engine=engine, scales=scales, phases=options.phases, max_keypoints=KEYPOINTS
    )


def prices(options: argparse.Namespace, image: NDArray[np.uint8]) -> Iterator[Row]:
    """What a lower precision costs: the share of f32's keypoints that stay within 0.5 px."""
    views = [image, image[:, ::-1], image[::-1], np.rot90(image)]
    scales = SCALES["two sizes"]
    for name in options.networks:
        exact = made(options, name, "f32", scales)([*views])
        for precision in [one for one in options.precisions if one != "f32"]:
            share, cosine = compared(exact, made(options, name, precision, scales)([*views]))
            yield f"keypoints of f32 kept, {name}, {precision}", share, f"cosine {cosine:.4f}"


def files(options: argparse.Namespace, image: NDArray[np.uint8]) -> Iterator[Row]:
    """JPEG files as bytes: what decoding alone takes, and with everything else."""
    data = bytes(cv2.imencode(".jpg", image[..., ::-1])[1])
    many, cores = [data] * options.stream, usable_cores()
    decode = rate(lambda: [0 for _ in read_ahead(many, read, cores)], len(many), options.device)
    yield f"JPEG, decoding alone, {cores} threads", decode, "images/s"
    precision = options.precisions[-1]
    for label, scales in SCALES.items():
        detector = made(options, options.networks[0], precision, scales)

        def run(detector: Detector = detector) -> None:
            for one in detector.stream(iter(many)):
                one.require()

        name = f"JPEG, stream, {options.networks[0]}, {label}, {precision}"
        yield name, rate(run, len(many), options.device), "images/s"


def peers(options: argparse.Namespace, image: NDArray[np.uint8]) -> Iterator[Row]:
    """transformers with the same weights, and kornia's DISK: tensors on the device, in batches."""
    batch = options.batches[0]
    pixels = torch.from_numpy(image).to(options.device).permute(2, 0, 1)[None].float() / 255
    pixels = pixels.expand(batch, -1, -1, -1).contiguous()
    if is_installed("transformers"):
        from transformers import SuperPointForKeypointDetection

        with tempfile.TemporaryDirectory() as folder:
            copied(BUNDLED / options.networks[0], Path(folder) / "weights")
            model = SuperPointForKeypointDetection.from_pretrained(Path(folder) / "weights")
        for dtype in (torch.float32, torch.bfloat16):
            model = model.eval().to(options.device, dtype)

            values = pixels.to(dtype)

            def run(model: Any = model, values: Any = values) -> None:
                with torch.inference_mode():
                    model(values)

            name = f"transformers, {options.networks[0]}, {dtype}, batch {batch}"
            yield name, rate(run, batch, options.device), "images/s"
    if is_installed("kornia"):
        from kornia.feature import DISK

        disk = DISK().eval().to(options.device)  # random weights: the time does not depend on them

        def run_disk() -> None:
            with torch.inference_mode():
                disk(pixels, n=KEYPOINTS, pad_if_not_divisible=True)

        yield (
            f"kornia's DISK, float32, batch {batch}",
            rate(run_disk, batch, options.device),
            "images/s",
        )


def matching(options: argparse.Namespace, keypoints: int) -> Iterator[Row]:
    """Pairs of features of the host -> matches."""
    a, b = (random_features(keypoints, seed) for seed in (0, 1))
    device = options.device
    pairs = rate(lambda: match(a, b, device=device), 1, device)
    yield f"nearest neighbours, {keypoints} x {keypoints}", pairs, "pairs/s"
    learned = learned_matcher(options, KEYPOINTS, MOST_PAIRS)
    name = f"learned matcher of {options.networks[0]}, {KEYPOINTS} x {KEYPOINTS}"
    yield name, rate(learned, MOST_PAIRS, device), "pairs/s"


def learned_matcher(options: argparse.Namespace, keypoints: int, pairs: int) -> Callable[[], Any]:
    """A call that matches a batch of pairs by the matcher of the first network."""
    checkpoint = load_matcher(BUNDLED / options.networks[0] / MATCHER_FOLDER)
    config = checkpoint.config
    engine = TorchMatcher(config, checkpoint.tensors, layers=config.layers, device=options.device)
    sides = [
        MatcherInput(normalised(one.xy, one.size_hw), descriptors_of(one, "A"))
        for one in (random_features(keypoints, seed, config.descriptor_length) for seed in (0, 1))
    ]
    return partial(engine.run_many, [(sides[0], sides[1])] * pairs)


def random_features(count: int, seed: int, length: int = 128) -> Features:
    random = np.random.default_rng(seed)
    descriptors = random.standard_normal((count, length)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    xy = random.uniform(0, 470, (count, 2)).astype(np.float32)
    scores = np.sort(random.random(count, dtype=np.float32))[::-1].copy()
    return Features(xy=xy, scores=scores, descriptors=descriptors, size_hw=(480, 640))


def training(options: argparse.Namespace) -> Iterator[Row]:
    """Training of the preset `gpu`: steps alone, pairs alone, and whole runs."""
    from gpu_pairs import pair_rates  # both import this module
    from gpu_training import step_rates

    preset, device = PRESETS["gpu"], torch.device(options.device)
    with tempfile.TemporaryDirectory() as folder:
        yield from step_rates(preset, device, Path(folder))
    stage = preset.stages[1]
    data = replace(training_data(preset), size_hw=stage.size_hw)
    yield from pair_rates("gpu", stage, data, device, options.training_s)


def show_counts(options: argparse.Namespace, image: NDArray[np.uint8]) -> None:
    """Kernels and waits of one batch, of one size and of two."""
    height, width = image.shape[:2]
    smaller = image[: height * 7 // 8, : width * 15 // 16]
    alike = [image] * options.batches[0]
    mixed = [one if index % 2 else smaller for index, one in enumerate(alike)]
    print("| batch | scales | kernels | waits of the host | by |\n|---|---|---|---|---|")
    for name, batch in (("one image", [image]), ("one shape", alike), ("two shapes", mixed)):
        for label, scales in SCALES.items():
            detector = made(options, options.networks[0], "f32", scales)
            detector(batch)
            counts = count(partial(detector, batch))
            waits = ", ".join(f"{n} {name}" for name, n in sorted(counts.waits.items()))
            print(f"| {len(batch)}, {name} | {label} | {counts.kernels.total()} "
                  f"| {counts.waits.total()} | {waits} |")  # fmt: skip
    a, b = (descriptors_of(random_features(300, seed), "A") for seed in (0, 1))

    def nearest() -> None:
        neighbours_torch.by_cosine(
            *(neighbours_torch.to_device(one, options.device) for one in (a, b))
        )

    print("\n| pairs | kernels | waits of the host |\n|---|---|---|")
    for name, work in (
        ("1, nearest neighbours", nearest),
        ("1, learned", learned_matcher(options, 40, 1)),
        ("8, learned", learned_matcher(options, 40, 8)),
    ):
        work()
        counts = count(work)
        print(f"| {name} | {counts.kernels.total()} | {counts.waits.total()} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--counts", action="store_true", help="kernels and waits of one batch")
    parser.add_argument("--prices", action="store_true", help="accuracy of lower precision")
    parser.add_argument("--size", default="640x480", help="WxH")
    parser.add_argument("--networks", nargs="+", default=["base", "small"])
    parser.add_argument("--precisions", nargs="+", default=["f32", "bf16"])
    parser.add_argument("--phases", type=int, default=2)
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--stream", type=int, default=512, help="images of a stream")
    parser.add_argument("--side", type=int, default=8192, help="side of the matrices")
    parser.add_argument("--training-s", type=float, default=20, help="time of a training run")
    parser.add_argument("--compiled", action="store_true", help="also through torch.compile")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    options.size_hw = height, width
    image = np.ascontiguousarray(photograph((width, height)))
    if options.counts:
        show_counts(options, image)
        return
    if options.prices:
        for name, share, unit in prices(options, image):
            print(f"| {name} | {share:.3f} | {unit} |", flush=True)
        return
    is_cuda = options.device.startswith("cuda")
    card = torch.cuda.get_device_name() if is_cuda else options.device
    print(f"tiepoint {__version__}, torch {torch.__version__}, {card}, {usable_cores()} cores")
    rows: list[Row] = []
    for part in (
        limits(options.device, options.side),
        networks(options),
        *(streams(options, image, precision) for precision in options.precisions),
        files(options, image),
        peers(options, image),
        matching(options, options.side // 2),
        training(options),
    ):
        for row in part:
            rows.append(row)
            print(f"| {row[0]} | {row[1]:,.1f} | {row[2]} |", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
