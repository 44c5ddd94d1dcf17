"""Registration of two generated large scenes: error against the exact map, time and memory.

    python benchmarks/large_registration.py --side 20000

Scene A is a mosaic of photographs (TIEPOINT_SHARED/photos/free, or the bundled ones). Scene B shows
it turned by 37 degrees, zoomed 1.3, bent by up to 30 px, in other light, with noise of its own.
Both are written in windows as tiled GeoTIFF files without overviews (extra `geo`). The registration
runs in a process of its own; its peak memory is without the pages of files that the system keeps.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from large import Peak
from numpy.typing import NDArray

from tiepoint import sample_views
from tiepoint.images.reading import read
from tiepoint.images.windows import Window, tiles

TURN_DEG, ZOOM, BEND_PX = 37.0, 1.3, 30.0
PATCH_PX, WRITE_PX = 640, 2048
NOISE = 5.0
GRID = 60

Array = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, nargs="+", default=[20_000])
    parser.add_argument("--model", default="smooth", choices=["smooth", "homography", "affine"])
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument("--bend", type=float, default=BEND_PX)
    parser.add_argument("--keep", type=Path, help="Folder in which the scenes stay.")
    parser.add_argument("--warp", action="store_true", help="Warp A to B as well.")
    parser.add_argument("--run", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run is not None:
        measure(options, *options.run)
        return
    print("| side, px | windows | points | median, px | 95 %, px | left out, px | s | warp, s | "
          "peak memory, GB |\n|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for side in options.side:
            paths = [folder / f"{name}_{side}_{options.bend:g}.tif" for name in "ab"]
            if not all(path.exists() for path in paths):
                write_scenes(*paths, side, options.bend)
            command = [
                sys.executable, __file__, "--run", *map(str, paths), "--model", options.model,
                "--checkpoint", options.checkpoint, "--side", str(side), "--bend",
                str(options.bend), *(["--warp"] if options.warp else []),
            ]  # fmt: skip
            subprocess.run(command, check=True)


def to_a(xy: Array, side: int, bend_px: float) -> Array:
    """N 2: the exact places in A of N 2 places of B, px."""
    middle = (side - 1) / 2
    x, y = xy.T
    waves = np.stack(
        [
            np.sin(2 * np.pi * (0.9 * y / side + 0.1)) + 0.3 * np.sin(2 * np.pi * 2.1 * x / side),
            np.cos(2 * np.pi * (1.1 * x / side + 0.3)) + 0.3 * np.sin(2 * np.pi * 1.8 * y / side),
        ],
        axis=1,
    )
    c, s = np.cos(np.radians(TURN_DEG)) / ZOOM, np.sin(np.radians(TURN_DEG)) / ZOOM
    turned: Array = (xy + bend_px / 1.3 * waves - middle) @ np.array([[c, -s], [s, c]])
    return turned + middle


def write_scenes(path_a: Path, path_b: Path, side: int, bend_px: float) -> None:
    """Both scenes as tiled GeoTIFF files; A is kept in a memory map until B is written."""
    raw = path_a.with_suffix(".npy")
    scene = np.lib.format.open_memmap(raw, "w+", np.uint8, (side, side))
    photos = photographs()
    rng = np.random.default_rng(0)
    for window in tiles((side, side), PATCH_PX):
        scene[window.slices] = patch(photos, rng)[: window.height, : window.width]
    write(path_a, side, lambda window: noisy(scene[window.slices], window, 1))
    write(path_b, side, lambda window: seen_by_b(scene, window, side, bend_px))
    del scene
    raw.unlink()


def photographs() -> list[NDArray[np.uint8]]:
    """Grey photographs."""
    folder = Path(os.environ.get("TIEPOINT_SHARED", "shared"), "photos", "free")
    paths: list[Any] = [*sorted(folder.glob("*.jpg")), *sample_views()]
    return [cv2.cvtColor(read(path).pixels, cv2.COLOR_RGB2GRAY) if read(path).pixels.ndim == 3
            else read(path).pixels for path in paths]  # fmt: skip


def patch(photos: list[NDArray[np.uint8]], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A square of a photograph, turned, scaled and lit in another way."""
    photo = photos[int(rng.integers(len(photos)))]
    angle, zoom = rng.uniform(0, 360), rng.uniform(0.8, 1.6)
    height, width = photo.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, zoom)
    matrix[:, 2] += PATCH_PX / 2 - np.array([width, height]) / 2 + rng.uniform(-80, 80, 2)
    turned = cv2.warpAffine(photo, matrix, (PATCH_PX, PATCH_PX), borderMode=cv2.BORDER_REFLECT)
    lit = turned * rng.uniform(0.6, 1.2) + rng.uniform(-20, 20)
    return np.clip(lit, 0, 255).astype(np.uint8)


def noisy(pixels: Any, window: Window, seed: int) -> NDArray[np.uint8]:
    """Pixels with the noise of one camera."""
    rng = np.random.default_rng([seed, window.top, window.left])
    noise = rng.standard_normal((window.height, window.width), np.float32) * NOISE
    return np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)


def seen_by_b(scene: Any, window: Window, side: int, bend_px: float) -> NDArray[np.uint8]:
    """A window of B."""
    y, x = np.mgrid[window.slices].astype(np.float64)
    places = to_a(np.stack([x.ravel(), y.ravel()], axis=1), side, bend_px)  # N 2
    low = np.clip(np.floor(places.min(axis=0)) - 4, 0, side).astype(int)
    high = np.clip(np.ceil(places.max(axis=0)) + 5, 0, side).astype(int)
    if (high <= low).any():
        return noisy(np.zeros((window.height, window.width)), window, 2)
    part = np.ascontiguousarray(scene[low[1] : high[1], low[0] : high[0]])
    maps = (places - low).astype(np.float32).reshape(window.height, window.width, 2)
    pixels = cv2.remap(part, maps, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT)
    light = 0.75 + 0.35 * x / side - 0.15 * y / side
    lit = 255 * (np.clip(pixels / 255, 0, 1) ** 1.25) * light + 15
    return noisy(lit, window, 2)


def write(path: Path, side: int, pixels: Any) -> None:
    """A tiled GeoTIFF file, window by window."""
    import rasterio
    from rasterio.windows import Window as Place

    profile = {"driver": "GTiff", "width": side, "height": side, "count": 1, "dtype": "uint8",
               "tiled": True, "blockxsize": 512, "blockysize": 512, "crs": "EPSG:25832",
               "transform": rasterio.transform.from_origin(500_000, 5_500_000, 0.2, 0.2)}  # fmt: skip
    with rasterio.Env(GDAL_CACHEMAX=64_000_000), rasterio.open(path, "w", **profile) as file:
        for window in tiles((side, side), WRITE_PX):
            place = Place(window.left, window.top, window.width, window.height)
            file.write(pixels(window), 1, window=place)


def measure(options: argparse.Namespace, path_a: Path, path_b: Path) -> None:
    """Print the row of one pair."""
    from tiepoint.registration.large.register import register_large

    (side,), last = options.side, {"step": 0.0}
    start, processor = time.perf_counter(), time.process_time()

    def progress(step: str, done: int, total: int) -> None:
        if done == total:
            now = time.perf_counter() - start
            print(f"step {step}: {total} windows, {now - last['step']:.1f} s", file=sys.stderr)
            last["step"] = now

    with Peak() as peak:
        result = register_large(
            path_a, path_b, model=options.model, checkpoint=options.checkpoint, progress=progress
        )
        seconds = time.perf_counter() - start
        warped = ""
        if options.warp and result.success:
            from tiepoint.registration.large.output import write_warped

            start_warp = time.perf_counter()
            write_warped(path_b.with_name("warped.tif"), path_a, path_b, result, overwrite=True)
            warped = f"{time.perf_counter() - start_warp:.0f}"
    print(f"processor {time.process_time() - processor:.0f} s", file=sys.stderr)
    if not result.success:
        print(f"not registered: {result.reason}\n{json.dumps(result.summary())}")
        return
    axis = np.linspace(0, side - 1, GRID)
    places = np.stack(np.meshgrid(axis, axis), axis=2).reshape(-1, 2)
    in_a = to_a(places, side, options.bend)
    shown = ((in_a >= 0) & (in_a <= side - 1)).all(axis=1)
    errors = np.linalg.norm(result.transform(in_a[shown]) - places[shown], axis=1)
    agreeing, compared = result.cells
    print(f"| {side:,} | {agreeing} of {compared} | {len(result.xy_a):,} | "
          f"{np.median(errors):.3f} | {np.quantile(errors, 0.95):.3f} | "
          f"{result.left_out_px.median:.3f} | {seconds:.0f} | {warped} | {peak.gb:.2f} |")  # fmt: skip


if __name__ == "__main__":
    main()
