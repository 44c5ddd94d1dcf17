"""Training steps on a GPU: images per second, or what a step asks of a GPU, counted without one.

    python benchmarks/gpu_training.py
    python benchmarks/gpu_training.py --device cpu --counts --pairs 4

Steps of the preset `gpu` on one batch that is on the device already, so drawing and copying of
pairs are left out. The matcher's steps make their batch on the device, from a bank of random
keypoints. Weights and pixels are random: the time does not depend on them.

--counts prints the kernels of one step and how often the host waits, as `gpu.py --counts` does.
Kernels do not depend on the number of pairs. torch has fewer on a GPU, because the norms of all
gradients are one kernel there.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gpu import Row, rate
from gpu_counts import count
from tiepoint import __version__
from tiepoint.matching.learned.architecture import MatcherConfig
from tiepoint.training import devices
from tiepoint.training.detector.batch import Batch
from tiepoint.training.matcher.bank import Scenes, write_shard
from tiepoint.training.matcher.device_bank import DeviceBank
from tiepoint.training.matcher.drawing import SceneFeatures
from tiepoint.training.matcher.settings import MATCHER_PRESETS, VIEWS, MatcherStage
from tiepoint.training.matcher.trainer import MatcherTrainer
from tiepoint.training.presets import PRESETS, Preset, Stage
from tiepoint.training.state import RunConfig
from tiepoint.training.trainer import Trainer

CORNERS = 60
"""Corners of an image."""

BANK_SCENES, KEYPOINTS = 16, 1000
"""Scenes of the matcher's bank, and keypoints of a view."""


def random_batch(pairs: int, size_hw: tuple[int, int], device: torch.device) -> Batch:
    """Random pixels and corners; the views of a pair differ by a shift."""
    random, images = np.random.default_rng(0), 2 * pairs
    height, width = size_hw
    y, x = np.mgrid[:height, :width].astype(np.float32)
    flow = np.stack([x + 6.3, y - 4.1], axis=-1)  # H W 2
    flow[(flow < 0).any(axis=-1) | (flow > (width - 1, height - 1)).any(axis=-1)] = np.nan
    corners = random.uniform(0, (width - 1, height - 1), (images * CORNERS, 2))
    arrays = (
        random.random((images, 1, height, width), dtype=np.float32),
        np.repeat(np.arange(images), CORNERS),
        corners.astype(np.float32),
        random.random((images, height, width)) < 0.02,
        np.broadcast_to(flow, (images, *flow.shape)).copy(),
    )
    return Batch(*(torch.from_numpy(array).to(device) for array in arrays))


def steps(
    preset: Preset, device: torch.device, folder: Path, pairs: int | None
) -> Iterator[tuple[Stage, Callable[[], Any]]]:
    """Each stage with the pairs of its steps, and a call that does one step."""
    config = RunConfig(replace(preset, minutes=None, steps=10**6), 0)
    for stage in preset.stages:
        sized = stage if pairs is None else replace(stage, pairs=pairs)
        run = Trainer(config, no_source, folder, device)
        batch = random_batch(sized.pairs, sized.size_hw, device)
        yield sized, partial(run.step, batch, sized)


def matcher_steps(device: torch.device, folder: Path) -> Iterator[tuple[int, Callable[[], Any]]]:
    """Steps of the matcher's preset `gpu`: number of pairs, and a call that does one step."""
    preset = replace(MATCHER_PRESETS["gpu"], minutes=None, steps=10**6)
    write_shard(folder / "scenes", [random_scene(seed) for seed in range(BANK_SCENES)])
    bank = DeviceBank(Scenes([folder / "scenes"]), device)
    for stage in preset.stages:
        for keypoints in (min(stage.counts), max(stage.counts)):
            one = replace(stage, counts=(keypoints,))
            run = MatcherTrainer(RunConfig(preset, 0), no_source, folder, device)

            def step(run: MatcherTrainer = run, one: MatcherStage = one) -> None:
                run.step(bank.batch(preset, one, 0, run.progress.step), one)

            yield one.step_keypoints // keypoints, step


def random_scene(seed: int) -> SceneFeatures:
    """Views of 480x640 with random keypoints; half of them are visible in another view."""
    random, total = np.random.default_rng(seed), VIEWS * KEYPOINTS
    xy = random.uniform(0, (639, 479), (total, 2)).astype(np.float32)
    elsewhere = np.repeat(xy[:, None], VIEWS, axis=1)
    elsewhere[random.random((total, VIEWS)) < 0.5] = np.nan
    descriptors = random.standard_normal((total, MatcherConfig().descriptor_length))
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    return SceneFeatures(
        counts=np.full(VIEWS, KEYPOINTS),
        xy=xy,
        descriptors=descriptors.astype(np.float16),
        elsewhere=elsewhere,
        doubtful=np.zeros((total, VIEWS), bool),
        size_hw=np.array([480, 640]),
        cameras=np.zeros((VIEWS, 3, 4)),
        focal=np.zeros(1),
    )


def no_source(stage: Stage, step: int) -> Any:
    raise NotImplementedError


def show_counts(work: Iterator[tuple[str, Callable[[], Any]]]) -> None:
    """Kernels and waits of one step of each kind, when the host must not wait."""
    print("\n| step | kernels | waits of the host | by |\n|---|---|---|---|")
    for name, step in work:
        step()
        counts = count(step)
        waits = ", ".join(f"{n} {name}" for name, n in sorted(counts.waits.items()))
        print(f"| {name} | {counts.kernels.total()} | {counts.waits.total()} | {waits} |")


def step_rates(
    preset: Preset, device: torch.device, folder: Path, pairs: int | None = None
) -> Iterator[Row]:
    """Steps of the detector and of the matcher; `folder` takes their files."""
    for stage, step in steps(preset, device, folder, pairs):
        name = f"training, stage {stage.name}, {stage.pairs} pairs per step"
        yield name, rate(step, 2 * stage.pairs, device.type), "images/s"
    for count_of_pairs, step in matcher_steps(device, folder):
        name = f"training of the matcher, {count_of_pairs} pairs per step"
        yield name, rate(step, count_of_pairs, device.type), "pairs/s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--counts", action="store_true", help="kernels and waits of one step")
    parser.add_argument("--preset", default="gpu")
    parser.add_argument("--pairs", type=int, help="pairs per step; default: the preset's")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    preset, device = PRESETS[options.preset], torch.device(options.device)
    with tempfile.TemporaryDirectory() as folder:
        work = steps(preset, device, Path(folder), options.pairs)
        if options.counts:
            devices.reads_at_once = lambda device: False
            show_counts((stage.name, step) for stage, step in work)
            matching = matcher_steps(device, Path(folder))
            show_counts((f"matcher, {pairs} pairs", step) for pairs, step in matching)
            return
        print(f"tiepoint {__version__}, torch {torch.__version__}, {device}")
        rows: list[Row] = []
        for row in step_rates(preset, device, Path(folder), options.pairs):
            rows.append(row)
            print(f"| {row[0]} | {row[1]:,.1f} | {row[2]} |", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
