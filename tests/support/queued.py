"""Training as on a GPU, on a CPU: nothing may be read from the device within a step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from torch.profiler import ProfilerActivity, profile

from support.device_counts import count
from tiepoint.training import devices

WAITING = (
    "item", "_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select", "_unique2",
)  # fmt: skip
"""Operators of torch whose result the host needs, or whose length depends on values."""

ON_THE_HOST = ("aten::_fused_adamw_",)
"""Operators whose kernel for CPUs reads values that their kernels for GPUs read on the device."""


def queue_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat the CPU as a device that the host must not wait for."""
    monkeypatch.setattr(devices, "reads_at_once", lambda device: False)


def waits(work: Callable[[], Any]) -> Counter[str]:
    """Every wait of a call, by operator or by the function of a tensor."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        work()
    found = Counter(
        event.name.removeprefix("aten::")
        for event in profiler.events()
        if event.name.removeprefix("aten::") in WAITING and not _is_on_the_host(event)
    )
    return found + count(work).waits


def _is_on_the_host(event: Any) -> bool:
    return event is not None and (event.name in ON_THE_HOST or _is_on_the_host(event.cpu_parent))
