"""Other runtimes that run ONNX files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
Runtime = Callable[[Arrays], Arrays]
"""Runs a model on inputs by name."""


def onnx_runtime(data: bytes, threads: int | None) -> Runtime:
    """ONNX Runtime on the CPU; threads None takes all cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = threads or 0  # 0: all
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, dict(inputs)), strict=True))


def openvino(data: bytes, threads: int | None) -> Runtime:
    """OpenVINO on the CPU in float32; threads None takes all cores."""
    from tiepoint.network.runtime import compiled_model, new_core
    from tiepoint.network.signal_stack import own_signal_stack

    core = new_core()
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}  # bfloat16 may be the default
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    model = compiled_model(core, core.read_model(data), options)

    def run(inputs: Arrays) -> Arrays:
        with own_signal_stack():
            outputs = model(dict(inputs))
        return {name: outputs[one] for one in model.outputs for name in one.get_names()}

    return run
