"""Training pairs on a GPU: how fast they are made, and how long training waits for them.

    python benchmarks/gpu_pairs.py
    python benchmarks/gpu_pairs.py --device cpu --counts --pairs 8
    python benchmarks/gpu_pairs.py --device cpu --host

Rows of the preset's second stage: pairs made over and over from one chunk of layouts; then whole
runs, with pairs made on the device and with pairs that workers draw whole. A run's row is the
median of its records but the first two, which draw the bank. "Waiting" is the share of the time
without pairs. A run takes --seconds.

--counts prints the kernels that make one step's share of a chunk, and how often the host waits.
--host prints what a pair takes of one core: a worker's time, and its share of a new scene's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import torch

from gpu import Row, rate
from gpu_counts import count
from tiepoint import __version__
from tiepoint.network.cores import usable_cores
from tiepoint.training.log import LogRecord
from tiepoint.training.on_device.source import DevicePairs, make_pairs
from tiepoint.training.presets import PRESETS, Stage, training_data
from tiepoint.training.scenes import composition
from tiepoint.training.scenes.layout_loader import NOWHERE, draw_part
from tiepoint.training.scenes.loader import PairLoader
from tiepoint.training.scenes.pairs import training_pair
from tiepoint.training.scenes.settings import DataConfig
from tiepoint.training.setup import default_workers, set_up_torch
from tiepoint.training.state import RunConfig
from tiepoint.training.trainer import Hooks, Trainer

FIRST_RECORDS = 2  # left out of the medians


def making(data: DataConfig, pairs: int, device: torch.device) -> Iterator[Row]:
    """Pairs of one chunk, made again and again."""
    with DevicePairs(data, 0, pairs, place=device) as steps:
        next(steps)
        chunk = steps._chunk
        assert chunk is not None

        def make() -> None:
            make_pairs(chunk, steps._bank, data, 0, device)

        images = 2 * pairs * steps.chunk_steps
        yield "pairs made on the device, alone", rate(make, images, str(device)), "images/s"


def runs(
    preset: str, stage: Stage, data: DataConfig, device: torch.device, seconds: float
) -> Iterator[Row]:
    """Whole runs of one stage by both ways."""
    workers = default_workers()
    recipe = replace(
        PRESETS[preset], stages=(replace(stage, share=1.0),), steps=None, minutes=seconds / 60
    )
    for name in ("made on the device", "drawn by workers"):

        def open_source(stage: Stage, step: int, name: str = name) -> Any:
            if name == "made on the device":
                return DevicePairs(data, 0, stage.pairs, step, workers, place=device)
            return PairLoader(data, 0, stage.pairs, step, workers)

        records: list[LogRecord] = []
        with tempfile.TemporaryDirectory() as folder:
            hooks = Hooks(record=records.append)
            Trainer(RunConfig(recipe, 0), open_source, Path(folder), device, hooks=hooks).run()
        late = records[FIRST_RECORDS:] or records
        speed = statistics.median(record.images_per_s for record in late)
        waiting = 100 * statistics.median(record.waiting for record in late)
        yield f"training, {preset}, pairs {name}", speed, f"images/s, waiting {waiting:.1f} %"


def show_counts(data: DataConfig, pairs: int, device: torch.device) -> None:
    """Kernels and waits of the second chunk: the first uploads constants."""
    with DevicePairs(data, 0, pairs, place=device) as steps:
        for _ in range(steps.chunk_steps):
            next(steps).batch()
        item = next(steps)
        counts = count(item.batch)
        share = counts.kernels.total() / steps.chunk_steps
    print("| pairs | kernels of a step | waits of the host |\n|---|---|---|")
    print(f"| made on the device, {steps.chunk_steps} steps a chunk | {share:.0f} "
          f"| {counts.waits.total()} |")  # fmt: skip


def show_host(data: DataConfig, pairs: int) -> None:
    """Time of one core for each pair."""
    cv2.setNumThreads(1)
    bank = replace(data, bank=pairs)
    start = time.thread_time()
    for index in range(pairs):
        composition.scene(bank, 0, index)
    scene = (time.thread_time() - start) / pairs
    wanted = [(index, NOWHERE) for index in range(pairs)]
    print("| work of one core | ms |\n|---|---|")
    print(f"| a new scene | {1e3 * scene:.1f} |\n| its share of a pair | "
          f"{1e3 * scene / data.reuse:.2f} |")  # fmt: skip
    for name, work in (
        ("layout of a pair", partial(draw_part, bank, 0, pairs, wanted, None)),
        ("a whole pair", lambda: [training_pair(bank, 0, index) for index in range(pairs)]),
    ):
        start = time.thread_time()
        work()
        print(f"| {name} | {1e3 * (time.thread_time() - start) / pairs:.2f} |")


def pair_rates(
    preset: str, stage: Stage, data: DataConfig, device: torch.device, seconds: float
) -> Iterator[Row]:
    """Pairs alone, then whole runs both ways."""
    set_up_torch(None)
    yield from making(data, stage.pairs, device)
    yield from runs(preset, stage, data, device, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--counts", action="store_true", help="kernels and waits of one step")
    parser.add_argument("--host", action="store_true", help="time of a core for a pair")
    parser.add_argument("--preset", default="gpu")
    parser.add_argument("--pairs", type=int, help="pairs per step; default: the preset's")
    parser.add_argument("--seconds", type=float, default=40, help="time of each run")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    device = torch.device(options.device)
    stage = PRESETS[options.preset].stages[1]
    stage = stage if options.pairs is None else replace(stage, pairs=options.pairs)
    data = replace(training_data(PRESETS[options.preset]), size_hw=stage.size_hw)
    if options.counts:
        show_counts(data, stage.pairs, device)
        return
    if options.host:
        show_host(data, stage.pairs)
        return
    print(f"tiepoint {__version__}, torch {torch.__version__}, {device}, {usable_cores()} cores")
    rows: list[Row] = []
    for row in pair_rates(options.preset, stage, data, device, options.seconds):
        rows.append(row)
        print(f"| {row[0]} | {row[1]:,.1f} | {row[2]} |", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
