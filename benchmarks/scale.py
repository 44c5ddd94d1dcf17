"""Stores of many images: listing of names, images per second, memory, and a loop of kills.

    python benchmarks/scale.py
    python benchmarks/scale.py --names 10000 --images 200 --kills 5    # a quick look

Listing: generated names as lines of stdin, then a folder of as many empty files, each cut into
shards; seconds and peak memory of a process of its own. Run: `tiepoint detect` over generated JPEGs
of 160x120 px into a store, for a hundredth of the images and for all, so that a growth of memory is
seen; the time of a run over one image, which is start-up, is subtracted. Kills: a run of two
processes is killed again and again at random moments, then completed; its shards must have the same
bytes as those of a run without kills.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import cv2
import numpy as np

from tiepoint.batch.listing import Listing, Worker, list_sources

SIZE_WH = (160, 120)
DISTINCT = 64
"""Different pictures among the generated ones; the others are links to them."""
PER_FOLDER = 1000
MOST_KILLED = 600
"""Images of the runs that are killed."""
SHORTEST_S, LONGEST_S = 0.5, 6.0
"""Time before a kill, s."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", type=int, default=1_000_000)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--checkpoint", default="small")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--list", nargs=2, metavar=("KIND", "PLACE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.list:
        measure_listing(options.list[0], options.list[1], options.names)
        return
    with tempfile.TemporaryDirectory() as place:
        listing(options.names, Path(place))
        runs(options.images, options.checkpoint, Path(place))
        if options.kills:
            images = min(options.images, MOST_KILLED)
            kills(options.kills, images, options.checkpoint, options.seed, Path(place))


def names(count: int) -> Iterator[str]:
    return (f"camera {n // PER_FOLDER:05d}/IMG_{n:08d}.jpg" for n in range(count))


def listing(count: int, place: Path) -> None:
    folder = place / "names"
    for name in names(count):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    print("| listing | names | s | peak memory, MB |\n|---|---|---|---|", flush=True)
    for kind in ("lines", "folder"):
        command = [sys.executable, __file__, "--names", str(count), "--list", kind, str(folder)]
        subprocess.run(command, check=True)


def measure_listing(kind: str, folder: str, count: int) -> None:
    """List in this process, cut into shards, and print a row."""
    start = time.perf_counter()
    lines = (f"{name}\n" for name in names(count))
    found = Listing(list_sources(["-"] if kind == "lines" else [folder], lines))
    shards = found.default_shards()
    total = sum(len(shard.sources) for shard in found.shards(shards, Worker()))
    seconds = time.perf_counter() - start
    assert total == count, f"{total} of {count}"
    print(f"| {kind} | {count} | {seconds:.1f} | {peak_mb(resource.RUSAGE_SELF):.0f} |", flush=True)


def runs(count: int, checkpoint: str, place: Path) -> None:
    few = pictures(place / "few", max(1, count // 100))
    many = pictures(place / "many", count)
    one = pictures(place / "one", 1)
    start_s = run(one, place / "one.store", checkpoint)[0]
    print("\n| images | images/s | peak memory, MB | store, MB |\n|---|---|---|---|")
    for folder in (few, many):
        store = place / f"{folder.name}.store"
        seconds, memory_mb = run(folder, store, checkpoint)
        total = sum(1 for _ in folder.rglob("*.jpg"))
        size_mb = sum(path.stat().st_size for path in store.iterdir()) / 1e6
        rate = f"{total / (seconds - start_s):.1f}" if seconds > start_s else "too few images"
        print(f"| {total} | {rate} | {memory_mb:.0f} | {size_mb:.1f} |", flush=True)


def run(folder: Path, store: Path, checkpoint: str) -> tuple[float, float]:
    """Seconds and peak memory in MB of `tiepoint detect`, as a process of its own."""
    start = time.perf_counter()
    process = subprocess.Popen(command_for(folder, store, checkpoint))
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, f"tiepoint detect ended with {status}"
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def kills(count: int, images: int, checkpoint: str, seed: int, place: Path) -> None:
    """Kill two runs at a time until `count` have been killed; they start again after each."""
    folder, draw = pictures(place / "killed", images), random.Random(seed)
    run(folder, place / "whole.store", checkpoint)  # of as many shards
    store, killed, ended = place / "killed.store", 0, 0
    while killed < count:
        if ended > 2:  # finished: begin again, and keep counting
            compare(store, place / "whole.store")
            for path in store.iterdir():
                path.unlink()
            ended = 0
        processes = [subprocess.Popen(command_for(folder, store, checkpoint)) for _ in range(2)]
        time.sleep(draw.uniform(SHORTEST_S, LONGEST_S))
        for process in processes:
            process.send_signal(signal.SIGKILL)
            is_killed = process.wait() == -signal.SIGKILL
            killed, ended = killed + is_killed, ended + (not is_killed)
    run(folder, store, checkpoint)
    compare(store, place / "whole.store")
    print(f"\n{killed} processes killed; all shards equal those of an undisturbed run")


def compare(store: Path, whole: Path) -> None:
    left, right = (
        {path.name: path.read_bytes() for path in folder.glob("*.h5")} for folder in (store, whole)
    )
    assert left == right, "the shards differ"


def command_for(folder: Path, store: Path, checkpoint: str) -> list[str]:
    options = ["-o", str(store), "-c", checkpoint, "--device", "cpu", "--quiet", "--shards", "40"]
    if not folder.name.startswith("killed"):
        options = options[:-2]
    return [sys.executable, "-m", "tiepoint", "detect", str(folder), *options]


def pictures(folder: Path, count: int) -> Path:
    """Smooth noise as JPEG files."""
    random_numbers = np.random.default_rng(0)
    first: list[Path] = []
    for number in range(count):
        path = folder / f"{number // PER_FOLDER:03d}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number < DISTINCT:
            noise = random_numbers.integers(0, 256, (15, 20), dtype=np.uint8)
            cv2.imwrite(str(path), cv2.resize(noise, SIZE_WH, interpolation=cv2.INTER_CUBIC))
            first.append(path)
    links = zip(range(DISTINCT, count), cycle(first), strict=False)
    for number, source in links:
        os.link(source, folder / f"{number // PER_FOLDER:03d}" / f"{number:06d}.jpg")
    return folder


def peak_mb(who: int) -> float:
    return resource.getrusage(who).ru_maxrss / 1024


if __name__ == "__main__":
    main()
