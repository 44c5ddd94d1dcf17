"""Tracks on a video with exact motion: length, drift and time, beside OpenCV's KLT.

    python benchmarks/tracking.py
    python benchmarks/tracking.py --frames 10000 --memory

The video is 640x480: a photograph under translation, rotation and zoom, with noise of 4 grey
levels. Drift is the distance of an observation from where the first one of its track has moved to.
KLT is `goodFeaturesToTrack` with `calcOpticalFlowPyrLK`, forwards and backwards, and new corners
in each frame up to the same number of tracks. Times include detection; the generation of the
frames is left out.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint import sample_views
from tiepoint.geometry import apply_homography
from tiepoint.tracking.track import track, tracking_detector

SIZE_WH = 640, 480
NOISE = 4.0
TRACKS = 300
BACKWARD_PX = 1.0
"""Largest distance between a corner and where KLT finds it from the next frame."""

Array = NDArray[np.float64]


class Observation(NamedTuple):
    """Points of one frame: ids M and positions M 2, px."""

    ids: NDArray[np.int64]
    xy: Array


def motion(step: float, size_wh: tuple[int, int]) -> Array:
    """3x3, photograph -> frame."""
    width, height = size_wh
    turned = cv2.getRotationMatrix2D(
        (width / 2, height / 2), 8 * np.sin(step / 15), 0.9 + 0.15 * np.sin(step / 20)
    )
    matrix = np.vstack([turned, [0, 0, 1]])
    matrix[0, 2] += (SIZE_WH[0] - width) / 2 + 60 * np.sin(step / 12)
    matrix[1, 2] += (SIZE_WH[1] - height) / 2 + 40 * np.cos(step / 10)
    return matrix


def frames(photograph: NDArray[np.uint8], count: int) -> Iterator[NDArray[np.uint8]]:
    """RGB frames, each made when it is asked for."""
    rng = np.random.default_rng(0)
    height, width = photograph.shape[:2]
    for step in range(count):
        view = cv2.warpPerspective(
            photograph, motion(step, (width, height)), SIZE_WH, flags=cv2.INTER_AREA
        )
        noisy = view + rng.normal(0, NOISE, view.shape).astype(np.float32)
        yield np.asarray(np.clip(noisy, 0, 255), np.uint8)


def by_tiepoint(
    checkpoint: str, video: list[NDArray[np.uint8]], **options: Any
) -> tuple[list[Observation], float]:
    """The observations, and seconds a frame."""
    detector = tracking_detector(checkpoint, **options)
    detector(video[0])
    start = time.perf_counter()
    tracked = track(iter(video), detector=detector, read_ahead=True, max_tracks=TRACKS)
    found = [Observation(frame.ids, frame.xy.astype(np.float64)) for frame in tracked]
    return found, (time.perf_counter() - start) / len(video)


def by_klt(video: list[NDArray[np.uint8]]) -> tuple[list[Observation], float]:
    """As `by_tiepoint`."""
    start, found, before = time.perf_counter(), [], None
    xy, ids, next_id = np.empty((0, 2), np.float32), np.empty(0, np.int64), 0
    for frame in video:
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        if before is not None and len(xy):
            there, seen, _ = cv2.calcOpticalFlowPyrLK(before, grey, xy, None)
            back, seen_back, _ = cv2.calcOpticalFlowPyrLK(grey, before, there, None)
            is_good = (seen.ravel() > 0) & (seen_back.ravel() > 0)
            is_good &= np.linalg.norm(back - xy, axis=1) <= BACKWARD_PX
            is_good &= ((there >= 0) & (there <= np.array(SIZE_WH) - 1)).all(axis=1)
            xy, ids = there[is_good], ids[is_good]
        if len(xy) < TRACKS:
            mask = np.full(grey.shape, 255, np.uint8)
            for x, y in xy.round().astype(int).tolist():
                cv2.circle(mask, (x, y), 7, 0, -1)
            corners = cv2.goodFeaturesToTrack(grey, TRACKS - len(xy), 0.01, 7, mask=mask)
            if corners is not None:
                xy = np.concatenate([xy, corners.reshape(-1, 2)]).astype(np.float32)
                ids = np.concatenate([ids, np.arange(next_id, next_id + len(corners))])
                next_id += len(corners)
        found.append(Observation(ids.copy(), xy.astype(np.float64)))
        before = grey
    return found, (time.perf_counter() - start) / len(video)


def figures(found: list[Observation], size_wh: tuple[int, int]) -> dict[str, float]:
    """Tracks, mean length, and median and 95 % of the drift, px."""
    first: dict[int, Array] = {}
    lengths: dict[int, int] = {}
    drift: list[float] = []
    for step, observation in enumerate(found):
        matrix = motion(step, size_wh)
        places = apply_homography(np.linalg.inv(matrix), observation.xy)
        new = [i for i, name in enumerate(observation.ids.tolist()) if name not in first]
        first |= {int(observation.ids[i]): places[i] for i in new}
        starts = np.array([first[name] for name in observation.ids.tolist()]).reshape(-1, 2)
        off = np.linalg.norm(apply_homography(matrix, starts) - observation.xy, axis=1)
        drift += np.delete(off, new).tolist()
        for name in observation.ids.tolist():
            lengths[name] = lengths.get(name, 0) + 1
    return {
        "tracks": len(lengths),
        "length": float(np.mean(list(lengths.values()))),
        "median": float(np.median(drift)),
        "p95": float(np.percentile(drift, 95)),
    }


def print_table(photograph: NDArray[np.uint8], count: int) -> None:
    video, size_wh = list(frames(photograph, count)), photograph.shape[1::-1]
    methods: dict[str, Callable[[], tuple[list[Observation], float]]] = {
        "tiepoint small": lambda: by_tiepoint("small", video),
        "tiepoint small, one scale": lambda: by_tiepoint("small", video, scales=(1.0,), phases=1),
        "tiepoint base": lambda: by_tiepoint("base", video),
        "OpenCV KLT": lambda: by_klt(video),
    }
    print("| method | tracks | mean length | drift, median px | drift, 95 % px | ms a frame |")
    print("|---|---|---|---|---|---|")
    for name, method in methods.items():
        found, seconds = method()
        row = figures(found, (size_wh[0], size_wh[1]))
        print(
            f"| {name} | {row['tracks']} | {row['length']:.1f} | {row['median']:.2f} | "
            f"{row['p95']:.2f} | {1000 * seconds:.1f} |",
            flush=True,
        )


def print_memory(photograph: NDArray[np.uint8], count: int) -> None:
    """Peak memory of this process after a tenth of the frames, and after all."""
    detector = tracking_detector("small")
    start = time.perf_counter()
    for frame in track(frames(photograph, count), detector=detector, max_tracks=TRACKS):
        if frame.index + 1 in (count // 10, count):
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            peak_mb = peak / (2**20 if sys.platform == "darwin" else 2**10)
            rate = (frame.index + 1) / (time.perf_counter() - start)
            print(f"{frame.index + 1} frames: peak {peak_mb:.0f} MB, {rate:.1f} frames/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photo", type=Path, default=None, help="default: a sample view, enlarged")
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--memory", action="store_true", help="print the peak memory instead")
    arguments = parser.parse_args()
    photograph = cv2.imread(str(arguments.photo or sample_views()[0]))
    if photograph is None:
        parser.error(f"{arguments.photo}: not an image")
    scale = 1200 / max(photograph.shape[:2])
    photograph = cv2.resize(photograph, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    rgb = np.ascontiguousarray(np.asarray(photograph, np.uint8)[..., ::-1])
    (print_memory if arguments.memory else print_table)(rgb, arguments.frames)


if __name__ == "__main__":
    main()
