"""A folder of large photographs: images/s and busy cores; and memory, of one image and of many.

    python benchmarks/folder.py --photos ../shared/photos/free

Eight photographs enlarged to 4000x3000 with a sensor's noise, so that a JPEG has 3 MB as a camera's
has at least, over and over, go through `detector(path)` one by one and
through `tiepoint.batch.run`, which writes a features file each. Busy: CPU seconds over wall
seconds, 200 % being two cores. Before that, this process's memory after each thousand of many small
images; after it, what reading one photograph takes, as a file and by Pillow alone, and the peak
memory of `tiepoint detect one.jpg` as a process of its own.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from tiepoint import Detector
from tiepoint.batch import FolderStore, expand, run
from tiepoint.config import Precision
from tiepoint.images.photographs import list_photos
from tiepoint.images.reading import read

LARGE_WH, SMALL_HW = (4000, 3000), (120, 160)
NOISE_SD = 3.0
"""Grey levels."""
EVERY = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--checkpoints", nargs="+", default=["default"])
    parser.add_argument("--precisions", nargs="+", default=["auto"])
    parser.add_argument("--count", type=int, default=160, help="large images")
    parser.add_argument("--many", type=int, default=10_000, help="small images")
    options = parser.parse_args()
    for checkpoint in options.checkpoints:  # first, before large images have grown this process
        memory_of_many(checkpoint, options.many)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "photos"
        folder.mkdir()
        photos, random = list_photos(options.photos, "all")[:8], np.random.default_rng(0)
        for number in range(options.count):
            place_of = folder / f"{number:04d}.jpg"
            if number >= len(photos):
                os.link(folder / f"{number % len(photos):04d}.jpg", place_of)
                continue
            source = cv2.imread(str(photos[number]))
            large = cv2.resize(source, LARGE_WH, interpolation=cv2.INTER_CUBIC)
            noise = random.normal(0, NOISE_SD, large.shape)
            cv2.imwrite(str(place_of), np.clip(large + noise, 0, 255).astype(np.uint8))
        print("| checkpoint, precision | way | images/s | busy |\n|---|---|---|---|")
        for checkpoint in options.checkpoints:
            for precision in options.precisions:
                rates(checkpoint, precision, folder, Path(place))
        reading(folder / "0000.jpg")
        memory_of_one(folder / "0000.jpg", Path(place))


def rates(checkpoint: str, precision: Precision, folder: Path, place: Path) -> None:
    detector = Detector(checkpoint, device="cpu", precision=precision, max_keypoints=2048)
    paths = sorted(folder.iterdir())
    detector(paths[0])
    list(detector.stream(iter(paths[:4])))  # both ways are compiled before the clock runs
    name = f"{checkpoint}, {detector.precision}"

    def one_by_one() -> Iterable[object]:
        return (detector(path) for path in paths)

    def as_folder() -> Iterable[object]:
        out = place / f"{checkpoint}-{precision}".replace("/", "_")
        return run(expand([str(folder)]), detector, FolderStore(out, ".npz"))

    for way, work in (("one by one", one_by_one), ("folder", as_folder)):
        rate, busy = measured(work)
        print(f"| {name} | {way} | {rate:.2f} | {busy:.0%} |", flush=True)


def measured(work: Callable[[], Iterable[object]]) -> tuple[float, float]:
    """Images per second, and CPU seconds per second."""
    wall, spent = time.perf_counter(), time.process_time()
    count = sum(1 for _ in work())
    wall = time.perf_counter() - wall
    return count / wall, (time.process_time() - spent) / wall


def reading(image: Path) -> None:
    for way, source in (("as a file", lambda: image), ("by Pillow", lambda: Image.open(image))):
        times_ms = []
        for _ in range(15):
            start = time.perf_counter()
            read(source())
            times_ms.append(1000 * (time.perf_counter() - start))
        print(f"reading {image.name} {way}: {statistics.median(times_ms):.0f} ms")


def memory_of_one(image: Path, place: Path) -> None:
    """Peak of whole processes: one image of 640x480, and one of 12 megapixels."""
    small = place / "small.jpg"
    cv2.imwrite(str(small), cv2.resize(cv2.imread(str(image)), (640, 480)))
    for source in (small, image):
        command = [sys.executable, "-m", "tiepoint", "detect", str(source), "--device", "cpu",
                   "-o", str(place / "one.npz"), "--overwrite"]  # fmt: skip
        code = (
            "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, "
            "capture_output=True); print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        )
        said = subprocess.run(
            [sys.executable, "-c", code, *command], check=True, capture_output=True, text=True
        )
        print(f"peak of tiepoint detect {source.name}: {int(said.stdout) / 1024:.0f} MiB")


def memory_of_many(checkpoint: str, count: int) -> None:
    detector = Detector(checkpoint, device="cpu")
    random = np.random.default_rng(0)
    image = cv2.resize(random.integers(0, 256, (30, 40), np.uint8), SMALL_HW[::-1])
    shifted = (  # of several sizes, as in a real folder
        np.roll(image, number, axis=1)[: SMALL_HW[0] - 8 * (number % 3)] for number in range(count)
    )
    for number, _ in enumerate(detector.stream(shifted), start=1):
        if number % EVERY == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            resident = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(f"{checkpoint}: after {number} images {resident:.0f} MiB (peak {peak:.0f})")


if __name__ == "__main__":
    main()
