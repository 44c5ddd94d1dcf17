"""Arrays of results, made read-only."""

from __future__ import annotations

from typing import Any

import numpy as np


def freeze(result: Any) -> None:
    """Replace arrays by read-only views; the caller's own arrays stay writable."""
    for name, value in result.__dict__.items():
        if isinstance(value, np.ndarray) and value.flags.writeable:
            view = value.view()
            view.flags.writeable = False
            object.__setattr__(result, name, view)
