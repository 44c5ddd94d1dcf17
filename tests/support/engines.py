"""Engines made for tests: any object of the form of `network.engine.Engine` will do."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from tiepoint.geometry import Placement
from tiepoint.network.dense_maps import DenseMaps
from tiepoint.network.engine import Engine
from tiepoint.network.engines import EngineChoice, build_engine
from tiepoint.weights.checkpoint import load_checkpoint


def cpu_engine(engine: str = "openvino", precision: str = "f32", **options: Any) -> Engine:
    """The engine of the default checkpoint on the CPU."""
    return build_engine(load_checkpoint(), EngineChoice(engine, "cpu", precision), **options)


class ChosenMaps:
    """Returns the same heat map for every input, blank beyond it."""

    batch_size, in_flight = 1, 1

    def __init__(self, heatmap: np.ndarray) -> None:
        self.heatmap = heatmap

    def run(
        self,
        inputs: np.ndarray,
        placements: Sequence[Placement],
        *,
        descriptors: bool,
        phases: int = 1,
    ) -> DenseMaps[np.ndarray]:
        B, _, H, W = inputs.shape
        heatmap = np.zeros((B, H, W), np.float32)
        height, width = self.heatmap.shape
        heatmap[:, :height, :width] = self.heatmap
        dense = (np.ones((B, 4, H // 8, W // 8), np.float32),) if descriptors else None
        return DenseMaps(heatmap, dense)


class Watched:
    """Counts the calls of an engine, and those that run at the same time.

    Args:
        engine: Does the work.
        fails: (inputs, number of earlier calls with inputs of this shape) -> whether to fail.
    """

    def __init__(
        self, engine: Engine, *, batch_size: int = 1, in_flight: int = 1, fails: Any = None
    ) -> None:
        self.batch_size, self.in_flight = batch_size, in_flight
        self._engine, self._fails, self._lock = engine, fails, threading.Lock()
        self._inside = 0
        self.shapes: list[tuple[int, ...]] = []
        self.at_once: dict[tuple[int, ...], int] = {}

    def run(
        self,
        inputs: np.ndarray,
        placements: Sequence[Placement],
        *,
        descriptors: bool,
        phases: int = 1,
    ) -> DenseMaps[Any]:
        with self._lock:
            earlier = self.shapes.count(inputs.shape)
            self.shapes.append(inputs.shape)
            self._inside += 1
            self.at_once[inputs.shape] = max(self.at_once.get(inputs.shape, 0), self._inside)
        try:
            if self._fails is not None and self._fails(inputs, earlier):
                raise RuntimeError("bad allocation\nat some line")
            return self._engine.run(inputs, placements, descriptors=descriptors, phases=phases)
        finally:
            with self._lock:
                self._inside -= 1
