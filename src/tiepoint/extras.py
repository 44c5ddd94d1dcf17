"""Which optional libraries are there, asked without importing them."""

from __future__ import annotations

import importlib.util
import sys


def is_installed(library: str) -> bool:
    """Whether `import library` would find something."""
    # What is imported is there, even where it has no spec, for which find_spec raises.
    return sys.modules.get(library) is not None or importlib.util.find_spec(library) is not None
