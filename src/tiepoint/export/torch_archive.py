"""A checkpoint as a `torch.export` archive, and an archive as a runtime."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.export import Dim

from tiepoint.config import DetectionConfig
from tiepoint.export.model import check_detection, notes_of
from tiepoint.export.runtimes import Arrays, Runtime
from tiepoint.export.torch_model import KeypointModel
from tiepoint.weights.checkpoint import Checkpoint

MIN_SIDE_PX = 9
"""Shortest side of an image: traced sizes cannot be 1, and a shorter side is one cell."""

NOTES_FILE = "tiepoint.json"
"""Extra file of an archive with its metadata."""

TRACES = ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node")
"""What a trace notes about its source: paths of this computer, half of the file."""


def build_archive(checkpoint: Checkpoint, detection: DetectionConfig) -> bytes:
    """The content of a `.pt2` file.

    Args:
        detection: Settings that are written into the file.

    Raises:
        ConfigError: A setting that a file cannot have.
    """
    check_detection(detection)
    model = KeypointModel(checkpoint, detection).eval().requires_grad_(False)
    sides = {axis: Dim(name, min=MIN_SIDE_PX) for axis, name in ((2, "height"), (3, "width"))}
    varying = {0: Dim("batch", min=1), 1: Dim("channels", min=1, max=3), **sides}
    example = (torch.zeros(2, 3, 48, 56),)
    program = torch.export.export(model, example, dynamic_shapes=(varying,), strict=False)
    for node in program.graph.nodes:
        for name in TRACES:
            node.meta.pop(name, None)
    buffer = io.BytesIO()
    notes = json.dumps(notes_of(checkpoint, detection, "generic"))
    torch.export.save(program, buffer, extra_files={NOTES_FILE: notes})
    return buffer.getvalue()


def torch_archive(data: bytes, threads: int | None) -> Runtime:
    """An archive loaded by torch, on the CPU; threads None takes all cores.

    Args:
        data: The file's content, of `build_archive`: loading one runs what is in it.
    """
    module = torch.export.load(io.BytesIO(data)).module()

    def run(inputs: Arrays) -> Arrays:
        with _at_most(threads), torch.inference_mode():
            outputs = module(torch.from_numpy(inputs["image"]))
        return {name: value.numpy() for name, value in outputs.items()}

    return run


@contextmanager
def _at_most(threads: int | None) -> Iterator[None]:
    """Limit the threads of torch for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
