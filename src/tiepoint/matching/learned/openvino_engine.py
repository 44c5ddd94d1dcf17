"""The matcher's network on a CPU by OpenVINO, built from the tensors without torch."""

from __future__ import annotations

import queue

import numpy as np

from tiepoint.errors import ConfigError
from tiepoint.matching.learned.architecture import MatcherConfig
from tiepoint.matching.learned.inputs import (
    Float32,
    MatcherInput,
    MatcherOutput,
    angles,
)
from tiepoint.matching.learned.openvino_graph import build_model
from tiepoint.network.runtime import (
    capabilities,
    compiled_model,
    keep_in_child,
    new_core,
    ov,
    refuse_after_fork,
)
from tiepoint.network.signal_stack import own_signal_stack
from tiepoint.weights.checkpoint import Tensors

NEEDED = {"f32": None, "bf16": "BF16"}
"""Precision -> OpenVINO's name of the capability that it needs."""


class OpenVinoMatcher:
    """A `MatcherEngine`: one network for all counts of keypoints, safe to call from threads.

    Memory grows with the number of keypoints, not with the product of both counts: OpenVINO's
    attention works on a few rows at a time. `tests/matching/test_learned_memory.py` holds it.

    Args:
        layers: Number of layers to run, 1 to `config.layers`.
        precision: "f32", or "bf16" where the processor has it.
        threads: Maximum number of cores; None takes all that the process may use.

    Raises:
        ConfigError: A precision that is unknown or that this processor does not support.
        EngineError: A process forked from one that had an engine; see `runtime.refuse_after_fork`.
    """

    def __init__(
        self,
        config: MatcherConfig,
        tensors: Tensors,
        *,
        layers: int,
        precision: str = "f32",
        threads: int | None = None,
    ) -> None:
        _check_precision(precision)
        keep_in_child(self)
        options = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = str(threads)
        core = new_core()
        self._model = compiled_model(core, build_model(config, tensors, layers), options)
        self._idle: queue.SimpleQueue[ov.InferRequest] = queue.SimpleQueue()
        self._positions = tensors[f"{config.positions().name}.weight"]

    def run(self, a: MatcherInput, b: MatcherInput) -> tuple[MatcherOutput, MatcherOutput]:
        """See `MatcherEngine.run`."""
        refuse_after_fork()
        values = []
        for side in map(_at_least_two, (a, b)):
            turns = angles(side.xy, self._positions)  # N C/2/heads
            values += [np.array(side.descriptors, np.float32), np.cos(turns), np.sin(turns)]
        try:
            request = self._idle.get_nowait()
        except queue.Empty:
            request = self._model.create_infer_request()
        try:
            inputs = {i: ov.Tensor(value, shared_memory=True) for i, value in enumerate(values)}
            with own_signal_stack():
                shared = request.infer(inputs, share_outputs=True)
            outputs = [output.copy() for output in shared.values()]  # N C+1 each
        finally:
            self._idle.put(request)
        return _output(outputs[0], len(a.xy)), _output(outputs[1], len(b.xy))


def _at_least_two(side: MatcherInput) -> MatcherInput:
    """A single keypoint twice.

    OpenVINO 2026.4 returns wrong attention for other counts after one of a single keypoint. Equal
    keypoints share the weight of one, so all states stay as they are.
    """
    if len(side.xy) > 1:
        return side
    return MatcherInput(*(np.repeat(values, 2, axis=0) for values in side))


def _output(values: Float32, count: int) -> MatcherOutput:
    return MatcherOutput(np.ascontiguousarray(values[:count, :-1]), values[:count, -1])


def _check_precision(precision: str) -> None:
    if precision not in NEEDED:
        raise ConfigError(f"precision is {precision!r}, expected one of {', '.join(NEEDED)}")
    needed = NEEDED[precision]
    if needed is not None and needed not in capabilities():
        raise ConfigError(
            f"precision {precision!r}: this processor does not compute in it; use 'f32'"
        )
