"""Detection in tiles: time and memory of images of growing size.

    python benchmarks/large.py --sides 2000 10000 40000
    python benchmarks/large.py --sides 10000 --way spread
    python benchmarks/large.py --sides 10000 --way all --threshold 0.005

With `--way all` there is no limit on keypoints: they go to disk, and into an .h5 file at the end.
The images are generated: memory maps of grey bytes on disk, made of copies of the bundled
photographs that are turned, scaled and lit in other ways. Each size runs in a process of its own;
its peak memory is without the pages of the map that the system keeps.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tiepoint import Detector, detect_tiled, sample_views, save
from tiepoint.images.reading import read

PATCH_PX = 1000
"""Side of a copy."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[2000, 10_000, 40_000])
    parser.add_argument("--checkpoint", default="small")
    parser.add_argument("--way", choices=("best", "spread", "all"), default="best")
    parser.add_argument("--keypoints", type=int, default=50_000)
    parser.add_argument("--threshold", type=float)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run is not None:
        measure(options)
        return
    print(
        "| side, px | tiles | keypoints | s | Mpx/s | peak memory, GB |\n|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder:
        for side in options.sides:
            path = scene(Path(folder, f"{side}.npy"), side)
            command = [sys.executable, __file__, *sys.argv[1:], "--run", str(path)]
            print(
                subprocess.run(command, check=True, capture_output=True, text=True).stdout, end=""
            )
            path.unlink()


def scene(path: Path, side: int) -> Path:
    """A file with an image of `side` x `side` px."""
    rng = np.random.default_rng(0)
    photos = [cv2.cvtColor(read(one).pixels, cv2.COLOR_RGB2GRAY) for one in sample_views()]
    image = np.lib.format.open_memmap(path, "w+", np.uint8, (side, side))
    for top in range(0, side, PATCH_PX):
        for left in range(0, side, PATCH_PX):
            photo = photos[int(rng.integers(len(photos)))]
            angle, zoom = rng.uniform(0, 360), rng.uniform(2.5, 4)
            matrix = cv2.getRotationMatrix2D((photo.shape[1] / 2, photo.shape[0] / 2), angle, zoom)
            matrix[:, 2] += PATCH_PX / 2 - np.array(photo.shape[1::-1]) / 2
            patch = cv2.warpAffine(
                photo, matrix, (PATCH_PX, PATCH_PX), borderMode=cv2.BORDER_REFLECT
            )
            patch = np.clip(patch * rng.uniform(0.6, 1.2) + rng.uniform(-20, 20), 0, 255)
            part = image[top : top + PATCH_PX, left : left + PATCH_PX]
            part[...] = patch[: part.shape[0], : part.shape[1]]
    image.flush()
    return path


def measure(options: argparse.Namespace) -> None:
    """Print the row of one image."""
    image = np.load(options.run, mmap_mode="r")
    detector = Detector(options.checkpoint, precision=options.precision)
    detect_tiled(np.asarray(image[:1000, :1000]), detector)  # compiles
    settings: dict[str, Any] = {"max_keypoints": options.keypoints}
    if options.threshold is not None:
        settings["threshold"] = options.threshold
    if options.way == "spread":
        settings["spread"] = True
    tiles, state = [0], None
    if options.way == "all":
        settings |= {"max_keypoints": None, "mapped": True}
        state = options.run.with_suffix(".tiles")
    start = time.perf_counter()
    with Peak() as peak:
        features = detect_tiled(
            image, detector, state=state, **settings,
            progress=lambda done, total: tiles.__setitem__(0, total),
        )  # fmt: skip
        if options.way == "all":
            save(features, options.run.with_suffix(".h5"))
    seconds = time.perf_counter() - start
    side = len(image)
    print(f"| {side:,} | {tiles[0]:,} | {len(features):,} | {seconds:.1f} | "
          f"{side**2 / seconds / 1e6:.1f} | {peak.gb:.2f} |")  # fmt: skip


class Peak:
    """Peak of the process's own memory (RssAnon) while it is open, GB."""

    def __init__(self) -> None:
        self.gb = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            status = Path("/proc/self/status").read_text(encoding="ascii")
            self.gb = max(self.gb, int(status.partition("RssAnon:")[2].split()[0]) / 2**20)


if __name__ == "__main__":
    main()
