"""Count what a GPU would be asked to do, without one: kernels, and times that the host waits.

torch runs the same operators on a CPU. Each one that computes is a kernel on a GPU; views and
allocations are not. The host waits for a GPU wherever it needs a value or a length from it.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch.overrides import TorchFunctionMode
from torch.profiler import ProfilerActivity, profile

FREE = frozenset((
    "_local_scalar_dense", "_nnpack_available", "_reshape_alias", "_to_copy", "_unsafe_view",
    "alias",
    "as_strided", "as_strided_", "clone", "contiguous", "detach", "detach_", "empty", "empty_like",
    "empty_strided", "expand", "expand_as", "flatten", "is_nonzero", "item", "lift_fresh",
    "movedim", "narrow", "new_empty", "new_ones", "numpy_T", "permute", "reshape", "resize_",
    "resolve_conj", "resolve_neg", "result_type", "select", "set_", "slice", "split",
    "split_with_sizes", "squeeze", "t", "to", "transpose", "unbind", "unflatten", "unfold",
    "unsqueeze", "view", "view_as",
))  # fmt: skip
"""Operators without a kernel of their own: views, allocations, and reads by the host."""

WAITING = frozenset((
    "__bool__", "__float__", "__index__", "__int__", "bincount", "cpu", "item", "masked_select",
    "nonzero", "tolist", "unique",
))  # fmt: skip
"""Functions of tensors that return once the device has the value, or its length."""


WHOLE = ("aten::_foreach_", "aten::_fused_", "aten::native_batch_norm")
"""Operators that are one kernel on a GPU, and a loop or several operators on a CPU."""

CLIPPING = "torch.nn.utils.clip_grad"
"""Moves norms to the device that they are on, which copies nothing."""


class Counts(NamedTuple):
    """What one call asked for.

    Attributes:
        kernels: Operators that compute, by name.
        waits: Waits of the host, by the name of the function.
    """

    kernels: Counter[str]
    waits: Counter[str]


class _Waits(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in WAITING:
            self.seen[name] += 1
        elif name == "tensor" and kwargs.get("device") is not None:
            self.seen["tensor with device"] += 1  # copied from pageable memory
        elif name == "to" and not kwargs.get("non_blocking") and _is_device(args):
            caller = sys._getframe(1).f_globals["__name__"]
            self.seen["to device"] += caller != CLIPPING
        elif name == "new_tensor":
            self.seen["new_tensor"] += 1  # from a list or from pageable memory
        elif name == "__getitem__" and _has_bools(args[1]):
            self.seen["boolean index"] += 1
        return func(*args, **kwargs)


def _is_device(arguments: Sequence[Any]) -> bool:
    return any(isinstance(one, torch.device | str) for one in arguments)


def _has_bools(index: Any) -> bool:
    each = index if isinstance(index, tuple) else (index,)
    return any(isinstance(one, torch.Tensor) and one.dtype == torch.bool for one in each)


def count(work: Callable[[], Any]) -> Counts:
    """Run `work` once and count; functions that were compiled before count as one kernel each."""
    with (
        _Waits() as waits,
        profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler,
    ):
        work()
    return Counts(_kernels(profiler.events()), +waits.seen)


def _kernels(events: Any) -> Counter[str]:
    kernels: Counter[str] = Counter()
    for event in events:
        if _is_whole(event.cpu_parent):
            continue
        if _is_whole(event) or (_computes(event) and not any(map(_has_kernel, event.cpu_children))):
            kernels[event.name.removeprefix("aten::")] += 1
    return kernels


def _is_whole(event: Any) -> bool:
    """Whether an operator, or one that calls it, is one kernel on a GPU and many on a CPU."""
    if event is None:
        return False
    return event.name.startswith(WHOLE) or _is_whole(event.cpu_parent)


def _computes(event: Any) -> bool:
    """Whether an operator computes; copies of single numbers are those of constants."""
    kind, _, name = event.name.partition("::")
    is_number = name in ("copy_", "fill_", "scalar_tensor") and event.input_shapes[:1] == [[]]
    return kind == "aten" and name not in FREE and not is_number


def _has_kernel(event: Any) -> bool:
    return _computes(event) or any(map(_has_kernel, event.cpu_children))
