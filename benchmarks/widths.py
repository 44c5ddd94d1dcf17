"""Cost of networks of given widths on this processor, before any training.

    python benchmarks/widths.py
    python benchmarks/widths.py 8-16-48-64/128/64 16-32-64-64/128/128 --precision bf16

Compiles networks with random weights and times them in turn on one 480x640 image; the time does
not depend on the weights. Prints multiply-adds and the least milliseconds of the network alone,
without pre- and post-processing.
"""

from __future__ import annotations

import argparse
import os
import platform
import time

import numpy as np

from tiepoint import __version__
from tiepoint.architecture import NetworkConfig
from tiepoint.config import DetectionConfig
from tiepoint.geometry import Placement
from tiepoint.network.openvino_engine import OpenVinoEngine
from tiepoint.weights.checkpoint import Checkpoint

SIZE_HW = (480, 640)

WIDTHS = (
    "64-64-128-128/256/256", "32-64-96-160/192/128", "16-32-64-64/128/128", "16-16-48-64/128/64",
    "8-16-48-96/128/128", "8-16-48-64/128/64", "8-16-32-64/128/64",
)  # fmt: skip


def network_of(widths: str) -> NetworkConfig:
    """`64-64-128-128/256/256` -> encoder, heads, descriptors."""
    encoder, heads, descriptors = widths.split("/")
    blocks = tuple(int(channels) for channels in encoder.split("-"))
    return NetworkConfig(blocks, int(heads), descriptor_decoder_dim=int(descriptors))


def random_checkpoint(network: NetworkConfig) -> Checkpoint:
    """A network of these widths with random weights."""
    rng, tensors = np.random.default_rng(0), {}
    for layer in network.layers():
        shape = (layer.out_channels, layer.in_channels, layer.kernel_px, layer.kernel_px)
        scale = np.sqrt(2 / np.prod(shape[1:]))
        tensors[f"{layer.name}.weight"] = rng.normal(0, scale, shape).astype(np.float32)
        tensors[f"{layer.name}.bias"] = np.zeros(layer.out_channels, np.float32)
    return Checkpoint("random", "0" * 64, network, DetectionConfig(), "exact", tensors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("widths", nargs="*", default=WIDTHS, metavar="1-2-3-4/HEADS/DESCRIPTORS")
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--repeats", type=int, default=40)
    options = parser.parse_args()
    pixels = np.random.default_rng(1).random((1, 1, *SIZE_HW), dtype=np.float32)
    placement = [Placement(SIZE_HW, SIZE_HW)]
    networks = [network_of(widths) for widths in options.widths]
    built = [OpenVinoEngine(random_checkpoint(n), options.precision) for n in networks]
    least_ms = [float("inf")] * len(built)
    for _ in range(options.repeats):
        for index, engine in enumerate(built):
            start = time.perf_counter()
            engine.run(pixels, placement, descriptors=True)
            least_ms[index] = min(least_ms[index], 1000 * (time.perf_counter() - start))
    print(f"tiepoint {__version__}, {options.precision}, {platform.machine()}, "
          f"{os.cpu_count()} cores")  # fmt: skip
    for widths, network, time_ms in zip(options.widths, networks, least_ms, strict=True):
        print(f"{widths:24s}{network.multiply_adds(SIZE_HW) / 1e9:6.2f} GMAC{time_ms:8.1f} ms")


if __name__ == "__main__":
    main()
