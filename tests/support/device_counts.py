"""Kernels and waits of a call, counted as `benchmarks/gpu_counts.py` does for the documents."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu_counts.py"


def count(work: Callable[[], Any]) -> Any:
    """The `Counts` of one call."""
    spec = importlib.util.spec_from_file_location("gpu_counts", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.count(work)


def waiting_operators(work: Callable[[], Any]) -> set[str]:
    """Operators of one call for which the host waits for a GPU, and functions that wait."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        work()
    names = {event.name.removeprefix("aten::") for event in profiler.events()}
    return names & {"_local_scalar_dense", "item", "masked_select", "nonzero", "unique"} | set(
        count(work).waits
    )
