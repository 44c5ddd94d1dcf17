"""Chunks of given pairs on a device, and the same pairs rendered by the reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from tiepoint.training.detector.batch import Batch
from tiepoint.training.on_device.arrangement import Arrangement, arranged
from tiepoint.training.on_device.bank import SheetBank
from tiepoint.training.scenes.composition import Scene
from tiepoint.training.scenes.layout_loader import Chunk, view_numbers
from tiepoint.training.scenes.layouts import layouts_of
from tiepoint.training.scenes.pairs import TrainingPair, TrainingView
from tiepoint.training.scenes.render import Rendering, ViewPair, flow, render
from tiepoint.training.scenes.settings import DataConfig
from tiepoint.training.scenes.stored import scene_dtype, store_scene

CPU = torch.device("cpu")


def arrangement_of(
    pairs: Sequence[tuple[Scene, ViewPair]], config: DataConfig
) -> tuple[SheetBank, Arrangement]:
    """A bank that has the scenes, and the arrangement of the pairs, on the CPU."""
    scenes = list(dict.fromkeys(scene for scene, _ in pairs))
    stored = np.zeros(len(scenes), scene_dtype(config.size_hw))
    for row, scene in zip(stored, scenes, strict=True):
        store_scene(scene, row, config.size_hw)
    layouts = layouts_of(pairs, view_numbers(range(len(pairs)), len(pairs)), config.size_hw)
    numbers = [scenes.index(scene) for scene, _ in pairs]
    chunk = Chunk(0, numbers, layouts, np.zeros(0), list(enumerate(stored)))
    bank = SheetBank(config.size_hw, 1, CPU)  # small: it grows
    bank.add(chunk.new)
    return bank, arranged(chunk, bank, CPU)


def reference(
    scene: Scene, pair: ViewPair, config: DataConfig
) -> tuple[list[Rendering], list[np.ndarray]]:
    """Both views and both flows on the CPU."""
    a, b = (
        render(pair.planes, to_view, order, scene.backdrop, config.size_hw, config.cover_px)
        for to_view, order in zip(pair.to_views, pair.orders, strict=True)
    )
    return [a, b], [flow(a, b, *pair.to_views), flow(b, a, *pair.to_views[::-1])]


def pairs_of(batch: Batch) -> list[TrainingPair]:
    """The pairs of a batch as the reference returns them."""
    count, (height, width) = batch.pairs, batch.size_hw
    rows = batch.corner_xy.view(2 * count, -1, 2).numpy()
    inside = ((rows >= -0.5) & (rows <= (width - 0.5, height - 0.5))).all(axis=2)
    views = [
        TrainingView(
            np.rint(255 * batch.pixels[view, 0].numpy()).astype(np.uint8),
            rows[view][inside[view]],
            batch.ignore[view].numpy(),
        )
        for view in range(2 * count)
    ]
    flows = batch.flow.numpy()
    return [
        TrainingPair(views[n], views[count + n], flows[n], flows[count + n], "device")
        for n in range(count)
    ]
