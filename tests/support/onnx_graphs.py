"""Runs graphs of `tiepoint.export` in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiepoint.export.graph import Graph, Value

KINDS = {"f": "float", "i": "int", "b": "bool"}


def run_model(model: Any, **inputs: Any) -> dict[str, NDArray[Any]]:
    """The outputs of a model by name."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model if isinstance(model, bytes) else model.SerializeToString(),
        providers=["CPUExecutionProvider"],
    )
    names = [one.name for one in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def evaluate(
    build: Callable[..., Value], *arrays: NDArray[Any], rank: int | None = None
) -> NDArray[Any]:
    """The result of a function of values, with these arrays as inputs of any size.

    Args:
        rank: Number of axes of the result; None: as many as the first array has.
    """
    graph, values, inputs = Graph(), [], {}
    for index, array in enumerate(arrays):
        name = f"input_{index}"
        shape = [f"{name}_{axis}" for axis in range(array.ndim)]
        values.append(graph.input(name, KINDS[array.dtype.kind], shape))  # type: ignore[arg-type]
        inputs[name] = array
    result = build(*values)
    axes = range(arrays[0].ndim if rank is None else rank)
    model = graph.model({"result": (result, [f"axis_{axis}" for axis in axes])}, {})
    return run_model(model, **inputs)["result"]


def random_image(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Blurred noise in 0..1, so that it has structure of several px."""
    import cv2

    noise = np.random.default_rng(seed).random(shape, dtype=np.float32)
    return np.clip((cv2.GaussianBlur(noise, (0, 0), 1.5) - 0.5) * 4 + 0.5, 0, 1)
