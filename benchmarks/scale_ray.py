"""A Ray cluster of two nodes on this machine: its rate beside that of a local run, and kills.

    python benchmarks/scale_ray.py
    python benchmarks/scale_ray.py --images 400 --kills 3    # a quick look

Rate: `tiepoint detect` over generated JPEGs of 160x120 px into a store, by one local process on two
cores and by two nodes of one core each, in turn; the time of a run over one image, which is
start-up, is subtracted. Kills: at random moments a worker, a node or the command itself is killed;
a node is replaced, and the command is given again. Every image must be there once, and the shards
must have the same bytes as those of an undisturbed local run.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from scale import compare, pictures
from tiepoint.formats.features_store import StoreFeatures

NODES = 2
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
SHARDS = 40
SHORTEST_S, LONGEST_S = 2.0, 8.0
"""Time before a kill, s: before the first worker has loaded the network, and in mid-run."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=8000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--killed-images", type=int, default=600)
    parser.add_argument("-c", "--checkpoint", default="small")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster = Cluster()
    try:
        with tempfile.TemporaryDirectory() as place:
            rates(cluster, options.images, options.rounds, options.checkpoint, Path(place))
            images = pictures(Path(place) / "killed", options.killed_images)
            kills(cluster, images, options.kills, options.checkpoint, options.seed, Path(place))
    finally:
        cluster.end()


class Cluster:
    """Nodes of Ray on this machine, each with processes of its own."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster as RayCluster

        self._cluster: Any = RayCluster()
        self._cluster.add_node(num_cpus=0, include_dashboard=False)  # only keeps the cluster
        self._nodes = [self._cluster.add_node(**NODE) for _ in range(NODES)]

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def replace_node(self, number: int) -> None:
        """Kill a node with all that runs on it, and add another one."""
        self._cluster.remove_node(self._nodes.pop(number), allow_graceful=False)
        self._nodes.append(self._cluster.add_node(**NODE))

    def end(self) -> None:
        self._cluster.shutdown()


def rates(cluster: Cluster, count: int, rounds: int, checkpoint: str, place: Path) -> None:
    many, one = pictures(place / "many", count), pictures(place / "one", 1)
    found: dict[str, list[float]] = {"local": [], "ray": []}
    for turn in range(rounds):
        for kind, images_per_s in found.items():
            address = cluster.address if kind == "ray" else None
            seconds = []
            for folder in (one, many):
                start = time.perf_counter()
                store = place / f"{folder.name}-{kind}-{turn}.store"
                subprocess.run(command_for(folder, store, checkpoint, address), check=True)
                seconds.append(time.perf_counter() - start)
            images_per_s.append((count - 1) / (seconds[1] - seconds[0]))
    medians = {kind: statistics.median(values) for kind, values in found.items()}
    print(f"{count} images, median of {rounds} runs, images/s")
    print(f"  one local process, two cores  {medians['local']:8.1f}")
    print(f"  Ray, two nodes of one core    {medians['ray']:8.1f}", end="")
    print(f"{medians['ray'] / medians['local']:8.2f} of the local rate", flush=True)


def kills(
    cluster: Cluster, images: Path, count: int, checkpoint: str, seed: int, place: Path
) -> None:
    draw, killed = random.Random(seed), Counter[str]()
    whole, store = place / "whole.store", place / "killed.store"
    subprocess.run(command_for(images, whole, checkpoint, None), check=True)
    command = command_for(images, store, checkpoint, cluster.address)
    finished = 0
    while killed.total() < count:
        process = subprocess.Popen(command)
        while process.poll() is None and killed.total() < count:
            time.sleep(draw.uniform(SHORTEST_S, LONGEST_S))
            if process.poll() is None:
                killed[kill_one(cluster, process, draw)] += 1
        if process.wait() == 0:
            finished += 1
            check(store, whole)
            for path in store.iterdir():  # begin again, and keep counting
                path.unlink()
    subprocess.run(command, check=True)
    check(store, whole)
    shown = ", ".join(f"{number} x {kind}" for kind, number in sorted(killed.items()))
    print(f"killed: {shown}; {finished + 1} stores are equal to an undisturbed run")


def kill_one(cluster: Cluster, process: subprocess.Popen[bytes], draw: random.Random) -> str:
    """Kill something at random; its kind."""
    kind = draw.choice(["worker", "node", "command"])
    pids = workers()
    if kind == "worker" and pids:
        os.kill(draw.choice(pids), signal.SIGKILL)
        return kind
    if kind == "command":
        process.send_signal(signal.SIGKILL)
        process.wait()
        return kind
    cluster.replace_node(draw.randrange(NODES))
    return "node"


def workers() -> list[int]:
    """Ids of the processes of the workers."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::ShardWorker"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def check(store: Path, whole: Path) -> None:
    compare(store, whole)
    assert list(StoreFeatures(store)) == list(StoreFeatures(whole)), "the names differ"


def command_for(folder: Path, store: Path, checkpoint: str, address: str | None) -> list[str]:
    options = ["-o", str(store), "-c", checkpoint, "--device", "cpu", "--quiet"]
    options += ["--shards", str(SHARDS)]
    options += [] if address is None else ["--ray", address]
    return [sys.executable, "-m", "tiepoint", "detect", str(folder), *options]


if __name__ == "__main__":
    main()
