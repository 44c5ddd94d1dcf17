"""From process start to written file: what a person waits for on the command line.

    python benchmarks/startup.py

Times whole processes: `tiepoint --help`, `tiepoint detect one.jpg`, and, where transformers and
torch are installed, the keypoint guide's own script under transformers with the same weights.
The first run of each warms the disk cache and is not counted. Then, within one process, how long
compiling the network takes, and reading it compiled from OpenVINO's own cache on disk.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import openvino as ov

from tiepoint.network.openvino_engine import has_bf16
from tiepoint.network.openvino_graph import build_model
from tiepoint.weights.checkpoint import BUNDLED, DEFAULT, load_checkpoint

GUIDE = """
import sys
from PIL import Image
import torch
from transformers import AutoImageProcessor, SuperPointForKeypointDetection
processor = AutoImageProcessor.from_pretrained(sys.argv[1])
model = SuperPointForKeypointDetection.from_pretrained(sys.argv[1])
image = Image.open(sys.argv[2]).convert("RGB")
inputs = processor(image, return_tensors="pt")
with torch.no_grad():
    outputs = model(**inputs)
found = processor.post_process_keypoint_detection(outputs, [(image.height, image.width)])
torch.save(found, sys.argv[3])
"""


def seconds(command: list[str], repeats: int) -> float:
    """Median wall time of a command, warmed by one run."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env=environment)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def compiling(precision: str, cache: str | None, repeats: int) -> float:
    """Median seconds until the bundled network is compiled, or read from a folder once filled."""
    model = build_model(load_checkpoint(), descriptors=True, in_bytes=precision == "bf16")
    times = []
    for _ in range(repeats + 1):
        core = ov.Core()
        if cache is not None:
            core.set_property({"CACHE_DIR": cache})
        start = time.perf_counter()
        core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    repeats: int = parser.parse_args().repeats
    import skimage

    source = Path(skimage.__file__).parent / "data" / "motorcycle_left.png"
    with tempfile.TemporaryDirectory() as folder:
        image, out = Path(folder) / "one.jpg", Path(folder) / "one.npz"
        cv2.imwrite(str(image), cv2.resize(cv2.imread(str(source)), (640, 480)))
        tiepoint = [sys.executable, "-m", "tiepoint"]
        detect = [*tiepoint, "detect", str(image), "-o", str(out), "--overwrite"]
        rows = {
            "tiepoint --help": seconds([*tiepoint, "--help"], repeats),
            "tiepoint detect one.jpg": seconds(detect, repeats),
        }
        if all(importlib.util.find_spec(name) for name in ("torch", "transformers")):
            weights = Path(folder) / "checkpoint"
            shutil.copytree(BUNDLED / DEFAULT, weights)
            guide = [sys.executable, "-c", GUIDE, str(weights), str(image), str(out)]
            rows["guide's script, transformers"] = seconds(guide, max(1, repeats // 2))
        for precision in ("f32", "bf16") if has_bf16() else ("f32",):
            rows[f"compiling, {precision}"] = compiling(precision, None, repeats)
            cache = str(Path(folder) / precision)
            rows[f"read compiled, {precision}"] = compiling(precision, cache, repeats)
    for name, value in rows.items():
        print(f"{name:32s}{value:8.3f} s")


if __name__ == "__main__":
    main()
