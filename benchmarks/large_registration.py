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
from numpy.typing import NDArray

from large import Peak
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
                write_scenes(paths[0], paths[1], side, options.bend)
            command = [
                sys.executable, __file__, "--run", *map(str, paths), "--model", options.model,
                "--checkpoint", options.checkpoint, "--side", str(side), "--bend",
                str(options.bend), *(["--warp"] if options.warp else []),
            ]  # fmt: skip
            subprocess.run(command, check=True)


def to_a(x: Array, y: Array, side: int, bend_px: float) -> tuple[Array, Array]:
    """The exact places in A of places of B, px; x and y of shapes that broadcast."""
    middle, turn = (side - 1) / 2, 2 * np.pi / side
    moved_x = np.sin(turn * 0.9 * y + 0.6) + 0.3 * np.sin(turn * 2.1 * x)
    moved_y = np.cos(turn * 1.1 * x + 1.9) + 0.3 * np.sin(turn * 1.8 * y)
    dx, dy = (axis + bend_px / 1.3 * moved - middle for axis, moved in ((x, moved_x), (y, moved_y)))
    c, s = np.cos(np.radians(TURN_DEG)) / ZOOM, np.sin(np.radians(TURN_DEG)) / ZOOM
    return c * dx + s * dy + middle, c * dy - s * dx + middle


def write_scenes(path_a: Path, path_b: Path, side: int, bend_px: float) -> None:
    """Both scenes as tiled GeoTIFF files; A is kept in a memory map until B is written."""
    raw, photos, rng = path_a.with_suffix(".npy"), photographs(), np.random.default_rng(0)
    scene: Any = np.lib.format.open_memmap(raw, "w+", np.uint8, (side, side))
    for window in tiles((side, side), PATCH_PX):
        scene[window.slices] = patch(photos, rng)[: window.height, : window.width]

    def pixels_a(window: Window) -> NDArray[np.uint8]:
        return noisy(scene[window.slices], window, 1)

    def pixels_b(window: Window) -> NDArray[np.uint8]:
        return seen_by_b(scene, window, side, bend_px)

    write(path_a, side, pixels_a)
    write(path_b, side, pixels_b)
    raw.unlink()


def photographs() -> list[NDArray[np.uint8]]:
    """Grey photographs."""
    folder = Path(os.environ.get("TIEPOINT_SHARED", "shared"), "photos", "free")
    paths: list[Any] = [*sorted(folder.glob("*.jpg")), *sample_views()]
    pixels = [read(path).pixels for path in paths]
    grey = [cv2.cvtColor(one, cv2.COLOR_RGB2GRAY) if one.ndim == 3 else one for one in pixels]
    return [np.asarray(one, np.uint8) for one in grey]


def patch(photos: list[NDArray[np.uint8]], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A square of a photograph, turned, scaled and lit in another way."""
    photo = photos[int(rng.integers(len(photos)))]
    angle, zoom = rng.uniform(0, 360), rng.uniform(0.8, 1.6)
    height, width = photo.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, zoom)
    matrix[:, 2] += PATCH_PX / 2 - np.array([width, height]) / 2 + rng.uniform(-80, 80, 2)
    turned = cv2.warpAffine(photo, matrix, (PATCH_PX, PATCH_PX), borderMode=cv2.BORDER_REFLECT)
    lit = turned * rng.uniform(0.6, 1.2) + rng.uniform(-20, 20)
    return np.asarray(np.clip(lit, 0, 255), np.uint8)


def noisy(pixels: Any, window: Window, seed: int) -> NDArray[np.uint8]:
    """Pixels with the noise of one camera."""
    rng = np.random.default_rng([seed, window.top, window.left])
    noise = rng.standard_normal((window.height, window.width), np.float32) * np.float32(NOISE)
    return np.asarray(np.clip(np.rint(noise + pixels), 0, 255), np.uint8)


def seen_by_b(scene: Any, window: Window, side: int, bend_px: float) -> NDArray[np.uint8]:
    """A window of B."""
    rows, columns = (np.arange(at.start, at.stop, dtype=np.float64) for at in window.slices)
    x, y = columns[None, :], rows[:, None]
    in_a = to_a(x, y, side, bend_px)
    (left, right), (top, bottom) = (
        np.clip([np.floor(places.min()) - 4, np.ceil(places.max()) + 5], 0, side).astype(int)
        for places in in_a
    )
    if right <= left or bottom <= top:
        return noisy(np.zeros((window.height, window.width)), window, 2)
    part = np.ascontiguousarray(scene[top:bottom, left:right])
    maps = ((in_a[0] - left).astype(np.float32), (in_a[1] - top).astype(np.float32))
    pixels = cv2.remap(part, *maps, cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT)
    curve = (255 * (np.arange(256) / 255) ** 1.25).astype(np.float32)
    light = (0.75 + 0.35 * x / side - 0.15 * y / side).astype(np.float32)
    return noisy(curve[pixels] * light + 15, window, 2)


def write(path: Path, side: int, pixels: Any) -> None:
    """A tiled GeoTIFF file, window by window."""
    import rasterio
    from rasterio.windows import Window as Place

    place = rasterio.transform.from_origin(500_000, 5_500_000, 0.2, 0.2)
    profile = {"driver": "GTiff", "width": side, "height": side, "count": 1, "dtype": "uint8",
               "tiled": True, "blockxsize": 512, "blockysize": 512, "crs": "EPSG:25832",
               "transform": place}  # fmt: skip
    with rasterio.Env(GDAL_CACHEMAX=64_000_000), rasterio.open(path, "w", **profile) as file:
        for window in tiles((side, side), WRITE_PX):
            part = Place(window.left, window.top, window.width, window.height)
            file.write(pixels(window), 1, window=part)


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
            write_warped(path_b.with_name("warped.tif"), path_a, path_b, result)
            warped = f"{time.perf_counter() - start_warp:.0f}"
    print(f"processor {time.process_time() - processor:.0f} s", file=sys.stderr)
    if not result.success:
        print(f"not registered: {result.reason}\n{json.dumps(result.summary())}")
        return
    axis = np.linspace(0, side - 1, GRID)
    places = np.stack(np.meshgrid(axis, axis), axis=2).reshape(-1, 2)
    in_a = np.stack(to_a(places[:, 0], places[:, 1], side, options.bend), axis=1)
    shown = ((in_a >= 0) & (in_a <= side - 1)).all(axis=1)
    errors = np.linalg.norm(result.transform(in_a[shown]) - places[shown], axis=1)
    agreeing, compared = result.cells
    print(f"| {side:,} | {agreeing} of {compared} | {len(result.xy_a):,} | "
          f"{np.median(errors):.3f} | {np.quantile(errors, 0.95):.3f} | "
          f"{result.left_out_px.median:.3f} | {seconds:.0f} | {warped} | "
          f"{peak.gb:.2f} |")  # fmt: skip


if __name__ == "__main__":
    main()
