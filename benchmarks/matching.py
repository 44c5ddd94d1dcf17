"""Matching without the network: nearest neighbours, many pairs, registration from features.

    python benchmarks/matching.py --photographs 200

Prints, in one run and alternating: exact nearest neighbours of two large sets of keypoints beside
the plain float32 product with its two argmax; pairs per second of many photographs of 2,000
keypoints, matched one at a time on one core and in parallel; and `register` from features of 1,000
keypoints. The photographs are scikit-image's stereo pair, and copies of it under homographies.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

import tiepoint
from tiepoint.batch import match_pairs
from tiepoint.features import Features
from tiepoint.formats import H5MatchesWriter
from tiepoint.matching import neighbours
from tiepoint.network.cores import usable_cores

MANY, USUAL, FEW = 5500, 2000, 1000
"""Keypoints: for nearest neighbours, of a collection, for registration."""
SEED = 5


def medians_ms(works: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median milliseconds of each work; the works alternate."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def stereo_pair() -> tuple[Any, Any]:
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    left, right = (cv2.imread(str(folder / f"motorcycle_{side}.png")) for side in ("left", "right"))
    return left, right


def views(image: Any, count: int) -> list[Any]:
    """The image under random homographies."""
    rng = np.random.default_rng(SEED)
    height, width = image.shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    found = []
    for _ in range(count):
        moved = corners + rng.uniform(-0.1, 0.1, (4, 2)).astype(np.float32) * [width, height]
        matrix = cv2.getPerspectiveTransform(corners, moved.astype(np.float32))
        found.append(cv2.warpPerspective(image, matrix, (width, height)))
    return found


def compare_search(a: NDArray[np.float32], b: NDArray[np.float32], repeats: int) -> None:
    def plain() -> None:
        cosines = a @ b.T
        cosines.argmax(axis=1)
        cosines.argmax(axis=0)

    def plain_by_copy() -> None:
        cosines = a @ b.T
        cosines.argmax(axis=1)
        np.ascontiguousarray(cosines.T).argmax(axis=1)

    works = {
        "product": lambda: a @ b.T,
        "product and two argmax": plain,
        "the same, the second on a transposed copy": plain_by_copy,
        "tiepoint, exact": lambda: neighbours.by_cosine(a, b),
        "tiepoint, exact, second nearest too": lambda: neighbours.by_cosine(a, b, second=True),
    }
    print(f"nearest neighbours, {len(a)} x {len(b)} keypoints of {a.shape[1]} dimensions, ms")
    for name, value in medians_ms(works, repeats).items():
        print(f"  {name:45}{value:8.1f}")


def compare_collections(images: dict[str, Features]) -> None:
    pairs = list(itertools.combinations(images, 2))
    rates = {}
    for threads in (1, usable_cores()):
        with tempfile.TemporaryDirectory() as folder, threadpool_limits(threads, user_api="blas"):
            writer = H5MatchesWriter(Path(folder) / "matches.h5")
            start = time.perf_counter()
            done = sum(1 for _ in match_pairs(images, pairs, writer, threads=threads))
            rates[threads] = done / (time.perf_counter() - start)
    print(f"{len(pairs)} pairs of {USUAL} keypoints, written to a file, pairs/s")
    for threads, rate in rates.items():
        print(f"  {threads} at a time{rate:8.1f}{rate / rates[1]:8.2f} times")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-c", "--checkpoint", default="base")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--photographs", type=int, default=12, help="matched all with all")
    options = parser.parse_args()
    detector = tiepoint.Detector(options.checkpoint, threshold=0.0)
    large = [cv2.resize(image, None, fx=1.5, fy=1.5) for image in stereo_pair()]
    found = detector(large, max_keypoints=MANY, max_side=None, channel_order="bgr")
    a, b = (features.descriptors for features in found)
    assert a is not None and b is not None
    compare_search(a, b[: MANY - 200], options.repeats)

    pictures = views(stereo_pair()[0], options.photographs)
    collection = detector(pictures, max_keypoints=USUAL, channel_order="bgr")
    compare_collections({f"{number}.png": one for number, one in enumerate(collection)})

    few = [one.top(FEW) for one in collection[:2]]
    matches = tiepoint.match(*few)
    works = {
        "match": lambda: tiepoint.match(*few),
        "register": lambda: tiepoint.register(*few),
        "register, matches given": lambda: tiepoint.register(*few, matches=matches),
    }
    print(f"two images of {FEW} keypoints, ms")
    for name, value in medians_ms(works, options.repeats).items():
        print(f"  {name:45}{value:8.1f}")


if __name__ == "__main__":
    main()
